"""What the ledger's entries do to cash: what trades paid, what came from outside, what nobody has classified. Pure."""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple, Self

from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.entries import Entry
from libs.portfolio.fills import EXACT, ZERO, Fill


class EntryCash(NamedTuple):
    """Signed USD of some entries. `traded`: by fills, after fees; `outside`: cash that came from outside.

    `unclassified`: booked, but not known as what.
    """

    traded: Decimal = ZERO
    outside: Decimal = ZERO
    unclassified: Decimal = ZERO

    def plus(self, other: Self) -> "EntryCash":
        """Return the sum of both."""
        return EntryCash(*(EXACT.add(mine, more) for mine, more in zip(self, other, strict=True)))


def cash_of_entries(entries: Iterable[Entry]) -> EntryCash:
    """Return what `entries` did to cash."""
    traded = outside = unclassified = ZERO
    for entry in entries:
        if isinstance(entry, Fill):
            traded = EXACT.subtract(traded, EXACT.add(entry.signed_cost, entry.fee))
        elif entry.kind is AdjustmentKind.CASH:
            outside = EXACT.add(outside, entry.amount or ZERO)
        elif entry.kind is AdjustmentKind.UNCLASSIFIED:
            unclassified = EXACT.add(unclassified, entry.amount or ZERO)
    return EntryCash(traded, outside, unclassified)


def booked_cash(adjustment: Adjustment) -> Decimal:
    """Return the signed USD that an adjustment of cash alone stands for; a fee is written as what was paid."""
    amount = adjustment.amount or ZERO
    return amount.copy_negate() if adjustment.kind is AdjustmentKind.FEE else amount


def reclassified(adjustment: Adjustment, kind: AdjustmentKind) -> Adjustment:
    """Return the same cash as another kind: income, a fee, realized (`cash_in_lieu`), or cash from outside."""
    amount = booked_cash(adjustment)
    return Adjustment(
        adjustment.adjustment_id,
        kind,
        adjustment.symbol,
        adjustment.effective_at,
        adjustment.reason,
        amount=amount.copy_negate() if kind is AdjustmentKind.FEE else amount,
    )
