"""When a stream is late, by the delays of what it brings."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.delivery_lag import DeliveryLag
from tests.support.quotes import NOON


def looked(meter: DeliveryLag, *delays_s: float) -> bool:
    """Note one quote of each delay, then look."""
    for delay_s in delays_s:
        meter.note(NOON - timedelta(seconds=delay_s), NOON)
    return meter.look()


@pytest.mark.parametrize("delay_s", [15.1, 16, 60, 899, 900, 3_600, 86_400, 86_400 * 365 * 20])
def test_a_steady_delay_is_late_however_long(delay_s: float) -> None:
    meter = DeliveryLag()
    assert not looked(meter, delay_s), "once is chance"
    assert looked(meter, delay_s)
    assert meter.least == timedelta(seconds=delay_s)


@pytest.mark.parametrize("delay_s", [0, 0.1, 14.9, 15, -0.3, -59])
def test_what_comes_in_time_is_not_late(delay_s: float) -> None:
    meter = DeliveryLag()
    assert not any(looked(meter, delay_s) for _ in range(10))


def test_one_fresh_quote_proves_that_nothing_queues() -> None:
    meter = DeliveryLag()
    assert not any(looked(meter, 900, 0.05, 60) for _ in range(10)), "only some symbols are late"
    assert not looked(meter, 20)
    assert looked(meter, 20)
    assert not looked(meter, 900, 14), "and ends it at once"


def test_a_look_without_new_quotes_decides_nothing() -> None:
    meter = DeliveryLag()
    assert not looked(meter, 60)
    assert not looked(meter), "a sparse stream: the next quote comes in a while"
    assert not looked(meter)
    assert looked(meter, 60)
    assert looked(meter)
    assert not looked(meter, 1)
    assert not looked(meter)


def test_each_connection_is_judged_afresh_but_for_one_that_follows_a_late_one() -> None:
    meter = DeliveryLag()
    for _ in range(5):
        assert not looked(meter, 400), "the last quotes of quiet symbols, replayed at each connection"
        meter.begin()
    assert not looked(meter, 60)
    assert looked(meter, 60)
    meter.begin()
    assert looked(meter), "dialling again makes nothing young"
    assert looked(meter, 61)
    assert not looked(meter, 0.2)


@pytest.mark.parametrize("ahead_s", [61, 70, 3_600, 86_400 * 365 * 100])
def test_a_time_far_ahead_hides_no_delay(ahead_s: float) -> None:
    meter = DeliveryLag()
    assert not looked(meter, -ahead_s, 60)
    assert looked(meter, -ahead_s, 60)
    assert looked(meter, -ahead_s), "it proves nothing"


@given(st.lists(st.lists(st.floats(-1_000, 100_000), max_size=5), max_size=30))
def test_it_is_late_exactly_after_two_late_looks_and_until_one_in_time(looks: list[list[float]]) -> None:
    meter = DeliveryLag()
    late_in_a_row = 0
    for delays_s in looks:
        known = [timedelta(seconds=delay_s) for delay_s in delays_s if timedelta(seconds=delay_s) >= timedelta(-0, -60)]
        if known:
            late_in_a_row = late_in_a_row + 1 if min(known) > timedelta(seconds=15) else 0
        assert looked(meter, *delays_s) is (late_in_a_row >= 2)


def test_times_at_the_ends_of_the_calendar_are_borne() -> None:
    meter = DeliveryLag()
    meter.note(datetime.min.replace(tzinfo=NOON.tzinfo), NOON)
    meter.note(datetime.max.replace(tzinfo=NOON.tzinfo), NOON)
    assert not meter.look()


def test_when_all_is_stamped_too_far_ahead_to_mark_it_is_said() -> None:
    meter = DeliveryLag()
    looked(meter, -90)
    assert meter.ahead is None
    looked(meter, -90)
    assert meter.ahead == timedelta(seconds=90)
    looked(meter)
    assert meter.ahead is not None, "nothing new is known"
    looked(meter, -90, 0.1)
    assert meter.ahead is None, "it is one symbol's clock"
