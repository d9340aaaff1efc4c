"""Decides what the cash of an activity is: income, a fee, a gain, money from outside, or not known yet. Pure.

No amount is dropped: all of it is in the journal of the account's cash, and what the broker's type does not say is
booked as unclassified, until somebody classifies it. Money from outside is none of the P&L: it is in the journal alone.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Final

from libs.broker.activity_results import Unhandled, adjustment_of, cash_id_of
from libs.broker.executions import Activity
from libs.broker.instruments import OPTION_MULTIPLIER, is_option
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.fills import EXACT, ZERO

FEES: Final = frozenset({"FEE", "CFEE", "PTC", "PTR", "TAF", "REG", "CAT"})
OUTSIDE: Final = frozenset({"CSD", "CSW", "TRANS", "JNL", "JNLC", "ACATC", "ACATS", "JNLS"})
"""Cash that comes into the account or leaves it: deposits, withdrawals, journals, transfers between brokers."""
_INCOME: Final = frozenset({"INT", "INTNRA", "INTTW", "WH"})
"""Interest, and what is withheld of it. Dividends all begin with DIV."""
_GAINS: Final = frozenset({"CIL", "OPCSH"})
"""Cash in lieu of shares, and the cash that an option on other than whole shares delivers."""


def read_cash(activity: Activity) -> Adjustment | Unhandled | None:
    """Return what the cash of an activity that moves no shares is; None when it moves none.

    Of a type that is not known the shares cannot be booked: they are unhandled where there are any.
    """
    kind, amount = activity.kind.partition(".")[0], activity.net_amount
    is_known = kind in FEES | OUTSIDE | _INCOME | _GAINS or kind.startswith("DIV")
    if amount is None:
        return Unhandled(activity, "no amount" if is_known else "unknown kind of activity")
    if kind in OUTSIDE:
        return None
    if not amount:
        return None if is_known else Unhandled(activity, "unknown kind of activity")
    if kind in FEES:
        return adjustment_of(activity, AdjustmentKind.FEE, amount=amount.copy_negate())
    return adjustment_of(activity, _kind_of(kind), amount=amount)


def is_cash_alone(activity: Activity) -> bool:
    """Say whether an activity is of a kind that pays or takes cash, and moves no shares."""
    kind = activity.kind.partition(".")[0]
    return not activity.qty and (kind in FEES | OUTSIDE | _INCOME | _GAINS or kind.startswith("DIV"))


def _kind_of(kind: str) -> AdjustmentKind:
    if kind.startswith("DIV"):
        return AdjustmentKind.DIVIDEND
    if kind in _INCOME:
        return AdjustmentKind.INCOME
    if kind in _GAINS:
        return AdjustmentKind.CASH_IN_LIEU
    return AdjustmentKind.UNCLASSIFIED


def cash_of_action(activity: Activity) -> Adjustment | None:
    """Return what a corporate action pays beside the shares it moves; None when it pays nothing.

    All of it is a gain: the cost stays with the shares, or left with them. What comes with a transfer between accounts
    is cash from outside, and nothing of ours.
    """
    if not activity.net_amount or activity.kind.partition(".")[0] in OUTSIDE:
        return None
    paid = adjustment_of(activity, AdjustmentKind.CASH_IN_LIEU, amount=activity.net_amount)
    return replace(paid, adjustment_id=cash_id_of(activity)) if activity.qty else paid


def moved_cash(activity: Activity) -> Decimal:
    """Return the signed USD by which an activity changes the account's cash, whatever it is booked as."""
    if activity.net_amount:
        return activity.net_amount
    if activity.kind.partition(".")[0] != "OPTRD" or not activity.qty or activity.price is None:
        return ZERO
    # What an option is exercised into is paid at its strike, which the broker may leave to be worked out.
    units = OPTION_MULTIPLIER if is_option(activity.symbol or "") else Decimal(1)
    return EXACT.multiply(EXACT.multiply(activity.qty.copy_negate(), activity.price), units)


def fee_in_coins(activity: Activity) -> Decimal | None:
    """Return the USD that a fee taken in coins comes to; None for any other activity, or without their price."""
    kind, qty, price = activity.kind.partition(".")[0], activity.qty, activity.price
    if kind not in FEES or activity.net_amount or not qty or not price or "/" not in (activity.symbol or ""):
        return None
    return EXACT.multiply(qty.copy_negate(), price)
