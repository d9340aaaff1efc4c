"""What the account says has happened: executions of orders, and activities that are no trades. Parsed, not judged."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, auto
from typing import Final

from libs.portfolio.fills import Side


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution as the broker tells it. `qty` in shares and `price` in USD per share, both positive.

    `execution_id` names it in every source. `cum_qty` is what its order had filled after it, in shares; None when not
    told. `executed_at` is the broker's time, with its zone. `asset_class` is the broker's own word; None when not told.
    """

    execution_id: str
    order_id: str | None
    symbol: str
    asset_class: str | None
    side: Side
    qty: Decimal
    price: Decimal
    cum_qty: Decimal | None
    executed_at: datetime

    def is_alike(self, other: "Execution") -> bool:
        """Say whether both speak of the same shares at the same price: what a correction would change."""
        return (self.symbol, self.side, self.qty, self.price) == (other.symbol, other.side, other.qty, other.price)


@dataclass(frozen=True, slots=True)
class Activity:
    """One activity that is no trade: a dividend, a fee, a split, cash. Numbers are signed as the broker signs them.

    `kind` is the broker's `activity_type`, upper case. `date` is the New York date it is booked under. `net_amount`
    in USD (positive: paid to the account), `qty` in shares. `sub_kind` is its `activity_sub_type`, upper case. None is
    what the broker left out.
    """

    activity_id: str
    kind: str
    date: date
    symbol: str | None = None
    qty: Decimal | None = None
    net_amount: Decimal | None = None
    per_share_amount: Decimal | None = None
    price: Decimal | None = None
    description: str | None = None
    status: str | None = None
    sub_kind: str | None = None


class Standing(Enum):
    """Whether an activity has happened."""

    EXECUTED = auto()
    PENDING = auto()
    UNDONE = auto()


_UNDONE: Final = frozenset({"canceled", "cancelled", "rejected", "reversed"})
_PENDING: Final = frozenset({"pending", "queued", "sent_to_clearing"})


def standing_of(activity: Activity) -> Standing:
    """Return whether an activity has happened; a status that is not known says that it has."""
    status = (activity.status or "").lower()
    if status in _UNDONE:
        return Standing.UNDONE
    return Standing.PENDING if status in _PENDING else Standing.EXECUTED


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One part of an answer, or one message, that could not be read. `symbol` None: not even that could be.

    `may_be_execution`: what it told may have been an execution, which must then be asked for again.
    """

    symbol: str | None
    why: str
    may_be_execution: bool = False
