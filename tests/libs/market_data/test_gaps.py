from datetime import timedelta

from libs.market_data.gaps import Gap, GapLog
from tests.support.quotes import NOON

LATER = NOON + timedelta(seconds=3)
END = NOON + timedelta(seconds=9)


def test_a_gap_lasts_from_the_loss_to_the_return() -> None:
    log = GapLog()
    log.lost(["A", "B"], NOON, "dropped")
    assert log.open == [Gap(NOON, None, frozenset("AB"), "dropped")]
    log.lost(["A", "C"], LATER, "dropped again")
    assert log.open == [
        Gap(NOON, None, frozenset("AB"), "dropped"),
        Gap(LATER, None, frozenset("C"), "dropped again"),
    ]
    assert log.regained(["B", "C", "never lost"], END) == [
        Gap(NOON, END, frozenset("B"), "dropped"),
        Gap(LATER, END, frozenset("C"), "dropped again"),
    ]
    assert (log.closed, len(log.history)) == (2, 2)
    assert log.open == [Gap(NOON, None, frozenset("A"), "dropped")]
    assert log.regained([], END) == []


def test_what_nobody_wants_leaves_no_gap() -> None:
    log = GapLog()
    log.lost(["A", "B"], NOON, "dropped")
    log.keep_only({"B"})
    assert log.open == [Gap(NOON, None, frozenset("B"), "dropped")]


def test_the_history_is_bounded_and_the_count_is_not() -> None:
    log = GapLog()
    for number in range(60):
        log.lost(["A"], NOON + timedelta(seconds=number), "dropped")
        log.regained(["A"], NOON + timedelta(seconds=number + 1))
    assert (log.closed, len(log.history)) == (60, 50)
