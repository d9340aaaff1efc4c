"""What the account's activities come to: adjustments of the ledger, and all that is none."""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from libs.broker.executions import Activity
from libs.broker.reconcile import OurPosition
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.days import day_start

ACCOUNT_WIDE: Final = "ACCOUNT"
"""Stands for the symbol of a fee or dividend that names none. Too long for a symbol, so it can be nobody's."""

ACTIVITY: Final = "activity:"
"""How the ids of adjustments begin that an activity brought about."""
CASH: Final = ":cash"
"""How they end where the activity moved shares, and this is the money."""

HeldBefore = Callable[[str, date], OurPosition]
"""Returns what the ledger held of a symbol as a New York date began, before that date's corporate actions."""


NOT_YET: Final = frozenset({"pending", "queued", "sent_to_clearing"})
"""The statuses of what the broker has not carried out yet."""


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier rounds came to: ids of the activities that have `waited`, and of adjustments that are `recorded`.

    `paid`: kinds of activities and the symbols for whose shares they brought cash alone.
    """

    waited: Container[str] = ()
    recorded: Container[str] = ()
    paid: Container[tuple[str, str]] = ()

    def have_waited(self, activities: Iterable[Activity]) -> bool:
        """Say whether all of them were given before."""
        return all(one.activity_id in self.waited for one in activities)


NOTHING_KNOWN: Final = Known()


@dataclass(frozen=True, slots=True)
class Unhandled:
    """An activity that changed nothing in the ledger although it may have had to; `why` is for people."""

    activity: Activity
    why: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What a set of activities comes to. Every activity given is in exactly one of these, or pays cash as well.

    `cash` moves nothing of ours. `waiting` wants to be passed again together with what comes later. `undone`
    are ids of adjustments that the broker has taken back. `plain` are ids of `adjustments` that are the cash of one
    activity, or the shares of a stock dividend, and nothing else: what the broker changes of it, they follow.
    """

    adjustments: tuple[Adjustment, ...] = ()
    cash: tuple[Activity, ...] = ()
    waiting: tuple[Activity, ...] = ()
    undone: tuple[str, ...] = ()
    unhandled: tuple[Unhandled, ...] = ()
    plain: frozenset[str] = frozenset()

    @property
    def unresolved(self) -> tuple[Unhandled, ...]:
        """Activities of which it is not known what they do to the shares, with the reason."""
        halves = [one for one in self.waiting if one.qty and (one.status or "").lower() not in NOT_YET]
        return (*self.unhandled, *(Unhandled(one, "its other entries are not reported yet") for one in halves))

    @property
    def doubtful_symbols(self) -> frozenset[str]:
        """Symbols whose positions may be wrong because of what waits or was not understood."""
        activities = [*self.waiting, *(one.activity for one in self.unhandled)]
        return frozenset(one.symbol for one in activities if one.symbol is not None)


def adjustment_id_of(activity: Activity) -> str:
    """Return the ledger's id of what `activity` brings about; the same for ever."""
    return f"{ACTIVITY}{activity.activity_id}"


def cash_id_of(activity: Activity) -> str:
    """Return the ledger's id of what an activity realizes that moves shares too."""
    return f"{adjustment_id_of(activity)}{CASH}"


def fee_id_of(activity: Activity) -> str:
    """Return the ledger's id of a fee that was taken in coins, which moves them too."""
    return f"{adjustment_id_of(activity)}:fee"


def adjustment_of(
    activity: Activity,
    kind: AdjustmentKind,
    *,
    ratio_new: Decimal | None = None,
    ratio_old: Decimal | None = None,
    new_symbol: str | None = None,
    qty: Decimal | None = None,
    amount: Decimal | None = None,
) -> Adjustment:
    """Return what `activity` does to the ledger, from the beginning of the New York date it is booked under."""
    return Adjustment(
        adjustment_id=adjustment_id_of(activity),
        kind=kind,
        symbol=activity.symbol or ACCOUNT_WIDE,
        effective_at=day_start(activity.date),
        reason=activity.kind if activity.description is None else f"{activity.kind}: {activity.description}"[:200],
        ratio_new=ratio_new,
        ratio_old=ratio_old,
        new_symbol=new_symbol,
        qty=qty,
        amount=amount,
    )
