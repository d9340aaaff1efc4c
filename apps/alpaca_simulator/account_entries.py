"""What can happen to the simulated account: executions, corporate actions, cash. Values only, no decisions."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from libs.market_data.trading_sessions import NEW_YORK

_SYNC_AFTER_MIDNIGHT: Final = timedelta(hours=2, minutes=30)


class AccountError(ValueError):
    """The account cannot do what it is asked to, and nothing was changed. The text begins with the field."""


class Booking(StrEnum):
    """What became of an execution."""

    BOOKED = "booked"
    CORRECTED = "corrected"
    BUSTED = "busted"


@dataclass(frozen=True, slots=True)
class Execution:
    """Shares that changed hands. `qty` is negative for a sale; `cum_qty` and `leaves_qty` are the order's, unsigned.

    `sequence` counts what was recorded in the account, from 0; it and `execution_id` never change.
    """

    execution_id: str
    order_id: str
    symbol: str
    qty: Decimal
    price: Decimal
    at: datetime
    cum_qty: Decimal
    leaves_qty: Decimal
    sequence: int
    booking: Booking = Booking.BOOKED


@dataclass(frozen=True, slots=True)
class Split:
    """`new` shares for each `old` ones."""

    symbol: str
    new: Decimal
    old: Decimal
    at: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class SymbolChange:
    """A position goes on under another symbol."""

    symbol: str
    new_symbol: str
    at: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class CashMove:
    """Cash that came in, in USD; negative when it went out."""

    amount: Decimal
    at: datetime
    sequence: int


Entry = Execution | Split | SymbolChange | CashMove


@dataclass(frozen=True, slots=True)
class Activity:
    """What `/v2/account/activities` shows beside the executions: amounts in USD, quantities signed."""

    activity_id: str
    kind: str
    at: datetime
    net_amount: Decimal
    description: str
    sequence: int
    symbol: str | None = None
    qty: Decimal | None = None
    per_share: Decimal | None = None
    price: Decimal | None = None

    @property
    def day(self) -> date:
        """The date it is booked under, New York's."""
        return self.at.astimezone(NEW_YORK).date()


def sync_day(moment: datetime) -> date:
    """Return which of the account's days a moment belongs to: they begin with the morning sync, 02:30 New York.

    Source: "Daily Processes" in Alpaca's docs.
    """
    return (moment.astimezone(NEW_YORK).replace(tzinfo=None) - _SYNC_AFTER_MIDNIGHT).date()


def activity_id(at: datetime, identity: str) -> str:
    """Return an activity's id: the local time of New York to the millisecond, and after `::` who it is.

    Source: the samples of Alpaca's docs, `20190524113406977::8efc7b9a-...` for 2019-05-24T15:34:06.977Z.
    """
    local = at.astimezone(NEW_YORK)
    return f"{local:%Y%m%d%H%M%S}{local.microsecond // 1000:03d}::{identity}"
