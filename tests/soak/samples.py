"""What the checker saw at one moment, as plain values: the simulator's ground truth, a view of the P&L, a health.

Reads the bodies of the endpoints and judges nothing. Times are seconds since 1970, prices USD per share.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

NS_PER_S = 1_000_000_000
REAL_TIME = "real-time"


class Sent(NamedTuple):
    """The last good quote that the simulator wrote to a client: the venue's time of it, and when it was first sent."""

    bid: float
    ask: float
    quoted_at_s: float
    first_sent_at_s: float


class Truth(NamedTuple):
    """What the simulator says of itself. `mute_since_s` and `half_open_since_s` are None while it is neither.

    `is_linked`: a client that is not frozen is authenticated. `dials_s` are the last ones, oldest first.
    """

    at_s: float
    sent: Mapping[str, Sent]
    mute_since_s: float | None = None
    half_open_since_s: float | None = None
    is_linked: bool = True
    dials_s: tuple[float, ...] = ()


class Row(NamedTuple):
    """A row of the P&L. Bid, ask and the venue's time of the quote are None when it is not priced by a quote."""

    source: str
    bid: float | None
    ask: float | None
    quoted_at_s: float | None


class PnlView(NamedTuple):
    """The P&L as one surface showed it. `at_s` is its own `calculated_at`: what it says, it says of that moment."""

    surface: str
    at_s: float
    rows: Mapping[str, Row]
    feed_state: str = "streaming"
    is_complete: bool = True


class HealthView(NamedTuple):
    """What a service said of itself. `asked_at_s` is before the question was sent, `at_s` when the answer was there."""

    service: str
    asked_at_s: float
    at_s: float
    status: str
    reasons: tuple[str, ...] = ()
    link_state: str | None = None
    link_since_s: float | None = None
    market: str | None = None


def seconds(iso: str) -> float:
    """Return the seconds since 1970 of an ISO-8601 time."""
    return datetime.fromisoformat(iso).timestamp()


def truth_of(sent: Mapping[str, Any], state: Mapping[str, Any]) -> Truth:
    """Read `GET /control/state` and, read after it, `GET /control/sent`.

    `{"time": …, "symbols": {"AAPL": {"bid": …, "ask": …, "time_ns": …, "first_sent_at": …}}, "mute_since": …, …}`
    """
    quotes = {
        symbol: Sent(one["bid"], one["ask"], one["time_ns"] / NS_PER_S, one["first_sent_at"])
        for symbol, one in sent["symbols"].items()
    }
    is_linked = any(one["authenticated"] and not one["is_half_open"] for one in state["connections"])
    return Truth(
        sent["time"], quotes, sent["mute_since"], sent["half_open_since"], is_linked, tuple(state["dials"]["last"])
    )


def pnl_of(surface: str, body: Mapping[str, Any]) -> PnlView:
    """Read a whole P&L body."""
    return PnlView(
        surface, seconds(body["calculated_at"]), rows_of(body["positions"]), body["feed"]["state"], body["complete"]
    )


def rows_of(positions: Iterable[Mapping[str, Any]]) -> dict[str, Row]:
    """Read the rows of a P&L body or of an update of it."""
    return {row["symbol"]: _row(row) for row in positions}


def _row(row: Mapping[str, Any]) -> Row:
    updated = row["last_updated"]
    return Row(row["price_source"], row["bid"], row["ask"], None if updated is None else seconds(updated))


def updated_by(view: PnlView | None, update: Mapping[str, Any]) -> PnlView | None:
    """Return the view after an `update` event; None while no snapshot has come."""
    if view is None:
        return None
    rows = {symbol: row for symbol, row in view.rows.items() if symbol not in update["removed"]}
    rows |= rows_of(update["positions"])
    return PnlView(view.surface, seconds(update["calculated_at"]), rows, update["feed"]["state"], update["complete"])


def health_of(service: str, asked_at_s: float, at_s: float, body: Mapping[str, Any]) -> HealthView:
    """Read the body of `/health` of either service."""
    link = body.get("link") or {}
    since = link.get("since")
    return HealthView(
        service,
        asked_at_s,
        at_s,
        body["status"],
        tuple(reason["code"] for reason in body["reasons"]),
        link.get("state"),
        None if since is None else seconds(since),
        (body.get("market") or {}).get("state"),
    )
