"""Cost by Alpaca's method: the documentation's own example, and what must hold of any history."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.portfolio.adjustments import AdjustmentKind
from libs.portfolio.alpaca_cost import alpaca_holdings, sync_day
from libs.portfolio.days import day_start
from libs.portfolio.entries import Entry
from libs.portfolio.fills import EXACT
from tests.libs.portfolio.test_days import history
from tests.support.portfolio import OPENING, adjustment, book_of, fill

DAY = timedelta(days=1)


def alpaca_costs(entries: list[Entry], now: datetime) -> dict[str, Decimal]:
    return {symbol: holding.cost for symbol, holding in alpaca_holdings(entries, now).items()}


WORKED_EXAMPLE = [
    fill(100, 10, fill_id="1"),
    fill(50, 12, fill_id="2", filled_at=OPENING + timedelta(hours=1)),
    fill(30, 15, fill_id="3", filled_at=OPENING + DAY),
    fill(-120, 16, fill_id="4", filled_at=OPENING + 2 * DAY),
]


def average(now: datetime, *entries: object) -> Decimal:
    position = book_of(*entries).alpaca_positions(now)["AAPL"]  # type: ignore[arg-type]
    assert position.avg_entry_price is not None
    return position.avg_entry_price.quantize(Decimal("0.0001"))


def test_the_worked_example_of_the_documentation() -> None:
    # Weighted average while the day of the sale lasts, compressed first-in-first-out from the next morning's sync on.
    assert average(OPENING + 2 * DAY + timedelta(hours=3), *WORKED_EXAMPLE) == Decimal("11.3889")
    assert average(OPENING + 3 * DAY, *WORKED_EXAMPLE) == Decimal("12.8333")
    assert book_of(*WORKED_EXAMPLE).positions["AAPL"].cost_basis == Decimal("683.333333333333"), "60 at 2050 / 180"


def test_before_a_sale_both_methods_agree() -> None:
    for days in (1, 2, 5):
        assert average(OPENING + days * DAY, *WORKED_EXAMPLE[:3]) == Decimal("11.3889")


def test_what_is_not_in_the_cost_has_been_realized() -> None:
    book = book_of(*WORKED_EXAMPLE)
    ours, theirs = book.positions["AAPL"], book.alpaca_positions(OPENING + 3 * DAY)["AAPL"]
    assert ours.realized_pnl - ours.cost_basis == theirs.realized_pnl - theirs.cost_basis
    assert theirs.cost_basis == 770
    assert theirs.realized_pnl == 120 * 16 - (1600 * 120 / 150)


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2025, 10, 21, 6, 29, 59, tzinfo=UTC), 20),
        (datetime(2025, 10, 21, 6, 30, tzinfo=UTC), 21),
        (datetime(2025, 10, 21, 23, 59, tzinfo=UTC), 21),
    ],
)
def test_a_day_of_the_books_ends_with_the_next_mornings_sync(moment: datetime, day: int) -> None:
    assert sync_day(moment).day == day


def test_a_day_with_both_sides_meets_the_older_shares_first() -> None:
    entries = [
        fill(10, 100, fill_id="1"),
        fill(10, 120, fill_id="2", filled_at=OPENING + DAY),
        fill(-15, 130, fill_id="3", filled_at=OPENING + DAY + timedelta(minutes=5)),
        fill(20, 110, fill_id="4", filled_at=OPENING + DAY + timedelta(minutes=9)),
    ]
    # The 10 older shares leave, then 5 of the day's 30 bought at (1200 + 2200) / 30.
    assert alpaca_costs(entries, OPENING + 2 * DAY)["AAPL"] == Decimal("2833.333333333333")
    intraday = Decimal(2200) - 15 * Decimal(110) + 2200
    assert alpaca_costs(entries, OPENING + DAY + timedelta(hours=1))["AAPL"] == intraday


def test_a_day_that_turns_the_position_leaves_the_rest_at_its_own_average() -> None:
    entries = [fill(10, 100, fill_id="1"), fill(-30, 90, fill_id="2", filled_at=OPENING + DAY)]
    assert alpaca_costs(entries, OPENING + DAY)["AAPL"] == -1800
    assert alpaca_costs(entries, OPENING + 2 * DAY)["AAPL"] == -1800


def test_a_split_changes_shares_and_leaves_the_lots_their_cost() -> None:
    entries = [
        fill(10, 100, fill_id="1"),
        fill(10, 120, fill_id="2", filled_at=OPENING + DAY),
        adjustment(AdjustmentKind.SPLIT, day_start((OPENING + 2 * DAY).date()), ratio_new=2, ratio_old=1),
        fill(-20, 70, fill_id="3", filled_at=OPENING + 2 * DAY),
    ]
    assert alpaca_costs(entries, OPENING + 3 * DAY)["AAPL"] == 1200


def test_a_rename_takes_the_lots_along() -> None:
    entries = [
        fill(10, 100, fill_id="1", symbol="FB"),
        adjustment(AdjustmentKind.SYMBOL_CHANGE, day_start((OPENING + DAY).date()), "FB", new_symbol="META"),
        fill(10, 120, fill_id="2", symbol="META", filled_at=OPENING + DAY),
        fill(-10, 70, fill_id="3", symbol="META", filled_at=OPENING + 2 * DAY),
    ]
    assert alpaca_costs(entries, OPENING + 3 * DAY) == {"FB": 0, "META": 1200}


def test_what_a_transfer_says_of_the_cost_stands() -> None:
    transfer = adjustment(AdjustmentKind.TRANSFER, OPENING + DAY, qty=-5, amount=-800)
    assert alpaca_costs([fill(10, 100), transfer], OPENING + 2 * DAY)["AAPL"] == 200
    correction = adjustment(AdjustmentKind.TRANSFER, OPENING + DAY, qty=0, amount="0.01")
    assert alpaca_costs([fill(10, 100), correction], OPENING + 2 * DAY)["AAPL"] == Decimal("1000.01")


def test_a_transfer_leaves_the_trades_of_its_day_in_place() -> None:
    entries = [
        *WORKED_EXAMPLE,
        adjustment(AdjustmentKind.TRANSFER, OPENING + 2 * DAY + timedelta(hours=1), qty=0, amount="-0.05"),
    ]
    # Still the weighted average of the running day, less what was taken over; compressed only from the sync on.
    assert alpaca_costs(entries, OPENING + 2 * DAY + timedelta(hours=2))["AAPL"] == Decimal("683.283333333333")
    assert alpaca_costs(entries, OPENING + 3 * DAY)["AAPL"] == Decimal("769.95")


@given(seed=st.integers(0, 2**32 - 1))
def test_any_history_keeps_the_same_shares_and_money(seed: int) -> None:
    book = book_of(*history(Random(seed)))
    for now in (OPENING + DAY, OPENING + 9 * DAY):
        theirs = book.alpaca_positions(now)
        for symbol, ours in book.positions.items():
            assert theirs[symbol].qty == ours.qty
            assert EXACT.subtract(theirs[symbol].realized_pnl, theirs[symbol].cost_basis) == EXACT.subtract(
                ours.realized_pnl, ours.cost_basis
            )
            assert ours.qty or not theirs[symbol].cost_basis, "no shares, no cost"
