from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.broker.activity_results import ACCOUNT_WIDE, Applied, Known, Unhandled, adjustment_id_of
from libs.broker.cash_journal import cash_entry
from libs.broker.corporate_actions import apply_activities
from libs.broker.executions import Activity
from libs.broker.reconcile import OurPosition
from libs.portfolio.adjustments import AdjustmentKind
from tests.libs.broker.activity_samples import MONDAY, NOTHING_HELD, D, activity, holding, only, waited
from tests.support.portfolio import book_of, fill

EARLIER = datetime(2025, 10, 1, 15, tzinfo=UTC)


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
            ("OPCSH", "250", AdjustmentKind.CASH_IN_LIEU, "250"),
            ("OPCSH", "-250", AdjustmentKind.CASH_IN_LIEU, "-250"),
            ("INT", "0.42", AdjustmentKind.INCOME, "0.42"),
            ("INT", "-7", AdjustmentKind.INCOME, "-7"),
            ("INTTW", "-0.1", AdjustmentKind.INCOME, "-0.1"),
        ],
    )
    def test_kinds_and_signs(self, kind, net_amount, expected, amount) -> None:
        one = activity(kind, net_amount=D(net_amount), qty=None if kind == "CFEE" else 2)
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
        assert (adjustment.kind, adjustment.qty, adjustment.amount) == (AdjustmentKind.MOVE, 3, 0)

    @pytest.mark.parametrize(
        ("fields", "is_in_shares"),
        [
            ({"net_amount": 0, "per_share_amount": 1.12}, True),
            ({"net_amount": 0, "per_share_amount": 1.12, "sub_kind": "SDIV"}, True),
            ({"net_amount": 0, "per_share_amount": 0.0001}, False),
            ({"net_amount": 0, "per_share_amount": 1.12, "sub_kind": "CDIV"}, False),
            ({"net_amount": 0, "sub_kind": "ROC"}, False),
            ({"net_amount": 13.44, "per_share_amount": 1.12}, False),
            ({"sub_kind": "SDIV"}, True),
        ],
    )
    def test_a_rate_alone_makes_no_cash_dividend(self, fields, is_in_shares) -> None:
        applied = apply_activities([activity("DIV", qty=12, **fields)], NOTHING_HELD)
        assert [one.kind is AdjustmentKind.MOVE for one in applied.adjustments if one.qty] == [True] * is_in_shares

    @pytest.mark.parametrize("kind", ["CSD", "CSW", "JNLC", "TRANS", "ACATC", "ACATS", "JNLS"])
    def test_cash_from_outside_is_none_of_ours_and_in_the_journal(self, kind) -> None:
        one = activity(kind, None, net_amount=100)
        assert apply_activities([one], NOTHING_HELD) == Applied(cash=(one,))
        entry = cash_entry(one)
        assert entry is not None
        assert (entry.amount, entry.is_outside) == (100, True)

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
@pytest.mark.parametrize("amount", [995, D("-0.01")])
def test_the_cash_of_an_unknown_kind_is_booked_and_its_shares_are_named(kind, amount) -> None:
    one = activity(kind, qty=1, net_amount=amount)
    applied = apply_activities([one], NOTHING_HELD)
    (booked,) = applied.adjustments
    assert (booked.kind, booked.symbol, booked.amount) == (AdjustmentKind.UNCLASSIFIED, "AAPL", amount)
    assert [unhandled.activity for unhandled in applied.unhandled] == [one]
    assert applied.doubtful_symbols == {"AAPL"}


def test_the_cash_of_an_unknown_kind_without_shares_leaves_no_symbol_in_doubt() -> None:
    booked = only(apply_activities([activity("WARP", None, net_amount=3)], NOTHING_HELD))
    assert (booked.kind, booked.symbol, booked.amount) == (AdjustmentKind.UNCLASSIFIED, ACCOUNT_WIDE, 3)


@pytest.mark.parametrize("amount", [None, 0])
def test_an_unknown_kind_without_cash_is_named(amount) -> None:
    one = activity("WARP", qty=1, net_amount=amount)
    applied = apply_activities([one], NOTHING_HELD)
    assert applied == Applied(unhandled=(Unhandled(one, "unknown kind of activity"),))


@pytest.mark.parametrize("kind", ["SPLIT", "NC"])
def test_cash_that_a_split_or_a_renaming_pays_beside_the_shares_is_a_gain(kind) -> None:
    other = "AAPL" if kind == "SPLIT" else "NEW"
    entries = [activity(kind, qty=-100), activity(kind, other, qty=500 if kind == "SPLIT" else 100, net_amount=995)]
    applied = apply_activities(entries, holding(100, 604))
    (paid,) = [one for one in applied.adjustments if one.kind is AdjustmentKind.CASH_IN_LIEU]
    assert (paid.symbol, paid.amount, paid.adjustment_id) == (other, 995, f"activity:{entries[1].activity_id}:cash")


@pytest.mark.parametrize(("held", "cost"), [(1, 50_000), (0, 0), (3, 90_000)])
def test_a_fee_taken_in_coins_is_a_fee_and_the_coins_are_gone(held, cost) -> None:
    """0.00025 coins @60,000 are 15.00: sold for that, which pays the fee. All P&L together is what has left: -15."""
    fee = activity("CFEE", "BTC/USD", qty=D("-0.00025"), price=60_000, net_amount=0)
    applied = apply_activities([fee], lambda _symbol, _day: OurPosition(D(held), D(cost)))
    assert (applied.cash, applied.unhandled) == ((), ())
    bought = [fill(held, D(cost) / held, symbol="BTC/USD", filled_at=EARLIER)] if held else []
    position = book_of(*bought, *applied.adjustments).positions["BTC/USD"]
    assert (position.qty, position.fees) == (held - D("0.00025"), 15)
    price = D(60_000)
    gained = position.qty * price - position.cost_basis + position.realized_pnl - position.fees
    assert gained == held * price - cost - 15
    taken_back = apply_activities([replace(fee, status="canceled")], NOTHING_HELD)
    assert {one.adjustment_id for one in applied.adjustments} <= {*taken_back.undone}


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
    return adjustment_id.removeprefix("activity:").removesuffix(":cash").removesuffix(":fee")


def is_partner(one: Activity, applied: Applied, given: dict[str, Activity]) -> bool:
    """Say whether `one` is an entry of a split, or the second of a renaming that became one under the first's id."""
    for adjustment in applied.adjustments:
        if adjustment.kind is AdjustmentKind.SPLIT:
            split = adjustment.adjustment_id.removesuffix(":added")
            if split == f"activity:split:{one.symbol}:{one.date}" and one.kind[0] == "S":
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
    elsewhere = Counter(
        [
            *(one.activity_id for one in (*applied.cash, *applied.waiting)),
            *{source_of(undone) for undone in applied.undone if not undone.startswith("activity:split:")},
            *(one.activity.activity_id for one in applied.unhandled),
        ]
    )
    # The cash of an entry is booked beside whatever becomes of its shares.
    sources = {source_of(name) for name in names if not name.endswith(":cash")} - splits
    unclassified = {source_of(o.adjustment_id) for o in applied.adjustments if o.kind is AdjustmentKind.UNCLASSIFIED}
    landed = elsewhere + Counter(sources - (unclassified & elsewhere.keys()))
    landed |= Counter({source_of(name) for name in names if name.endswith(":cash")})
    assert set(landed.values()) <= {1}
    assert landed.keys() <= given.keys()
    assert all(is_partner(given[name], applied, given) for name in given.keys() - landed.keys())
    assert apply_activities([*drawn, *drawn], lambda _symbol, _day: OurPosition(held, held * 3), known) == applied
