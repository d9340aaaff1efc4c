"""What Alpaca's latest-trades call answers. Pure: `alpaca_rest.py` does the asking.

Decides that one unreadable trade costs one trade, never the answer, and that one taken back or corrected since is none.
Whether a trade may be the last price is left to `trades.py`.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final

import msgspec

from libs.market_data.alpaca_messages import conditions_of
from libs.market_data.frame_structure import nested_members
from libs.market_data.quotes import QuoteOrigin
from libs.market_data.trades import Trade
from libs.market_data.wire_times import usable_time


class LatestTrade(msgspec.Struct):
    """One trade.

    `{"t":"2022-08-17T10:18:24.114694956Z","x":"Q","p":172.61,"s":160,"c":["@","T"],"i":1011,"z":"C"}`

    `u` says that the venue has changed its mind since: `canceled`, `corrected` or `incorrect`.
    """

    t: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    x: str | None = None
    p: float | None = None
    s: float | None = None
    c: list[str] | str | None = None
    i: int | None = None
    z: str | None = None
    u: str | None = None


class LatestTradesBody(msgspec.Struct):
    """The answer: `{"trades":{"AAPL":{...}}}`. Symbols without data are absent."""

    trades: dict[str, msgspec.Raw] | None


_decode_body: Final = msgspec.json.Decoder(LatestTradesBody).decode
_decode_trade: Final = msgspec.json.Decoder(LatestTrade | None).decode


def read_latest_trades(body: bytes, received_at: datetime) -> tuple[list[Trade], int]:
    """Return the trades in an answer that still stand, and how many of its elements were unreadable.

    Raises ValueError (msgspec.MsgspecError is one) or RecursionError when the answer as a whole is none.
    """
    trades: list[Trade] = []
    unreadable = 0
    for symbol, raw in _elements(body).items():
        try:
            latest = _decode_trade(raw)
        except (ValueError, RecursionError):
            unreadable += 1
            continue
        if latest is not None and not latest.u:
            trades.append(_trade(symbol, latest, received_at))
    return trades, unreadable


def _elements(body: bytes) -> Mapping[str, msgspec.Raw | str]:
    """Return the encoded trades by symbol, as long as they can be told apart at all."""
    try:
        return _decode_body(body).trades or {}
    except (ValueError, RecursionError):
        # One trade nested too deeply, or one NaN, must not cost those of the other symbols.
        with suppress(ValueError):
            return nested_members(body, "trades")
        raise


def _trade(symbol: str, latest: LatestTrade, received_at: datetime) -> Trade:
    return Trade(
        symbol=symbol,
        trade_id=latest.i,
        exchange=latest.x,
        price=latest.p,
        size=latest.s,
        conditions=conditions_of(latest.c),
        tape=latest.z,
        timestamp=usable_time(latest.t),
        received_at=received_at,
        origin=QuoteOrigin.REST,
    )
