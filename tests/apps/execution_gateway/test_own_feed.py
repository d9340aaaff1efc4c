from datetime import UTC, datetime, timedelta

import pytest

from apps.execution_gateway.own_feed import NAMELESS, OwnFeed
from tests.support.gateway import INSTANCE, price, streaming

NOON = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def of(status=None) -> OwnFeed:
    own = OwnFeed()
    own.learn(status)
    return own


def test_a_price_of_the_process_and_connection_that_the_key_names_is_ours():
    assert of(streaming("AAPL")).owns_price(price())


@pytest.mark.parametrize(
    "fields",
    [{"instance": "other:2:x"}, {"instance": None}, {"epoch": "e2"}, {"epoch": None}, {"seq": None}, {"instance": ""}],
)
def test_any_other_is_not(fields: dict[str, object]):
    assert not of(streaming("AAPL")).owns_price(price(**fields))


def test_without_a_key_nothing_is_ours():
    assert not of(None).owns_price(price())
    assert not of(None).owns_price(price(instance=None, epoch=None))
    assert not of(None).owns_status(streaming())
    assert of(None).is_foreign(INSTANCE)
    assert of(None).is_foreign(None)


def test_a_nameless_feed_is_never_believed_by_its_messages_nor_called_foreign():
    own = of(streaming("AAPL", instance=None))
    assert not own.owns_price(price(instance=None))
    assert not own.owns_status(streaming("AAPL", instance=None))
    assert not own.is_foreign(None)


def test_a_status_is_ours_by_process_and_connection():
    own = of(streaming("AAPL", epoch=None))
    assert own.owns_status(streaming("MSFT", epoch=None))
    assert not own.owns_status(streaming("AAPL", epoch="e1"))
    assert not own.owns_status(streaming("AAPL", epoch=None, instance="other:2:x"))


def test_a_foreign_feed_is_named_once_it_keeps_coming_and_until_it_ends():
    own = of(streaming("AAPL"))
    for second in (0, 2, 4):
        own.note_foreign("other:2:x", at(second))
    assert own.lasting(at(4)) == []
    own.note_foreign("other:2:x", at(6))
    own.note_foreign(None, at(0))
    own.note_foreign(None, at(6))
    assert own.lasting(at(6)) == [NAMELESS, "other:2:x"]
    assert own.lasting(at(22)) == []
    own.note_foreign("other:2:x", at(30))
    assert own.lasting(at(30)) == [], "a new spell"
    assert own.foreign_messages == 7


def test_who_takes_over_is_foreign_no_more():
    own = of(streaming("AAPL"))
    own.note_foreign("next:2:x", at(0))
    own.note_foreign("next:2:x", at(9))
    own.learn(streaming("AAPL", instance="next:2:x"))
    assert own.lasting(at(9)) == []
    assert own.owns_price(price(instance="next:2:x"))
    assert own.is_foreign(INSTANCE)


def test_names_are_few_short_and_printable():
    own = of(None)
    for number in range(1000):
        for second in (0, 10):
            own.note_foreign(f"{number}\n{'x' * 1000}", at(second))
    named = own.lasting(at(10))
    assert 0 < len(named) <= 16
    assert all(len(name) <= 80 and name.isprintable() for name in named)
