from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.fill_batch import Comparison, Conflict, ListRepeat, VoidRepeat, compare_fills
from libs.portfolio.fills import Fill
from tests.support.portfolio import fill, fill_lists

ONE, TWO = fill(1, 10, fill_id="1"), fill(2, 10, fill_id="2")


def test_what_is_not_recorded_is_new_in_its_order():
    assert compare_fills([TWO, ONE], {}) == Comparison((TWO, ONE), 0, ())


def test_what_says_the_same_again_is_repeated():
    compared = compare_fills([ONE, TWO, replace(TWO)], {"1": fill("1.000", "10.0", fill_id="1")})
    assert compared == Comparison((TWO,), 2, (), twice=(ListRepeat(2, "2", 1),))


def test_what_only_the_list_repeats_is_named_with_both_places():
    compared = compare_fills([TWO, ONE, TWO, TWO], {"1": ONE})
    assert (compared.new, compared.repeated) == ((TWO,), 3)
    assert compared.twice == (ListRepeat(2, "2", 0), ListRepeat(3, "2", 0)), "the recorded one is no repeat of the list"


def test_what_says_again_what_was_voided_is_told_apart():
    since = datetime(2025, 10, 20, tzinfo=UTC)
    other = replace(ONE, qty=ONE.qty + 1)
    compared = compare_fills([TWO, ONE, other, ONE], {"1": ONE, "2": TWO}, {"1": since})
    assert (compared.repeated, compared.new, len(compared.conflicts)) == (1, (), 1)
    assert compared.void == (VoidRepeat(1, "1", since), VoidRepeat(3, "1", since))


def test_what_contradicts_the_ledger():
    other = fill(-1, 11, fill_id="1")
    assert compare_fills([TWO, other], {"1": ONE}).conflicts == (Conflict(1, ("side", "price"), ONE, None),)


def test_what_contradicts_the_same_list_names_the_first():
    others = [fill(quantity, 10, fill_id="1") for quantity in (2, 3)]
    compared = compare_fills([TWO, ONE, *others], {})
    assert compared.conflicts == (Conflict(2, ("qty",), ONE, 1), Conflict(3, ("qty",), ONE, 1))


@given(fill_lists(), st.data())
def test_every_fill_is_new_repeated_or_in_conflict(fills: list[Fill], data: st.DataObject):
    recorded = {one.fill_id: one for one in data.draw(st.lists(st.sampled_from(fills)))}
    again = [data.draw(st.sampled_from([one, replace(one, qty=one.qty + 1)])) for one in fills]
    asked = data.draw(st.permutations([*fills, *again]))
    compared = compare_fills(asked, recorded)
    assert len(compared.new) + compared.repeated + len(compared.conflicts) == len(asked)
    assert not {one.fill_id for one in compared.new} & recorded.keys()
    for conflict in compared.conflicts:
        differing = {
            name for name in Fill.__slots__ if getattr(asked[conflict.place], name) != getattr(conflict.stands, name)
        }
        assert set(conflict.fields) == differing
    # Whoever records the new ones finds nothing new the second time.
    after = compare_fills(asked, recorded | {one.fill_id: one for one in compared.new})
    assert after.new == ()
    assert len(after.conflicts) == len(compared.conflicts)
