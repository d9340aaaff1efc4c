"""The P&L body as people see it: a table for terminals, plain lines for everything else. Computes nothing.

Takes the body as `local_services.read_body` reads it (fractions are Decimal, unknown is None).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from scripts.people_time import UNKNOWN, people_age, people_time

Body = Mapping[str, Any]

WIDE: Final = 145
"""Columns a terminal needs to show everything; a narrower one, down to 80, sees what matters most."""
_MEDIUM: Final = 100
_SMALL: Final = 90

_MODES: Final = {
    "simulated": ("SIMULATED: made-up prices, no real money", "bold black on yellow"),
    "replay": ("REPLAY: recorded prices, no real money", "bold black on yellow"),
    "paper": ("PAPER: real prices, no real money", "bold white on blue"),
    "live": ("LIVE: real money", "bold white on red"),
}
_SOURCE_STYLES: Final = {
    "real-time": "green",
    "delayed": "yellow",
    "halted": "magenta",
    "stale": "yellow",
    "closing": "cyan",
    "unavailable": "bold red",
}
_MOST_PLACES: Final = 4


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    field: str
    from_width: int = 0


_FIGURES: Final = (
    _Column("Qty", "qty"),
    _Column("Avg entry", "avg_entry_price", _MEDIUM),
    _Column("Bid", "bid", WIDE),
    _Column("Ask", "ask", WIDE),
    _Column("Price", "current_price"),
    _Column("Value", "market_value", WIDE),
    _Column("Unrealized", "unrealized_pnl"),
    _Column("%", "unrealized_pnl_pct", _SMALL),
    _Column("Day", "day_pnl"),
    _Column("Realized", "realized_pnl", WIDE),
)
_TOTALS: Final = {
    "market_value": "total_market_value",
    "unrealized_pnl": "total_unrealized",
    "day_pnl": "total_day_pnl",
    "realized_pnl": "total_realized",
}
_GAINS: Final = frozenset({"unrealized_pnl", "unrealized_pnl_pct", "day_pnl", "realized_pnl"})
_PRICES: Final = frozenset({"avg_entry_price", "bid", "ask", "current_price"})


def mode_banner(mode: object) -> Text:
    """Return whose money the figures speak of, to stand above them on every surface."""
    words, style = _MODES.get(str(mode), (mode_words(mode), "bold white on red"))
    return Text(f" {words} ", style=style)


def mode_words(mode: object) -> str:
    """Return the banner's words. An unheard-of mode is never taken for play money."""
    if mode is None:
        return "MODE UNKNOWN"
    return _MODES[str(mode)][0] if str(mode) in _MODES else f"MODE UNKNOWN ({mode})"


def pnl_table(body: Body, width: int = WIDE) -> Table:
    """Return the positions and their totals as a table fit for a terminal of `width` columns."""
    columns = [column for column in _FIGURES if width >= column.from_width]
    table = Table(box=SIMPLE, show_footer=True, footer_style="bold")
    table.add_column("Symbol", footer="Total", no_wrap=True)
    for column in columns:
        total = _TOTALS.get(column.field)
        footer = _figure(column.field, _total(body, column.field)) if total is not None else ""
        table.add_column(column.title, footer=footer, justify="right", no_wrap=True)
    table.add_column("Source", no_wrap=True)
    table.add_column("Age", justify="right", no_wrap=True)
    for row in _rows(body):
        figures = [_figure(column.field, row.get(column.field)) for column in columns]
        table.add_row(Text(str(row.get("symbol"))), *figures, _source(row, is_short=width < _MEDIUM), _age(row))
    return table


def pnl_view(body: Body, width: int = WIDE) -> Group:
    """Return the whole view: the mode, the table, the feed, and what the totals leave out."""
    parts: list[Table | Text] = [mode_banner(body.get("mode"))]
    if _rows(body):
        parts.append(pnl_table(body, width))
    else:
        parts.append(Text(f"No open positions. Realized {_signed(body.get('total_realized'))}."))
    parts += [Text(line) for line in _notes(body)]
    return Group(*parts)


def plain_lines(body: Body) -> list[str]:
    """Return the same as lines without colour or drawing, one position each, for logs and pipes."""
    lines = [
        " ".join(
            (
                f"{row.get('symbol')}",
                f"qty={_plain(row.get('qty'))}",
                f"price={_price(row.get('current_price'))}",
                f"unrealized={_signed(row.get('unrealized_pnl'))}",
                f"day={_signed(row.get('day_pnl'))}",
                f"source={_source(row).plain.replace(' ', ':')}",
                f"age={_age(row).replace(' ', '')}",
            )
        )
        for row in _rows(body)
    ]
    total = (
        f"total unrealized={_signed(_total(body, 'unrealized_pnl'))} day={_signed(_total(body, 'day_pnl'))} "
        f"realized={_signed(body.get('total_realized'))} value={_money(_total(body, 'market_value'))}"
    )
    return [mode_words(body.get("mode")), *lines, total, *_notes(body)]


def _total(body: Body, field: str) -> object:
    """Return a column's total; None when it is one of nothing but unknown figures."""
    rows = _rows(body)
    is_unknown = bool(rows) and all(row.get(field) is None for row in rows)
    return None if is_unknown else body.get(_TOTALS[field])


def _rows(body: Body) -> list[Body]:
    rows = body.get("positions")
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _notes(body: Body) -> list[str]:
    notes = []
    unpriced = body.get("unpriced") or []
    if not body.get("complete", True) or unpriced:
        notes.append(f"The totals leave out, for want of a price: {', '.join(map(str, unpriced)) or 'unknown'}")
    priced = [row for row in _rows(body) if row.get("current_price") is not None]
    lacking = [str(row.get("symbol")) for row in priced if row.get("day_pnl") is None]
    if lacking:
        notes.append(f"The day's total leaves out what has no known previous close: {', '.join(lacking)}")
    feed = body.get("feed")
    if isinstance(feed, Mapping):
        since = feed.get("since")
        link = "connected" if feed.get("connected") else "NOT connected"
        notes.append(f"Feed {link} ({feed.get('state')}{f' since {people_time(since)}' if since else ''})")
        if feed.get("lag_seconds") is not None:
            notes.append(f"The stream is late: quotes come {feed['lag_seconds']} s after they were made, none is live")
    account = body.get("account")
    if isinstance(account, Mapping):
        notes.append(_account_note(account))
    if body.get("session") in _SESSIONS:
        notes.append(f"The market is closed; {_SESSIONS[str(body.get('session'))]}.")
    notes.append(
        f"As of {people_time(body.get('calculated_at'))}. Fees {_money(body.get('total_fees'))}, not deducted."
    )
    return notes


_SESSIONS: Final = {"pre": "pre-market quotes mark", "post": "after-hours quotes mark"}


def _account_note(account: Body) -> str:
    """Say how well the mirrored account is known."""
    confirmed_at = account.get("confirmed_at")
    when = f", confirmed {people_time(confirmed_at)}" if confirmed_at else ""
    if account.get("in_step"):
        note = f"Positions mirror the Alpaca account{when}"
    else:
        note = f"The Alpaca account is {str(account.get('state')).replace('_', ' ')}: executions may be missing{when}"
    unexplained = account.get("unexplained")
    return f"{note}; {unexplained} positions differ unexplained: make parity" if unexplained else note


def _figure(field: str, value: object) -> Text:
    if field in _GAINS:
        style = "" if not isinstance(value, int | Decimal) or not value else "green" if value > 0 else "red"
        return Text(_signed(value), style=style)
    if field in _PRICES:
        return Text(_price(value))
    return Text(_plain(value) if field == "qty" else _money(value))


def _source(row: Body, *, is_short: bool = False) -> Text:
    """Return the price's source, a close with its date and a stale price with its reason.

    `is_short`: the date without the year, and no reason.
    """
    source = str(row.get("price_source"))
    detail = str(row.get("closing_date") or row.get("stale_reason") or "")
    if is_short:
        detail = detail[5:] if row.get("closing_date") else ""
    return Text(f"{source} {detail}" if detail else source, style=_SOURCE_STYLES.get(source, "bold red"))


def _age(row: Body) -> str:
    return people_age(row.get("price_age_seconds"))


def _number(value: object) -> Decimal | None:
    return Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def _money(value: object) -> str:
    number = _number(value)
    return UNKNOWN if number is None else f"{number:,.2f}"


def _signed(value: object) -> str:
    """Return money with its sign, so that gain and loss differ without colour too."""
    number = _number(value)
    if number is None:
        return UNKNOWN
    return f"{number:+,.2f}" if round(number, 2) else f"{abs(number):,.2f}"


def _price(value: object) -> str:
    """Return a price with at least 2 places, at most 4: more would not be read."""
    number = _number(value)
    if number is None:
        return UNKNOWN
    places = -int(number.normalize().as_tuple().exponent) if number.is_finite() else 0
    return f"{number:,.{min(max(places, 2), _MOST_PLACES)}f}"


def _plain(value: object) -> str:
    number = _number(value)
    return UNKNOWN if number is None else f"{number.normalize():,f}"
