"""Acts as they are asked for: what is read and what is refused, naming the field."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.acts import ACTS, Drop, GivenQuote, Raw

WRONG = [
    ("drop", {"how": "softly"}, "how"),
    ("drop", {"how": "close", "code": 1005}, "code"),
    ("drop", {"code": 999}, "code"),
    ("drop", {"code": 5000}, "code"),
    ("drop", {"reason": "ü" * 62}, "reason"),
    ("drop", {"reason": 7}, "reason"),
    ("drop", {"clean": True}, "clean"),
    ("slow_client", {"with_message": "yes"}, "with_message"),
    ("halt", {}, "symbol"),
    ("halt", {"symbol": "$"}, "symbol"),
    ("halt", {"symbol": "*"}, "symbol"),
    ("halt", {"symbol": "AAPL", "code": ""}, "code"),
    ("halt", {"symbol": "AAPL", "tape": "Q"}, "tape"),
    ("halt", {"symbol": "AAPL", "why": "news"}, "why"),
    ("resume", {"symbol": 1}, "symbol"),
    ("resume", {"symbol": "AAPL", "reason": "far too long a code"}, "reason"),
    ("market", {}, "setting"),
    ("market", {"setting": "holiday"}, "setting"),
    ("quotes", {}, "quotes"),
    ("quotes", {"quotes": [{"symbol": "AAPL", "bid": 1}]}, "ask"),
    ("quotes", {"quotes": [{"symbol": "$", "bid": 1, "ask": 2}]}, "symbol"),
    ("quotes", {"quotes": [{"symbol": "AAPL", "bid": "1", "ask": 2}]}, "bid"),
    ("quotes", {"quotes": [{"symbol": "AAPL", "bid": 1e300, "ask": 2}]}, "bid"),
    ("quotes", {"quotes": [{"symbol": "AAPL", "bid": 1, "ask": 2, "bid_size": -1}]}, "bid_size"),
    ("quotes", {"quotes": [{"symbol": "AAPL", "bid": 1, "ask": 2, "ask_size": 2**32}]}, "ask_size"),
    ("quotes", {"quotes": [{"symbol": "AAPL", "bid": 1, "ask": 2, "time_ns": -1}]}, "time_ns"),
    ("quotes", {"quotes": [{"symbol": "AAPL", "bid": 1, "ask": 2, "size": 1}]}, "size"),
    ("trades", {}, "trades"),
    ("trades", {"trades": [{"symbol": "AAPL"}]}, "price"),
    ("trades", {"trades": [{"symbol": "$", "price": 1}]}, "symbol"),
    ("trades", {"trades": [{"symbol": "AAPL", "price": "1"}]}, "price"),
    ("trades", {"trades": [{"symbol": "AAPL", "price": 1, "trade_id": -1}]}, "trade_id"),
    ("trades", {"trades": [{"symbol": "AAPL", "price": 1, "bid": 1}]}, "bid"),
    ("correct_trade", {}, "symbol"),
    ("correct_trade", {"symbol": "AAPL", "price": 1e300}, "price"),
    ("correct_trade", {"symbol": "$"}, "symbol"),
    ("cancel_trade", {"symbol": "AAPL", "trade_id": "1"}, "trade_id"),
    ("cancel_trade", {"symbol": "AAPL", "action": "X"}, "action"),
    ("cancel_trade", {"symbol": "$"}, "symbol"),
    ("raw", {}, "base64"),
    ("raw", {"text": "a", "base64": "aa=="}, "base64"),
    ("raw", {"base64": "?"}, "base64"),
    ("raw", {"text": 1}, "text"),
]


@pytest.mark.parametrize(("name", "fields", "field"), WRONG)
def test_what_is_wrong_is_refused_by_its_field(name, fields, field):
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(fields, ACTS[name])
    assert field in str(refused.value)


def test_every_act_is_among_the_wrong_ones():
    assert {name for name, _, _ in WRONG} == set(ACTS)


def test_the_sample():
    assert msgspec.json.decode(b'{"how": "close", "code": 1001}', type=Drop) == Drop("close", 1001, "going away")


def test_a_quote_has_the_emitted_ones_defaults():
    quote = msgspec.convert({"symbol": "brk.b", "bid": 1, "ask": 2}, GivenQuote).as_quote(now_ns=7)
    assert (quote.symbol, quote.bid_price, quote.bid_size, quote.bid_exchange) == ("BRK.B", 1.0, 100, "V")
    assert (quote.ask_price, quote.conditions, quote.tape, quote.time_ns) == (2.0, ("R",), "A", 7)


@given(st.binary())
def test_bytes_go_through_unchanged(data):
    assert msgspec.convert({"base64": base64.b64encode(data).decode()}, Raw)._data() == data
