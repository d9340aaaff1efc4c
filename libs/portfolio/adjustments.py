"""What changes a position or its earnings without a trade: splits, symbol changes, dividends, fees, transfers. Pure.

An adjustment stands in the ledger beside the fills and is never changed; it can only be voided.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from libs.portfolio.fills import ZERO


class AdjustmentKind(StrEnum):
    """What happened."""

    SPLIT = "split"
    SYMBOL_CHANGE = "symbol_change"
    DIVIDEND = "dividend"
    FEE = "fee"
    CASH_IN_LIEU = "cash_in_lieu"
    TRANSFER = "transfer"
    MOVE = "move"
    SPIN_OFF = "spin_off"
    INCOME = "income"
    CASH = "cash"
    UNCLASSIFIED = "unclassified"


class InvalidAdjustmentError(ValueError):
    """The numbers or times cannot be such an adjustment. Trying again does not help.

    `field` names the culprit, `requirement` says what it must be.
    """

    def __init__(self, field: str, requirement: str) -> None:
        self.field = field
        self.requirement = requirement
        super().__init__(f"{field} must be {requirement}")


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One event of the ledger that is no fill; `reason` is a code or a sentence for people.

    split: `ratio_new` shares for every `ratio_old`; `amount` is the USD per new share paid for what is left beyond
    nine decimals, None: it is paid at cost. symbol_change: everything moves to `new_symbol`. dividend: `amount` USD
    received, negative when paid on a short. fee: `amount` USD paid, negative when refunded. cash_in_lieu: `amount` USD
    received for a fraction that a split had taken, or for shares that a corporate action took. income: `amount` USD of
    interest and the like, negative when paid. cash: `amount` USD that came from outside (negative: went there), none of
    the P&L. unclassified: `amount` USD of which nobody has decided yet what it is.
    transfer: `qty` signed shares and `amount` signed USD of cost cross
    the account's edge (out: both the other way); nothing is realized, and the day counts the shares as if they had
    crossed the night before. A transfer of cost alone corrects what the shares are held at: what the cost gains has
    then been realized, so that no P&L comes or goes. move: the same numbers of an event within the account, which the
    day counts at their cost; cost alone then comes from another symbol and realizes nothing. spin_off: `ratio_new`
    parts in `ratio_old` of the cost of `symbol` go to `new_symbol`, with `qty` signed shares of it. A split and a
    symbol change come before the fills of their instant.

    Raises InvalidAdjustmentError when a field is missing, superfluous, not finite or out of range.
    """

    adjustment_id: str
    kind: AdjustmentKind
    symbol: str
    effective_at: datetime
    reason: str
    ratio_new: Decimal | None = None
    ratio_old: Decimal | None = None
    new_symbol: str | None = None
    qty: Decimal | None = None
    amount: Decimal | None = None

    def __post_init__(self) -> None:
        if self.effective_at.tzinfo is None:
            raise InvalidAdjustmentError("effective_at", "a time with its zone")
        for name in FIELDS:
            value = getattr(self, name)
            if isinstance(value, Decimal) and not value.is_finite():
                raise InvalidAdjustmentError(name, "a finite number")
        for fault in misplaced(self.kind, [name for name in FIELDS if getattr(self, name) is not None]):
            raise fault
        self._check_ranges()

    def _check_ranges(self) -> None:
        match self.kind:
            case AdjustmentKind.SPLIT:
                self._check_split()
            case AdjustmentKind.SYMBOL_CHANGE:
                self._check_new_symbol()
            case AdjustmentKind.SPIN_OFF:
                self._check_spin_off()
            case AdjustmentKind.TRANSFER | AdjustmentKind.MOVE:
                if not self.qty and not self.amount:
                    raise InvalidAdjustmentError("qty", "other than zero when amount is zero")
            case _:
                if not self.amount:
                    raise InvalidAdjustmentError("amount", "other than zero")

    def _check_new_symbol(self) -> None:
        if self.new_symbol == self.symbol:
            raise InvalidAdjustmentError("new_symbol", "another symbol")

    def _check_ratio(self) -> None:
        for name in ("ratio_new", "ratio_old"):
            if getattr(self, name) <= ZERO:
                raise InvalidAdjustmentError(name, "a positive number")

    def _check_spin_off(self) -> None:
        self._check_new_symbol()
        self._check_ratio()
        if not self.qty:
            raise InvalidAdjustmentError("qty", "other than zero")
        if self.ratio_new is not None and self.ratio_old is not None and self.ratio_new > self.ratio_old:
            raise InvalidAdjustmentError("ratio_new", "at most ratio_old: the part of the cost that leaves")

    def _check_split(self) -> None:
        self._check_ratio()
        if self.amount is not None and self.amount < ZERO:
            raise InvalidAdjustmentError("amount", "zero or a positive number")

    @property
    def at(self) -> datetime:
        """When it applies."""
        return self.effective_at

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that it touches."""
        return (self.symbol,) if self.new_symbol is None else (self.symbol, self.new_symbol)


FIELDS = ("ratio_new", "ratio_old", "new_symbol", "qty", "amount")
"""The fields that only some kinds have."""
REQUIRED = {
    AdjustmentKind.SPLIT: frozenset({"ratio_new", "ratio_old"}),
    AdjustmentKind.SYMBOL_CHANGE: frozenset({"new_symbol"}),
    AdjustmentKind.DIVIDEND: frozenset({"amount"}),
    AdjustmentKind.FEE: frozenset({"amount"}),
    AdjustmentKind.CASH_IN_LIEU: frozenset({"amount"}),
    AdjustmentKind.TRANSFER: frozenset({"qty", "amount"}),
    AdjustmentKind.MOVE: frozenset({"qty", "amount"}),
    AdjustmentKind.SPIN_OFF: frozenset({"ratio_new", "ratio_old", "new_symbol", "qty"}),
    AdjustmentKind.INCOME: frozenset({"amount"}),
    AdjustmentKind.CASH: frozenset({"amount"}),
    AdjustmentKind.UNCLASSIFIED: frozenset({"amount"}),
}
"""Which of them each kind must have; a split may also have an amount."""
_ALSO_ALLOWED = {AdjustmentKind.SPLIT: frozenset({"amount"})}


def misplaced(kind: AdjustmentKind, given: Collection[str]) -> list[InvalidAdjustmentError]:
    """Return a fault for each of FIELDS that `kind` must have and is not among `given`, or must not have and is."""
    faults = [
        InvalidAdjustmentError(name, f"given for a {kind}") for name in FIELDS if name in REQUIRED[kind] - {*given}
    ]
    allowed = REQUIRED[kind] | _ALSO_ALLOWED.get(kind, frozenset())
    return faults + [
        InvalidAdjustmentError(name, f"left out for a {kind}")
        for name in FIELDS
        if name in given and name not in allowed
    ]
