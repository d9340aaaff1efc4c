"""Profit and loss: a position and a mark in, figures out. The only place that computes P&L, and where cents begin.

Everything is exact until the last step; then money has 2 decimals, percentages 4, prices up to 9, all half-even.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from typing import Final, NamedTuple

from libs.market_data.freshness import Mark, MarkState, PriceSource
from libs.market_data.symbols import is_symbol
from libs.market_data.trading_sessions import TradingPhase
from libs.portfolio.days import DayActivity, day_gain
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.pnl import ClosedPnl, DayUnknown, PnlReport, PnlTotals, PositionPnl, StatePnl, UnclassifiedCash
from libs.portfolio.positions import Position
from libs.portfolio.rounding import PCT_STEP, plain_number, rounded_money, rounded_price, rounded_to

AGE_DECIMALS: Final = 3

_HUNDRED: Final = Decimal(100)
_NO_MONEY: Final = Decimal("0.00")
_AGE: Final = PositionPnl._fields.index("price_age_seconds")


class Valuable(NamedTuple):
    """What one row is computed from.

    `previous_close` in USD per share of today, `overnight_value` the exact USD that the overnight shares were worth at
    it; None when unknown. `session` is which part of the trading day it is. `day_unknown` says why the day is not known
    although closes are there; None: nothing is the matter.
    """

    position: Position
    day: DayActivity
    mark: Mark
    previous_close: Decimal | None
    overnight_value: Decimal | None
    session: TradingPhase = TradingPhase.REGULAR
    day_unknown: DayUnknown | None = None


class _Booked(NamedTuple):
    """The part of a row that the ledger alone decides, rounded as the row shows it."""

    qty: Decimal
    avg_entry_price: Decimal | None
    cost_basis: Decimal
    realized_pnl: Decimal
    fees: Decimal
    income: Decimal
    realized_today: Decimal
    fees_today: Decimal
    income_today: Decimal
    overnight_qty: Decimal
    cost: Decimal
    day_cash: Decimal


def value_position(asked: Valuable) -> PositionPnl:
    """Return one row; no price gives nulls, never zeros."""
    return _row(asked, _booked(asked.position, asked.day))


def _row(asked: Valuable, booked: _Booked) -> PositionPnl:
    position, day, mark, previous_close, overnight, session, day_unknown = asked
    # Computed from what is shown: whoever works it out again from the row finds the same.
    price = rounded_price(mark.price)
    extended_price = rounded_price(mark.extended_price)
    value = gain = gain_pct = day_pnl = extended_pnl = None
    if price is not None:
        value = EXACT.multiply(position.qty, price)
        gain = EXACT.subtract(value, position.cost_basis)
        if position.cost_basis:
            gain_pct = EXACT.divide(EXACT.multiply(gain, _HUNDRED), position.cost_basis.copy_abs())
        if previous_close is not None and overnight is not None:
            day_pnl = day_gain(day, value, overnight)
        elif day_unknown is None:
            day_unknown = DayUnknown.PREVIOUS_CLOSE
        if extended_price is not None:
            extended_pnl = EXACT.multiply(position.qty, EXACT.subtract(extended_price, price))
    exit_price = rounded_price(mark.exit_ask if position.qty < ZERO else mark.exit_bid)
    exit_gain = None
    if exit_price is not None:
        exit_gain = EXACT.subtract(EXACT.multiply(position.qty, exit_price), position.cost_basis)
    return PositionPnl(
        position.symbol,
        _money(gain),
        price,
        mark.source,
        mark.last_updated,
        booked.qty,
        booked.avg_entry_price,
        _money(value),
        booked.cost_basis,
        None if gain_pct is None else rounded_to(gain_pct, PCT_STEP),
        booked.realized_pnl,
        booked.fees,
        _money(day_pnl),
        rounded_price(mark.bid),
        rounded_price(mark.ask),
        rounded_price(previous_close),
        _rounded_age(mark),
        mark.closing_date,
        mark.state,
        session,
        mark.rule,
        rounded_price(mark.last_trade),
        mark.last_trade_at,
        mark.feed,
        mark.received_at,
        exit_price,
        _money(exit_gain),
        extended_price,
        _money(extended_pnl),
        booked.income,
        booked.realized_today,
        booked.fees_today,
        booked.income_today,
        booked.overnight_qty,
        booked.cost,
        None if overnight is None else plain_number(overnight),
        booked.day_cash,
        mark.stale_reason,
        mark.suspect_since,
        is_symbol(position.symbol),
        day_unknown,
    )


def _booked(position: Position, day: DayActivity) -> _Booked:
    return _Booked(
        plain_number(position.qty),
        rounded_price(position.avg_entry_price),
        rounded_money(position.cost_basis),
        rounded_money(position.realized_pnl),
        rounded_money(position.fees),
        rounded_money(position.income),
        rounded_money(day.realized),
        rounded_money(day.fees),
        rounded_money(day.income),
        plain_number(day.overnight_qty),
        plain_number(position.cost_basis),
        plain_number(day.net_cash),
    )


def total_pnl(
    rows: Sequence[PositionPnl], closed: ClosedPnl, unclassified: tuple[UnclassifiedCash, ...] = ()
) -> PnlTotals:
    """Add up rounded rows; `closed` is what symbols no longer held have brought, still exact."""
    closed = closed.rounded()
    day_pnl = _total(row.day_pnl for row in rows)
    unpriced = tuple(row.symbol for row in rows if row.price_source is PriceSource.UNAVAILABLE)
    day_complete = all(row.day_pnl is not None for row in rows)
    return PnlTotals(
        total_unrealized=_total(row.unrealized_pnl for row in rows),
        total_realized=EXACT.add(_total(row.realized_pnl for row in rows), closed.realized),
        total_fees=EXACT.add(_total(row.fees for row in rows), closed.fees),
        total_day_pnl=day_pnl,
        total_market_value=_total(row.market_value for row in rows),
        realized_closed=closed.realized,
        complete=not unpriced and not unclassified,
        unpriced=unpriced,
        total_realized_today=EXACT.add(_total(row.realized_today for row in rows), closed.realized_today),
        total_income=EXACT.add(_total(row.income for row in rows), closed.income),
        total_income_today=EXACT.add(_total(row.income_today for row in rows), closed.income_today),
        day_complete=day_complete,
        total_liquidation_pnl=_total(row.liquidation_pnl for row in rows),
        liquidation_complete=all(row.liquidation_pnl is not None for row in rows),
        account_day_pnl=EXACT.add(day_pnl, closed.day_pnl) if day_complete and closed.day_pnl is not None else None,
        closed=closed,
        states=_by_state(rows),
        unclassified=unclassified,
    )


def _by_state(rows: Sequence[PositionPnl]) -> tuple[StatePnl, ...]:
    found: dict[MarkState, list[PositionPnl]] = {}
    for row in rows:
        found.setdefault(row.state, []).append(row)
    return tuple(
        StatePnl(
            state,
            len(of_state),
            _total_if_known([row.unrealized_pnl for row in of_state]),
            _total_if_known([row.market_value for row in of_state]),
            _total_if_known([row.day_pnl for row in of_state]),
        )
        for state, of_state in sorted(found.items())
    )


def value_positions(
    inputs: Iterable[Valuable],
    closed: ClosedPnl,
    memory: "RowMemory | None" = None,
    unclassified: tuple[UnclassifiedCash, ...] = (),
) -> PnlReport:
    """Value every input, in the order given, and total them. `memory` saves computing the same row twice."""
    value = value_position if memory is None else memory.value_position
    rows = tuple(value(one) for one in inputs)
    return PnlReport(rows, total_pnl(rows, closed, unclassified))


class _Remembered(NamedTuple):
    asked: Valuable
    booked: _Booked
    row: PositionPnl


class RowMemory:
    """The last row of each symbol and what it was computed from, so that the cost grows with what has changed.

    Of the same inputs only the price's age differs from one look to the next. Holds one row per symbol ever valued.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Remembered] = {}

    def value_position(self, asked: Valuable) -> PositionPnl:
        """Return what `value_position` would."""
        position, day, mark, previous_close, overnight, session, day_unknown = asked
        known = self._known.get(position.symbol)
        # What has not changed is the same object, and comparing that costs next to nothing.
        if known is None or known.asked.position is not position or known.asked.day is not day:
            booked = _booked(position, day)
        else:
            before, booked, row = known
            if (
                (before.mark is mark or before.mark.is_same_but_for_age(mark))
                and before.previous_close == previous_close
                and before.overnight_value == overnight
                and before.session is session
                and before.day_unknown is day_unknown
            ):
                # Built from its parts: `_replace` takes twice as long.
                return PositionPnl._make((*row[:_AGE], _rounded_age(mark), *row[_AGE + 1 :]))
        row = _row(asked, booked)
        self._known[position.symbol] = _Remembered(asked, booked, row)
        return row


def _rounded_age(mark: Mark) -> float | None:
    return None if mark.age_s is None else round(mark.age_s, AGE_DECIMALS)


def _total(amounts: Iterable[Decimal | None]) -> Decimal:
    with localcontext(EXACT):
        return sum((amount for amount in amounts if amount is not None), _NO_MONEY)


def _total_if_known(amounts: Sequence[Decimal | None]) -> Decimal | None:
    return None if None in amounts else _total(amounts)


def _money(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else rounded_money(amount)
