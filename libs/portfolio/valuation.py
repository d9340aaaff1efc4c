"""Profit and loss: a position and a mark in, figures out. The only place that computes P&L, and where cents begin.

Everything is exact until the last step; then money has 2 decimals, percentages 4, prices up to 9, all half-even.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from typing import Final, NamedTuple

from libs.market_data.freshness import Mark, PriceSource
from libs.portfolio.fills import EXACT
from libs.portfolio.positions import DayActivity, Position

CENT: Final = Decimal("0.01")
PCT_STEP: Final = Decimal("0.0001")
PRICE_STEP: Final = Decimal("1e-9")
AGE_DECIMALS: Final = 3

_HUNDRED: Final = Decimal(100)
_ONE: Final = Decimal(1)
_NO_MONEY: Final = Decimal("0.00")
# The same digits as EXACT, with nothing trapped but nonsense: rounding is what it is for.
_ROUND: Final = Context(prec=EXACT.prec, rounding=ROUND_HALF_EVEN)


class PositionPnl(NamedTuple):
    """One row of the P&L body, in its order and already rounded. Short: negative qty, value and cost.

    A tuple, because a thousand are built for one answer and a frozen dataclass costs three times as much to build.

    USD, shares and percent; `price_age_seconds` in seconds. None is unknown: without a price everything that needs one,
    `day_pnl` also without the previous close, the quote's fields when the mark is a close.
    """

    symbol: str
    unrealized_pnl: Decimal | None
    current_price: Decimal | None
    price_source: PriceSource
    last_updated: datetime | None
    qty: Decimal
    avg_entry_price: Decimal | None
    market_value: Decimal | None
    cost_basis: Decimal
    unrealized_pnl_pct: Decimal | None
    realized_pnl: Decimal
    fees: Decimal
    day_pnl: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    previous_close: Decimal | None
    price_age_seconds: float | None
    closing_date: date | None


@dataclass(frozen=True, slots=True)
class PnlTotals:
    """Sums of the rounded rows, USD. Unpriced rows are left out and named; then `complete` is false.

    `total_realized` covers the whole ledger: the rows and `realized_closed`, the part of symbols no longer held.
    """

    total_unrealized: Decimal
    total_realized: Decimal
    total_fees: Decimal
    total_day_pnl: Decimal
    total_market_value: Decimal
    realized_closed: Decimal
    complete: bool
    unpriced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PnlReport:
    """Every row and their totals, as of one moment."""

    rows: tuple[PositionPnl, ...]
    totals: PnlTotals


class Valuable(NamedTuple):
    """What one row is computed from. `previous_close` in USD per share, None when unknown."""

    position: Position
    day: DayActivity
    mark: Mark
    previous_close: Decimal | None


def value_position(position: Position, day: DayActivity, mark: Mark, previous_close: Decimal | None) -> PositionPnl:
    """Return the row of `position` at `mark`; no price gives nulls, never zeros."""
    price, cost = mark.price, position.cost_basis
    qty, avg_entry_price, rounded_cost, realized_pnl, fees = _without_price(position)
    value = gain = gain_pct = day_gain = None
    if price is not None:
        value = EXACT.multiply(position.qty, price)
        gain = EXACT.subtract(value, cost)
        if cost:
            gain_pct = EXACT.divide(EXACT.multiply(gain, _HUNDRED), cost.copy_abs())
        if previous_close is not None:
            day_gain = _day_gain(day, price, previous_close)
    return PositionPnl(
        symbol=position.symbol,
        unrealized_pnl=None if gain is None else _rounded(gain, CENT),
        current_price=rounded_price(price),
        price_source=mark.source,
        last_updated=mark.last_updated,
        qty=qty,
        avg_entry_price=avg_entry_price,
        market_value=None if value is None else _rounded(value, CENT),
        cost_basis=rounded_cost,
        unrealized_pnl_pct=None if gain_pct is None else _rounded(gain_pct, PCT_STEP),
        realized_pnl=realized_pnl,
        fees=fees,
        day_pnl=None if day_gain is None else _rounded(day_gain, CENT),
        bid=rounded_price(mark.bid),
        ask=rounded_price(mark.ask),
        previous_close=rounded_price(previous_close),
        price_age_seconds=_rounded_age(mark),
        closing_date=mark.closing_date,
    )


@lru_cache(maxsize=4096)
def _without_price(position: Position) -> tuple[Decimal, Decimal | None, Decimal, Decimal, Decimal]:
    """Return quantity, average, cost, realized P&L and fees as the row shows them.

    Kept: a position changes with a fill, its price many times a second.
    """
    return (
        plain_number(position.qty),
        rounded_price(position.avg_entry_price),
        _rounded(position.cost_basis, CENT),
        _rounded(position.realized_pnl, CENT),
        _rounded(position.fees, CENT),
    )


def total_pnl(rows: Sequence[PositionPnl], realized_closed: Decimal) -> PnlTotals:
    """Add up rounded rows; `realized_closed` is the exact USD earned in symbols no longer held."""
    closed = _rounded(realized_closed, CENT)
    unpriced = tuple(row.symbol for row in rows if row.price_source is PriceSource.UNAVAILABLE)
    return PnlTotals(
        total_unrealized=_total(row.unrealized_pnl for row in rows),
        total_realized=EXACT.add(_total(row.realized_pnl for row in rows), closed),
        total_fees=_total(row.fees for row in rows),
        total_day_pnl=_total(row.day_pnl for row in rows),
        total_market_value=_total(row.market_value for row in rows),
        realized_closed=closed,
        complete=not unpriced,
        unpriced=unpriced,
    )


def value_positions(
    inputs: Iterable[Valuable], realized_closed: Decimal, memory: "RowMemory | None" = None
) -> PnlReport:
    """Value every input, in the order given, and total them. `memory` saves computing the same row twice."""
    value = value_position if memory is None else memory.value_position
    rows = tuple(value(*one) for one in inputs)
    return PnlReport(rows, total_pnl(rows, realized_closed))


class RowMemory:
    """The last row of each symbol and what it was computed from, so that the cost grows with what has changed.

    Of the same inputs only the price's age differs from one look to the next. Holds one row per symbol ever valued.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Valuable, PositionPnl]] = {}

    def value_position(
        self, position: Position, day: DayActivity, mark: Mark, previous_close: Decimal | None
    ) -> PositionPnl:
        """Return what `value_position` would."""
        known = self._known.get(position.symbol)
        if known is not None:
            (known_position, known_day, known_mark, known_close), row = known
            # What has not changed is the same object, and comparing that costs next to nothing. Of the mark all counts
            # but its age.
            if (
                known_position is position
                and known_day is day
                and (known_close is previous_close or known_close == previous_close)
                and known_mark[:5] == mark[:5]
                and known_mark.closing_date == mark.closing_date
            ):
                # The age stands last but one. Built from its parts: `_replace` takes twice as long.
                return PositionPnl(*row[:-2], _rounded_age(mark), row[-1])
        row = value_position(position, day, mark, previous_close)
        self._known[position.symbol] = (Valuable(position, day, mark, previous_close), row)
        return row


def _rounded_age(mark: Mark) -> float | None:
    return None if mark.age_s is None else round(mark.age_s, AGE_DECIMALS)


def rounded_money(amount: Decimal) -> Decimal:
    """Return USD to the cent, half to even, and never -0.00."""
    return _rounded(amount, CENT)


def rounded_price(price: Decimal | None) -> Decimal | None:
    """Return a price with at least 2 and at most 9 decimals; None stays None."""
    if price is None:
        return None
    in_cents = price.quantize(CENT, None, _ROUND)
    if in_cents == price:
        return in_cents
    rounded = price.quantize(PRICE_STEP, None, _ROUND)
    # What is whole cents only after this rounding keeps its two decimals.
    return in_cents if in_cents == rounded else rounded.normalize(_ROUND)


def plain_number(number: Decimal) -> Decimal:
    """Return the same number as people write it: 100, not 1E+2 nor 100.000000000; 0.5, not 0.500."""
    whole = number.quantize(_ONE, None, _ROUND)
    return whole if whole == number else number.normalize(_ROUND)


def _day_gain(day: DayActivity, price: Decimal, previous_close: Decimal) -> Decimal:
    held = EXACT.multiply(day.overnight_qty, EXACT.subtract(price, previous_close))
    traded = EXACT.subtract(EXACT.multiply(day.net_qty, price), day.net_cost)
    return EXACT.subtract(EXACT.add(held, traded), day.fees)


def _rounded(amount: Decimal, step: Decimal) -> Decimal:
    rounded = amount.quantize(step, None, _ROUND)
    # A lost fraction of a cent must not leave -0.00 behind.
    return rounded or rounded.copy_abs()


def _total(amounts: Iterable[Decimal | None]) -> Decimal:
    with localcontext(EXACT):
        return sum((amount for amount in amounts if amount is not None), _NO_MONEY)
