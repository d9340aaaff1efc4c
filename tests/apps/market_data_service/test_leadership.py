from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from apps.market_data_service import leadership
from apps.market_data_service.leadership import (
    ABSENT_FOR_S,
    LOOK_EVERY_S,
    QUIET_AFTER_FAULT_S,
    Leadership,
    Question,
    Role,
    Tenure,
    Verdict,
)
from libs.redis_client.client import RedisClient, redis_url
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.lease import LEASE_KEY, LEASE_S, Lease, LeaseAnswer
from libs.service.supervise import Supervisor
from tests.support.waiting import eventually

FREE = LeaseAnswer(None, None, was_free=True, server="s1")


def held_by(instance: str, *, was_free: bool = False, server: str | None = "s1") -> LeaseAnswer:
    return LeaseAnswer(instance, 5.0, was_free=was_free, server=server)


def leader() -> Tenure:
    tenure = Tenure("me")
    assert tenure.next_question(0.0) is Question.CLAIM
    assert tenure.heard(held_by("me", was_free=True), 0.0) is Verdict.LEAD
    return tenure


def standby() -> Tenure:
    tenure = Tenure("me")
    tenure.next_question(0.0)
    assert tenure.heard(held_by("other"), 0.0) is Verdict.GO_ON
    return tenure


# --- what the leader does -----------------------------------------------------------------------------------------


def test_a_newcomer_claims_at_once_and_leads_if_it_gets_it() -> None:
    tenure = leader()
    assert (tenure.role, tenure.holder) == (Role.LEADER, "me")
    assert tenure.next_question(0.5) is Question.CLAIM
    assert tenure.heard(held_by("me"), 0.5) is Verdict.GO_ON


def test_a_newcomer_waits_when_another_holds_it() -> None:
    tenure = standby()
    assert (tenure.role, tenure.holder) == (Role.STANDBY, "other")
    assert not tenure.may_write()
    assert tenure.next_question(0.5) is Question.LOOK


def test_a_server_that_had_forgotten_the_lease_is_told_everything_again() -> None:
    tenure = leader()
    assert tenure.heard(held_by("me", was_free=True), 0.5) is Verdict.WRITE_AGAIN
    assert tenure.is_leader


def test_a_leader_that_loses_redis_stays_one_and_writes_everything_when_it_is_back() -> None:
    tenure = leader()
    for step in range(100):
        tenure.faulted(1.0 + step)
        assert (tenure.is_leader, tenure.holder) == (True, "me")
        assert tenure.next_question(1.5 + step) is Question.CLAIM
    assert tenure.heard(held_by("me"), 102.0) is Verdict.WRITE_AGAIN
    assert tenure.heard(held_by("me"), 102.5) is Verdict.GO_ON


def test_another_server_is_told_everything_even_if_it_knows_the_lease() -> None:
    tenure = leader()
    assert tenure.heard(held_by("me", server=None), 0.5) is Verdict.GO_ON
    assert tenure.heard(held_by("me", server="s2"), 1.0) is Verdict.WRITE_AGAIN
    assert tenure.heard(held_by("me", server="s2"), 1.5) is Verdict.GO_ON


def test_a_leader_whose_lease_is_anothers_steps_down_once() -> None:
    tenure = leader()
    assert tenure.heard(held_by("other"), 60.0) is Verdict.STEP_DOWN
    assert (tenure.role, tenure.holder) == (Role.STANDBY, "other")
    assert tenure.next_question(60.5) is Question.LOOK
    assert tenure.heard(held_by("other"), 60.5) is Verdict.GO_ON


# --- when a standby may take it -----------------------------------------------------------------------------------


def looks(tenure: Tenure, begin_s: float, end_s: float, answer: LeaseAnswer = FREE, every_s: float = 0.5) -> float:
    """Have the standby look; return when it first asked for the lease (then it gets it), `end_s` if it never did."""
    now_s = begin_s
    while now_s < end_s:
        if tenure.next_question(now_s) is Question.CLAIM:
            assert tenure.heard(held_by("me", was_free=True), now_s) is Verdict.LEAD
            return now_s
        tenure.heard(answer, now_s)
        now_s += every_s
    return end_s


def test_a_standby_takes_what_was_free_at_every_look_for_two_seconds() -> None:
    assert looks(standby(), 10.0, 60.0) == pytest.approx(10.0 + ABSENT_FOR_S)


def test_one_look_at_another_holder_begins_the_wait_anew() -> None:
    tenure = standby()
    looks(tenure, 0.5, 2.1)
    tenure.heard(held_by("other"), 2.2)
    assert looks(tenure, 2.5, 60.0) == pytest.approx(2.5 + ABSENT_FOR_S)


def test_after_a_fault_a_standby_lets_the_leader_go_first() -> None:
    tenure = standby()
    tenure.faulted(10.0)
    assert tenure.holder is None, "nobody knows"
    assert QUIET_AFTER_FAULT_S == LEASE_S + 10
    assert looks(tenure, 10.5, 60.0) == pytest.approx(10.0 + QUIET_AFTER_FAULT_S)


def test_a_newcomer_that_finds_redis_away_waits_likewise() -> None:
    tenure = Tenure("me")
    assert tenure.next_question(0.0) is Question.CLAIM
    tenure.faulted(0.0)
    assert tenure.next_question(0.5) is Question.LOOK
    tenure.faulted(0.5)
    assert looks(tenure, 1.0, 60.0) == pytest.approx(0.5 + QUIET_AFTER_FAULT_S)


def test_a_standby_that_slept_trusts_no_look_from_before() -> None:
    tenure = standby()
    looks(tenure, 1.0, 2.1)
    assert looks(tenure, 62.0, 99.0) == pytest.approx(62.0 + ABSENT_FOR_S)


def test_a_standby_that_missed_the_answer_to_its_claim_leads_when_it_sees_its_own_name() -> None:
    tenure = Tenure("me")
    tenure.next_question(0.0)
    tenure.faulted(1.0)
    assert tenure.heard(held_by("me"), 1.5) is Verdict.LEAD


# --- two instances and one server, on paper -----------------------------------------------------------------------


@dataclass
class PaperServer:
    """A lease as Redis keeps it, on a clock of its own."""

    holder: str | None = None
    ends_at_s: float = 0.0
    is_away: bool = False
    boots: int = 0

    def ask(self, instance: str, question: Question, now_s: float) -> LeaseAnswer | None:
        if self.is_away:
            return None
        before = self.holder if now_s < self.ends_at_s else None
        if question is Question.CLAIM and before in {None, instance}:
            self.holder, self.ends_at_s = instance, now_s + LEASE_S
        after = self.holder if now_s < self.ends_at_s else None
        return LeaseAnswer(after, None, was_free=before is None, server=str(self.boots))


@dataclass
class PaperWorld:
    """Both instances look at the server every half second, each in its own beat; time goes by in tenths."""

    beats: tuple[int, int]
    server: PaperServer = field(default_factory=PaperServer)
    tenures: tuple[Tenure, Tenure] = field(default_factory=lambda: (Tenure("a"), Tenure("b")))
    asleep: set[str] = field(default_factory=set)
    tick: int = 0

    def step(self) -> None:
        self.tick += 1
        for tenure, beat in zip(self.tenures, self.beats, strict=True):
            if self.tick % round(LOOK_EVERY_S * 10) == beat and tenure.instance not in self.asleep:
                now_s = self.tick / 10
                answer = self.server.ask(tenure.instance, tenure.next_question(now_s), now_s)
                if answer is None:
                    tenure.faulted(now_s)
                else:
                    tenure.heard(answer, now_s)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.step()

    @property
    def leaders(self) -> list[str]:
        return [tenure.instance for tenure in self.tenures if tenure.is_leader]


BEATS = st.tuples(st.integers(0, 4), st.integers(0, 4))
# What may befall the server: seconds until then, seconds away, whether it comes back empty, and for how long the
# leader is then held up by whatever was the trouble: little when nobody but it noticed.
BLINKS = st.tuples(st.floats(0, 30), st.floats(0, 0.5), st.booleans(), st.floats(0, 1.3))
OUTAGES = st.tuples(st.floats(0, 30), st.floats(1, 60), st.booleans(), st.floats(0, 13))
TROUBLES = st.lists(BLINKS | OUTAGES, max_size=6)


@given(BEATS, TROUBLES)
def test_no_trouble_of_the_server_makes_a_living_leader_lose_the_feed(
    beats: tuple[int, int], troubles: list[tuple[float, float, bool, float]]
) -> None:
    world = PaperWorld(beats)
    world.run(1)
    first = world.leaders
    assert len(first) == 1
    for until_s, away_s, is_emptied, held_up_s in troubles:
        world.run(until_s)
        world.server.is_away = away_s > 0
        for _ in range(round(away_s * 10)):
            world.step()
            assert world.leaders == first
        world.server.is_away = False
        if is_emptied:
            world.server.holder, world.server.boots = None, world.server.boots + 1
        world.asleep.update(first)
        world.run(held_up_s)
        world.asleep.clear()
        world.run(1)
        assert world.leaders == first
        assert world.server.holder == first[0]
    world.run(30)
    assert world.leaders == first


@given(BEATS, st.floats(0, 30), st.booleans())
def test_a_leader_that_is_gone_is_followed_within_ten_seconds(
    beats: tuple[int, int], until_s: float, has_released: bool
) -> None:
    world = PaperWorld(beats)
    world.run(1 + until_s)
    (old,) = world.leaders
    world.asleep.add(old)
    if has_released:
        world.server.holder = None
    world.run(3 if has_released else 10)
    new = "b" if old == "a" else "a"
    assert new in world.leaders
    assert world.server.holder == new
    # The old one was only asleep: it sees at its first look that it leads no more.
    world.asleep.clear()
    world.run(LOOK_EVERY_S)
    assert world.leaders == [new]


# --- the loop, on a real server -----------------------------------------------------------------------------------


@dataclass
class Heard:
    """Stands for stream, writer and announcer: notes what it is told."""

    told: list[str] = field(default_factory=list)

    def stand_by(self, reason: str) -> None:
        self.told.append(f"stand_by: {reason}")

    def take_over(self) -> None:
        self.told.append("take_over")

    def start_afresh(self) -> None:
        self.told.append("start_afresh")

    def write_all_again(self) -> None:
        self.told.append("write_all_again")

    def announce_soon(self) -> None:
        self.told.append("announce_soon")

    def clear(self) -> None:
        self.told.clear()


@dataclass
class Instance:
    client: RedisClient
    lease: Lease
    leadership: Leadership
    heard: Heard


def make_instance(url: str, name: str) -> Instance:
    client, heard = RedisClient(url), Heard()
    lease = Lease(client, name)
    return Instance(client, lease, Leadership(Tenure(name), lease, heard, heard, heard), heard)


@asynccontextmanager
async def running(*instances: Instance) -> AsyncIterator[None]:
    supervisor = Supervisor(on_death=lambda _name, _reason: None)
    for instance in instances:
        supervisor.spawn(instance.lease.instance, instance.leadership.run)
    try:
        yield
    finally:
        await supervisor.stop()
        for instance in instances:
            await instance.client.aclose()
    assert supervisor.failures == {}


async def test_it_stands_by_until_it_has_asked(redis_url: str) -> None:
    one = make_instance(redis_url, "one")
    assert one.heard.told == ["stand_by: the lease of the feed has not been asked for yet"]
    assert not one.leadership.is_leader
    one.heard.clear()
    async with running(one):
        await eventually(lambda: one.leadership.is_leader, within_s=1)
        assert one.heard.told == ["start_afresh", "start_afresh", "take_over", "announce_soon"]
        assert (one.leadership.changes, one.leadership.fault) == (1, None)


async def test_the_second_waits_says_so_once_and_follows_a_release(redis_url: str) -> None:
    one, two = make_instance(redis_url, "one"), make_instance(redis_url, "two")
    await one.leadership.ask()
    two.heard.clear()
    with structlog.testing.capture_logs() as logs:
        async with running(two):
            await eventually(lambda: two.leadership.tenure.holder == "one")
            for _ in range(3):
                await two.leadership.ask()
            assert two.heard.told == []
            assert await one.lease.release()
            await eventually(lambda: two.leadership.is_leader, within_s=3.5)
            assert "take_over" in two.heard.told
            assert await one.client.get(LEASE_KEY) == b"two"
            # The one that thought that it led learns it at its next look.
            one.heard.clear()
            await one.leadership.ask()
            assert "stand_by: another instance (two) holds the feed" in one.heard.told
            assert one.heard.told.count("start_afresh") == 2
            assert (one.leadership.is_leader, one.leadership.changes) == (False, 2)
    told = [entry["holder"] for entry in logs if entry["event"] == "standing_by"]
    assert told == ["one", "two"]
    await one.client.aclose()


async def test_a_server_that_forgets_the_lease_gets_it_and_everything_else_again(redis_url: str) -> None:
    one = make_instance(redis_url, "one")
    async with running(one):
        await eventually(lambda: one.leadership.is_leader)
        one.heard.clear()
        await one.client.raw.flushall()
        await eventually(lambda: one.heard.told == ["write_all_again", "announce_soon"], within_s=1)
        assert await one.client.get(LEASE_KEY) == b"one"


async def test_a_refused_write_has_the_lease_looked_at_at_once(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "LOOK_EVERY_S", 60.0)
    one = make_instance(redis_url, "one")
    async with running(one):
        await eventually(lambda: one.leadership.is_leader)
        for _ in range(5):
            one.heard.clear()
            await one.client.raw.delete(LEASE_KEY)
            one.leadership.look_now.set()
            await eventually(lambda: one.heard.told, every_s=0.002)


async def test_a_server_that_is_away_is_told_once_and_changes_no_role() -> None:
    with EmbeddedRedis() as server:
        one = make_instance(server.url, "one")
        with structlog.testing.capture_logs() as logs:
            async with running(one):
                await eventually(lambda: one.leadership.is_leader)
                server.kill()
                await eventually(lambda: one.leadership.fault)
                for _ in range(5):
                    await one.leadership.ask()
                assert one.leadership.is_leader
                one.heard.clear()
                server.start()
                await eventually(lambda: one.heard.told == ["write_all_again", "announce_soon"], within_s=1)
                assert one.leadership.fault is None
        events = [entry["event"] for entry in logs]
        assert (events.count("lease_not_known"), events.count("lease_known_again")) == (1, 1)


async def test_a_newcomer_without_redis_waits(free_port: int) -> None:
    one = make_instance(redis_url("127.0.0.1", free_port), "one")
    async with running(one):
        await eventually(lambda: one.leadership.fault)
        assert (one.leadership.is_leader, one.leadership.has_asked) == (False, True)
        assert "take_over" not in one.heard.told
