"""What Alpaca's daily-bars call asks and answers, and the bar as we believe it. Pure: `alpaca_rest.py` does the asking.

Decides that closing prices come from the consolidated tape, unadjusted, and never from the last 16 minutes
(a free key may not ask for them, whatever feed it streams); that each is under the name which its share had that day.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from libs.market_data.trading_sessions import NEW_YORK
from libs.market_data.wire_times import usable_time

RECENT: Final = timedelta(minutes=16)
"""The tape's last 15 minutes need a paid plan; one minute of grace for clocks that disagree."""


@dataclass(frozen=True, slots=True)
class DailyBar:
    """One session of one symbol, USD per share unadjusted, volume in shares."""

    symbol: str
    date: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int


class WireBar(msgspec.Struct):
    """One bar: `{"t":"2022-02-01T05:00:00Z","o":174,"h":174.84,"l":172.31,"c":174.61,"v":85998033,...}`.

    `t` is midnight in New York at the beginning of the session.
    """

    t: Annotated[datetime, msgspec.Meta(tz=True)]
    o: Decimal
    h: Decimal
    l: Decimal  # noqa: E741 - the wire's own name
    c: Decimal
    v: int


class BarsPage(msgspec.Struct):
    """One page: `{"bars":{"AAPL":[...]},"next_page_token":"..."}`; `bars` may be null when there are none."""

    bars: dict[str, list[WireBar]] | None = None
    next_page_token: str | None = None


_decode_page = msgspec.json.Decoder(BarsPage).decode


def read_bars_page(body: bytes) -> tuple[list[DailyBar], str | None]:
    """Return the bars of one page and the token of the next, None at the end.

    Raises ValueError (msgspec.MsgspecError is one) or RecursionError when the page is unreadable: half a history would
    look like a whole one.
    """
    page = _decode_page(body)
    bars = [_bar(symbol, bar) for symbol, wire_bars in (page.bars or {}).items() for bar in wire_bars]
    return bars, page.next_page_token or None


def bars_query(symbols: list[str], start: date, end: datetime, now: datetime) -> dict[str, str]:
    """Return the query of the first page. `end` is moved back out of the recent minutes."""
    latest = min(end, now - RECENT).astimezone(UTC).replace(microsecond=0)
    return {
        "symbols": ",".join(symbols),
        "timeframe": "1Day",
        "start": start.isoformat(),
        "end": latest.isoformat().replace("+00:00", "Z"),
        "adjustment": "raw",
        "feed": "sip",
        "limit": "10000",
        "sort": "asc",
        # No mapping of today's names: otherwise the old closes of a ticker that was given to a new company would be
        # that company's, under whatever name it had then.
        "asof": "-",
    }


def _bar(symbol: str, bar: WireBar) -> DailyBar:
    began_at = usable_time(bar.t)
    if began_at is None:
        raise ValueError(f"a bar of {symbol} is of {bar.t}, which no session is")
    return DailyBar(symbol, began_at.astimezone(NEW_YORK).date(), bar.o, bar.h, bar.l, bar.c, bar.v)
