"""A fill: one execution as the ledger holds it, and the exact decimal arithmetic that money is counted in."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from enum import StrEnum
from typing import Final

EXACT: Final = Context(prec=120, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Sums and products of quantities and prices are exact in here; the default context would round them at 28 digits.

Python's operators use the thread's own context, so money is added and multiplied through this one.
"""
ZERO: Final = Decimal(0)


class Side(StrEnum):
    """Which way the shares went, seen from the account."""

    BUY = "buy"
    SELL = "sell"


class InvalidFillError(ValueError):
    """The numbers or times cannot be an execution. Trying again does not help. `field` names the culprit."""

    def __init__(self, field: str, requirement: str) -> None:
        self.field = field
        super().__init__(f"{field} must be {requirement}")


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution. `qty` in shares and `price` in USD per share, both positive; `fee` in USD, never negative.

    Raises InvalidFillError for numbers that are not finite or out of range, and for a time without a zone.
    """

    fill_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    fee: Decimal
    filled_at: datetime

    def __post_init__(self) -> None:
        if not (self.qty.is_finite() and self.qty > ZERO):
            raise InvalidFillError("qty", "a positive number")
        if not (self.price.is_finite() and self.price > ZERO):
            raise InvalidFillError("price", "a positive number")
        if not (self.fee.is_finite() and self.fee >= ZERO):
            raise InvalidFillError("fee", "zero or a positive number")
        if self.filled_at.tzinfo is None:
            raise InvalidFillError("filled_at", "a time with its zone")

    @property
    def at(self) -> datetime:
        """When it applies."""
        return self.filled_at

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that it touches."""
        return (self.symbol,)

    @property
    def signed_qty(self) -> Decimal:
        """Shares gained: positive when bought, negative when sold."""
        return self.qty if self.side is Side.BUY else self.qty.copy_negate()

    @property
    def signed_cost(self) -> Decimal:
        """USD paid before fees: positive when bought, negative when sold. Exact."""
        return EXACT.multiply(self.signed_qty, self.price)
