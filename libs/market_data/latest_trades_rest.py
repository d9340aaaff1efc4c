"""What Alpaca's latest-trades call answers. Pure: `alpaca_rest.py` does the asking.

Decides that one unreadable trade costs one trade, never the answer, and that one taken back or corrected since is none.
Whether a trade may be the last price is left to `trades.py`.
"""

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from libs.market_data.alpaca_messages import conditions_of
from libs.market_data.quotes import QuoteOrigin
from libs.market_data.trades import Trade


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

    Raises msgspec.MsgspecError when the answer as a whole is none.
    """
    trades: list[Trade] = []
    unreadable = 0
    for symbol, raw in (_decode_body(body).trades or {}).items():
        try:
            latest = _decode_trade(raw)
        except msgspec.MsgspecError:
            unreadable += 1
            continue
        if latest is not None and not latest.u:
            trades.append(_trade(symbol, latest, received_at))
    return trades, unreadable


def _trade(symbol: str, latest: LatestTrade, received_at: datetime) -> Trade:
    return Trade(
        symbol=symbol,
        trade_id=latest.i,
        exchange=latest.x,
        price=latest.p,
        size=latest.s,
        conditions=conditions_of(latest.c),
        tape=latest.z,
        timestamp=None if latest.t is None else latest.t.astimezone(UTC),
        received_at=received_at,
        origin=QuoteOrigin.REST,
    )
