"""When the account's clock shows that ours is wrong."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.account_time import AccountTime
from libs.market_data.prices import Mode
from tests.support.quotes import NOON


class Bench:
    """An account whose clock is `ahead_s` ahead of ours, asked over a line that takes `takes_s`."""

    def __init__(self, ahead_s: float, takes_s: float = 0.1, said_by: Mode | None = None) -> None:
        self.ahead_s, self.takes_s, self.said_by = ahead_s, takes_s, said_by
        self.time = AccountTime()
        self.changes: list[timedelta] = []
        self.time.on_change = self.changes.append

    def ask(self, at_s: float, ahead_s: float | None = None) -> float:
        """Ask at this second, and return the offset in seconds."""
        ours = NOON + timedelta(seconds=at_s)
        there = self.ahead_s if ahead_s is None else ahead_s
        theirs = ours + timedelta(seconds=self.takes_s / 2 + there)
        self.time.answered(theirs, ours, at_s, at_s + self.takes_s, self.said_by)
        return self.offset_s

    @property
    def offset_s(self) -> float:
        return self.time.offset.total_seconds()


@pytest.mark.parametrize("ahead_s", [-86_400 * 30, -3_600, -90, -30, -5.1, 5.1, 16, 90, 300, 3_600, 86_400 * 365])
def test_two_answers_that_agree_show_a_wrong_clock(ahead_s: float) -> None:
    bench = Bench(ahead_s)
    assert bench.ask(0) == 0, "one proves nothing"
    assert bench.time.wants_answer
    assert bench.ask(1) == 0, "too soon to tell it from a cached one"
    assert bench.ask(5) == pytest.approx(ahead_s, abs=0.01)
    assert bench.changes == [bench.time.offset]
    assert not bench.time.wants_answer


@given(st.floats(-4.99, 4.99), st.floats(0, 2))
def test_what_is_within_the_tolerance_changes_nothing(ahead_s: float, takes_s: float) -> None:
    bench = Bench(ahead_s, takes_s)
    assert [bench.ask(at_s) for at_s in (0, 5, 50, 95)] == [0, 0, 0, 0]


def test_a_cached_answer_is_no_clock() -> None:
    bench = Bench(0)
    for at_s in (0, 5, 10, 50, 95, 140):
        assert bench.ask(at_s, ahead_s=-at_s - 60) == 0
    assert bench.changes == []


def test_a_fresh_answer_after_cached_ones_is_none_either() -> None:
    bench = Bench(0)
    offsets = [bench.ask(at_s, ahead_s=-(at_s % 60)) for at_s in range(0, 600, 5)]
    assert set(offsets) == {0}
    assert not Bench(0).time.wants_answer


def test_a_slow_answer_proves_nothing() -> None:
    bench = Bench(90, takes_s=2.5)
    assert [bench.ask(at_s) for at_s in (0, 5, 50)] == [0, 0, 0]


def test_an_answer_without_a_time_leaves_things_as_they_are() -> None:
    bench = Bench(90)
    bench.ask(0)
    bench.ask(5)
    bench.time.answered(None, NOON, 10, 10.1, None)
    assert bench.offset_s == pytest.approx(90, abs=0.01)


def test_a_clock_that_was_put_right_is_right() -> None:
    bench = Bench(90)
    bench.ask(0)
    bench.ask(5)
    assert bench.ask(50, ahead_s=0.2) == 0
    assert [change.total_seconds() for change in bench.changes] == pytest.approx([90, -90], abs=0.01)


@pytest.mark.parametrize("step_s", [-3_600, -90, 90, 3_600])
def test_a_clock_that_is_set_is_measured_anew(step_s: float) -> None:
    bench = Bench(90)
    bench.time.look(NOON, 0)
    bench.ask(0)
    bench.ask(5)
    bench.time.look(NOON + timedelta(seconds=6), 6)
    assert bench.offset_s == pytest.approx(90, abs=0.01)
    bench.time.look(NOON + timedelta(seconds=7 + step_s), 7)
    assert bench.offset_s == 0
    assert bench.time.wants_answer
    bench.ask(8, ahead_s=0.0)
    assert not bench.time.wants_answer


def test_a_sleep_that_stops_the_steady_clock_voids_it_too() -> None:
    bench = Bench(-90)
    bench.time.look(NOON, 0)
    bench.ask(0)
    bench.ask(5)
    bench.time.look(NOON + timedelta(hours=8), 6)
    assert bench.offset_s == 0


def test_one_at_the_edge_does_not_come_and_go() -> None:
    bench = Bench(5.2)
    bench.ask(0)
    bench.ask(5)
    for at_s, ahead_s in ((50, 4.9), (95, 5.1), (140, 4.8)):
        assert bench.ask(at_s, ahead_s=ahead_s) == pytest.approx(5.2, abs=0.01)
    assert bench.ask(185, ahead_s=2.9) == 0


def test_a_replays_clock_shifts_nothing() -> None:
    bench = Bench(-86_400 * 700, said_by=Mode.REPLAY)
    assert [bench.ask(at_s) for at_s in (0, 5, 50)] == [0, 0, 0]


@pytest.mark.parametrize("ahead_s", [-18_000, -90, 90, 18_000])
def test_a_simulators_clock_needs_quotes_that_are_stamped_by_it(ahead_s: float) -> None:
    bench = Bench(ahead_s, said_by=Mode.SIMULATED)
    bench.ask(0)
    bench.ask(5)
    bench.time.witness(None)
    bench.time.witness(timedelta(seconds=0.05))
    assert bench.offset_s == 0, "the quotes are stamped by our clock: the account's plays another day"
    bench.time.witness(timedelta(seconds=0.05 - ahead_s))
    assert bench.offset_s == pytest.approx(ahead_s, abs=0.01)
    bench.time.witness(timedelta(seconds=0.05))
    assert bench.ask(50) == pytest.approx(ahead_s, abs=0.01)


@given(st.lists(st.tuples(st.floats(0.1, 60), st.floats(-200, 200)), max_size=40))
def test_whatever_is_answered_the_changes_add_up(answers: list[tuple[float, float]]) -> None:
    bench, at_s = Bench(0), 0.0
    for after_s, ahead_s in answers:
        at_s += after_s
        bench.ask(at_s, ahead_s=ahead_s)
        assert sum(bench.changes, timedelta()) == bench.time.offset
        assert not bench.time.offset or abs(bench.time.offset) > timedelta(seconds=2)
