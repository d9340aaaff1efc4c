"""What Alpaca's latest-quotes call asks and answers. Pure: `alpaca_rest.py` does the asking.

Decides how many symbols one request names, and that one unreadable quote costs one quote, never the answer.
Whether a quote may mark a position is left to `quotes.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final

import msgspec

from libs.market_data.frame_structure import nested_members
from libs.market_data.quotes import Quote, QuoteOrigin
from libs.market_data.wire_times import usable_time

SYMBOLS_PER_REQUEST: Final = 100
"""Keeps the query string well under the 8 KB that proxies allow."""

FEEDS_OVER_REST: Final = frozenset({"iex", "sip", "delayed_sip", "otc", "boats", "overnight"})
"""The `test` stream has no REST side."""


class LatestQuote(msgspec.Struct):
    """One quote.

    `{"t":"2022-08-17T10:07:40.286587431Z","ax":"Q","ap":172.7,"as":1,"bx":"Q","bp":172.62,"bs":2,"c":["R"],"z":"C"}`
    """

    t: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    bp: float | None = None
    ap: float | None = None
    bs: float | None = None
    as_: float | None = msgspec.field(name="as", default=None)
    bx: str | None = None
    ax: str | None = None
    # The stream's documentation shows a list; a bare string has been seen in mocks.
    c: list[str] | str | None = None
    z: str | None = None


class LatestQuotesBody(msgspec.Struct):
    """The answer: `{"quotes":{"AAPL":{...}}}`. Symbols without data are absent."""

    quotes: dict[str, msgspec.Raw] | None


_decode_body = msgspec.json.Decoder(LatestQuotesBody).decode
_decode_quote = msgspec.json.Decoder(LatestQuote | None).decode


def in_requests(symbols: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut `symbols` into the lists that single requests may name."""
    for start in range(0, len(symbols), SYMBOLS_PER_REQUEST):
        yield symbols[start : start + SYMBOLS_PER_REQUEST]


def read_latest_quotes(body: bytes, received_at: datetime) -> tuple[list[Quote], int]:
    """Return the quotes in an answer and how many of its elements were unreadable.

    Raises ValueError (msgspec.MsgspecError is one) or RecursionError when the answer as a whole is none.
    """
    quotes: list[Quote] = []
    unreadable = 0
    for symbol, raw in _elements(body).items():
        try:
            latest = _decode_quote(raw)
        except (ValueError, RecursionError):
            unreadable += 1
            continue
        if latest is not None:
            quotes.append(_quote(symbol, latest, received_at))
    return quotes, unreadable


def _elements(body: bytes) -> Mapping[str, msgspec.Raw | str]:
    """Return the encoded quotes by symbol, as long as they can be told apart at all."""
    try:
        return _decode_body(body).quotes or {}
    except (ValueError, RecursionError):
        # One quote nested too deeply, or one NaN, must not cost those of the other symbols.
        with suppress(ValueError):
            return nested_members(body, "quotes")
        raise


def _quote(symbol: str, latest: LatestQuote, received_at: datetime) -> Quote:
    return Quote(
        symbol=symbol,
        bid=latest.bp,
        ask=latest.ap,
        bid_size=latest.bs,
        ask_size=latest.as_,
        bid_exchange=latest.bx,
        ask_exchange=latest.ax,
        conditions=(latest.c,) if isinstance(latest.c, str) else tuple(latest.c or ()),
        tape=latest.z,
        timestamp=usable_time(latest.t),
        received_at=received_at,
        origin=QuoteOrigin.REST,
    )
