from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.trades import UPDATES_LAST_BY_TAPE, Ineligible, why_ineligible
from tests.support.quotes import NOON, make_trade

# By tape, of the 36 codes there are: those of which the plans say that they do not update the last.
NEVER = {"A": "BCGHIMNPQRUVZ47", "C": "CGHIMNPQRUVWZ47"}
# And those of which they say that they do; T is our own addition.
DOES = {"A": " @EFKLOTX5689", "C": " @ABDFKLOSTXY15689"}


def test_a_regular_trade_is_eligible() -> None:
    assert why_ineligible(make_trade()) is None
    assert why_ineligible(make_trade(conditions=())) is None
    assert why_ineligible(make_trade(conditions=(" ",), tape="A")) is None


@pytest.mark.parametrize(("tape", "code"), [(tape, code) for tape, codes in NEVER.items() for code in codes])
def test_a_condition_that_does_not_update_the_last(tape: str, code: str) -> None:
    assert why_ineligible(make_trade(conditions=("@", code), tape=tape)) is Ineligible.CONDITION


@pytest.mark.parametrize(("tape", "code"), [(tape, code) for tape, codes in DOES.items() for code in codes])
def test_a_condition_that_does(tape: str, code: str) -> None:
    assert why_ineligible(make_trade(conditions=("@", code), tape=tape)) is None


def test_the_same_letter_means_another_thing_by_another_plan() -> None:
    """B is an average price on tapes A and B, a bunched trade on tape C."""
    eligible = {tape: why_ineligible(make_trade(conditions=("B",), tape=tape)) is None for tape in "ABCO"}
    assert eligible == {"A": False, "B": False, "C": True, "O": True}
    for tape in ("N", None, "?"):
        assert why_ineligible(make_trade(conditions=("B",), tape=tape)) is Ineligible.CONDITION
        assert why_ineligible(make_trade(conditions=("@", "F"), tape=tape)) is None


def test_extended_hours_mark_but_not_their_odd_lots_nor_late_reports() -> None:
    assert why_ineligible(make_trade(conditions=("@", "T"))) is None
    assert why_ineligible(make_trade(conditions=("@", "T", "I"))) is Ineligible.CONDITION
    assert why_ineligible(make_trade(conditions=("@", "U"))) is Ineligible.CONDITION


@given(st.lists(st.text(max_size=2), max_size=4), st.sampled_from([*"ABCON", None]))
def test_what_no_plan_knows_is_not_trusted(conditions: list[str], tape: str | None) -> None:
    known = set().union(*UPDATES_LAST_BY_TAPE.values())
    if not known.issuperset(conditions):
        assert why_ineligible(make_trade(conditions=tuple(conditions), tape=tape)) is Ineligible.CONDITION


@pytest.mark.parametrize("price", [None, 0.0, -1.0, 1e-7, 1e10, float("nan"), float("inf"), float("-inf")])
def test_a_price_that_is_none(price: float | None) -> None:
    assert why_ineligible(make_trade(price=price)) is Ineligible.PRICE


def test_an_untimed_trade() -> None:
    assert why_ineligible(make_trade(timestamp=None)) is Ineligible.UNTIMED


@pytest.mark.parametrize(("ahead_s", "why"), [(60, None), (70, Ineligible.AHEAD), (3.2e9, Ineligible.AHEAD)])
def test_a_trade_stamped_far_ahead_of_us(ahead_s: float, why: Ineligible | None) -> None:
    assert why_ineligible(make_trade(timestamp=NOON + timedelta(seconds=ahead_s))) is why
