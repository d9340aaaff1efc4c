"""The account's activities as the API shows them: executions and all else in one list, filtered and paged. Pure.

A FILL activity's id ends in the execution id that the trading stream shows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from apps.alpaca_simulator.account import Account
from apps.alpaca_simulator.account_entries import Activity, Booking, Execution, activity_id
from apps.alpaca_simulator.wire_text import moment_text, number_text
from libs.market_data.trading_sessions import NEW_YORK

FILL: Final = "FILL"
LARGEST_PAGE: Final = 100


class WrongPageTokenError(ValueError):
    """A page token is no activity's id, or is not among those that were asked for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call asks for. None: no bound. `kinds` empty: all; `token`: the id after which the answer begins."""

    kinds: frozenset[str] = frozenset()
    after: datetime | None = None
    until: datetime | None = None
    day: date | None = None
    is_descending: bool = True
    page_size: int = LARGEST_PAGE
    token: str | None = None

    def takes(self, shown: "Shown") -> bool:
        """Say whether an activity is asked for, whatever the page."""
        return (
            (not self.kinds or shown.kind in self.kinds)
            and (self.after is None or shown.at > self.after)
            and (self.until is None or shown.at < self.until)
            and (self.day is None or shown.at.astimezone(NEW_YORK).date() == self.day)
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """One activity with what it is sorted and found by."""

    activity_id: str
    kind: str
    at: datetime
    sequence: int
    body: Callable[[], Mapping[str, Any]]


def page_of_activities(
    account: Account, wanted: Wanted, *, recorded: int | None = None, show_busted: bool = False
) -> list[Mapping[str, Any]]:
    """Return one page; `recorded` leaves out what has a sequence number from there on. Raises WrongPageTokenError."""
    everything = [
        *(_shown_fill(one) for one in account.executions.values() if show_busted or one.booking is not Booking.BUSTED),
        *(_shown_other(one) for one in account.activities),
    ]
    found = [one for one in everything if wanted.takes(one) and (recorded is None or one.sequence < recorded)]
    found.sort(key=lambda one: (one.at, one.sequence), reverse=wanted.is_descending)
    begin = 0 if wanted.token is None else _place_after(wanted.token, found)
    return [one.body() for one in found[begin : begin + wanted.page_size]]


def fill_id(execution: Execution) -> str:
    """Return the id of an execution's activity."""
    return activity_id(execution.at, execution.execution_id)


def _shown_fill(execution: Execution) -> Shown:
    def body() -> Mapping[str, Any]:
        is_whole = execution.leaves_qty <= 0
        return {
            "id": fill_id(execution),
            "activity_type": FILL,
            "transaction_time": moment_text(execution.at),
            "type": "fill" if is_whole else "partial_fill",
            "price": number_text(execution.price),
            "qty": number_text(abs(execution.qty)),
            "side": "buy" if execution.qty > 0 else "sell",
            "symbol": execution.symbol,
            "leaves_qty": number_text(execution.leaves_qty),
            "order_id": execution.order_id,
            "cum_qty": number_text(execution.cum_qty),
            "order_status": "filled" if is_whole else "partially_filled",
        }

    return Shown(fill_id(execution), FILL, execution.at, execution.sequence, body)


def _shown_other(activity: Activity) -> Shown:
    def body() -> Mapping[str, Any]:
        optional = {
            "qty": activity.qty,
            "per_share_amount": activity.per_share,
            "price": activity.price,
        }
        return {
            "id": activity.activity_id,
            "activity_type": activity.kind,
            "date": activity.day.isoformat(),
            "created_at": moment_text(activity.at),
            "net_amount": number_text(activity.net_amount),
            "description": activity.description,
            "status": "executed",
            **({} if activity.symbol is None else {"symbol": activity.symbol}),
            **{name: number_text(value) for name, value in optional.items() if value is not None},
        }

    return Shown(activity.activity_id, activity.kind, activity.at, activity.sequence, body)


def _place_after(token: str, found: list[Shown]) -> int:
    for place, one in enumerate(found):
        if one.activity_id == token:
            return place + 1
    raise WrongPageTokenError(f"invalid page_token: {token[:60]}")
