"""The account: what is recorded makes the books, whatever the order, and nothing is lost on the way."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.account import OPENING_CASH_USD, Account, OpeningPosition
from apps.alpaca_simulator.account_book import Book, average_price
from apps.alpaca_simulator.account_entries import AccountError, Booking, activity_id, sync_day

D = Decimal
MONDAY = datetime(2026, 11, 16, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def account(*opening):
    return Account(opening, MONDAY)


def execute(book, symbol, qty, price, at, **given):
    side = "buy" if qty > 0 else "sell"
    order = book.orders.place(symbol, side, abs(D(qty)), at)
    return book.execute(order, abs(D(qty)), D(price), at, **given)


class TestOpening:
    def test_it_is_bought_before_and_leaves_the_usual_cash(self):
        opened = account(OpeningPosition("AAPL", D(100), D(150)), OpeningPosition("KO", D(-5), D(60)))
        assert opened.book(MONDAY).cash == OPENING_CASH_USD
        assert {one.symbol: one.qty for one in opened.executions.values()} == {"AAPL": 100, "KO": -5}
        assert all(one.at == MONDAY - 30 * DAY for one in opened.executions.values())
        assert [(one.kind, one.net_amount) for one in opened.activities] == [("CSD", OPENING_CASH_USD + 15_000 - 300)]

    def test_a_restart_gives_the_same_ids(self):
        position = OpeningPosition("AAPL", D(100), D(150))
        assert list(account(position).executions) == list(Account([position], MONDAY + DAY).executions)

    def test_lots_of_several_days(self):
        days = [OpeningPosition("AAPL", D(10), D(price), MONDAY - age * DAY) for price, age in ((1, 9), (2, 8))]
        assert [lot.cost for lot in account(*days).book(MONDAY).held("AAPL").lots] == [10, 20]


class TestDays:
    def test_the_cost_changes_at_half_past_two_in_new_york(self):
        book = account()
        execute(book, "AAPL", 100, 10, MONDAY)
        execute(book, "AAPL", 50, 12, MONDAY)
        execute(book, "AAPL", 30, 15, MONDAY + DAY)
        execute(book, "AAPL", -120, 14, MONDAY + 2 * DAY)
        sync = datetime(2026, 11, 19, 7, 30, tzinfo=UTC)
        before = average_price(book.book(sync - timedelta(seconds=1)).held("AAPL"))
        after = average_price(book.book(sync).held("AAPL"))
        assert (round(before, 2), round(after, 4)) == (D("11.39"), D("12.8333"))

    @pytest.mark.parametrize(
        ("moment", "day"),
        [("2026-11-17T07:29:59+00:00", 16), ("2026-11-17T07:30:00+00:00", 17), ("2026-11-18T04:59:59+00:00", 17)],
    )
    def test_a_day_begins_with_the_sync(self, moment, day):
        assert sync_day(datetime.fromisoformat(moment)).day == day

    def test_summer_time_moves_it(self):
        assert sync_day(datetime(2026, 7, 1, 6, 30, tzinfo=UTC)).day == 1
        assert sync_day(datetime(2026, 7, 1, 6, 29, tzinfo=UTC)).day == 30

    def test_cash_at_the_sync_is_kept(self):
        book = account()
        execute(book, "AAPL", 10, 100, MONDAY)
        today = book.book(MONDAY)
        assert (today.cash, today.cash_at_sync) == (OPENING_CASH_USD - 1000, OPENING_CASH_USD)
        assert book.book(MONDAY + DAY).cash_at_sync == OPENING_CASH_USD - 1000


class TestAmendments:
    def test_a_bust_undoes_and_a_correction_replaces(self):
        book = account()
        wrong, other = (execute(book, "AAPL", 10, price, MONDAY) for price in (999, 100))
        book.correct(wrong.execution_id, D(101), D(12), MONDAY)
        assert (book.book(MONDAY).held("AAPL").qty, book.book(MONDAY).cash) == (22, OPENING_CASH_USD - 1000 - 1212)
        book.bust(other.execution_id, MONDAY)
        assert book.book(MONDAY).held("AAPL").qty == 12
        assert [one.booking for one in book.executions.values()] == [Booking.CORRECTED, Booking.BUSTED]
        assert book.orders.get(other.order_id).status == "new"
        assert book.orders.get(wrong.order_id).body()["filled_avg_price"] == "101"

    def test_what_cannot_be_is_refused(self):
        book = account()
        one = execute(book, "AAPL", 10, 100, MONDAY, execution_id="one")
        with pytest.raises(AccountError, match="known already"):
            execute(book, "AAPL", 10, 100, MONDAY, execution_id="one")
        with pytest.raises(AccountError, match="execution_id: nobody is not known"):
            book.bust("nobody", MONDAY)
        book.bust("one", MONDAY)
        with pytest.raises(AccountError, match="is busted"):
            book.bust("one", MONDAY)
        with pytest.raises(AccountError, match="is busted"):
            book.correct(one.execution_id, D(1), None, MONDAY)

    def test_an_order_takes_no_more_than_it_is_for(self):
        book = account()
        order = book.orders.place("AAPL", "buy", D(5), MONDAY)
        book.execute(order, D(3), D(100), MONDAY)
        with pytest.raises(AccountError, match="open for 2 only"):
            book.execute(order, D(3), D(100), MONDAY)
        book.orders.canceled(order.order_id, MONDAY)
        for refused in (
            lambda: book.execute(order, D(2), D(100), MONDAY),
            lambda: book.orders.canceled(order.order_id, MONDAY),
        ):
            with pytest.raises(AccountError, match="order_id: the order is canceled"):
                refused()
        assert book.book(MONDAY).held("AAPL").qty == 3

    def test_nothing_before_a_split_is_touched(self):
        book = account()
        one = execute(book, "AAPL", 10, 100, MONDAY)
        book.split("AAPL", D(2), D(1), D(50), MONDAY + DAY)
        for touch in (
            lambda: book.bust(one.execution_id, MONDAY + DAY),
            lambda: book.correct(one.execution_id, D(1), None, MONDAY + DAY),
            lambda: execute(book, "AAPL", 1, 1, MONDAY),
        ):
            with pytest.raises(AccountError, match="before the split"):
                touch()
        assert book.book(MONDAY + DAY).held("AAPL").qty == 20


class TestCorporateActions:
    def test_split_activities(self):
        book = account(OpeningPosition("AAPL", D(25), D(100)))
        book.split("AAPL", D(1), D(15), D(1500), MONDAY)
        gone, come, paid = book.activities[-3:]
        assert [(one.kind, one.qty, one.net_amount) for one in (gone, come)] == [
            ("SPLIT", D(-25), 0),
            ("SPLIT", D("1.666666666"), 0),
        ]
        assert gone.description == "REMOVE, From QTY:-25, To QTY:1.666666666, Position Value:2500.00"
        assert (paid.kind, round(paid.net_amount, 12)) == ("CIL", D("0.000001000000"))
        assert book.book(MONDAY).held("AAPL").cost == 2500
        assert book.book(MONDAY).cash == OPENING_CASH_USD + paid.net_amount

    def test_split_as_one_entry(self):
        book = account(OpeningPosition("AAPL", D(-25), D(100)))
        book.split("AAPL", D(4), D(1), D(25), MONDAY, one_entry=True)
        assert [one.qty for one in book.activities if one.kind == "SPLIT"] == [D(-75)]
        assert book.book(MONDAY).held("AAPL").qty == -100

    def test_symbol_change(self):
        book = account(OpeningPosition("FB", D(25), D(100)))
        book.change_symbol("FB", "META", MONDAY)
        assert [(one.symbol, one.qty) for one in book.activities if one.kind == "NC"] == [("FB", -25), ("META", 25)]
        assert list(book.book(MONDAY).open_positions()) == ["META"]
        assert book.book(MONDAY).held("META").cost == 2500

    def test_dividends_to_the_cent_and_from_shorts(self):
        book = account(OpeningPosition("KO", D("10.5"), D(60)), OpeningPosition("F", D(-10), D(12)))
        assert book.pay_dividend("KO", D("0.485"), MONDAY) == D("5.09")
        assert book.pay_dividend("F", D("0.15"), MONDAY) == D("-1.50")
        assert book.book(MONDAY).cash == OPENING_CASH_USD + D("3.59")
        with pytest.raises(AccountError, match="symbol: AAPL is not held"):
            book.pay_dividend("AAPL", D(1), MONDAY)

    def test_fees_and_cash(self):
        book = account()
        book.charge_fee(D("0.02"), MONDAY, symbol="AAPL")
        book.move_cash(D(500), MONDAY)
        book.move_cash(D(-200), MONDAY)
        told = [(one.kind, one.net_amount) for one in book.activities[-3:]]
        assert told == [("FEE", D("-0.02")), ("CSD", 500), ("CSW", -200)]
        assert book.book(MONDAY).cash == OPENING_CASH_USD + D("299.98")

    def test_splits_are_found_under_earlier_symbols(self):
        book = account(OpeningPosition("FB", D(25), D(100)))
        book.split("FB", D(2), D(1), D(50), MONDAY)
        book.change_symbol("FB", "META", MONDAY + DAY)
        assert [(one.new, one.old) for one in book.splits_since("META", MONDAY - DAY)] == [(2, 1)]
        assert list(book.splits_since("META", MONDAY)) == []


def test_a_reset_begins_again():
    book = account(OpeningPosition("AAPL", D(100), D(150)))
    before = list(book.executions)
    execute(book, "AAPL", 5, 100, MONDAY)
    book.pay_dividend("AAPL", D(1), MONDAY)
    book.reset()
    assert list(book.executions) == before
    assert (book.book(MONDAY).cash, book.book(MONDAY).held("AAPL").qty) == (OPENING_CASH_USD, 100)


def test_what_it_was_before_the_last_things_were_recorded():
    book = account(OpeningPosition("AAPL", D(100), D(150)))
    recorded = book.recorded
    execute(book, "AAPL", 5, 100, MONDAY)
    assert book.book(MONDAY, recorded).held("AAPL").qty == 100
    assert book.book(MONDAY, recorded + 1).held("AAPL").qty == 105


def test_an_activity_id_tells_new_yorks_time():
    moment = datetime(2019, 5, 24, 15, 34, 6, 977_000, tzinfo=UTC)
    assert activity_id(moment, "8efc") == "20190524113406977::8efc"


MOMENTS = st.integers(0, 10 * 24).map(lambda hours: MONDAY + timedelta(hours=hours))
TRADES = st.lists(
    st.tuples(
        st.sampled_from(["AAPL", "KO"]),
        st.decimals(D("-50"), D(50), places=2).filter(bool),
        st.decimals(D("0.01"), D(900), places=2),
        MOMENTS,
    ),
    max_size=12,
)


@given(TRADES, st.sets(st.integers(0, 11)), st.decimals(D("-100"), D(100), places=2))
def test_cash_and_shares_are_conserved_in_any_order(trades, busted, moved):
    book = account()
    executions = [execute(book, *trade) for trade in trades]
    book.move_cash(moved, MONDAY + 20 * DAY)
    book.charge_fee(D("0.07"), MONDAY + 20 * DAY)
    for number in busted:
        if number < len(executions):
            book.bust(executions[number].execution_id, MONDAY)
    standing = [trade for number, trade in enumerate(trades) if number not in busted]
    end = book.book(MONDAY + 30 * DAY)
    assert end.cash == OPENING_CASH_USD + moved - D("0.07") - sum((qty * price for _, qty, price, _ in standing), D(0))
    for symbol in ("AAPL", "KO"):
        assert end.held(symbol).qty == sum((qty for name, qty, _, _ in standing if name == symbol), D(0))

    in_time = sorted((one for one in book.executions.values()), key=lambda one: (one.at, one.sequence))
    assert Book(in_time).open_positions().keys() == end.open_positions().keys()
    replayed = Book(in_time)
    replayed.roll(end.day)
    assert replayed.open_positions() == end.open_positions()
