"""Dial storms and growing memory are caught, each counted for the process that is to blame."""

from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.reconnect import DialBudget
from tests.soak.bounds import WARM_UP_S, DialRecord, MemoryWatch, dial_storms

NOW = 1_800_000_000.0


def rules(dials_s: list[float], starts_s: tuple[float, ...] = (0.0,)) -> list[str]:
    return [found.rule for found in dial_storms(dials_s, starts_s)]


def test_six_dials_in_ten_seconds_are_a_storm() -> None:
    assert rules([NOW + 1.9 * dial for dial in range(6)]) == ["more than 5 dials in 10 s"]
    assert rules([NOW + 2.0 * dial for dial in range(6)]) == []


def test_twenty_one_dials_in_a_minute_are_a_storm() -> None:
    assert rules([NOW + 2.9 * dial for dial in range(21)]) == ["more than 20 dials in 60 s"]
    assert rules([NOW + 3.0 * dial for dial in range(21)]) == []


def test_a_storm_between_calms_is_seen() -> None:
    assert rules([NOW, *(NOW + 100 + dial for dial in range(6)), NOW + 200]) == ["more than 5 dials in 10 s"]


def test_each_process_is_counted_for_itself() -> None:
    dials_s = [NOW + dial for dial in range(8)]
    assert rules(dials_s, (0.0, NOW + 3.5)) == []
    assert rules(dials_s, (0.0, NOW + 1.5)) == ["more than 5 dials in 10 s"]


@given(st.lists(st.floats(0, 30), max_size=60))
def test_whoever_keeps_the_budget_is_never_accused(pauses_s: list[float]) -> None:
    budget, now_s, dials_s = DialBudget(), 0.0, []
    for pause_s in pauses_s:
        now_s += pause_s
        now_s += budget.wait_s(now_s) + 1e-6
        budget.record(now_s)
        dials_s.append(NOW + now_s)
    assert rules(dials_s) == []


def test_the_dials_of_a_restarted_server_are_added_up() -> None:
    record = DialRecord()
    record.learn([NOW, NOW + 1])
    record.learn([NOW + 1, NOW + 50])
    assert len(record.times_s) == 3
    assert record.within(60, NOW + 50) == 3
    assert record.within(10, NOW + 50) == 1


def watch(*resident_mb: float, every_s: float = 10.0) -> list[str]:
    memory = MemoryWatch({"gateway": 50.0})
    taken = [memory.take("gateway", 7, NOW + turn * every_s, mb) for turn, mb in enumerate(resident_mb)]
    return [found.rule for findings in taken for found in findings]


def test_a_process_that_grows_and_grows_is_caught() -> None:
    assert "memory grows" in watch(*(100 + 5 * turn for turn in range(40)))


def test_one_that_is_large_from_the_start_is_not() -> None:
    assert watch(50, 100, 180, 200, *[205] * 20) == []


def test_a_peak_that_passes_is_no_growth() -> None:
    assert watch(100, 100, 100, 100, 100, 400, 400, 100, 100, 100) == []


def test_a_new_process_begins_anew() -> None:
    memory = MemoryWatch({"gateway": 50.0})
    for pid, mb in ((1, 100.0), (2, 300.0)):
        for turn in range(10):
            assert memory.take("gateway", pid, NOW + turn * WARM_UP_S, mb) == []
    assert [(one.pid, one.settled_mb, one.most_mb) for one in memory.growths()] == [(1, 100, 100), (2, 300, 300)]
