from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.broker.activity_results import Applied, Known
from libs.broker.corporate_actions import apply_activities
from libs.broker.reconcile import OurPosition
from libs.broker.splits import split_ratio, whole_split_ratio
from libs.portfolio.adjustments import AdjustmentKind
from libs.portfolio.days import day_start
from libs.portfolio.fills import EXACT
from tests.libs.broker.activity_samples import MONDAY, SPLIT_ID, D, activity, holding, only, waited
from tests.support.portfolio import book_of, fill


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
        assert adjustment.adjustment_id == f"{SPLIT_ID}:added"
        recorded_before = replace(waited(entry), recorded={SPLIT_ID})
        assert only(apply_activities([entry], holding(held), recorded_before)).adjustment_id == SPLIT_ID

    def test_half_of_one_is_not_taken_for_the_whole(self) -> None:
        new, old = activity("SPLIT", qty=20), activity("SPLIT", qty=-10)
        assert apply_activities([new], holding(10)).waiting == (new,)
        pair = apply_activities([new, old], holding(10), waited(new))
        assert (only(pair).ratio_new, only(pair).ratio_old) == (2, 1)
        early = only(apply_activities([new], holding(10), waited(new)))
        late = apply_activities([old, new], holding(10), Known(recorded={early.adjustment_id}))
        assert [one.adjustment_id for one in late.adjustments] == [SPLIT_ID]
        assert late.undone == (early.adjustment_id,), "what was read of one half is taken back"

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
        assert asked[0] == ("AAPL", MONDAY)


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


class TestDayWithoutATime:
    """The broker books a split under a date; on which side of the day's fills it is, the shares that it names tell."""

    TUESDAY = MONDAY + timedelta(days=1)

    def held(self, morning: object, evening: object):
        shares = {MONDAY: D(str(morning)), self.TUESDAY: D(str(evening))}
        return lambda _symbol, day: OurPosition(shares[day], shares[day] * 100)

    @pytest.mark.parametrize(
        ("morning", "evening", "quantities", "described", "begins", "ratio"),
        [
            (100, 90, (-90, 900), {}, TUESDAY, (10, 1)),
            (100, 90, (-100, 1000), {}, MONDAY, (10, 1)),
            (100, 100, (-100, 1000), {}, MONDAY, (10, 1)),
            (100, 90, (-90, 9), {}, TUESDAY, (1, 10)),
            (-100, -90, (90, -900), {}, TUESDAY, (10, 1)),
            (100, 90, (810,), {}, TUESDAY, (10, 1)),
            (100, 90, (900,), {}, MONDAY, (10, 1)),
            (100, 90, (-90, 900), {"description": "REMOVE, From QTY:90, To QTY:900"}, TUESDAY, (10, 1)),
            (100, 90, (-90, 900), {"description": "ADD, From QTY:-90, To QTY:900"}, TUESDAY, (10, 1)),
            (-100, -90, (90, -900), {"description": "ADD, From QTY:90, To QTY:-900"}, TUESDAY, (10, 1)),
        ],
    )
    def test_the_side_of_the_days_fills(self, morning, evening, quantities, described, begins, ratio) -> None:
        entries = [activity("SPLIT", qty=qty, **described) for qty in quantities]
        split = only(apply_activities(entries, self.held(morning, evening), waited(*entries)))
        assert split.effective_at == day_start(begins)
        assert (split.ratio_new, split.ratio_old) == ratio

    @pytest.mark.parametrize(
        ("quantities", "described"),
        [((-95, 950), {}), ((-90, 900), {"description": "ADD, From QTY:100, To QTY:900"})],
    )
    def test_where_they_do_not_agree_it_is_said(self, quantities, described) -> None:
        entries = [activity("SPLIT", qty=qty, **described) for qty in quantities]
        applied = apply_activities(entries, self.held(100, 90))
        assert [one.activity for one in applied.unhandled] == entries
        assert applied.doubtful_symbols == {"AAPL"}
