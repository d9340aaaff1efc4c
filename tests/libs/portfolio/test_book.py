from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from libs.portfolio.adjustments import AdjustmentKind
from libs.portfolio.book import Book, Revision, Units
from libs.portfolio.days import day_start
from libs.portfolio.entries import Arrival
from libs.portfolio.fills import Fill
from libs.portfolio.folding import News, Voiding, advance, most_to_fold
from libs.portfolio.positions import fold_fills
from tests.support.portfolio import OPENING, adjustment, book_of, day_activity, fill, fill_lists

SYMBOLS = ("AAPL", "MSFT", "BRK.B")
HOUR = timedelta(hours=1)


def arrive(*fills: Fill) -> list[Arrival]:
    return [Arrival(seq, one) for seq, one in enumerate(fills, start=1)]


def test_an_empty_book_holds_nothing() -> None:
    book = Book()
    assert book.revision == Revision(0, 0)
    assert book.open_positions == ()
    assert book.closed == (0, 0, 0)
    assert book.day(date(2025, 10, 20)) == {}
    assert advance(book, News([])) is book


def test_open_positions_come_by_symbol_and_flat_ones_are_kept() -> None:
    fills = [
        fill(10, 100, fill_id="1", symbol="MSFT"),
        fill(10, 100, fill_id="2", fee=Decimal(1)),
        fill(-10, 120, fill_id="3", fee=Decimal(2)),
        fill(5, 50, fill_id="4", symbol="F", fee=Decimal(4)),
    ]
    book = advance(Book(), News(arrive(*fills)))
    assert [position.symbol for position in book.open_positions] == ["F", "MSFT"]
    assert book.positions["AAPL"].realized_pnl == 200
    assert book.closed == (200, 3, 0)


def test_a_late_fill_recomputes() -> None:
    on_time = [fill(10, 100, fill_id="1"), fill(-10, 120, fill_id="2", filled_at=OPENING + timedelta(hours=1))]
    book = advance(Book(), News(arrive(*on_time)))
    late = fill(10, 50, fill_id="3", filled_at=OPENING - timedelta(hours=1))
    book = advance(book, News([Arrival(3, late)]))
    assert book.positions["AAPL"].realized_pnl == 450
    assert [step.place.seq for step in book.steps["AAPL"]] == [3, 1, 2]


def test_a_voided_fill_counts_no_longer() -> None:
    book = advance(Book(), News(arrive(fill(10, 100, fill_id="1"), fill(10, 200, fill_id="2"))))
    book = advance(book, News(voids=[Voiding(1, "2", "AAPL")]))
    assert book.positions["AAPL"] == fold_fills([fill(10, 100)])
    assert book.revision == Revision(2, 1)


def test_voiding_all_fills_of_a_symbol_forgets_it() -> None:
    book = advance(Book(), News(arrive(fill(10, 100, fill_id="1"))))
    book = advance(book, News(voids=[Voiding(1, "1", "AAPL")]))
    assert book.positions == {}
    assert book.steps == {}
    assert book.day(date(2025, 10, 20)) == {}
    assert advance(book, News([Arrival(2, fill(1, 1, fill_id="2"))])).positions["AAPL"].qty == 1


def test_what_is_folded_already_is_skipped() -> None:
    arrivals = arrive(fill(10, 100, fill_id="1"), fill(10, 100, fill_id="2"))
    voids = [Voiding(1, "1", "AAPL")]
    book = advance(Book(), News(arrivals, voids))
    assert advance(book, News(arrivals, voids)) is book


def test_days_are_computed_once_per_date() -> None:
    book = advance(Book(), News(arrive(fill(10, 100, fill_id="1"))))
    today = book.day(date(2025, 10, 20))
    assert book.day(date(2025, 10, 20)) is today
    assert book.day(date(2025, 10, 21))["AAPL"].overnight_qty == 10
    assert today["AAPL"].overnight_qty == 0


def test_only_what_changed_is_worked_out_again() -> None:
    book = advance(Book(), News(arrive(fill(10, 100, fill_id="1"), fill(10, 100, fill_id="2", symbol="F"))))
    now = OPENING + timedelta(hours=1)
    days, holdings = book.day(OPENING.date()), book.alpaca_holdings(now)
    later = advance(book, News([Arrival(3, fill(5, 90, fill_id="3", symbol="F"))]))
    assert later.day(OPENING.date())["AAPL"] is days["AAPL"]
    assert later.alpaca_holdings(now)["AAPL"] is holdings["AAPL"]
    assert later.alpaca_holdings(now)["F"].cost == 1450
    assert later.day(OPENING.date())["F"] != days["F"]


def test_how_much_a_late_fill_and_a_void_make_us_fold_again() -> None:
    fills = [fill(10, 100, fill_id=str(one), filled_at=OPENING + timedelta(minutes=one)) for one in range(100)]
    rename = adjustment(AdjustmentKind.SYMBOL_CHANGE, day_start(date(2026, 1, 1)), "F", new_symbol="AAPL")
    book = advance(Book(), News(arrive(*fills, fill(1, 1, fill_id="f", symbol="F")), adjustments=[Arrival(1, rename)]))
    at = OPENING + timedelta(minutes=90, seconds=30)
    assert most_to_fold(book, News([Arrival(102, fill(1, 1, fill_id="l", filled_at=at))])) == 1 + 9 + 2
    assert most_to_fold(book, News(voids=[Voiding(1, "f", "F")])) == 100 + 1 + 2
    assert most_to_fold(book, News([Arrival(102, fill(1, 1, fill_id="m", symbol="MSFT"))])) == 1


@given(fills=fill_lists(symbols=SYMBOLS, max_size=25), data=st.data())
def test_step_by_step_equals_from_the_beginning(fills: list[Fill], data: st.DataObject) -> None:
    arrivals = arrive(*fills)
    voided = data.draw(st.sets(st.sampled_from(arrivals)))
    voids = [Voiding(seq, one.entry.fill_id, one.entry.symbol) for seq, one in enumerate(sorted(voided), start=1)]
    book, left = Book(), list(voids)
    start = 0
    while start < len(arrivals):
        size = data.draw(st.integers(1, len(arrivals)))
        batch = arrivals[start : start + size]
        start += size
        ready = []
        # A void may come with its fill or later, in its own order.
        while left and left[0].entry_id in {a.entry.fill_id for a in arrivals[:start]} and data.draw(st.booleans()):
            ready.append(left.pop(0))
        book = advance(book, News(batch, ready))
    book = advance(book, News(voids=left))

    assert book == advance(Book(), News(arrivals, voids))
    counted = [one.entry for one in arrivals if one not in voided]
    assert set(book.positions) == {one.symbol for one in counted}
    for symbol, position in book.positions.items():
        of_symbol = [one for one in counted if one.symbol == symbol]
        assert position == fold_fills(of_symbol)
        assert book.day(date(2025, 10, 21))[symbol] == day_activity(of_symbol, date(2025, 10, 21), symbol)


def test_a_name_that_was_given_away_and_taken_again_is_another_company_s() -> None:
    first, second = day_start(date(2025, 10, 21)), day_start(date(2025, 10, 23))
    there = adjustment(AdjustmentKind.SYMBOL_CHANGE, first, "FB", adjustment_id="there", new_symbol="META")
    back = adjustment(AdjustmentKind.SYMBOL_CHANGE, second, "META", adjustment_id="back", new_symbol="FB")
    bought = fill(1, 1, symbol="FB")
    anew = fill(1, 1, fill_id="anew", symbol="FB", filled_at=second)
    book = book_of(bought, there, anew)
    assert book.units("FB", first - HOUR) is None
    assert book.units("FB", first - HOUR, until=first) == Units("FB")
    assert book.units("FB", first + HOUR) == Units("FB")
    assert book.units("META", first - HOUR) == Units("FB")
    # Renamed there and back again it is the same one.
    assert book_of(bought, there, back).units("FB", first - HOUR) == Units("FB")
    assert book_of(bought, there, back).units("FB", first + HOUR) == Units("META")
