from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.broker.activity_results import ACCOUNT_WIDE, Applied, Known, Unhandled, adjustment_id_of
from libs.broker.corporate_actions import apply_activities
from libs.broker.executions import Activity
from libs.broker.reconcile import OurPosition
from libs.portfolio.adjustments import AdjustmentKind
from tests.libs.broker.activity_samples import MONDAY, NOTHING_HELD, D, activity, only, waited


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
