"""The judge of silence, driven second by second by a small venue that may be mute, or deaf to single symbols."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.silence import MOST_PER_PROBE, Heard, Silence, SilenceJudge
from tests.support.quotes import NOON


@dataclass
class Venue:
    """Quotes each symbol every `every_s` seconds; what it makes may not reach the stream. REST always shows it."""

    every_s: dict[str, float]
    judge: SilenceJudge = field(default_factory=SilenceJudge)
    now_s: float = 1000.0
    is_open: bool = True
    is_mute: bool = False
    rest_answers: bool = True
    dead: set[str] = field(default_factory=set)
    halted: set[str] = field(default_factory=set)
    streamed: dict[str, int] = field(default_factory=dict)
    streamed_time: dict[str, datetime] = field(default_factory=dict)
    made_time: dict[str, datetime] = field(default_factory=dict)
    probes: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)

    def connect(self) -> None:
        self.judge.begin(self.now_s)
        # As after every confirmation: the latest quotes by REST.
        if self.rest_answers:
            self.streamed_time.update(self.made_time)

    def heard(self) -> dict[str, Heard]:
        return {s: Heard(self.streamed.get(s, 0), self.streamed_time.get(s)) for s in self.every_s}

    def run(self, seconds: int, until: Callable[[], bool] = lambda: False) -> float:
        """Let time pass; return how much of it had passed when `until` came true."""
        for passed in range(1, seconds + 1):
            self.now_s += 1
            time = NOON + timedelta(seconds=self.now_s)
            for symbol, every_s in self.every_s.items():
                if self.is_open and symbol not in self.halted and self.now_s % every_s < 1:
                    self.made_time[symbol] = time
                    if not self.is_mute and symbol not in self.dead:
                        self.streamed[symbol] = self.streamed.get(symbol, 0) + max(1, round(1 / every_s))
                        self.streamed_time[symbol] = time
            asked = self.judge.look(self.now_s, self.heard(), is_open=self.is_open, halted=self.halted)
            if asked:
                self.probes.append((self.now_s, asked))
                if self.rest_answers:
                    latest = {s: self.made_time[s] for s in asked if s in self.made_time}
                    self.judge.answered(self.now_s, asked, latest, self.heard())
            if until():
                return passed
        return float("inf")

    def mutes_within(self, seconds: int) -> float:
        return self.run(seconds, lambda: self.judge.silence is Silence.MUTE)


def flowing(**changes: object) -> Venue:
    venue = Venue({"AAPL": 0.2, "MSFT": 0.5, "KO": 5.0}, **changes)  # type: ignore[arg-type]
    venue.connect()
    venue.run(60)
    assert venue.judge.silence is Silence.NONE
    return venue


def test_flowing_data_is_never_questioned() -> None:
    venue = flowing()
    assert venue.probes == []
    assert venue.judge.dead == frozenset()


def test_a_mute_connection_is_noticed_soon() -> None:
    venue = flowing()
    venue.is_mute = True
    assert venue.mutes_within(60) <= 12, "5 s of an unlikely silence, one probe, 2 s for the stream to catch up"


def test_a_connection_mute_from_its_first_second_is_noticed_within_20_s() -> None:
    venue = Venue({"AAPL": 0.2, "MSFT": 1.0}, is_mute=True)
    venue.made_time = {"AAPL": NOON, "MSFT": NOON}
    venue.connect()
    assert venue.mutes_within(60) <= 20


def test_after_a_mute_connection_the_next_is_doubted_until_it_brings_something() -> None:
    venue = flowing()
    venue.is_mute = True
    venue.mutes_within(60)
    venue.connect()
    assert venue.judge.silence is Silence.DOUBTED
    venue.run(4)
    assert venue.judge.silence is Silence.DOUBTED
    assert venue.mutes_within(30) < 20, "still mute"
    venue.is_mute = False
    venue.connect()
    assert venue.judge.silence is Silence.DOUBTED
    venue.run(2)
    assert venue.judge.silence is Silence.NONE


def test_mute_without_rest_is_doubted_and_then_given_up() -> None:
    venue = flowing()
    venue.is_mute, venue.rest_answers = True, False
    doubted_after_s = venue.run(60, lambda: venue.judge.silence is Silence.DOUBTED)
    assert doubted_after_s <= 21
    assert venue.mutes_within(60) <= 12, "hundreds of quotes are missing: no probe is needed"


def test_a_quiet_market_is_proven_quiet_and_never_reconnected() -> None:
    venue = Venue({"AAPL": 10_000.0, "KO": 10_000.0})
    venue.made_time = {"AAPL": NOON, "KO": NOON}
    venue.connect()
    judged = set()
    venue.run(600, lambda: judged.add(venue.judge.silence) or False)  # type: ignore[func-returns-value]
    assert judged == {Silence.NONE}
    assert venue.judge.dead == frozenset()
    assert len(venue.probes) <= 600 / 5


def test_a_quiet_market_without_rest_is_doubted_and_never_called_mute() -> None:
    venue = Venue({"AAPL": 10_000.0}, rest_answers=False)
    venue.connect()
    assert venue.mutes_within(600) == float("inf")
    assert venue.judge.silence is Silence.DOUBTED


def test_a_closed_market_is_never_questioned() -> None:
    venue = flowing()
    venue.is_open = False
    assert venue.mutes_within(3600) == float("inf")
    assert venue.probes == []
    assert venue.judge.silence is Silence.NONE
    venue.is_open, venue.is_mute = True, True
    venue.run(4)
    assert venue.judge.silence is Silence.NONE, "the night does not count as silence"
    assert venue.mutes_within(60) <= 20


def test_one_dead_symbol_among_live_ones() -> None:
    venue = flowing()
    venue.dead = {"AAPL"}
    assert venue.run(60, lambda: "AAPL" in venue.judge.dead) <= 20
    assert venue.mutes_within(120) == float("inf"), "its peers flow"
    assert venue.judge.dead == {"AAPL"}
    assert venue.judge.silence is Silence.NONE
    venue.dead = set()
    venue.run(2)
    assert venue.judge.dead == frozenset()


def test_a_dead_symbol_stays_dead_over_a_new_subscription_until_proven_quiet() -> None:
    venue = flowing()
    venue.dead = {"AAPL"}
    venue.run(60, lambda: "AAPL" in venue.judge.dead)
    kept = venue.every_s.pop("AAPL")
    venue.run(1)
    venue.every_s["AAPL"] = kept
    venue.streamed_time["AAPL"] = venue.made_time["AAPL"]
    venue.run(30)
    assert venue.judge.dead == {"AAPL"}
    venue.every_s["AAPL"] = 10_000.0
    venue.streamed_time["AAPL"] = venue.made_time["AAPL"]
    assert venue.run(120, lambda: not venue.judge.dead) <= 10, "REST knows nothing newer: it is quiet"


def test_after_a_mute_connection_quiet_symbols_are_cleared_soon() -> None:
    venue = Venue({"AAPL": 0.5, "KO": 8.0})
    venue.connect()
    venue.run(60)
    venue.is_mute = True
    venue.mutes_within(60)
    venue.run(10)
    assert "KO" in venue.judge.dead
    venue.connect()
    venue.is_mute = False
    venue.every_s["KO"] = 10_000.0
    assert venue.run(60, lambda: not venue.judge.dead and venue.judge.silence is Silence.NONE) <= 10


def test_one_dead_symbol_whose_peers_are_quiet_costs_one_reconnect_not_many() -> None:
    venue = Venue({"AAPL": 1.0, "KO": 10_000.0, "PEP": 10_000.0})
    venue.made_time = {"KO": NOON, "PEP": NOON}
    venue.connect()
    venue.run(60)
    venue.dead = {"AAPL"}
    assert venue.mutes_within(120) <= 60, "it may be the connection"
    venue.connect()
    assert venue.mutes_within(900) == float("inf"), "it was not"
    assert venue.judge.silence is Silence.NONE
    assert venue.judge.dead == {"AAPL"}


def test_a_slow_symbol_is_judged_by_its_own_pace() -> None:
    venue = Venue({"AAPL": 0.2, "KO": 45.0})
    venue.connect()
    venue.run(400)
    assert venue.judge.dead == frozenset()
    assert {symbol for _, asked in venue.probes for symbol in asked} <= {"KO"}


def test_a_halted_symbol_may_be_silent() -> None:
    venue = flowing()
    venue.halted = {"AAPL"}
    venue.run(300)
    assert venue.probes == []
    assert venue.judge.dead == frozenset()
    venue.halted = {"AAPL", "MSFT", "KO"}
    assert venue.mutes_within(300) == float("inf"), "all are halted: nothing is to be expected"
    assert venue.judge.silence is Silence.NONE


def test_rest_being_a_little_ahead_is_no_loss() -> None:
    venue = Venue({"AAPL": 30.0})
    venue.made_time = {"AAPL": NOON}
    venue.connect()
    venue.run(20)
    ahead = NOON + timedelta(seconds=venue.now_s)
    venue.judge.answered(venue.now_s, ["AAPL"], {"AAPL": ahead}, venue.heard())
    venue.streamed["AAPL"] = 1
    venue.streamed_time["AAPL"] = ahead
    venue.run(5)
    assert venue.judge.dead == frozenset()


def test_a_probe_names_a_bounded_number_of_symbols() -> None:
    venue = Venue({f"S{number}": 10_000.0 for number in range(300)})
    venue.connect()
    venue.run(30)
    assert venue.probes
    assert all(len(asked) <= MOST_PER_PROBE for _, asked in venue.probes)
    pauses = [later - before for (before, _), (later, _) in zip(venue.probes, venue.probes[1:], strict=False)]
    assert min(pauses) >= 5


def test_nothing_subscribed_is_nothing_missed() -> None:
    judge = SilenceJudge()
    judge.begin(0.0)
    for now_s in range(100):
        assert judge.look(float(now_s), {}, is_open=True, halted=()) == ()
    assert judge.silence is Silence.NONE
    assert judge.look(101.0, {"AAPL": Heard(0, None)}, is_open=True, halted=()) == ()


def test_what_nobody_wants_is_forgotten() -> None:
    venue = flowing()
    venue.judge.keep_only({"AAPL"})
    assert set(venue.judge._known) == {"AAPL"}


@given(
    paces=st.lists(st.floats(min_value=0.1, max_value=30.0), min_size=2, max_size=8),
    lived_s=st.integers(min_value=0, max_value=300),
    rest_answers=st.booleans(),
)
def test_no_mute_connection_is_vouched_for_longer_than_25_s(
    paces: list[float], lived_s: int, rest_answers: bool
) -> None:
    """Whatever the pace of the symbols: a mute connection is doubted, or known to be mute, in time."""
    # At least one symbol quotes often enough that a silence of 20 s means anything at all.
    venue = Venue({f"S{number}": pace for number, pace in enumerate([1.0, *paces])}, rest_answers=rest_answers)
    venue.connect()
    venue.run(lived_s + 3)
    assert venue.judge.silence is Silence.NONE
    venue.is_mute = True
    assert venue.run(60, lambda: venue.judge.silence is not Silence.NONE) <= 25


@given(st.lists(st.floats(min_value=0.1, max_value=400.0), min_size=1, max_size=8))
def test_a_connection_that_brings_all_that_is_made_is_never_ended(paces: list[float]) -> None:
    venue = Venue({f"S{number}": pace for number, pace in enumerate(paces)})
    venue.connect()
    assert venue.mutes_within(900) == float("inf")
    assert venue.judge.dead == frozenset()


@pytest.mark.parametrize("rest_answers", [True, False])
def test_the_wildcard_is_watched_as_a_whole(rest_answers: bool) -> None:
    venue = Venue({"*": 0.1}, rest_answers=rest_answers)
    venue.connect()
    venue.run(30)
    assert venue.probes == []
