from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from libs.broker.activity_results import Applied, Known, Unhandled, adjustment_id_of
from libs.broker.corporate_actions import apply_activities
from libs.broker.executions import Activity
from libs.broker.reconcile import OurPosition
from libs.portfolio.adjustments import AdjustmentKind
from tests.libs.broker.activity_samples import MONDAY, NOTHING_HELD, D, activity, holding, only, waited
from tests.support.portfolio import book_of, fill


class TestRenamings:
    @pytest.mark.parametrize("kind", ["NC", "SC"])
    @pytest.mark.parametrize(("held", "signs"), [(10, (-10, 10)), (-10, (10, -10)), (0, (-10, 10))])
    def test_as_many_shares_leave_one_symbol_as_come_in_under_another(self, kind, held, signs) -> None:
        pair = [activity(kind, "META", qty=signs[1]), activity(kind, "FB", qty=signs[0])]
        adjustment = only(apply_activities(pair, holding(FB=held)))
        assert (adjustment.kind, adjustment.symbol, adjustment.new_symbol) == (
            AdjustmentKind.SYMBOL_CHANGE,
            "FB",
            "META",
        )
        assert adjustment.adjustment_id == adjustment_id_of(pair[1])

    def test_the_same_symbol_is_only_another_cusip(self) -> None:
        pair = [activity("NC", qty=-10), activity("NC", qty=10)]
        applied = apply_activities(pair, holding(10))
        assert (set(applied.cash), applied.adjustments, applied.doubtful_symbols) == (set(pair), (), frozenset())

    def test_half_of_one_waits_for_the_other(self) -> None:
        old, new = activity("NC", "FB", qty=-10), activity("NC", "META", qty=10)
        held = holding(FB=10)
        assert apply_activities([old], held) == Applied(waiting=(old,))
        assert only(apply_activities([old, new], held)).new_symbol == "META"

    @pytest.mark.parametrize(
        "other",
        [
            activity("NC", "META", qty=9),
            activity("NC", "META", qty=-10),
            activity("NC", "META"),
            activity("NC", None, qty=10),
            activity("NC", "META", qty=10, description="another"),
            replace(activity("NC", "META", qty=10), date=MONDAY + timedelta(days=1)),
        ],
    )
    def test_others_are_no_counterpart(self, other) -> None:
        old = activity("NC", "FB", qty=-10)
        applied = apply_activities([old, other], holding(FB=10))
        assert (set(applied.waiting), applied.adjustments) == ({old, other}, ())

    def test_two_on_one_date(self) -> None:
        entries = [
            activity("NC", "A", qty=-10),
            activity("NC", "B", qty=-7),
            activity("NC", "B2", qty=7),
            activity("NC", "A2", qty=10),
        ]
        applied = apply_activities(entries, holding(A=10, B=7))
        assert {(one.symbol, one.new_symbol) for one in applied.adjustments} == {("A", "A2"), ("B", "B2")}


class TestMoves:
    @pytest.mark.parametrize(
        ("kind", "booked"),
        [
            ("ACATS", AdjustmentKind.TRANSFER),
            ("JNLS", AdjustmentKind.TRANSFER),
            ("OPEXP", AdjustmentKind.MOVE),
        ],
    )
    def test_what_comes_in_costs_its_price(self, kind, booked) -> None:
        adjustment = only(apply_activities([activity(kind, qty=5, price=20)], NOTHING_HELD))
        assert (adjustment.kind, adjustment.qty, adjustment.amount) == (booked, 5, 100)

    @pytest.mark.parametrize("kind", ["ACATS", "JNLS"])
    def test_what_comes_in_without_a_price_is_not_for_nothing(self, kind) -> None:
        one = activity(kind, qty=5)
        assert apply_activities([one], NOTHING_HELD) == Applied(unhandled=(Unhandled(one, "shares without a cost"),))

    def test_a_transfer_out_of_what_was_bought_that_day_realizes_nothing(self) -> None:
        def held(_symbol: str, day: date) -> OurPosition:
            return OurPosition(D(6), D(600)) if day > MONDAY else OurPosition(D(0), D(0))

        gone = activity("ACATS", qty=-6)
        out = only(apply_activities([gone], held))
        bought = fill(6, 100, filled_at=datetime(2025, 10, 20, 15, tzinfo=UTC))
        position = book_of(bought, out).positions["AAPL"]
        assert (position.qty, position.realized_pnl) == (0, 0)
        # After a restart it is reported again, when nothing is held any more.
        again = apply_activities([gone], NOTHING_HELD, Known(recorded={out.adjustment_id}))
        assert again == Applied(cash=(gone,))

    @pytest.mark.parametrize(("held", "cost", "qty", "amount"), [(10, 300, -4, -120), (-10, -300, 10, 300)])
    def test_what_leaves_takes_its_part_of_the_cost_along(self, held, cost, qty, amount) -> None:
        adjustment = only(apply_activities([activity("ACATS", qty=qty, price=999)], holding(held, cost)))
        assert (adjustment.qty, adjustment.amount) == (qty, amount)

    def test_more_than_was_held_leaves_at_its_price(self) -> None:
        adjustment = only(apply_activities([activity("JNLS", qty=-11, price=2)], holding(10, 300)))
        assert (adjustment.qty, adjustment.amount) == (-11, -22)

    @pytest.mark.parametrize(("paid", "gain"), [(1500, 500), (900, -100)])
    def test_cash_for_shares_that_left_is_realized_against_their_cost(self, paid, gain) -> None:
        entries = [activity("MA", qty=-10), activity("MA", net_amount=paid)]
        applied = apply_activities(entries, holding(10, 1000))
        assert [one.amount for one in applied.adjustments] == [-1000, -1000, paid]
        assert {one.kind for one in applied.adjustments[1:]} == {AdjustmentKind.CASH_IN_LIEU}
        bought = fill(10, 100, filled_at=datetime(2025, 10, 1, 15, tzinfo=UTC))
        position = book_of(bought, *applied.adjustments).positions["AAPL"]
        assert (position.qty, position.cost_basis, position.realized_pnl) == (0, 0, gain)

    def test_cash_in_parts_is_realized_as_one(self) -> None:
        first, second = activity("MA", net_amount=900), activity("MA", net_amount=300)
        applied = apply_activities([activity("MA", qty=-10), first, second], holding(10, 1000))
        assert [one.amount for one in applied.adjustments] == [-1000, -1000, 900, 300]
        assert applied.cash == ()

    def test_cash_beside_shares_that_came_in_is_a_gain(self) -> None:
        entries = [
            activity("MA", "AAPL", qty=-10, description="m"),
            activity("MA", "NEW", qty=5, price=9, description="m"),
        ]
        paid = activity("MA", "NEW", net_amount=100, description="m")
        applied = apply_activities([*entries, paid], holding(10, 1000))
        assert (len(applied.adjustments), applied.unhandled) == (3, ())
        gain = applied.adjustments[-1]
        assert (gain.kind, gain.symbol, gain.amount) == (AdjustmentKind.CASH_IN_LIEU, "NEW", 100)

    @pytest.mark.parametrize("kind", ["REORG", "MA", "SPIN", "OPCA"])
    def test_cash_alone_is_a_gain(self, kind) -> None:
        paid = activity(kind, net_amount=100)
        gain = only(apply_activities([paid], holding(10), waited(paid)))
        assert (gain.kind, gain.amount) == (AdjustmentKind.CASH_IN_LIEU, 100)

    @pytest.mark.parametrize("entry", ["beside", "with the shares"])
    def test_shares_and_cash_for_shares(self, entry) -> None:
        """100 shares @6.04 become 500 @1.208 and 995.00 cash: all of the cost is in the new shares."""
        paid = {"net_amount": 995} if entry == "with the shares" else {}
        entries = [
            activity("MA", "AAPL", qty=-100, price=D("6.04"), description="m"),
            activity("MA", "NEW", qty=500, price=D("1.208"), description="m", **paid),
        ]
        if entry == "beside":
            entries.append(activity("MA", "NEW", net_amount=995, description="m"))
        applied = apply_activities(entries, holding(100, 604))
        bought = fill(100, D("6.04"), filled_at=datetime(2025, 10, 1, 15, tzinfo=UTC))
        positions = book_of(bought, *applied.adjustments).positions
        assert (positions["NEW"].qty, positions["NEW"].cost_basis, positions["NEW"].realized_pnl) == (500, 604, 995)
        assert (positions["AAPL"].qty, positions["AAPL"].realized_pnl) == (0, 0)

    def test_neither_shares_nor_cash_changes_nothing(self) -> None:
        one = activity("OPEXP")
        assert apply_activities([one], holding(10)) == Applied(cash=(one,))


OPTION = "AAPL251017C00150000"
FRIDAY = datetime(2025, 10, 17, 15, tzinfo=UTC)


def folded(held: object, price: object, *entries: Activity):
    """Return the position in the entries' symbol when so many were held since Friday, bought or sold at `price`."""
    first = entries[0]
    position = OurPosition(D(str(held)), D(str(held)) * D(str(price)))
    applied = apply_activities(entries, lambda _symbol, _day: position)
    assert (applied.waiting, applied.unhandled) == ((), ())
    ids = [one.adjustment_id for one in applied.adjustments]
    assert len({*ids}) == len(ids)
    return book_of(fill(held, price, filled_at=FRIDAY, symbol=first.symbol), *applied.adjustments).positions[
        first.symbol
    ]


class TestPaidMoves:
    @pytest.mark.parametrize("kind", ["OPEXP", "OPASN", "OPXRC", "OPEXC"])
    @pytest.mark.parametrize("net_amount", [None, 0])
    @pytest.mark.parametrize(("held", "realized"), [(1, -500), (-1, 500), (3, -1500)])
    def test_an_option_that_ended_has_lost_its_cost_or_earned_it(self, kind, net_amount, held, realized) -> None:
        position = folded(held, 500, activity(kind, OPTION, qty=-held, net_amount=net_amount))
        assert (position.qty, position.cost_basis, position.realized_pnl) == (0, 0, realized)

    def test_a_part_of_it_has_lost_its_part(self) -> None:
        position = folded(3, 500, activity("OPEXP", OPTION, qty=-1))
        assert (position.qty, position.cost_basis, position.realized_pnl) == (2, 1000, -500)

    def test_an_option_bought_and_ended_on_one_day(self) -> None:
        applied = apply_activities([activity("OPEXP", OPTION, qty=-1)], NOTHING_HELD)
        bought = fill(1, 500, symbol=OPTION)
        position = book_of(bought, *applied.adjustments).positions[OPTION]
        assert (position.qty, position.cost_basis, position.realized_pnl) == (0, 0, -500)

    @pytest.mark.parametrize(
        ("held", "cost", "qty", "fields", "left", "realized"),
        [
            (100, 100, -100, {"price": 150}, (0, 0), 5000),
            (100, 100, -100, {"net_amount": 15000}, (0, 0), 5000),
            (100, 100, -100, {"net_amount": 15000, "price": 1}, (0, 0), 5000),
            (100, 100, -100, {"net_amount": 0, "price": 150}, (0, 0), 5000),
            (200, 100, -100, {"price": 90}, (100, 10000), -1000),
            (-100, 150, 100, {"price": 160}, (0, 0), -1000),
            (-100, 150, 100, {"net_amount": -14000}, (0, 0), 1000),
            (100, 100, -150, {"price": 150}, (-50, -7500), 5000),
            (-100, 150, 150, {"price": 140}, (50, 7000), 1000),
            (100, 100, 100, {"price": 150}, (200, 25000), 0),
            (100, 100, 100, {"net_amount": -15000}, (200, 25000), 0),
            (-100, 150, -100, {"net_amount": 14000}, (-200, -29000), 0),
        ],
    )
    def test_shares_bought_and_sold_by_an_option(self, held, cost, qty, fields, left, realized) -> None:
        position = folded(held, cost, activity("OPTRD", qty=qty, **fields))
        assert (position.qty, position.cost_basis, position.realized_pnl) == (*left, realized)

    def test_an_option_itself_is_priced_per_share(self) -> None:
        position = folded(2, 500, activity("OPTRD", OPTION, qty=-2, price=7))
        assert (position.qty, position.realized_pnl) == (0, 400)

    def test_shares_and_cash_in_one_entry_of_a_merger(self) -> None:
        one = activity("MA", qty=-100, net_amount=5000)
        position = folded(100, 30, one)
        assert (position.qty, position.cost_basis, position.realized_pnl) == (0, 0, 2000)
        out, gain = apply_activities([one], holding(100, 3000)).adjustments
        assert (out.adjustment_id, gain.adjustment_id) == (adjustment_id_of(one), f"{adjustment_id_of(one)}:cash")
        assert (out.amount, gain.kind, gain.amount) == (-3000, AdjustmentKind.CASH_IN_LIEU, 2000)

    def test_more_cash_beside_it_is_realized_too(self) -> None:
        position = folded(100, 30, activity("MA", qty=-100, net_amount=5000), activity("MA", net_amount=300))
        assert (position.qty, position.cost_basis, position.realized_pnl) == (0, 0, 2300)

    def test_cash_of_exactly_the_cost_realizes_nothing(self) -> None:
        assert only(apply_activities([activity("MA", qty=-10, net_amount=1000)], holding(10, 1000))).amount == -1000

    def test_no_part_of_a_price_becomes_a_gain(self) -> None:
        one = activity("OPTRD", qty=D("0.333333333"), price=D("1.2345678"))
        assert only(apply_activities([one], NOTHING_HELD)).amount == D("0.333333333") * D("1.2345678")

    def test_shares_that_come_in_with_cash_wait_for_those_that_left(self) -> None:
        one = activity("MA", qty=5, net_amount=100, price=9)
        assert apply_activities([one], NOTHING_HELD) == Applied(waiting=(one,))

    @pytest.mark.parametrize("kind", ["ACATS", "JNLS", "OPASN"])
    def test_what_leaves_unpaid_realizes_nothing(self, kind) -> None:
        position = folded(10, 30, activity(kind, qty=-4, price=999))
        assert (position.qty, position.cost_basis, position.realized_pnl) == (6, 180, 0)

    def test_taken_back_with_what_it_had_realized(self) -> None:
        one = activity("MA", qty=-100, net_amount=5000, status="canceled")
        undone = apply_activities([one], NOTHING_HELD).undone
        assert undone == (adjustment_id_of(one), f"{adjustment_id_of(one)}:cash")
