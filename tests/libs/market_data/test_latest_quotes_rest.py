from datetime import UTC, datetime

import msgspec
import pytest

from libs.market_data.latest_quotes_rest import in_requests, read_latest_quotes
from libs.market_data.quotes import QuoteOrigin, Unmarkable, why_unmarkable

NOW = datetime(2022, 8, 17, 10, 8, tzinfo=UTC)


def test_the_sample() -> None:
    body = (
        b'{"quotes":{"AAPL":{"t":"2022-08-17T10:07:40.286587431Z","ax":"Q","ap":172.7,"as":1,'
        b'"bx":"V","bp":172.62,"bs":2,"c":["R"],"z":"C"}},"currency":"USD"}'
    )
    quotes, unreadable = read_latest_quotes(body, NOW)
    assert unreadable == 0
    (quote,) = quotes
    assert (quote.symbol, quote.bid, quote.ask, quote.bid_size, quote.ask_size) == ("AAPL", 172.62, 172.7, 2.0, 1.0)
    assert (quote.bid_exchange, quote.ask_exchange, quote.conditions, quote.tape) == ("V", "Q", ("R",), "C")
    assert quote.timestamp == datetime(2022, 8, 17, 10, 7, 40, 286587, tzinfo=UTC)
    assert (quote.received_at, quote.origin) == (NOW, QuoteOrigin.REST)
    assert why_unmarkable(quote, 10) is None


def test_one_unreadable_quote_costs_one_quote() -> None:
    body = b'{"quotes":{"A":{"bp":"cheap"},"B":null,"C":{"t":"yesterday"},"D":[],"E":{"bp":1,"ap":2}}}'
    quotes, unreadable = read_latest_quotes(body, NOW)
    assert [quote.symbol for quote in quotes] == ["E"]
    assert unreadable == 3


@pytest.mark.parametrize(
    "odd", [b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", b'{"bp":NaN}', b'{"bx":"\\ud800"}', b'{"bp":1e999}', b"-"]
)
def test_a_quote_that_no_decoder_passes_over_costs_one_quote(odd: bytes) -> None:
    quotes, unreadable = read_latest_quotes(b'{"x":{}, "quotes": {"A":{"bp":1},"B":' + odd + b',"C":{"bp":2}}}', NOW)
    assert [(quote.symbol, quote.bid) for quote in quotes] == [("A", 1.0), ("C", 2.0)]
    assert unreadable == 1


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z"])
def test_a_time_at_the_end_of_the_calendar_is_none(time: str) -> None:
    (quote,), _ = read_latest_quotes(b'{"quotes":{"A":{"t":"%s","bp":1,"ap":1}}}' % time.encode(), NOW)
    assert why_unmarkable(quote, 10) is Unmarkable.UNTIMED


@pytest.mark.parametrize(
    ("quote", "why"),
    [
        (b"{}", Unmarkable.UNTIMED),
        (b'{"t":null,"bp":1,"ap":2}', Unmarkable.UNTIMED),
        (b'{"t":"2022-08-17T10:07:40Z","bp":0,"ap":2}', Unmarkable.ONE_SIDED),
        (b'{"t":"2022-08-17T10:07:40Z","bp":null,"ap":2}', Unmarkable.ONE_SIDED),
        (b'{"t":"2022-08-17T10:07:40Z","bp":3,"ap":2}', Unmarkable.CROSSED),
        (b'{"t":"2022-08-17T10:07:40Z","bp":1.99,"ap":2,"c":"N"}', Unmarkable.NOT_FIRM),
    ],
)
def test_what_is_missing_or_odd_is_left_to_the_quote_to_refuse(quote: bytes, why: Unmarkable) -> None:
    (read,), _ = read_latest_quotes(b'{"quotes":{"AAPL":' + quote + b"}}", NOW)
    assert why_unmarkable(read, 10) is why


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"quotes":[]}', b'{"quotes":{"AAPL":'])
def test_an_answer_that_is_none_is_an_error(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_latest_quotes(body, NOW)


def test_no_quotes_at_all() -> None:
    assert read_latest_quotes(b'{"quotes":null}', NOW) == ([], 0)


def test_a_request_names_at_most_a_hundred_symbols() -> None:
    symbols = [f"S{number}" for number in range(250)]
    lists = list(in_requests(symbols))
    assert [len(part) for part in lists] == [100, 100, 50]
    assert [symbol for part in lists for symbol in part] == symbols
    assert list(in_requests([])) == []
