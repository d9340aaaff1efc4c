"""What stands in the ledger, in the order it applies, and what each entry does to the positions. Pure.

Order: by time; at the same instant adjustments before fills (a split happens before the day's trading); then as they
were recorded.
"""

from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Final, NamedTuple

from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.fills import EXACT, ZERO, Fill
from libs.portfolio.positions import COST_STEP, Position, apply_fill, cost_of, flat

SHARE_STEP: Final = Decimal("1e-9")
"""The smallest part of a share that can be held (Alpaca trades fractions to nine decimals)."""

MOST_SHARES: Final = Decimal("1e80")
"""Beyond it products of shares and prices would not be exact."""

Entry = Fill | Adjustment
Positions = dict[str, Position]


class TooManySharesError(ArithmeticError):
    """A split makes more shares than can be. Voiding it, or one before it, helps."""

    def __init__(self, split: Adjustment) -> None:
        super().__init__(f"split {split.adjustment_id!r} makes more than {MOST_SHARES:.0e} shares of {split.symbol}")


class Place(NamedTuple):
    """Where an entry stands in the order of application. `seq` counts fills and adjustments apart."""

    at: datetime
    is_fill: bool
    seq: int


class Arrival(NamedTuple):
    """An entry with its place in the order of arrival."""

    seq: int
    entry: Entry

    @property
    def place(self) -> Place:
        """Where it applies."""
        return Place(self.entry.at, isinstance(self.entry, Fill), self.seq)


def apply_entry(positions: Positions, entry: Entry) -> None:
    """Change `positions` as `entry` says; symbols that it touches for the first time are added.

    Raises TooManySharesError.
    """
    if isinstance(entry, Fill):
        positions[entry.symbol] = apply_fill(positions.get(entry.symbol), entry)
    elif entry.new_symbol is not None:
        old = positions.get(entry.symbol) or flat(entry.symbol)
        new = positions.get(entry.new_symbol) or flat(entry.new_symbol)
        if entry.kind is AdjustmentKind.SPIN_OFF:
            moved = spun_off_cost(old.cost_basis, entry)
            positions[entry.symbol] = _changed(old, cost_basis=EXACT.subtract(old.cost_basis, moved))
            positions[entry.new_symbol] = _transferred(new, entry.qty or ZERO, moved, entry)
        else:
            positions[entry.symbol] = flat(entry.symbol)
            positions[entry.new_symbol] = _merged(old, new)
    else:
        positions[entry.symbol] = _adjusted(positions.get(entry.symbol) or flat(entry.symbol), entry)


def after_split(qty: Decimal, split: Adjustment) -> Decimal:
    """Return the shares that `qty` becomes: nine decimals at most, what is beyond them is paid in cash.

    Raises TooManySharesError.
    """
    assert split.ratio_new is not None  # noqa: S101 - an Adjustment checks itself
    assert split.ratio_old is not None  # noqa: S101
    exact = EXACT.divide(EXACT.multiply(qty, split.ratio_new), split.ratio_old)
    if exact.copy_abs() > MOST_SHARES:
        raise TooManySharesError(split)
    return exact.quantize(SHARE_STEP, ROUND_DOWN, EXACT)


def spun_off_cost(cost: Decimal, spin_off: Adjustment) -> Decimal:
    """Return the signed part of `cost` that a spin-off takes along."""
    assert spin_off.ratio_new is not None  # noqa: S101 - an Adjustment checks itself
    assert spin_off.ratio_old is not None  # noqa: S101
    if spin_off.ratio_new == spin_off.ratio_old:
        return cost
    exact = EXACT.divide(EXACT.multiply(cost, spin_off.ratio_new), spin_off.ratio_old)
    moved = exact.quantize(COST_STEP, context=EXACT)
    return cost if moved.copy_abs() > cost.copy_abs() else moved


def _adjusted(position: Position, adjustment: Adjustment) -> Position:
    amount = adjustment.amount or ZERO
    match adjustment.kind:
        case AdjustmentKind.DIVIDEND | AdjustmentKind.INCOME:
            return _changed(position, income=EXACT.add(position.income, amount))
        case AdjustmentKind.FEE:
            return _changed(position, fees=EXACT.add(position.fees, amount))
        case AdjustmentKind.CASH_IN_LIEU:
            return _changed(position, realized_pnl=EXACT.add(position.realized_pnl, amount))
        case AdjustmentKind.TRANSFER | AdjustmentKind.MOVE:
            return _transferred(position, adjustment.qty or ZERO, amount, adjustment)
        case AdjustmentKind.CASH | AdjustmentKind.UNCLASSIFIED:
            return position  # none of the P&L, or not known to be
        case _:
            return _split(position, adjustment)


def _split(position: Position, split: Adjustment) -> Position:
    assert split.ratio_new is not None  # noqa: S101 - an Adjustment checks itself
    assert split.ratio_old is not None  # noqa: S101
    qty = after_split(position.qty, split)
    # Shares times `ratio_old`, so that a third of a share stays exact.
    left = EXACT.subtract(EXACT.multiply(position.qty, split.ratio_new), EXACT.multiply(qty, split.ratio_old))
    if not left:
        return _changed(position, qty=qty)
    whole = EXACT.multiply(position.qty, split.ratio_new)
    removed = cost_of(position.cost_basis, whole, left.copy_negate())
    cash = removed
    if split.amount is not None:
        cash = EXACT.divide(EXACT.multiply(left, split.amount), split.ratio_old).quantize(COST_STEP, context=EXACT)
    return _changed(
        position,
        qty=qty,
        cost_basis=EXACT.subtract(position.cost_basis, removed),
        realized_pnl=EXACT.add(position.realized_pnl, EXACT.subtract(cash, removed)),
        opened_at=position.opened_at if qty else None,
    )


def _transferred(position: Position, qty: Decimal, cost: Decimal, entry: Adjustment) -> Position:
    if not qty and position.qty and entry.kind is AdjustmentKind.TRANSFER:
        # Another cost of the same shares: no money has moved, so what the cost gains has been realized before.
        return _changed(
            position,
            cost_basis=EXACT.add(position.cost_basis, cost),
            realized_pnl=EXACT.add(position.realized_pnl, cost),
        )
    held = EXACT.add(position.qty, qty)
    basis = EXACT.add(position.cost_basis, cost)
    if not held:
        # Cost without shares is a loss (or a gain) that has happened.
        realized = EXACT.subtract(position.realized_pnl, basis)
        return _changed(position, qty=held, cost_basis=ZERO, realized_pnl=realized, opened_at=None)
    is_turned = not position.qty or (held > ZERO) != (position.qty > ZERO)
    return _changed(position, qty=held, cost_basis=basis, opened_at=entry.at if is_turned else position.opened_at)


def _merged(old: Position, new: Position) -> Position:
    qty = EXACT.add(old.qty, new.qty)
    opened = [position.opened_at for position in (old, new) if position.opened_at is not None]
    merged = Position(
        new.symbol,
        ZERO,
        ZERO,
        EXACT.add(old.realized_pnl, new.realized_pnl),
        EXACT.add(old.fees, new.fees),
        None,
        EXACT.add(old.income, new.income),
    )
    cost = EXACT.add(old.cost_basis, new.cost_basis)
    if not qty:
        return _changed(merged, realized_pnl=EXACT.subtract(merged.realized_pnl, cost))
    return _changed(merged, qty=qty, cost_basis=cost, opened_at=min(opened))


def _changed(position: Position, **changes: Decimal | datetime | None) -> Position:
    # dataclasses.replace, which mypy cannot check either, takes three times as long.
    values = [changes.get(name, getattr(position, name)) for name in Position.__slots__]
    return Position(*values)
