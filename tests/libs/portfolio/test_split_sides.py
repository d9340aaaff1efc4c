"""A split that is booked under a date without a time: which prices of that day are before it."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from libs.market_data.freshness import ClosingPrice
from libs.portfolio.adjustments import AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.closes import SessionDates, SymbolCloses, day_closes
from libs.portfolio.days import day_gain, day_start
from libs.portfolio.split_sides import SplitSide, side_of
from tests.support.portfolio import adjustment, book_of, fill

D = Decimal
WEDNESDAY, FRIDAY, MONDAY = date(2026, 11, 25), date(2026, 11, 27), date(2026, 11, 30)
BOUGHT = fill(100, 100, filled_at=datetime(2026, 11, 2, 15, tzinfo=UTC))


class Closes:
    def __init__(self, prices: Mapping[date, str]) -> None:
        self.prices = prices

    def close(self, _symbol: str, session: date) -> ClosingPrice | None:
        price = self.prices.get(session)
        return None if price is None else ClosingPrice(D(price), session)


def split(day: date, new: object = 10, old: object = 1):
    return adjustment(
        AdjustmentKind.SPLIT, day_start(day), adjustment_id=f"activity:split:AAPL:{day}", ratio_new=new, ratio_old=old
    )


def closes_on_monday(book: Book, prices: Mapping[date, str], completed: date = FRIDAY) -> SymbolCloses:
    return day_closes(book, Closes(prices), SessionDates(MONDAY, FRIDAY, completed)).symbols["AAPL"]


def gained(book: Book, known: SymbolCloses, mark: str) -> Decimal | None:
    if known.overnight_value is None:
        return None
    return day_gain(book.day(MONDAY)["AAPL"], book.positions["AAPL"].qty * D(mark), known.overnight_value)


@pytest.mark.parametrize(
    ("closes", "mark", "day"),
    [
        # Booked a session early: 1,000 shares at 121 less 100 at 1,200.
        ({FRIDAY: "1200", MONDAY: "121"}, "121", 1000),
        ({WEDNESDAY: "1190", FRIDAY: "1200"}, "121", 1000),
        ({FRIDAY: "1200"}, "121", 1000),
        # In effect on the date it is booked under.
        ({WEDNESDAY: "1190", FRIDAY: "120"}, "121", 1000),
        ({FRIDAY: "120", MONDAY: "121"}, "121", 1000),
        ({FRIDAY: "120"}, "121", 1000),
        # Neither: it is not said which.
        ({FRIDAY: "400"}, "121", None),
    ],
)
def test_the_jump_between_prices_tells_the_side_of_the_close(closes, mark, day) -> None:
    book = book_of(BOUGHT, split(FRIDAY))
    assert gained(book, closes_on_monday(book, closes).settled(D(mark)), mark) == day


@pytest.mark.parametrize(("friday", "mark"), [("1.20", "12.10"), ("12", "12.10")])
def test_a_reverse_split(friday, mark) -> None:
    book = book_of(BOUGHT, split(FRIDAY, 1, 10))
    assert gained(book, closes_on_monday(book, {FRIDAY: friday}).settled(D(mark)), mark) == 1


def test_without_a_later_price_the_day_is_unknown() -> None:
    book = book_of(BOUGHT, split(FRIDAY))
    assert closes_on_monday(book, {FRIDAY: "1200"}).settled(None).overnight_value is None


def test_a_split_that_a_person_recorded_has_a_time() -> None:
    book = book_of(BOUGHT, adjustment(AdjustmentKind.SPLIT, day_start(FRIDAY), ratio_new=10, ratio_old=1))
    known = closes_on_monday(book, {FRIDAY: "1200"})
    assert (known.undecided_ratio, known.previous_close) == (None, 1200)


def test_a_price_of_the_day_that_is_not_split_yet() -> None:
    book = book_of(BOUGHT, split(MONDAY))
    known = closes_on_monday(book, {FRIDAY: "1200"})
    assert known.previous_close == 120
    assert [known.is_before_todays_split(D(price)) for price in ("1195", "119")] == [True, False]


@pytest.mark.parametrize(
    ("price", "after", "ratio", "side"),
    [
        ("100", "50", "2", SplitSide.BEFORE),
        ("52", "50", "2", SplitSide.AFTER),
        ("71", "50", "2", SplitSide.UNCLEAR),
        ("5", "50", "0.1", SplitSide.BEFORE),
        ("0", "50", "2", SplitSide.UNCLEAR),
        ("50", "50", "1", SplitSide.UNCLEAR),
        ("105", "100", "1.05", SplitSide.UNCLEAR),
        ("100", "100", "1.05", SplitSide.UNCLEAR),
    ],
)
def test_sides(price, after, ratio, side) -> None:
    assert side_of(D(price), D(after), D(ratio)) is side


def test_fills_of_the_day_are_on_the_side_that_the_ledger_says() -> None:
    sold = fill(-10, 1200, fill_id="s", filled_at=datetime(2026, 11, 27, 16, tzinfo=UTC))
    book = book_of(BOUGHT, sold, split(FRIDAY + timedelta(days=1)))
    position = book.positions["AAPL"]
    assert (position.qty, position.realized_pnl) == (900, 11_000)
    assert gained(book, closes_on_monday(book, {FRIDAY: "1200"}), "121") == 900
