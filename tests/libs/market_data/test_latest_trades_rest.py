from datetime import UTC, datetime

import msgspec
import pytest

from libs.market_data.latest_trades_rest import read_latest_trades
from libs.market_data.quotes import QuoteOrigin
from libs.market_data.trades import Trade, why_ineligible

NOW = datetime(2022, 8, 17, 10, 19, tzinfo=UTC)


def test_the_sample() -> None:
    body = (
        b'{"trades":{"AAPL":{"t":"2022-08-17T10:18:24.114694956Z","x":"Q","p":172.61,"s":160,"c":["@","T"],'
        b'"i":1011,"z":"C"}},"currency":"USD"}'
    )
    at = datetime(2022, 8, 17, 10, 18, 24, 114695, tzinfo=UTC)
    trade = Trade("AAPL", 1011, "Q", 172.61, 160.0, ("@", "T"), "C", at, NOW, QuoteOrigin.REST)
    assert read_latest_trades(body, NOW) == ([trade], 0)
    assert why_ineligible(trade) is None


@pytest.mark.parametrize("update", ["canceled", "corrected", "incorrect", "anything new"])
def test_a_trade_that_no_longer_stands_is_none(update: str) -> None:
    body = msgspec.json.encode({"trades": {"A": {"p": 1.0, "u": update}, "B": {"p": 2.0, "u": ""}}})
    trades, unreadable = read_latest_trades(body, NOW)
    assert ([trade.symbol for trade in trades], unreadable) == (["B"], 0)


def test_one_unreadable_trade_costs_one_trade() -> None:
    body = b'{"trades":{"A":{"p":"cheap"},"B":null,"C":{"t":"yesterday"},"D":[],"E":{"p":1}}}'
    trades, unreadable = read_latest_trades(body, NOW)
    assert [trade.symbol for trade in trades] == ["E"]
    assert unreadable == 3


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"trades":[]}', b'{"trades":{"AAPL":'])
def test_an_answer_that_is_none_is_an_error(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_latest_trades(body, NOW)


def test_no_trades_at_all() -> None:
    assert read_latest_trades(b'{"trades":null}', NOW) == ([], 0)
