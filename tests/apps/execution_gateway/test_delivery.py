from collections import deque
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.delivery import LATE_AFTER, PING_EVERY, Delivery

NOON = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_nothing_is_known_but_that_the_connection_was_not_open_before():
    delivery = Delivery(at(0))
    assert delivery.sent_after == at(0)
    assert not delivery.wants_ping(at(0.4))
    assert delivery.wants_ping(at(0) + PING_EVERY)


def test_what_follows_an_answer_was_sent_after_its_ping():
    delivery = Delivery(at(0))
    delivery.pinged(at(1))
    assert delivery.sent_after == at(0), "until the answer has been read"
    assert not delivery.wants_ping(at(9)), "one at a time"
    delivery.answered()
    assert delivery.sent_after == at(1), "however late it was read"
    assert delivery.wants_ping(at(9))


def test_an_answer_to_no_ping_says_nothing():
    delivery = Delivery(at(0))
    delivery.answered()
    assert delivery.sent_after == at(0)


def test_late():
    delivery = Delivery(at(0))
    assert not delivery.is_late(at(0) + LATE_AFTER)
    assert delivery.is_late(at(0.001) + LATE_AFTER)


def test_a_clock_that_was_set_back_stops_no_ping():
    delivery = Delivery(at(0))
    assert delivery.wants_ping(at(-3600))


@given(st.lists(st.tuples(st.sampled_from(["publish", "serve", "read"]), st.floats(0, 3))))
def test_no_message_is_taken_for_younger_than_it_is(steps: list[tuple[str, float]]):
    """A server that answers when it gets to it, a wire that keeps the order, a reader that reads when it gets to it."""
    delivery, now = Delivery(at(0)), at(0)
    pings, wire = 0, deque[datetime | None]()
    for step, wait_s in steps:
        now += timedelta(seconds=wait_s)
        match step:
            case "publish":
                wire.append(now)
            case "serve" if pings:
                pings -= 1
                wire.append(None)
            case "read":
                if delivery.wants_ping(now):
                    delivery.pinged(now)
                    pings += 1
                if not wire:
                    continue
                sent_at = wire.popleft()
                if sent_at is None:
                    delivery.answered()
                else:
                    assert delivery.sent_after <= sent_at
