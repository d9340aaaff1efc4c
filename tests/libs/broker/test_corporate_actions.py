from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.broker.activity_results import ACCOUNT_WIDE, Applied, Known, Unhandled, adjustment_id_of
from libs.broker.corporate_actions import apply_activities
from libs.broker.executions import Activity
from libs.broker.reconcile import OurPosition
from libs.broker.splits import split_ratio, whole_split_ratio
from libs.portfolio.adjustments import AdjustmentKind
from libs.portfolio.fills import EXACT
from tests.support.portfolio import book_of, fill

D = Decimal
MONDAY = date(2025, 10, 20)
NUMBERED = count(1)


def activity(kind: str, symbol: str | None = "AAPL", **fields: object) -> Activity:
    numbers = {name: D(str(value)) if isinstance(value, int | float) else value for name, value in fields.items()}
    return Activity(
        **({"activity_id": f"a{next(NUMBERED):05}", "kind": kind, "date": MONDAY, "symbol": symbol} | numbers)
    )


def holding(qty: object = 0, cost: object = 0, **others: object):
    """Hold `qty` shares of AAPL at `cost`, and of each other symbol so many at 10 USD."""
    held = {"AAPL": OurPosition(D(str(qty)), D(str(cost)))}
    held |= {symbol: OurPosition(D(str(number)), D(str(number)) * 10) for symbol, number in others.items()}
    return lambda symbol, _day: held.get(symbol, OurPosition(D(0), D(0)))


NOTHING_HELD = holding()
SPLIT_ID = "activity:split:AAPL:2025-10-20"


def waited(*activities: Activity) -> Known:
    """Say that these were given in an earlier round too."""
    return Known(waited={one.activity_id for one in activities})


def only(applied: Applied):
    """Return the one adjustment, which is all that came of it."""
    (adjustment,) = applied.adjustments
    assert (applied.cash, applied.waiting, applied.undone, applied.unhandled) == ((), (), (), ())
    return adjustment


class TestIncome:
    @pytest.mark.parametrize(
        ("kind", "net_amount", "expected", "amount"),
        [
            ("DIV", "1.02", AdjustmentKind.DIVIDEND, "1.02"),
            ("DIV", "-5", AdjustmentKind.DIVIDEND, "-5"),
            ("DIVCGL", "1", AdjustmentKind.DIVIDEND, "1"),
            ("DIVROC", "3", AdjustmentKind.DIVIDEND, "3"),
            ("DIVNRA", "-0.15", AdjustmentKind.DIVIDEND, "-0.15"),
            ("DIVFEE", "-0.01", AdjustmentKind.DIVIDEND, "-0.01"),
            ("FEE", "-0.02", AdjustmentKind.FEE, "0.02"),
            ("CFEE", "-1.5", AdjustmentKind.FEE, "1.5"),
            ("PTC", "-2", AdjustmentKind.FEE, "2"),
            ("FEE", "0.3", AdjustmentKind.FEE, "-0.3"),
            ("CIL", "12.34", AdjustmentKind.CASH_IN_LIEU, "12.34"),
        ],
    )
    def test_kinds_and_signs(self, kind, net_amount, expected, amount) -> None:
        one = activity(kind, net_amount=D(net_amount), qty=2)
        adjustment = only(apply_activities([one], NOTHING_HELD))
        assert (adjustment.kind, adjustment.symbol, adjustment.amount) == (expected, "AAPL", D(amount))
        assert adjustment.adjustment_id == adjustment_id_of(one) == f"activity:{one.activity_id}"

    def test_effective_as_the_new_york_date_begins(self) -> None:
        adjustment = only(apply_activities([activity("DIV", net_amount=1)], NOTHING_HELD))
        assert adjustment.effective_at == datetime(2025, 10, 20, 4, tzinfo=UTC)

    def test_without_a_symbol_it_is_the_accounts(self) -> None:
        adjustment = only(apply_activities([activity("FEE", None, net_amount=-1)], NOTHING_HELD))
        assert adjustment.symbol == ACCOUNT_WIDE

    def test_the_description_is_part_of_the_reason(self) -> None:
        adjustment = only(apply_activities([activity("FEE", net_amount=-1, description="TAF " * 99)], NOTHING_HELD))
        assert adjustment.reason.startswith("FEE: TAF TAF")
        assert len(adjustment.reason) == 200

    def test_a_stock_dividend_is_shares_at_no_cost(self) -> None:
        adjustment = only(apply_activities([activity("DIV", qty=3, net_amount=0)], NOTHING_HELD))
        assert (adjustment.kind, adjustment.qty, adjustment.amount) == (AdjustmentKind.TRANSFER, 3, 0)

    @pytest.mark.parametrize("kind", ["INT", "CSD", "CSW", "JNLC", "TRANS", "ACATC"])
    def test_cash_alone_is_counted_and_changes_nothing(self, kind) -> None:
        one = activity(kind, None, net_amount=100)
        assert apply_activities([one], NOTHING_HELD) == Applied(cash=(one,))

    def test_nothing_paid_changes_nothing(self) -> None:
        one = activity("DIV", net_amount=0)
        assert apply_activities([one], NOTHING_HELD) == Applied(cash=(one,))

    @pytest.mark.parametrize("kind", ["FEE", "CIL", "DIV"])
    def test_an_amount_that_is_missing_is_named(self, kind) -> None:
        one = activity(kind)
        assert apply_activities([one], NOTHING_HELD) == Applied(unhandled=(Unhandled(one, "no amount"),))


class TestSplits:
    @pytest.mark.parametrize(
        ("held", "removed", "added", "ratio"),
        [
            ("10", "-10", "40", (4, 1)),
            ("-10", "10", "-40", (4, 1)),
            ("100", "-100", "12.5", (1, 8)),
            ("-100", "100", "-12.5", (1, 8)),
            ("30", "-30", "45", (3, 2)),
            ("10", "-10", "3.333333333", (1, 3)),
            ("0.29", "-0.29", "0.029", (1, 10)),
            ("7", "-7", "0.14", (1, 50)),
            ("1000", "-1000", "1", (1, 1000)),
        ],
    )
    @pytest.mark.parametrize("is_turned", [False, True])
    def test_old_shares_out_and_new_ones_in(self, held, removed, added, ratio, is_turned) -> None:
        pair = [activity("SPLIT", qty=D(removed)), activity("SPLIT", qty=D(added))]
        adjustment = only(apply_activities(pair[::-1] if is_turned else pair, holding(held)))
        assert adjustment.kind is AdjustmentKind.SPLIT
        assert (adjustment.ratio_new, adjustment.ratio_old) == ratio
        assert adjustment.adjustment_id == SPLIT_ID, "the same whichever came first"

    @pytest.mark.parametrize(
        ("held", "added", "ratio"),
        [("10", "30", (4, 1)), ("-10", "-30", (4, 1)), ("100", "-87.5", (1, 8)), ("-100", "87.5", (1, 8))],
    )
    @pytest.mark.parametrize("kind", ["SPLIT", "SSP", "SPLIT.FSPLIT"])
    def test_one_entry_with_the_shares_added(self, kind, held, added, ratio) -> None:
        entry = activity(kind, qty=D(added))
        assert apply_activities([entry], holding(held)) == Applied(waiting=(entry,)), "it may be half of two"
        adjustment = only(apply_activities([entry], holding(held), waited(entry)))
        assert (adjustment.ratio_new, adjustment.ratio_old) == ratio
        assert adjustment.adjustment_id == SPLIT_ID

    def test_half_of_one_is_not_taken_for_the_whole(self) -> None:
        new, old = activity("SPLIT", qty=20), activity("SPLIT", qty=-10)
        assert apply_activities([new], holding(10)).waiting == (new,)
        pair = apply_activities([new, old], holding(10), waited(new))
        assert (only(pair).ratio_new, only(pair).ratio_old) == (2, 1)
        late = apply_activities([new], holding(10), waited(new)), apply_activities([old, new], holding(10))
        assert [only(one).adjustment_id for one in late] == [SPLIT_ID] * 2, "recorded once, if wrongly"

    @pytest.mark.parametrize(
        "entry",
        [
            activity("SPLIT", qty=-10),
            activity("SPLIT", qty=40, description="ADD, From QTY:10, To QTY:40"),
            activity("SPLIT", qty=-10, description="remove, From QTY:10"),
        ],
    )
    def test_half_of_one_waits_for_the_other(self, entry) -> None:
        applied = apply_activities([entry], holding(10))
        assert applied == Applied(waiting=(entry,)) == apply_activities([entry], holding(10), waited(entry))
        assert applied.doubtful_symbols == {"AAPL"}
        missing = activity("SPLIT", qty=40 if entry.qty < 0 else -10)
        assert only(apply_activities([*applied.waiting, missing], holding(10))).ratio_new == 4

    @pytest.mark.parametrize(
        "quantities",
        [
            ("-7", "1.234567891"),  # no small ratio
            ("-10", "10"),  # one for one
            ("10", "40"),  # nothing leaves
            ("-10", "-40"),
            ("-10", "20", "20"),
            (None,),
            ("0",),
            ("-20",),  # more than was held: a holding does not turn
        ],
    )
    def test_what_no_ratio_explains_is_named(self, quantities) -> None:
        entries = [activity("SPLIT", qty=None if qty is None else D(qty)) for qty in quantities]
        applied = apply_activities(entries, holding(10), waited(*entries))
        assert [one.activity for one in applied.unhandled] == entries
        assert (applied.adjustments, applied.waiting, applied.doubtful_symbols) == ((), (), {"AAPL"})

    def test_each_symbol_and_date_has_its_own(self) -> None:
        tuesday = MONDAY + timedelta(days=1)
        entries = [
            activity("SPLIT", qty=-10),
            activity("SPLIT", "TSLA", qty=-6),
            replace(activity("SPLIT", qty=-20), date=tuesday),
            activity("SPLIT", qty=20),
            activity("SPLIT", "TSLA", qty=18),
            replace(activity("SPLIT", qty=200), date=tuesday),
        ]
        splits = apply_activities(entries, holding(10, TSLA=6)).adjustments
        assert {(one.symbol, one.effective_at.day, one.ratio_new) for one in splits} == {
            ("AAPL", 20, 2),
            ("TSLA", 20, 3),
            ("AAPL", 21, 10),
        }

    def test_the_holding_is_asked_for_as_that_date_began(self) -> None:
        asked = []
        apply_activities(
            [activity("SPLIT", qty=1)], lambda symbol, day: asked.append((symbol, day)) or OurPosition(D(1), D(1))
        )
        assert asked == [("AAPL", MONDAY)]


class TestCashInLieu:
    """A broker that keeps whole shares only pays the fraction in cash."""

    @pytest.mark.parametrize(
        ("held", "new", "ratio", "cost"),
        [
            (15, 1, (1, 10), 500),  # 1:15 and 1:8 would do too
            (-15, -1, (1, 10), -500),
            (25, 2, (1, 10), 500),
            (10, 3, (1, 3), 100),
            (15, 22, (3, 2), D(100) / 3),
            (10, 13, (4, 3), 25),
            (1999, 199, (1, 10), 900),
        ],
    )
    @pytest.mark.parametrize("status", ["executed", "pending"])
    def test_the_cost_of_the_fraction_is_realized_against_it(self, held, new, ratio, cost, status) -> None:
        pair = [activity("SPLIT", qty=-held), activity("SPLIT", qty=new)]
        paid = activity("CIL", net_amount=700, status=status)
        applied = apply_activities([*pair, paid], holding(held, held * 100))
        split = applied.adjustments[-3]
        assert (split.adjustment_id, split.ratio_new, split.ratio_old) == (SPLIT_ID, *ratio)
        assert len({one.adjustment_id for one in applied.adjustments}) == len(applied.adjustments)
        bought = fill(held, 100, filled_at=datetime(2025, 10, 1, 15, tzinfo=UTC))
        position = book_of(bought, *applied.adjustments).positions["AAPL"]
        gain = (700 if status == "executed" else 0) - cost
        assert position.qty == new
        assert abs(position.realized_pnl - gain) < D("1e-4")
        assert abs(position.cost_basis - (held * 100 - cost)) < D("1e-4")

    def test_the_difference_alone(self) -> None:
        entry, paid = activity("SPLIT", qty=-14), activity("CIL", net_amount=7)
        split = apply_activities([entry, paid], holding(15, 1500), waited(entry)).adjustments[1]
        assert (split.ratio_new, split.ratio_old) == (1, 10)

    @pytest.mark.parametrize(
        "paid",
        [
            activity("CIL", "TSLA", net_amount=7),
            replace(activity("CIL", net_amount=7), date=MONDAY + timedelta(days=1)),
        ],
    )
    def test_cash_for_other_shares_says_nothing(self, paid) -> None:
        pair = [activity("SPLIT", qty=-15), activity("SPLIT", qty=1)]
        one, split = apply_activities([*pair, paid], holding(15, 1500)).adjustments
        assert (one.amount, split.ratio_new, split.ratio_old) == (7, 1, 15)

    def test_less_than_can_be_held_is_no_fraction(self) -> None:
        pair = [activity("SPLIT", qty=D("-9.000000001")), activity("SPLIT", qty=3)]
        applied = apply_activities([*pair, activity("CIL", net_amount=D("0.01"))], holding("9.000000001", 900))
        assert [(one.kind, one.ratio_old) for one in applied.adjustments] == [
            (AdjustmentKind.CASH_IN_LIEU, None),
            (AdjustmentKind.SPLIT, 3),
        ]

    @pytest.mark.parametrize(
        ("held", "known"), [(14, Known()), (0, Known()), (15, Known(recorded={"activity:split:AAPL:2025-10-20"}))]
    )
    def test_no_fraction_of_other_shares_nor_of_a_split_recorded_without(self, held, known) -> None:
        entries = [activity("SPLIT", qty=-15), activity("SPLIT", qty=1), activity("CIL", net_amount=7)]
        applied = apply_activities(entries, holding(held, held * 100), known)
        assert [one.kind for one in applied.adjustments] == [AdjustmentKind.CASH_IN_LIEU, AdjustmentKind.SPLIT]

    def test_shares_at_no_cost_realize_none(self) -> None:
        entries = [activity("SPLIT", qty=-15), activity("SPLIT", qty=1), activity("CIL", net_amount=7)]
        kinds = [one.kind for one in apply_activities(entries, holding(15)).adjustments]
        assert kinds == [AdjustmentKind.CASH_IN_LIEU, AdjustmentKind.SPLIT, AdjustmentKind.TRANSFER]

    def test_taken_back_as_a_whole(self) -> None:
        old, new = activity("SPLIT", qty=-15, status="canceled"), activity("SPLIT", qty=1, status="canceled")
        undone = apply_activities([old, new], holding(15, 1500)).undone
        assert {*undone} >= {SPLIT_ID, f"{SPLIT_ID}:fraction", f"{SPLIT_ID}:cash"}
        stands = [activity("SPLIT", qty=-15), activity("SPLIT", qty=1)]
        assert SPLIT_ID not in apply_activities([new, *stands], holding(15, 1500)).undone

    @given(st.integers(1, 2000), st.sampled_from([(1, 2), (1, 5), (1, 10), (1, 20), (1, 100), (3, 2), (2, 1), (4, 3)]))
    def test_a_likely_ratio_explains_the_whole_shares(self, held, ratio) -> None:
        exact = Fraction(held) * Fraction(*ratio)
        new = exact.numerator // exact.denominator
        found = whole_split_ratio(D(held), D(new))
        if new and new != exact:
            assert found is not None
            assert 0 < held * found - new < 1

    @pytest.mark.parametrize(("old", "new"), [(0, 5), (5, 0), (10, -40), (10, D("3.5"))])
    def test_none_where_there_is_none(self, old, new) -> None:
        assert whole_split_ratio(D(old), D(new)) is None


def cut(qty: Decimal, ratio: Fraction) -> Decimal:
    exact = EXACT.divide(EXACT.multiply(qty, D(ratio.numerator)), D(ratio.denominator))
    return exact.quantize(D("1e-9"), ROUND_DOWN, EXACT)


class TestSplitRatio:
    @given(
        st.integers(1, 10),
        st.integers(1, 10),
        st.decimals("1", "1000000", places=9) | st.integers(1, 5000).map(D),
        st.booleans(),
    )
    def test_finds_a_small_ratio(self, new, old, shares, is_short) -> None:
        qty = -shares if is_short else shares
        assert split_ratio(qty, cut(qty, Fraction(new, old))) == Fraction(new, old)

    @given(st.integers(1, 100), st.integers(1, 100), st.decimals("0.000000001", "100000", places=9))
    def test_what_it_finds_makes_exactly_these_shares(self, new, old, qty) -> None:
        made = cut(qty, Fraction(new, old))
        ratio = split_ratio(qty, made)
        assert (ratio is None) if not made else (ratio is not None and cut(qty, ratio) == made)

    @pytest.mark.parametrize(("old", "new"), [(0, 5), (5, 0), (10, -40), (-10, 40), ("7", "1.234567891")])
    def test_none_where_there_is_none(self, old, new) -> None:
        assert split_ratio(D(old), D(new)) is None


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
    @pytest.mark.parametrize("kind", ["SPIN", "MA", "REORG", "ACATS", "JNLS", "OPEXP", "VOF", "SSO"])
    def test_what_comes_in_costs_its_price(self, kind) -> None:
        adjustment = only(apply_activities([activity(kind, qty=5, price=20)], NOTHING_HELD))
        assert (adjustment.kind, adjustment.qty, adjustment.amount) == (AdjustmentKind.TRANSFER, 5, 100)

    @pytest.mark.parametrize(("held", "cost", "qty", "amount"), [(10, 300, -4, -120), (-10, -300, 10, 300)])
    def test_what_leaves_takes_its_part_of_the_cost_along(self, held, cost, qty, amount) -> None:
        adjustment = only(apply_activities([activity("ACATS", qty=qty, price=999)], holding(held, cost)))
        assert (adjustment.qty, adjustment.amount) == (qty, amount)

    def test_more_than_was_held_leaves_at_its_price(self) -> None:
        adjustment = only(apply_activities([activity("JNLS", qty=-11, price=2)], holding(10, 300)))
        assert (adjustment.qty, adjustment.amount) == (-11, -22)

    def test_a_spin_off_moves_cost_to_the_new_symbol(self) -> None:
        entries = [
            activity("SPIN", "GEHC", qty=3, price=50, description="GE spin-off"),
            activity("SPIN", qty=-10, price=100, description="GE spin-off"),
            activity("SPIN", qty=10, price=85, description="GE spin-off"),
        ]
        applied = apply_activities(entries, holding(10, 1000))
        moved = [(one.symbol, one.qty, one.amount) for one in applied.adjustments]
        assert moved == [("GEHC", 3, 150), ("AAPL", -10, -1000), ("AAPL", 10, 850)]

    @pytest.mark.parametrize(("paid", "gain"), [(1500, 500), (900, -100)])
    def test_cash_for_shares_that_left_is_realized_against_their_cost(self, paid, gain) -> None:
        entries = [activity("MA", qty=-10), activity("MA", net_amount=paid)]
        applied = apply_activities(entries, holding(10, 1000))
        assert [one.amount for one in applied.adjustments] == [-1000, gain]
        assert applied.adjustments[1].kind is AdjustmentKind.CASH_IN_LIEU
        bought = fill(10, 100, filled_at=datetime(2025, 10, 1, 15, tzinfo=UTC))
        position = book_of(bought, *applied.adjustments).positions["AAPL"]
        assert (position.qty, position.cost_basis, position.realized_pnl) == (0, 0, gain)

    def test_cash_in_parts_is_realized_as_one(self) -> None:
        first, second = activity("MA", net_amount=900), activity("MA", net_amount=300)
        applied = apply_activities([activity("MA", qty=-10), first, second], holding(10, 1000))
        assert [one.amount for one in applied.adjustments] == [-1000, 200]
        assert applied.cash == (second,)

    def test_cash_of_exactly_the_cost_is_counted(self) -> None:
        moved, paid = activity("MA", qty=-10), activity("MA", net_amount=1000)
        assert apply_activities([moved, paid], holding(10, 1000)).cash == (paid,)

    def test_cash_beside_shares_that_came_in_is_named(self) -> None:
        entries = [
            activity("MA", "AAPL", qty=-10, description="m"),
            activity("MA", "NEW", qty=5, price=9, description="m"),
        ]
        paid = activity("MA", "NEW", net_amount=100, description="m")
        applied = apply_activities([*entries, paid], holding(10, 1000))
        assert [one.activity for one in applied.unhandled] == [paid]
        assert len(applied.adjustments) == 2

    def test_cash_alone_is_named(self) -> None:
        paid = activity("REORG", net_amount=100)
        assert [one.activity for one in apply_activities([paid], holding(10)).unhandled] == [paid]

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

    @pytest.mark.parametrize(("qty", "net_amount"), [(5, 100), (-5, -100)])
    def test_shares_that_come_in_with_cash_are_named(self, qty, net_amount) -> None:
        one = activity("MA", qty=qty, net_amount=net_amount, price=9)
        applied = apply_activities([one], NOTHING_HELD)
        assert applied == Applied(unhandled=(Unhandled(one, "cash of a corporate action"),))

    @pytest.mark.parametrize("kind", ["MA", "ACATS", "JNLS", "OPASN"])
    def test_what_leaves_unpaid_realizes_nothing(self, kind) -> None:
        position = folded(10, 30, activity(kind, qty=-4, price=999))
        assert (position.qty, position.cost_basis, position.realized_pnl) == (6, 180, 0)

    def test_taken_back_with_what_it_had_realized(self) -> None:
        one = activity("MA", qty=-100, net_amount=5000, status="canceled")
        undone = apply_activities([one], NOTHING_HELD).undone
        assert undone == (adjustment_id_of(one), f"{adjustment_id_of(one)}:cash")


class TestStatuses:
    @pytest.mark.parametrize("status", ["canceled", "CANCELLED", "rejected", "reversed"])
    def test_what_the_broker_took_back(self, status) -> None:
        one = activity("DIV", net_amount=1, status=status)
        assert apply_activities([one], NOTHING_HELD) == Applied(undone=(adjustment_id_of(one),))

    @pytest.mark.parametrize("status", ["pending", "Queued", "sent_to_clearing"])
    def test_what_has_not_happened_yet(self, status) -> None:
        one = activity("CSD", net_amount=1, status=status)
        assert apply_activities([one], NOTHING_HELD) == Applied(waiting=(one,))

    @pytest.mark.parametrize("status", ["executed", "correct", None, "levitating"])
    def test_anything_else_has_happened(self, status) -> None:
        assert only(apply_activities([activity("DIV", net_amount=1, status=status)], NOTHING_HELD)).amount == 1


@pytest.mark.parametrize("kind", ["WARP", "FILL", "", "SPLITX"])
def test_an_unknown_kind_is_named(kind) -> None:
    one = activity(kind, qty=1, net_amount=1)
    applied = apply_activities([one], NOTHING_HELD)
    assert applied == Applied(unhandled=(Unhandled(one, "unknown kind of activity"),))
    assert applied.doubtful_symbols == {"AAPL"}


@pytest.mark.parametrize("kind", ["SPLIT", "MA"])
def test_a_corporate_action_of_no_symbol_is_named(kind) -> None:
    one = activity(kind, None, qty=1)
    assert apply_activities([one], NOTHING_HELD) == Applied(unhandled=(Unhandled(one, "no symbol"),))


def test_the_same_activity_counts_once() -> None:
    one = activity("DIV", net_amount=1)
    assert len(apply_activities([one, one, replace(one)], NOTHING_HELD).adjustments) == 1


KINDS = (
    "DIV",
    "DIVNRA",
    "FEE",
    "CIL",
    "INT",
    "CSD",
    "SPLIT",
    "SSP",
    "NC",
    "SC",
    "SPIN",
    "MA",
    "OPTRD",
    "OPEXP",
    "WARP",
    "FILL",
)
figures = (
    st.none() | st.sampled_from([D(0), D(1), D(-1), D(10), D(-10), D(40)]) | st.decimals(-(10**6), 10**6, places=9)
)
huge = st.sampled_from([D("1e30"), D("-1e30"), D("1e-30"), D("9" * 60), D("0." + "7" * 60)])


@st.composite
def activities(draw: st.DrawFn) -> list[Activity]:
    return [
        Activity(
            draw(st.integers(0, 30).map(lambda number: f"a{number:02}")),
            draw(st.sampled_from(KINDS)),
            MONDAY + timedelta(days=draw(st.integers(0, 1))),
            draw(st.none() | st.sampled_from(("A", "B", "C"))),
            draw(figures | huge),
            # Never exactly the cost of shares: that is a case of its own, above.
            draw(st.none() | st.just(D(0)) | st.decimals(-1000, 1000, places=5).map(lambda paid: paid + D("1e-7"))),
            None,
            draw(figures | huge),
            draw(st.none() | st.sampled_from(("ADD", "REMOVE", "m"))),
            draw(st.none() | st.sampled_from(("executed", "canceled", "pending"))),
        )
        for _ in range(draw(st.integers(0, 8)))
    ]


def source_of(adjustment_id: str) -> str:
    """Return the activity that an adjustment is named after."""
    return adjustment_id.removeprefix("activity:").removesuffix(":cash")


def is_partner(one: Activity, applied: Applied, given: dict[str, Activity]) -> bool:
    """Say whether `one` is an entry of a split, or the second of a renaming that became one under the first's id."""
    for adjustment in applied.adjustments:
        if adjustment.kind is AdjustmentKind.SPLIT:
            if adjustment.adjustment_id == f"activity:split:{one.symbol}:{one.date}" and one.kind[0] == "S":
                return True
            continue
        first = given.get(source_of(adjustment.adjustment_id))
        if first is None or first.date != one.date:
            continue
        if adjustment.kind is AdjustmentKind.SYMBOL_CHANGE and first.qty == -(one.qty or 0):
            return True
    return False


@given(activities(), st.sampled_from([D(0), D(10), D(-10), D("1e30")]), st.booleans())
def test_every_activity_lands_in_exactly_one_part(drawn, held, is_later) -> None:
    given = {one.activity_id: one for one in drawn}
    known = waited(*drawn) if is_later else Known()
    applied = apply_activities(drawn, lambda _symbol, _day: OurPosition(held, held * 3), known)
    names = Counter(one.adjustment_id for one in applied.adjustments)
    assert set(names.values()) <= {1}
    splits = {source_of(name) for name in names if name.startswith("activity:split:")}
    landed = Counter(
        [
            *{source_of(one.adjustment_id) for one in applied.adjustments} - splits,
            *(one.activity_id for one in (*applied.cash, *applied.waiting)),
            *{source_of(undone) for undone in applied.undone if not undone.startswith("activity:split:")},
            *(one.activity.activity_id for one in applied.unhandled),
        ]
    )
    assert set(landed.values()) <= {1}
    assert landed.keys() <= given.keys()
    assert all(is_partner(given[name], applied, given) for name in given.keys() - landed.keys())
    assert apply_activities([*drawn, *drawn], lambda _symbol, _day: OurPosition(held, held * 3), known) == applied
