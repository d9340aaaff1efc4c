"""Fills folded into positions by average cost, and what a day's fills did. Pure and exact: nothing is rounded to cents.

Method: closing takes cost out of the position in proportion to the shares closed; a fill through zero first closes
what is held, then opens the rest at its own price.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from libs.portfolio.fills import EXACT, ZERO, Fill

COST_STEP: Final = Decimal("1e-12")
"""A partial close removes cost in whole steps of this: a third of a cost has no end, and what is removed must be."""
NEW_YORK: Final = ZoneInfo("America/New_York")


@dataclass(frozen=True, slots=True)
class Position:
    """What is held of one symbol, and what trading it has earned. Short: `qty` and `cost_basis` are negative.

    `qty` in shares; `cost_basis` exact USD before fees, 0 when flat; `realized_pnl` (before fees) and `fees` in USD
    since the first fill; `opened_at` is when the position last left zero, None when flat.
    """

    symbol: str
    qty: Decimal
    cost_basis: Decimal
    realized_pnl: Decimal
    fees: Decimal
    opened_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Say whether any shares are held, long or short."""
        return bool(self.qty)

    @property
    def avg_entry_price(self) -> Decimal | None:
        """USD per share, positive for shorts too; derived from the cost, None when flat."""
        return EXACT.divide(self.cost_basis, self.qty) if self.qty else None


@dataclass(frozen=True, slots=True)
class DayActivity:
    """What one New York day did to a symbol: shares held before it, signed shares and USD that its fills moved.

    `net_cost` is the sum of signed quantity times price: positive when more was bought than sold.
    """

    overnight_qty: Decimal
    net_qty: Decimal = ZERO
    net_cost: Decimal = ZERO
    fees: Decimal = ZERO


def apply_fill(position: Position | None, fill: Fill) -> Position:
    """Return the position after `fill`; None stands for a symbol never traded.

    Raises ValueError when the fill is of another symbol.
    """
    if position is None:
        position = Position(fill.symbol, ZERO, ZERO, ZERO, ZERO, None)
    if fill.symbol != position.symbol:
        raise ValueError(f"a fill of {fill.symbol} cannot change the position in {position.symbol}")
    fees = EXACT.add(position.fees, fill.fee)
    signed, held = fill.signed_qty, position.qty
    qty = EXACT.add(held, signed)
    if not held or (held > ZERO) == (signed > ZERO):
        cost = EXACT.add(position.cost_basis, fill.signed_cost)
        return Position(fill.symbol, qty, cost, position.realized_pnl, fees, position.opened_at or fill.filled_at)
    is_through_zero = fill.qty > held.copy_abs()
    closed = held.copy_negate() if is_through_zero else signed
    removed = _cost_of(position, closed)
    # Cash that came in for the closed shares, less what they had cost. For shorts both are negative.
    gain = EXACT.subtract(EXACT.multiply(closed.copy_negate(), fill.price), removed)
    realized = EXACT.add(position.realized_pnl, gain)
    if is_through_zero:
        return Position(fill.symbol, qty, EXACT.multiply(qty, fill.price), realized, fees, fill.filled_at)
    cost = EXACT.subtract(position.cost_basis, removed)
    return Position(fill.symbol, qty, cost, realized, fees, position.opened_at if qty else None)


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


def day_activity(fills: Iterable[Fill], session_date: date) -> DayActivity:
    """Split one symbol's fills into what was held before `session_date` and what happened since.

    Days are New York's. Fills after the session's date (on a weekend, a holiday) count as that session's.
    """
    start = day_start(session_date)
    earlier, since = ZERO, []
    for fill in fills:
        if fill.filled_at < start:
            earlier = EXACT.add(earlier, fill.signed_qty)
        else:
            since.append(fill)
    return sum_day(earlier, since)


def sum_day(overnight_qty: Decimal, todays: Sequence[Fill]) -> DayActivity:
    """Return the activity of a day that began with `overnight_qty` shares and saw the fills `todays`."""
    net_qty = net_cost = fees = ZERO
    for fill in todays:
        net_qty = EXACT.add(net_qty, fill.signed_qty)
        net_cost = EXACT.add(net_cost, fill.signed_cost)
        fees = EXACT.add(fees, fill.fee)
    return DayActivity(overnight_qty, net_qty, net_cost, fees)


@lru_cache(maxsize=64)
def day_start(session_date: date) -> datetime:
    """Return the instant at which `session_date` begins in New York."""
    return datetime.combine(session_date, time.min, tzinfo=NEW_YORK)


def _cost_of(position: Position, closed: Decimal) -> Decimal:
    """Return the signed part of the cost that goes with closing `closed` shares (of the opposite sign)."""
    cost = position.cost_basis
    if closed == position.qty.copy_negate():
        return cost
    exact = EXACT.divide(EXACT.multiply(cost, closed.copy_negate()), position.qty)
    removed = exact.quantize(COST_STEP, context=EXACT)
    # With less than a step of cost left, rounding up would take more than there is and turn the cost's sign.
    return cost if removed.copy_abs() > cost.copy_abs() else removed


def _filled_at(fill: Fill) -> datetime:
    return fill.filled_at
