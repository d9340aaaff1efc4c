"""What counts as a repeat, a correction or a bust, one case each; the mirror's own tests mix them at random."""

from dataclasses import replace
from datetime import timedelta

import pytest

from libs.broker.commands import RecordExecution, VoidExecution
from libs.broker.known_executions import LONGEST_ID, LONGEST_LAG, REMEMBERED, KnownExecutions, LedgerExecution, Source
from libs.portfolio.fills import Side
from tests.libs.broker.samples import NOON, execution, seconds

STREAM, REST = Source.STREAM, Source.REST
LATER = NOON + LONGEST_LAG


@pytest.fixture
def known() -> KnownExecutions:
    return KnownExecutions(now=NOON)


def record(one, **changes):
    return RecordExecution(replace(one, **changes))


class TestRepeats:
    @pytest.mark.parametrize("first", Source)
    @pytest.mark.parametrize("second", Source)
    def test_an_id_counts_once(self, known, first, second) -> None:
        assert known.told(execution(), first, NOON) == [record(execution())]
        assert known.told(execution(), second, NOON) == []

    def test_the_same_part_of_an_order_under_another_id_counts_once(self, known) -> None:
        known.told(execution("x1"), STREAM, NOON)
        listed = execution("r1", at=NOON + seconds(1))
        assert known.told(listed, REST, NOON) == []
        assert known.busted("r1", NOON) == [VoidExecution("x1", "busted")]

    def test_the_stream_saying_it_anew_under_another_id_counts_once(self, known) -> None:
        known.told(execution("x1"), STREAM, NOON)
        assert known.told(execution("x2"), STREAM, NOON) == []

    @pytest.mark.parametrize(
        "other",
        [
            execution("x2", at=NOON + seconds(0.001)),  # the same source: its second execution
            execution("x2", order_id="o2"),
            execution("x2", order_id=None),
            execution("x2", cum=20),
            execution("x2", price=101),
            execution("x2", side=Side.SELL),
        ],
    )
    def test_others_are_others(self, known, other) -> None:
        known.told(execution("x1"), STREAM, NOON)
        assert known.told(other, STREAM, NOON) == [record(other)]

    def test_a_fill_after_a_bust_of_the_same_part_counts(self, known) -> None:
        known.told(execution("x1"), STREAM, NOON)
        known.busted("x1", NOON)
        assert known.told(execution("x2"), REST, NOON) == [record(execution("x2"))]


class TestBusts:
    def test_once(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        assert known.busted("x1", NOON) == [VoidExecution("x1", "busted")]
        assert known.busted("x1", NOON) == []
        assert known.told(execution(), REST, LATER) == []

    def test_before_its_execution(self, known) -> None:
        assert known.busted("x1", NOON) == [VoidExecution("x1", "busted")]
        assert known.told(execution(), REST, NOON) == [record(execution()), VoidExecution("x1", "busted")]
        assert known.told(execution(), STREAM, NOON) == []

    def test_of_a_corrected_execution(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.corrected("x1", execution(price=99), NOON, NOON)
        assert known.busted("x1", NOON) == [VoidExecution("x1:c1", "busted")]
        assert known.corrected("x1", execution(price=98), NOON + seconds(9), NOON) == []


class TestCorrections:
    def test_void_and_record_anew_at_the_executions_time(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        fixed = execution(price=99, at=NOON + seconds(60))
        expected = [VoidExecution("x1", "corrected"), record(fixed, execution_id="x1:c1", executed_at=NOON)]
        assert known.corrected("x1", fixed, NOON + seconds(60), NOON) == expected
        assert known.corrected("x1", fixed, NOON + seconds(60), NOON) == []

    def test_with_an_id_of_its_own_the_ledgers_id_tells_both(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        void, recorded = known.corrected("x1", execution("n1", price=99), NOON, NOON)
        assert void == VoidExecution("x1", "corrected")
        assert recorded == record(execution(price=99), execution_id="x1:c1:n1")
        for name in ("x1", "n1"):
            assert known.told(execution(name, price=99), REST, LATER) == []
        assert known.busted("n1", NOON) == [VoidExecution("x1:c1:n1", "busted")]

    def test_that_was_listed_by_rest_before_it_was_told(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.told(execution("n1", price=99, cum=11), REST, NOON)
        assert known.corrected("x1", execution("n1", price=99), NOON, NOON) == [VoidExecution("x1", "corrected")]
        assert known.corrected("x1", execution("n1", price=99), NOON, NOON) == []
        assert known.busted("x1", NOON) == [VoidExecution("n1", "busted")]

    def test_that_rest_shows_beside_what_it_replaced(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.corrected("x1", execution("n1", price=99), NOON, NOON)
        for day in range(1, 4):
            at = NOON + timedelta(days=day)
            assert known.told(execution("n1", price=99), REST, at) == []
            assert known.told(execution("x1"), REST, at) == []

    def test_in_the_wrong_order_the_newest_stands(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.corrected("x1", execution(price=98), NOON + seconds(20), NOON)
        assert known.corrected("x1", execution(price=99), NOON + seconds(10), NOON) == []

    def test_back_to_what_it_was(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.corrected("x1", execution(price=99), NOON + seconds(10), NOON)
        void, recorded = known.corrected("x1", execution(), NOON + seconds(20), NOON)
        assert (void.execution_id, recorded) == ("x1:c1", record(execution(), execution_id="x1:c2"))

    def test_before_its_execution(self, known) -> None:
        fixed = execution(price=99)
        assert known.corrected("x1", fixed, NOON, NOON) == [
            VoidExecution("x1", "corrected"),
            record(fixed, execution_id="x1:c1"),
        ]
        assert known.told(execution(), STREAM, NOON) == [record(execution()), VoidExecution("x1", "corrected")]

    def test_unheard_and_seen_by_rest(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        fixed = execution(price=99)
        assert known.told(fixed, REST, NOON)[1] == record(fixed, execution_id="x1:c1")
        assert known.corrected("x1", fixed, NOON, NOON) == []

    def test_rest_that_lags_never_undoes_one(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.corrected("x1", execution(price=99), NOON, NOON)
        assert known.told(execution(), REST, LATER - seconds(1)) == []
        assert len(known.told(execution(), REST, LATER)) == 2


UUID = "2f63ea93-423d-4169-b3f6-3fdafc10c418"


class TestLongIds:
    """A correction is recorded in place of what it voids, however long the broker's ids are; also after a restart."""

    @pytest.mark.parametrize("own", [UUID[::-1], "n" * 128, None])
    @pytest.mark.parametrize("root", [UUID, "x" * 100, "x" * 128])
    def test_what_stands_has_an_id_that_fits_and_is_known_again(self, known, root, own) -> None:
        first, fixed = execution(root), execution(own or root, price=99)
        known.told(first, STREAM, NOON)
        void, recorded = known.corrected(root, fixed, NOON, NOON)
        stands = recorded.execution
        assert (void.execution_id, stands.price) == (root, 99)
        assert len(stands.execution_id) <= LONGEST_ID
        seeds = [LedgerExecution(replace(first, order_id=None), is_void=True), LedgerExecution(stands, is_void=False)]
        for again in (known, *(KnownExecutions(some, now=NOON) for some in (seeds, seeds[::-1], seeds[1:]))):
            assert [again.told(replace(fixed, order_id=None), REST, LATER) for _ in range(2)] == [[], []]
            assert own is None or again.told(replace(first, order_id=None), REST, LATER) == []
            assert again.busted(own or root, LATER) == [VoidExecution(stands.execution_id, "busted")]

    def test_an_id_of_the_usual_length_is_told_in_full(self, known) -> None:
        known.told(execution(UUID), STREAM, NOON)
        _, recorded = known.corrected(UUID, execution(UUID[::-1], price=99), NOON, NOON)
        assert recorded.execution.execution_id == f"{UUID}:c1:{UUID[::-1]}"

    def test_long_ids_are_forgotten_too(self, known) -> None:
        known.told(execution("x" * 128), STREAM, NOON)
        known.corrected("x" * 128, execution("n" * 128, price=99), NOON, NOON)
        known.forget_before(NOON + timedelta(days=1))
        assert (len(known), known._root_of) == (0, {})


class TestSeeds:
    def test_what_the_ledger_holds_is_known(self) -> None:
        versions = {"x1": True, "x1:c1:n1": True, "x1:c2:n2": False, "y": True, "z": False}
        seeds = [LedgerExecution(execution(name, order_id=None), void) for name, void in versions.items()]
        known = KnownExecutions(reversed(seeds), now=NOON)
        assert [known.told(execution(name), REST, LATER) for name in ("x1", "n1", "n2", "y", "z")] == [[]] * 5
        assert known.busted("n1", NOON) == [VoidExecution("x1:c2:n2", "busted")]
        assert known.busted("y", NOON) == []
        _, recorded = known.corrected("z", execution("z", price=1), NOON, NOON)
        assert recorded.execution.execution_id == "z:c1"


class TestAbsence:
    def test_absent_after_two_answers_and_the_longest_lag(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        for at, absent, suspected in [(seconds(9), 0, 1), (LONGEST_LAG - seconds(1), 0, 1), (LONGEST_LAG, 1, 0)]:
            known.listing_completed(None, NOON + at, [])
            assert (len(known.absent), len(known.suspected)) == (absent, suspected)
        known.voided("x1")
        assert known.absent == ()

    def test_what_was_not_asked_for_or_is_listed_again_is_not_absent(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.listing_completed(NOON, LATER, [])
        known.listing_completed(None, LATER, [])
        known.listing_completed(None, LATER, ["x1"])
        known.listing_completed(None, LATER, [])
        assert known.absent == ()

    def test_unsettled_until_rest_shows_it_or_had_time_to(self, known) -> None:
        known.told(execution(), STREAM, NOON)
        known.told(execution("x2", symbol="TSLA", order_id="o2"), STREAM, NOON)
        assert known.unsettled(NOON) == {"AAPL", "TSLA"}
        known.told(execution(), REST, NOON)
        assert known.unsettled(NOON) == {"TSLA"}
        assert known.unsettled(LATER) == frozenset()


def test_a_gap_in_an_order_is_noticed(known) -> None:
    assert not known.follows_a_gap(execution(qty=10, cum=10))
    assert known.follows_a_gap(execution(qty=10, cum=30))
    known.told(execution("x1", qty=20, cum=20), STREAM, NOON)
    assert not known.follows_a_gap(execution("x2", qty=10, cum=30))
    assert not known.follows_a_gap(execution(order_id=None))


def test_memory_is_bounded(known, monkeypatch) -> None:
    monkeypatch.setattr("libs.broker.known_executions._MOST_REMEMBERED", 50)
    for number in range(80):
        at = NOON + seconds(number)
        one = execution(f"x{number}", order_id=f"o{number}", at=at)
        known.told(one, STREAM, at)
        known.corrected(one.execution_id, replace(one, execution_id=f"n{number}", price=one.price + 1), at, at)
        known.busted(f"unknown{number}", at)
    known.forget_before(NOON - REMEMBERED)
    assert len(known) == 50
    known.forget_before(NOON + timedelta(days=1))
    assert len(known) == 0
    assert (known._root_of, known._by_order) == ({}, {})


@pytest.mark.parametrize("own_ids", [("x1", "x1"), ("n1", "n2")])
def test_what_happened_long_ago_is_remembered_from_when_it_was_heard(known, own_ids) -> None:
    long_ago = NOON - REMEMBERED - timedelta(days=1)
    first, second = (execution(name, price=price, at=long_ago) for name, price in zip(own_ids, (99, 98), strict=True))
    _, recorded = known.corrected("x1", first, NOON, NOON)
    known.forget_before(NOON - REMEMBERED)
    void, _ = known.corrected("x1", second, NOON + seconds(60), NOON + seconds(60))
    assert void.execution_id == recorded.execution.execution_id, "or both corrections would stand"
    known.forget_before(NOON + seconds(61))
    assert len(known) == 0
