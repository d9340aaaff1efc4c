"""Fills folded into positions by average cost. Pure and exact: nothing is rounded to cents.

Method: closing takes cost out of the position in proportion to the shares closed; a fill through zero first closes
what is held, then opens the rest at its own price.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from libs.portfolio.fills import EXACT, ZERO, Fill

COST_STEP: Final = Decimal("1e-12")
"""A partial close removes cost in whole steps of this: a third of a cost has no end, and what is removed must be."""


@dataclass(frozen=True, slots=True)
class Position:
    """What is held of one symbol, and what trading it has earned. Short: `qty` and `cost_basis` are negative.

    `qty` in shares; `cost_basis` exact USD before fees, 0 when flat; `realized_pnl` (before fees), `fees` and `income`
    (dividends) in USD since the beginning; `opened_at` is when the position last left zero, None when flat.
    """

    symbol: str
    qty: Decimal
    cost_basis: Decimal
    realized_pnl: Decimal
    fees: Decimal
    opened_at: datetime | None
    income: Decimal = ZERO

    @property
    def is_open(self) -> bool:
        """Say whether any shares are held, long or short."""
        return bool(self.qty)

    @property
    def avg_entry_price(self) -> Decimal | None:
        """USD per share, positive for shorts too; derived from the cost, None when flat."""
        return EXACT.divide(self.cost_basis, self.qty) if self.qty else None


def flat(symbol: str) -> Position:
    """Return the position in a symbol that was never traded."""
    return Position(symbol, ZERO, ZERO, ZERO, ZERO, None)


def apply_fill(position: Position | None, fill: Fill) -> Position:
    """Return the position after `fill`; None stands for a symbol never traded.

    Raises ValueError when the fill is of another symbol.
    """
    if position is None:
        position = flat(fill.symbol)
    if fill.symbol != position.symbol:
        raise ValueError(f"a fill of {fill.symbol} cannot change the position in {position.symbol}")
    fees, income = EXACT.add(position.fees, fill.fee), position.income
    signed, held = fill.signed_qty, position.qty
    qty = EXACT.add(held, signed)
    if not held or (held > ZERO) == (signed > ZERO):
        cost = EXACT.add(position.cost_basis, fill.signed_cost)
        opened_at = position.opened_at or fill.filled_at
        return Position(fill.symbol, qty, cost, position.realized_pnl, fees, opened_at, income)
    is_through_zero = fill.qty > held.copy_abs()
    closed = held.copy_negate() if is_through_zero else signed
    removed = cost_of(position.cost_basis, position.qty, closed)
    # Cash that came in for the closed shares, less what they had cost. For shorts both are negative.
    gain = EXACT.subtract(EXACT.multiply(closed.copy_negate(), fill.price), removed)
    realized = EXACT.add(position.realized_pnl, gain)
    if is_through_zero:
        return Position(fill.symbol, qty, EXACT.multiply(qty, fill.price), realized, fees, fill.filled_at, income)
    cost = EXACT.subtract(position.cost_basis, removed)
    return Position(fill.symbol, qty, cost, realized, fees, position.opened_at if qty else None, income)


def fold_fills(fills: Iterable[Fill]) -> Position:
    """Return the position that one symbol's fills add up to, applied by `filled_at`, ties in the order given.

    Raises ValueError when there are no fills or they are of several symbols.
    """
    position: Position | None = None
    for fill in sorted(fills, key=_filled_at):
        position = apply_fill(position, fill)
    if position is None:
        raise ValueError("no fills, no position")
    return position


def cost_of(cost: Decimal, qty: Decimal, closed: Decimal) -> Decimal:
    """Return the signed part of the `cost` of `qty` shares that goes with closing `closed` (of the opposite sign)."""
    if closed == qty.copy_negate():
        return cost
    exact = EXACT.divide(EXACT.multiply(cost, closed.copy_negate()), qty)
    removed = exact.quantize(COST_STEP, context=EXACT)
    # With less than a step of cost left, rounding up would take more than there is and turn the cost's sign.
    return cost if removed.copy_abs() > cost.copy_abs() else removed


def _filled_at(fill: Fill) -> datetime:
    return fill.filled_at
