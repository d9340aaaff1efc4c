"""The account's cash as its activities name it, whatever each is booked as. Pure.

Together with what the executions paid it must equal the cash that the account itself reports.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from libs.broker.cash_activities import OUTSIDE, fee_in_coins, is_cash_alone, moved_cash
from libs.broker.executions import Activity, Standing, standing_of
from libs.portfolio.fills import EXACT, ZERO


@dataclass(frozen=True, slots=True)
class CashEntry:
    """The signed USD of one activity, booked under a New York date. 0: it moved no cash, or was taken back."""

    activity_id: str
    kind: str
    symbol: str | None
    booked_on: date
    amount: Decimal

    @property
    def is_outside(self) -> bool:
        """Say whether the cash came from outside of the account, or went there."""
        return self.kind.partition(".")[0] in OUTSIDE


NO_CASH: Final = ZERO


def cash_entry(activity: Activity) -> CashEntry | None:
    """Return what an activity does to the account's cash; None while it has not happened."""
    standing = standing_of(activity)
    if standing is Standing.PENDING:
        return None
    amount = NO_CASH if standing is Standing.UNDONE else moved_cash(activity)
    return CashEntry(activity.activity_id, activity.kind, activity.symbol, activity.date, amount)


def lacks_amount(activity: Activity) -> bool:
    """Say whether an activity that stands, and is about nothing but cash, does not say how much."""
    is_unknown = activity.net_amount is None and is_cash_alone(activity) and fee_in_coins(activity) is None
    return is_unknown and standing_of(activity) is Standing.EXECUTED


def total_of(entries: Iterable[CashEntry]) -> Decimal:
    """Return the exact sum of some entries."""
    total = ZERO
    for entry in entries:
        total = EXACT.add(total, entry.amount)
    return total
