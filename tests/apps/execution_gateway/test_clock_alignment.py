"""What the gateway's clock is off, by what heartbeats say and when they come."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.clock_alignment import ClockAlignment

NOON = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


def hear(alignment: ClockAlignment, at_s: float, ahead_s: float, way_s: float = 0.01, bound_s: float = 0.5) -> float:
    """Hear what was written by a clock `ahead_s` ahead of ours, `way_s` before `at_s`; return the offset."""
    now = NOON + timedelta(seconds=at_s)
    alignment.heard(now + timedelta(seconds=ahead_s - way_s), now - timedelta(seconds=bound_s), now)
    return alignment.offset.total_seconds()


@pytest.mark.parametrize("ahead_s", [-86_400, -90, -16, 16, 90, 86_400])
def test_two_heartbeats_show_a_wrong_clock_and_ages_are_never_too_small(ahead_s: float) -> None:
    alignment = ClockAlignment()
    assert hear(alignment, 0, ahead_s) == 0
    for at_s in range(2, 60, 2):
        assert 0 <= hear(alignment, at_s, ahead_s) - ahead_s <= 0.5
    assert hear(alignment, 60, 0) == 0, "one of our own time is enough"


@given(st.lists(st.tuples(st.floats(-4.9, 4.9), st.floats(0, 4)), min_size=2, max_size=20))
def test_a_clock_within_the_tolerance_changes_nothing(heartbeats: list[tuple[float, float]]) -> None:
    alignment = ClockAlignment()
    for beat, (ahead_s, bound_s) in enumerate(heartbeats):
        assert hear(alignment, 2 * beat, ahead_s, way_s=0, bound_s=bound_s) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 3)), min_size=2, max_size=30), st.floats(-1e5, 1e5))
def test_however_long_heartbeats_are_on_their_way_no_age_is_counted_too_small(
    ways: list[tuple[float, float]], ahead_s: float
) -> None:
    alignment = ClockAlignment()
    for beat, (share, bound_s) in enumerate(ways):
        offset_s = hear(alignment, 2 * beat, ahead_s, way_s=share * bound_s, bound_s=bound_s)
        assert offset_s == 0 or -1e-3 <= offset_s - ahead_s <= 3.001


def test_a_heartbeat_that_was_held_back_before_it_was_sent_changes_nothing() -> None:
    alignment = ClockAlignment()
    hear(alignment, 0, 0)
    assert hear(alignment, 60, -58) == 0
    assert hear(alignment, 62, 0) == 0


def test_one_that_does_not_say_when_it_was_written() -> None:
    alignment = ClockAlignment()
    hear(alignment, 0, 90)
    hear(alignment, 2, 90)
    assert alignment.heard(None, NOON, NOON)
    assert not alignment.offset
