from datetime import timedelta

from libs.market_data.quote_records import SymbolRecord
from libs.market_data.stream_lag import LagMeter
from tests.support.quotes import NOON


def record(made_s: float, came_s: float) -> SymbolRecord:
    made, came = NOON + timedelta(seconds=made_s), NOON + timedelta(seconds=came_s)
    return SymbolRecord(streamed=1, streamed_time=made, streamed_at=came)


def test_a_queue_shows_when_even_the_freshest_quote_is_late() -> None:
    meter = LagMeter()
    assert not meter.look([("A", record(0, 20)), ("B", record(2, 20))]), "once is chance"
    assert meter.look([("A", record(1, 21)), ("B", record(3, 21))])
    assert meter.lag == timedelta(seconds=18)
    assert meter.look([]), "nothing came: nothing new is known"
    assert meter.look([("A", record(1, 21))]), "seen already"
    assert not meter.look([("A", record(9, 30)), ("B", record(29, 30))]), "one fresh quote proves that nothing queues"


def test_recorded_times_and_clocks_gone_wrong_are_no_queue() -> None:
    meter = LagMeter()
    for came_s in (100_000, 100_001, 100_002):
        assert not meter.look([("A", record(came_s - 90_000, came_s)), ("B", record(came_s - 80_000, came_s))])
    for came_s in (1, 2, 3):
        assert not meter.look([("A", record(came_s + 3600, came_s))])


def test_symbols_without_streamed_quotes_say_nothing() -> None:
    meter = LagMeter()
    assert not meter.look([("A", SymbolRecord()), ("B", SymbolRecord(fetched=1, fetched_at=NOON))])
    assert meter.lag is None
