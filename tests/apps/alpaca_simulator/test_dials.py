"""Counting dials: how many, when, and the densest spans."""

from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.dials import DialLog


def log_of(times):
    dials = DialLog()
    for now_s in times:
        dials.add(now_s, 1_000.0 + now_s)
    return dials


def test_what_is_remembered():
    dials = log_of([0.0, 1.0, 10.0, 10.5, 70.0])
    assert dials.count == 5
    assert dials.times_s == [0.0, 1.0, 10.0, 10.5, 70.0]
    assert dials.last_unix_s(2) == [1_010.5, 1_070.0]
    assert dials.most_in == {10.0: 3, 60.0: 4}


def test_exactly_a_window_apart_is_apart():
    assert log_of([0.0, 10.0]).most_in == {10.0: 1, 60.0: 2}


def test_a_reset_begins_anew():
    dials = log_of([0.0, 1.0])
    dials.reset()
    assert (dials.count, dials.times_s, dials.most_in) == (0, [], {10.0: 0, 60.0: 0})
    dials.add(2.0, 2.0)
    assert (dials.count, dials.most_in[10.0]) == (1, 1)


def test_a_storm_is_counted_but_not_hoarded():
    dials = log_of(number / 1_000 for number in range(10_500))
    assert (dials.count, len(dials.times_s), dials.most_in[10.0]) == (10_500, 10_000, 10_000)


@given(st.lists(st.floats(0, 300, width=32), max_size=60).map(sorted))
def test_the_densest_span_is_the_one_found_by_looking_at_all(times):
    for window_s, most in log_of(times).most_in.items():
        spans = [sum(1 for other in times[: number + 1] if now - other < window_s) for number, now in enumerate(times)]
        assert most == max(spans, default=0)
