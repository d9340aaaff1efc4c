from datetime import timedelta

from libs.market_data.wakefulness import Wakefulness
from tests.support.quotes import NOON


def test_a_process_without_beats_has_slept() -> None:
    awake = Wakefulness(NOON)
    assert not awake.has_slept(NOON + timedelta(seconds=5))
    assert awake.has_slept(NOON + timedelta(seconds=6))
    awake.beat(NOON + timedelta(seconds=6))
    assert not awake.has_slept(NOON + timedelta(seconds=10))
    assert not awake.has_slept(NOON - timedelta(hours=1)), "a clock that was set back is no sleep"
