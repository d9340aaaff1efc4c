from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from libs.broker.account_messages import AccountPosition, PositionsAnswer
from libs.broker.commands import VoidExecution
from libs.broker.executions import Unreadable
from libs.broker.reconcile import Circumstances, Difference, OurPosition, Reason, Reconciler, compare, is_sync_window
from libs.portfolio.adjustments import AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.entries import Arrival
from libs.portfolio.fills import Side
from libs.portfolio.folding import News, advance
from tests.libs.broker.samples import NOON, execution, seconds
from tests.support.portfolio import OPENING, arrive, book_of, fill, fill_lists

D = Decimal
MINUTE = timedelta(minutes=1)
EXECUTED = execution("x1", qty=10)


def our(qty: object, cost: object, average: object = None) -> OurPosition:
    return OurPosition(D(str(qty)), D(str(cost)), None if average is None else D(str(average)))


def their(qty: object, cost: object, symbol: str = "AAPL") -> AccountPosition:
    return AccountPosition(symbol, "us_equity", D(str(qty)), D(1), D(str(cost)))


def answer(*positions: AccountPosition, unreadable: Iterable[str | None] = ()) -> PositionsAnswer:
    return PositionsAnswer(positions, tuple(Unreadable(symbol, "odd") for symbol in unreadable))


def now(after: timedelta = timedelta(), **fields: object) -> Circumstances:
    """Stand `after` noon, caught up a second before unless told otherwise."""
    return Circumstances(**({"now": NOON + after, "caught_up_at": NOON + after - seconds(1)} | fields))


def why(ours: OurPosition | None, theirs: AccountPosition | None, circumstances: Circumstances) -> tuple[Reason, bool]:
    (one,) = compare({} if ours is None else {"AAPL": ours}, answer(*([theirs] if theirs else [])), circumstances)
    return one.reason, one.is_explained


class TestReasons:
    @pytest.mark.parametrize(
        ("ours", "theirs", "fields", "reason", "is_explained"),
        [
            (our(10, 1000), their(10, "1000.01"), {}, Reason.ROUNDING, True),
            (our(10, 1000), their(10, "999.99"), {}, Reason.ROUNDING, True),
            (our(10, 1000), their(10, "1000.0101"), {}, Reason.COST_METHOD, False),
            (our(10, 1000, 1200), their(10, 1200), {}, Reason.COST_METHOD, True),
            (our(10, 1000, 1200), their(10, 1201), {}, Reason.COST_METHOD, False),
            (our(10, 1000), their(15, 1500), {}, Reason.MISSED_EXECUTION, False),
            (our(-10, -1000), their(-15, -1500), {}, Reason.MISSED_EXECUTION, False),
            (our(0, 0), their(5, 500), {}, Reason.MISSED_EXECUTION, False),
            (our(10, 1000), their(5, 500), {}, Reason.UNKNOWN_EXECUTION, False),
            (our(10, 1000), None, {}, Reason.UNKNOWN_EXECUTION, False),
            (our(10, 1000), their(40, 1000), {}, Reason.CORPORATE_ACTION, False),
            (our(-10, -1000), their(-15, -1000), {}, Reason.CORPORATE_ACTION, False),
            (our(100, 1000), their("12.5", 1000), {}, Reason.CORPORATE_ACTION, False),
            (our(10, 1000), their(-40, 1000), {}, Reason.MISSED_EXECUTION, False),
            (our(10, 1000), their("12.3456", 1000), {}, Reason.MISSED_EXECUTION, False),
            (our(10, 1000), their(11, 1100), {"unhandled": frozenset({"AAPL"})}, Reason.CORPORATE_ACTION, False),
            (None, their(5, 500), {}, Reason.TRANSFER, False),
            (None, their(5, 500), {"is_opening": True}, Reason.OPENING_BALANCE, False),
            (our(10, 1000), their(15, 1500), {"unsettled": frozenset({"AAPL"})}, Reason.TIMING, True),
            (our(10, 1000), their(15, 1500), {"unsettled": frozenset({"TSLA"})}, Reason.MISSED_EXECUTION, False),
            (our(10, 1000), None, {"absent": (EXECUTED,)}, Reason.BUSTED_EXECUTION, False),
            (our(10, 1000), their(1, 100), {"absent": (EXECUTED,)}, Reason.UNKNOWN_EXECUTION, False),
        ],
    )
    def test_each(self, ours, theirs, fields, reason, is_explained) -> None:
        assert why(ours, theirs, now(**fields)) == (reason, is_explained)

    def test_nothing_differs(self) -> None:
        assert compare({"AAPL": our(10, 1000), "TSLA": our(0, 0)}, answer(their("10.0", "1000.00")), now()) == ()

    def test_differences_are_told_with_both_sides(self) -> None:
        (one,) = compare({"AAPL": our(10, 1000)}, answer(their(-5, -400)), now())
        expected = Difference("AAPL", D(10), D(-5), D(1000), D(-400), Reason.UNKNOWN_EXECUTION, is_explained=False)
        assert one == expected
        assert (one.missing_qty, one.missing_cost) == (-15, -1400)

    @pytest.mark.parametrize("hour", [(6, 14, False), (6, 15, True), (6, 30, True), (6, 44, True), (6, 45, False)])
    def test_while_the_books_are_rewritten_nothing_can_be_compared(self, hour) -> None:
        at = datetime(2025, 10, 20, *hour[:2], 59, tzinfo=UTC)  # New York is four hours behind
        assert is_sync_window(at) is hour[2]
        reason, is_explained = why(our(10, 1000), their(15, 1500), replace(now(), now=at))
        assert (reason is Reason.TIMING, is_explained) == (hour[2], hour[2])


class TestUnreadable:
    def test_the_holding_that_is_named(self) -> None:
        (one,) = compare({"AAPL": our(10, 1000)}, answer(unreadable=["AAPL"]), now())
        assert (one.reason, one.is_explained, one.theirs_qty, one.missing_qty) == (
            Reason.UNREADABLE_HOLDING,
            True,
            None,
            0,
        )

    def test_a_nameless_one_may_be_any_that_is_missing(self) -> None:
        ours = {"AAPL": our(10, 1000), "TSLA": our(1, 1), "FLAT": our(0, 0)}
        differences = compare(ours, answer(their(15, 1500), unreadable=[None]), now())
        assert [(one.symbol, one.reason) for one in differences] == [
            ("AAPL", Reason.MISSED_EXECUTION),
            ("TSLA", Reason.UNREADABLE_HOLDING),
        ]

    def test_one_that_we_do_not_hold_is_named_too(self) -> None:
        (one,) = compare({}, answer(unreadable=["BTC/USD"]), now())
        assert (one.symbol, one.reason, one.ours_qty) == ("BTC/USD", Reason.UNREADABLE_HOLDING, 0)

    @pytest.mark.parametrize("name", ["AAPL", None])
    def test_is_never_adjusted(self, name) -> None:
        reconciler = Reconciler()
        for minute in range(5):
            outcome = reconciler.take({"AAPL": our(10, 1000)}, answer(unreadable=[name]), now(minute * MINUTE))
            assert (outcome.adjustments, outcome.voids, outcome.wants_catch_up) == ((), (), False)


class Reads:
    """Reads of AAPL at so many minutes after noon, each after a catch-up unless told otherwise."""

    def __init__(self, reconciler: Reconciler | None = None) -> None:
        self.reconciler = reconciler or Reconciler()

    def at(self, minute: float, ours: OurPosition, theirs: AccountPosition | None, **fields: object):
        positions = [theirs] if theirs is not None else []
        return self.reconciler.take({"AAPL": ours}, answer(*positions), now(minute * MINUTE, **fields))


OURS, THEIRS = our(10, 1000), their(15, 1400)


class TestPatience:
    def test_two_reads_with_a_catch_up_between(self) -> None:
        reads = Reads()
        first = reads.at(0, OURS, THEIRS)
        assert (first.adjustments, first.wants_catch_up) == ((), True)
        (adjustment,) = reads.at(1, OURS, THEIRS).adjustments
        assert (adjustment.kind, adjustment.symbol) == (AdjustmentKind.MOVE, "AAPL")
        assert (adjustment.qty, adjustment.amount, adjustment.reason) == (5, 400, "missed_execution")
        assert adjustment.effective_at == NOON + MINUTE

    def test_once_adjusted_it_begins_anew(self) -> None:
        reads = Reads()
        adjusted = [reads.at(minute, OURS, THEIRS).adjustments for minute in range(4)]
        assert [len(one) for one in adjusted] == [0, 1, 0, 1]
        assert adjusted[1][0].adjustment_id != adjusted[3][0].adjustment_id

    @pytest.mark.parametrize("caught_up_at", [None, NOON, NOON - MINUTE])
    def test_no_catch_up_begun_since_the_first_read(self, caught_up_at) -> None:
        reads = Reads()
        reads.at(0, OURS, THEIRS)
        assert reads.at(1, OURS, THEIRS, caught_up_at=caught_up_at).adjustments == ()
        assert len(reads.at(2, OURS, THEIRS).adjustments) == 1, "but after one"

    def test_an_execution_since_the_first_read(self) -> None:
        reads = Reads()
        reads.at(0, OURS, THEIRS)
        traded = {"AAPL": NOON + seconds(1)}
        assert reads.at(1, OURS, THEIRS, last_execution_at=traded).adjustments == ()
        elsewhere = {"TSLA": NOON + seconds(1), "AAPL": NOON}
        assert len(reads.at(2, OURS, THEIRS, last_execution_at=elsewhere).adjustments) == 1

    def test_another_difference_is_seen_for_the_first_time(self) -> None:
        reads = Reads()
        reads.at(0, OURS, THEIRS)
        assert reads.at(1, OURS, their(16, 1400)).adjustments == ()
        assert reads.at(2, OURS, their(16, 1401)).adjustments == ()
        assert len(reads.at(3, OURS, their(16, 1401)).adjustments) == 1

    def test_a_difference_that_went_away_between(self) -> None:
        reads = Reads()
        reads.at(0, OURS, THEIRS)
        reads.at(1, OURS, their(10, 1000))
        assert reads.at(2, OURS, THEIRS).adjustments == ()

    def test_the_patience_asked_for(self) -> None:
        reads = Reads(Reconciler(patience=3 * MINUTE))
        assert [len(reads.at(minute, OURS, THEIRS).adjustments) for minute in (0, 1, 2, 2.99, 3)] == [0, 0, 0, 0, 1]

    def test_the_parts_of_a_corporate_action_get_a_quarter_of_an_hour(self) -> None:
        reads, doubtful = Reads(), {"unhandled": frozenset({"AAPL"})}
        found = [len(reads.at(minute, OURS, THEIRS, **doubtful).adjustments) for minute in (0, 1, 14.9, 15)]
        assert found == [0, 0, 0, 1]

    @pytest.mark.parametrize("theirs", [their(10, "1000.01"), their(10, "999.99")])
    def test_a_cent_is_never_adjusted(self, theirs) -> None:
        reads = Reads()
        for minute in range(5):
            outcome = reads.at(minute, OURS, theirs)
            assert (outcome.adjustments, outcome.wants_catch_up) == ((), False)

    def test_cost_by_another_method_is_never_adjusted(self) -> None:
        reads = Reads()
        assert [reads.at(minute, our(10, 1000, 1100), their(10, 1100)).adjustments for minute in range(3)] == [()] * 3

    def test_cost_alone_that_stays_unexplained_is_adjusted(self) -> None:
        reads = Reads()
        found = [reads.at(minute, OURS, their(10, 1100)).adjustments for minute in (0, 1, 14.9, 15)]
        assert found[:3] == [(), (), ()], "shares that took it may still appear"
        (adjustment,) = found[3]
        assert (adjustment.qty, adjustment.amount, adjustment.reason) == (0, 100, "cost_method")

    def test_the_sync_window_counts_for_nothing(self) -> None:
        window = (datetime(2025, 10, 20, 6, 20, tzinfo=UTC) - NOON) / MINUTE
        reads = Reads()
        assert reads.at(window - 10, OURS, THEIRS).adjustments == ()
        for minute in (0, 5, 10, 24):
            assert reads.at(window + minute, OURS, THEIRS).adjustments == ()
        assert reads.at(window + 26, OURS, THEIRS).adjustments == (), "what was seen before it is forgotten"
        assert len(reads.at(window + 27, OURS, THEIRS).adjustments) == 1

    def test_what_the_stream_told_lately_is_waited_for(self) -> None:
        reads, unsettled = Reads(), {"unsettled": frozenset({"AAPL"})}
        assert [reads.at(minute, OURS, THEIRS, **unsettled).adjustments for minute in range(4)] == [()] * 4


class TestOpening:
    def test_is_taken_over_at_the_first_read_after_a_catch_up(self) -> None:
        reads = Reads()
        assert reads.at(0, our(0, 0), THEIRS, is_opening=True, caught_up_at=None).adjustments == ()
        (adjustment,) = reads.at(1, our(0, 0), THEIRS, is_opening=True).adjustments
        assert (adjustment.qty, adjustment.amount, adjustment.reason) == (15, 1400, "opening_balance")

    @pytest.mark.parametrize(
        ("executed_at", "effective_at"),
        [
            (None, datetime(2025, 10, 20, 3, 59, 59, tzinfo=UTC)),
            (NOON - timedelta(days=3), datetime(2025, 10, 20, 3, 59, 59, tzinfo=UTC)),
            (NOON - timedelta(hours=1), NOON),
        ],
    )
    def test_was_held_overnight_unless_it_was_traded_today(self, executed_at, effective_at) -> None:
        traded = {} if executed_at is None else {"AAPL": executed_at}
        (adjustment,) = Reads().at(0, our(0, 0), THEIRS, is_opening=True, last_execution_at=traded).adjustments
        assert adjustment.effective_at == effective_at

    def test_what_the_first_read_could_not_settle_is_an_opening_still(self) -> None:
        later = now(opening=frozenset({"AAPL"}))
        assert why(None, their(10, 1000), later) == (Reason.OPENING_BALANCE, False)
        assert why(None, their(10, 1000), now(opening=frozenset({"MSFT"}))) == (Reason.TRANSFER, False)


@pytest.mark.parametrize(
    ("executed_at", "effective_at"),
    [(None, datetime(2025, 10, 20, 3, 59, 59, tzinfo=UTC)), (NOON - MINUTE, NOON + 15 * MINUTE)],
)
def test_another_cost_of_the_same_shares_moves_no_day(executed_at, effective_at) -> None:
    """No money has moved: neither the day's P&L nor realized and unrealized together."""
    traded = {} if executed_at is None else {"AAPL": executed_at}
    reads = Reads()
    reads.at(0, our(10, 1000), their(10, 900), last_execution_at=traded)
    (adjustment,) = reads.at(15, our(10, 1000), their(10, 900), last_execution_at=traded).adjustments
    assert (adjustment.qty, adjustment.amount, adjustment.effective_at) == (0, -100, effective_at)
    book = book_of(fill(10, 100, filled_at=NOON - timedelta(days=9)), adjustment)
    position = book.positions["AAPL"]
    assert (position.cost_basis, position.realized_pnl) == (900, -100)
    assert book.day(NOON.date())["AAPL"].net_cost == 0


class TestBusts:
    def test_two_reads_void_what_rest_no_longer_names(self) -> None:
        reads = Reads()
        absent = {"absent": (EXECUTED, execution("x2", qty=3, order_id="o2"), execution("y", symbol="TSLA"))}
        assert reads.at(0, our(30, 3000), their(20, 2000), **absent).voids == ()
        outcome = reads.at(1, our(30, 3000), their(20, 2000), **absent)
        assert outcome.voids == (VoidExecution("x1", "busted_execution"),)
        assert outcome.adjustments == ()

    @pytest.mark.parametrize(
        ("qtys", "sides", "too_many", "voided"),
        [
            ((10, 3), "bb", 13, {"x0", "x1"}),
            ((10, 3), "bs", 7, {"x0", "x1"}),
            ((10, 3), "bs", -3, {"x1"}),
            ((10, 3, 4), "bbb", 7, {"x1", "x2"}),
            ((10, 10), "bb", 10, set()),  # either: a guess is no reason to void
            ((7, 3, 4), "bbb", 7, set()),
            ((10, 3), "bb", 5, set()),
            ((1,) + (2,) * 10, "b" * 11, 1, set()),  # too many to try them all
        ],
    )
    def test_only_what_leaves_one_answer(self, qtys, sides, too_many, voided) -> None:
        absent = tuple(
            execution(f"x{number}", qty, order_id=f"o{number}", side=Side.BUY if side == "b" else Side.SELL)
            for number, (qty, side) in enumerate(zip(qtys, sides, strict=True))
        )
        reads = Reads()
        for minute in range(2):
            outcome = reads.at(minute, our(50, 5000), their(50 - too_many, 4321), absent=absent)
        assert {one.execution_id for one in outcome.voids} == voided
        assert len(outcome.adjustments) == (0 if voided else 1), "else it is adjusted like any other"


def ours_in(book: Book, at: datetime) -> dict[str, OurPosition]:
    costs = book.alpaca_positions(at)
    return {
        one.symbol: OurPosition(one.qty, costs[one.symbol].cost_basis, one.cost_basis) for one in book.open_positions
    }


signed = st.integers(-50, 50).map(D) | st.decimals("-100", "100", places=9)


@given(fill_lists(symbols=("AAPL", "TSLA"), max_size=8), signed, st.decimals("0.01", "100000", places=9), st.booleans())
def test_an_adjustment_makes_ours_equal_to_theirs(fills, qty, cost, is_opening) -> None:
    book = advance(Book(), arrive(fills))
    read_at = [OPENING + timedelta(days=4), OPENING + timedelta(days=4, minutes=15)]
    held = answer(*([their(qty, cost.copy_sign(qty))] if qty else []))
    reconciler = Reconciler()
    for at in read_at:
        circumstances = Circumstances(at, at - seconds(1), is_opening=is_opening)
        ours = ours_in(book, at)
        outcome = reconciler.take(ours, held, circumstances)
        known = book.revision.adjustments
        news = [Arrival(known + number, one) for number, one in enumerate(outcome.adjustments, start=1)]
        book = advance(book, News(adjustments=news))
    after = ours_in(book, read_at[-1])
    assume(not any(one.reason is Reason.COST_METHOD and one.is_explained for one in outcome.differences))
    assert after.keys() == {one.symbol for one in held.positions}
    for one in held.positions:
        assert after[one.symbol].qty == one.qty
        assert abs(after[one.symbol].cost - one.cost_basis) <= D("0.01")
    # The next morning's sync does not bring the difference back.
    tomorrow = ours_in(book, read_at[-1] + timedelta(days=1))
    assert {symbol: (one.qty, one.cost) for symbol, one in tomorrow.items()} == {
        symbol: (one.qty, one.cost) for symbol, one in after.items()
    }


def test_the_bust_of_what_had_closed_a_position_is_no_transfer() -> None:
    closing = execution("x2", qty=100, side=Side.SELL)
    circumstances = now(absent=(closing,))
    assert why(None, their(100, 15_000), circumstances)[0] is Reason.BUSTED_EXECUTION
