from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.freshness import UNAVAILABLE, Mark, MarkRule, MarkState, PriceSource
from libs.portfolio.fills import EXACT, ZERO, Fill
from libs.portfolio.pnl import ClosedPnl, DayUnknown
from libs.portfolio.positions import flat, fold_fills
from libs.portfolio.rounding import CENT, plain_number, rounded_money, rounded_price
from libs.portfolio.valuation import RowMemory, total_pnl, value_position, value_positions
from tests.support.portfolio import amounts, day_activity, fill, fill_lists, held, valuable, valued

DAY = date(2025, 10, 20)
SEEN = datetime(2025, 10, 20, 14, 30, 15, 123456, tzinfo=UTC)
MARK = Mark(
    PriceSource.REAL_TIME,
    Decimal("152.00"),
    Decimal("151.99"),
    Decimal("152.01"),
    SEEN,
    0.21249,
    state=MarkState.LIVE,
    rule=MarkRule.MID,
    last_trade=Decimal("152.005"),
    last_trade_at=SEEN,
    feed="iex",
    received_at=SEEN,
)
HELD = held(100)


def mark(price: object) -> Mark:
    return Mark(PriceSource.REAL_TIME, Decimal(str(price)), last_updated=SEEN, age_s=0.0)


def test_the_sample_of_the_contract() -> None:
    row = valued(fold_fills([fill(100, "150.00")]), HELD, MARK, Decimal("150.80"))
    assert row._asdict() | {"session": "regular"} == {
        "symbol": "AAPL",
        "unrealized_pnl": Decimal("200.00"),
        "current_price": Decimal("152.00"),
        "price_source": PriceSource.REAL_TIME,
        "last_updated": SEEN,
        "qty": Decimal(100),
        "avg_entry_price": Decimal("150.00"),
        "market_value": Decimal("15200.00"),
        "cost_basis": Decimal("15000.00"),
        "unrealized_pnl_pct": Decimal("1.3333"),
        "realized_pnl": Decimal("0.00"),
        "fees": Decimal("0.00"),
        "day_pnl": Decimal("120.00"),
        "bid": Decimal("151.99"),
        "ask": Decimal("152.01"),
        "previous_close": Decimal("150.80"),
        "price_age_seconds": 0.212,
        "closing_date": None,
        "state": MarkState.LIVE,
        "session": "regular",
        "mark_rule": MarkRule.MID,
        "last_trade": Decimal("152.005"),
        "last_trade_at": SEEN,
        "feed": "iex",
        "received_at": SEEN,
        "liquidation_price": Decimal("151.99"),
        "liquidation_pnl": Decimal("199.00"),
        "extended_price": None,
        "extended_pnl": None,
        "income": Decimal(0),
        "realized_today": Decimal(0),
        "fees_today": Decimal(0),
        "income_today": Decimal(0),
        "overnight_qty": Decimal(100),
        "cost": Decimal(15000),
        "overnight_value": Decimal(15080),
        "day_cash": Decimal(0),
        "suspect_since": None,
        "stale_reason": None,
        "streamable": True,
        "day_unknown": None,
    }
    assert [str(number) for number in (row.unrealized_pnl, row.qty, row.avg_entry_price, row.realized_pnl)] == [
        "200.00",
        "100",
        "150.00",
        "0.00",
    ]


@pytest.mark.parametrize(
    ("symbol", "is_streamable"),
    [("BRK.B", True), ("ABC.WS.A", True), ("AAPL240119C00100000", False), ("BTC/USD", False), ("ABC/WS", False)],
)
def test_a_row_says_whether_its_symbol_is_streamed(symbol: str, is_streamable: bool) -> None:
    assert valued(flat(symbol), HELD, UNAVAILABLE, None).streamable is is_streamable


def test_a_row_says_why_its_day_is_unknown() -> None:
    asked = valuable(fold_fills([fill(100, 150)]), HELD, MARK, None)
    rows = RowMemory()
    assert rows.value_position(asked).day_unknown is DayUnknown.PREVIOUS_CLOSE
    assert rows.value_position(asked._replace(day_unknown=DayUnknown.ACTIVITY)).day_unknown is DayUnknown.ACTIVITY
    assert rows.value_position(asked).day_unknown is DayUnknown.PREVIOUS_CLOSE


def test_a_short_gains_when_the_price_falls() -> None:
    row = valued(fold_fills([fill(-100, 150)]), held(-100), mark(140), Decimal(145))
    assert (row.qty, row.market_value, row.cost_basis) == (-100, -14000, -15000)
    assert (row.unrealized_pnl, row.unrealized_pnl_pct) == (1000, Decimal("6.6667"))
    assert row.day_pnl == 500


def test_without_a_price_nothing_that_needs_one_is_said() -> None:
    position = fold_fills([fill(100, 150, fee=Decimal(1)), fill(-50, 160, fee=Decimal(1))])
    row = valued(position, HELD, UNAVAILABLE, Decimal(150))
    for name in ("current_price", "bid", "ask", "market_value", "unrealized_pnl", "unrealized_pnl_pct", "day_pnl"):
        assert getattr(row, name) is None, name
    assert (row.qty, row.avg_entry_price, row.cost_basis, row.realized_pnl, row.fees) == (50, 150, 7500, 500, 2)


def test_a_flat_position_has_neither_average_nor_percentage() -> None:
    row = valued(fold_fills([fill(10, 100), fill(-10, 110)]), held(0), MARK, Decimal(100))
    assert (row.avg_entry_price, row.unrealized_pnl_pct) == (None, None)
    assert (row.unrealized_pnl, row.market_value, row.realized_pnl) == (0, 0, 100)


def test_the_day_is_unknown_without_the_previous_close() -> None:
    row = valued(fold_fills([fill(100, 150)]), HELD, MARK, None)
    assert row.day_pnl is None
    assert row.previous_close is None
    assert row.unrealized_pnl == 200


def test_the_day_counts_overnight_shares_todays_fills_and_todays_fees() -> None:
    fills = [
        fill(100, 150, filled_at=SEEN - timedelta(days=3)),
        fill(-40, 155, fee=Decimal("1.50"), filled_at=SEEN),
    ]
    row = valued(fold_fills(fills), day_activity(fills, DAY), mark(152), Decimal(151))
    assert row.day_pnl == 100 * 1 + (-40 * 152 + 40 * 155) - Decimal("1.50")


def test_a_close_names_its_session() -> None:
    close = Mark(PriceSource.CLOSING, Decimal("150.80"), closing_date=date(2025, 10, 17))
    row = valued(fold_fills([fill(1, 150)]), HELD, close, None)
    assert (row.price_source, row.closing_date) == (PriceSource.CLOSING, date(2025, 10, 17))
    assert (row.last_updated, row.price_age_seconds, row.bid) == (None, None, None)


@pytest.mark.parametrize(
    ("amount", "money"),
    [
        ("0.005", "0.00"),
        ("0.015", "0.02"),
        ("0.025", "0.02"),
        ("-0.001", "0.00"),
        ("-0.005", "0.00"),
        ("-0.015", "-0.02"),
    ],
)
def test_money_is_rounded_half_to_even_and_never_negative_zero(amount: str, money: str) -> None:
    assert str(rounded_money(Decimal(amount))) == money


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        ("152", "152.00"),
        ("152.0000000000000", "152.00"),
        ("152.005", "152.005"),
        ("152.00500", "152.005"),
        ("3.33333333333333", "3.333333333"),
        ("1E+3", "1000.00"),
        ("0.00000000004", "0.00"),
        ("0.9999999999", "1.00"),
    ],
)
def test_prices_have_two_to_nine_decimals(price: str, shown: str) -> None:
    assert str(rounded_price(Decimal(price))) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [("100.000000000", "100"), ("1E+2", "100"), ("0.500", "0.5"), ("-3", "-3")]
)
def test_quantities_are_written_plainly(number: str, shown: str) -> None:
    assert str(plain_number(Decimal(number))) == shown


def test_totals_name_what_they_leave_out() -> None:
    priced = valuable(fold_fills([fill(100, 150)]), HELD, MARK, Decimal("150.80"))
    unpriced = valuable(fold_fills([fill(1, 5, symbol="ZZZ", fee=Decimal(1))]), held(0), UNAVAILABLE, None)
    totals = value_positions([priced, unpriced], ClosedPnl(realized=Decimal("12.345"))).totals
    assert (totals.complete, totals.unpriced) == (False, ("ZZZ",))
    assert (totals.total_unrealized, totals.total_market_value, totals.total_day_pnl) == (200, 15200, 120)
    assert (totals.total_realized, totals.realized_closed, totals.total_fees) == (Decimal("12.34"), Decimal("12.34"), 1)


def test_an_empty_book_is_complete_and_worth_nothing() -> None:
    totals = total_pnl([], ClosedPnl())
    assert totals.complete
    assert totals.unpriced == ()
    assert str(totals.total_unrealized) == str(totals.total_realized) == "0.00"


@given(
    books=st.lists(st.tuples(fill_lists(max_size=5), amounts, amounts), max_size=4),
    closed=amounts,
    fees=amounts,
    income=amounts,
)
def test_totals_are_the_sums_of_the_rows_as_shown(
    books: list[tuple[list[Fill], Decimal, Decimal]], closed: Decimal, fees: Decimal, income: Decimal
) -> None:
    inputs = [
        valuable(fold_fills(fills), day_activity(fills, DAY), mark(price), close) for fills, price, close in books
    ]
    rows, totals = (
        (report := value_positions(inputs, ClosedPnl(realized=closed, fees=fees, income=income))).rows,
        report.totals,
    )
    assert totals.total_unrealized == sum(row.unrealized_pnl or 0 for row in rows)
    assert totals.total_market_value == sum(row.market_value or 0 for row in rows)
    assert totals.total_day_pnl == sum(row.day_pnl or 0 for row in rows)
    assert totals.total_fees == sum((row.fees for row in rows), start=totals.closed.fees)
    assert totals.total_income == sum((row.income for row in rows), start=totals.closed.income)
    assert totals.total_realized == sum((row.realized_pnl for row in rows), start=totals.realized_closed)


@given(fills=fill_lists(), price=amounts, close=amounts)
def test_a_row_is_the_exact_figures_rounded_once(fills: list[Fill], price: Decimal, close: Decimal) -> None:
    position, day = fold_fills(fills), day_activity(fills, DAY)
    row = valued(position, day, mark(price), close)
    value = EXACT.multiply(position.qty, price)
    assert row.market_value is not None
    assert row.unrealized_pnl is not None
    assert EXACT.subtract(row.market_value, value).copy_abs() <= CENT / 2
    exact = EXACT.subtract(value, position.cost_basis)
    assert EXACT.subtract(row.unrealized_pnl, exact).copy_abs() <= CENT / 2
    assert (row.unrealized_pnl_pct is None) == (position.cost_basis == 0)
    for one in row._fields:
        number = getattr(row, one)
        if isinstance(number, Decimal):
            assert number.is_finite()
            assert not (number.is_zero() and number.is_signed())
            assert int(number.as_tuple().exponent) <= 0
            # What is exact has as many decimals as it needs.
            assert one in {"cost", "overnight_value", "day_cash"} or int(number.as_tuple().exponent) >= -9


@given(fills=fill_lists(), price=amounts, close=amounts)
def test_the_days_gain_is_the_change_of_wealth_since_the_close(
    fills: list[Fill], price: Decimal, close: Decimal
) -> None:
    day = date(2025, 10, 21)
    row = valued(fold_fills(fills), day_activity(fills, day), mark(price), close)
    later = day_activity(fills, date(2026, 1, 1))
    wealth_now = EXACT.subtract(EXACT.multiply(later.overnight_qty, price), EXACT.add(_spent(fills), _fees(fills)))
    yesterdays = [one for one in fills if one.filled_at < datetime(2025, 10, 21, 4, tzinfo=UTC)]
    held = fold_fills(yesterdays).qty if yesterdays else ZERO
    wealth_then = EXACT.subtract(EXACT.multiply(held, close), EXACT.add(_spent(yesterdays), _fees(yesterdays)))
    assert row.day_pnl == rounded_money(EXACT.subtract(wealth_now, wealth_then))


def _spent(fills: list[Fill]) -> Decimal:
    total = ZERO
    for one in fills:
        total = EXACT.add(total, one.signed_cost)
    return total


def _fees(fills: list[Fill]) -> Decimal:
    total = ZERO
    for one in fills:
        total = EXACT.add(total, one.fee)
    return total


@given(prices=st.lists(st.sampled_from(["152.00", "152.01", None]), min_size=1, max_size=6), closes=st.booleans())
def test_a_memory_of_rows_changes_no_figure(prices: list[str | None], *, closes: bool) -> None:
    memory, position = RowMemory(), fold_fills([fill(100, "150.00")])
    for step, price in enumerate(prices):
        mark = (
            UNAVAILABLE if price is None else Mark(PriceSource.REAL_TIME, Decimal(price), None, None, SEEN, step / 10)
        )
        close = Decimal("150.80") if closes and step % 2 else None
        asked = valuable(position, HELD, mark, close)
        assert memory.value_position(asked) == value_position(asked)
