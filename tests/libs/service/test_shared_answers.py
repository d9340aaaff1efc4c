"""One reading for all who ask at the same moment, never one that began before the question."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.service import shared_answers
from libs.service.overload import OverloadedError
from libs.service.shared_answers import PORTION, SharedAnswers, SharedAnswersByKey
from tests.support.waiting import eventually


class World:
    """What is asked about: `version` grows. A reading notes the version it began at, and lasts until it may end."""

    def __init__(self) -> None:
        self.version = 0
        self.is_current = True
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.fault: Exception | None = None
        self.shared = SharedAnswers(self.read, is_current=lambda: self.is_current)

    async def read(self) -> Callable[[], int]:
        seen = self.version
        await self.may_end.wait()
        if self.fault is not None:
            raise self.fault
        return lambda: seen

    def ask(self, count: int) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.shared.get()) for _ in range(count)]

    async def ask_while_reading(self, count: int) -> list[asyncio.Task[int]]:
        """Have one reading under way, and `count` more who came after it began."""
        self.may_end.clear()
        asked = self.ask(1)
        await eventually(lambda: self.shared.readings == 1)
        asked += self.ask(count)
        await asyncio.sleep(0)
        return asked


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, an answer and a reading are still young."""
    monkeypatch.setattr(shared_answers, "ANSWER_HELD_S", 3600.0)
    monkeypatch.setattr(shared_answers, "READING_HELD_S", 3600.0)


@pytest.mark.usefixtures("patient")
async def test_all_who_ask_at_the_same_moment_share_one_reading_and_one_answer() -> None:
    world = World()
    assert await asyncio.gather(*world.ask(500)) == [0] * 500
    assert (world.shared.readings, world.shared.made) == (1, 1)
    assert not world.shared._waiting


@pytest.mark.usefixtures("patient")
async def test_who_comes_while_a_reading_is_under_way_gets_the_next_one() -> None:
    world = World()
    first, *later = await world.ask_while_reading(100)
    world.version = 1
    world.may_end.set()
    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 100
    assert world.shared.readings == 2


@given(st.lists(st.sampled_from(["ask", "change", "turn"]), max_size=60))
@settings(max_examples=50, deadline=None)
def test_no_answer_is_older_than_its_question(steps: list[str]) -> None:
    async def run() -> None:
        world = World()
        asked: list[tuple[int, asyncio.Task[int]]] = []
        for step in steps:
            if step == "ask":
                asked.append((world.version, asyncio.create_task(world.shared.get())))
            elif step == "change":
                world.version += 1
            else:
                await asyncio.sleep(0)
        for version, answer in asked:
            assert await answer >= version
        assert world.shared.readings <= len(asked)

    asyncio.run(run())


@pytest.mark.usefixtures("patient")
async def test_the_loop_serves_others_between_portions() -> None:
    world = World()
    asked = world.ask(10 * PORTION)
    answered_in_a_turn, before = [], 0
    while before < len(asked):
        await asyncio.sleep(0)
        done = sum(one.done() for one in asked)
        answered_in_a_turn.append(done - before)
        before = done
    assert max(answered_in_a_turn) <= PORTION


async def test_an_answer_that_has_grown_old_is_made_anew_from_the_same_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_answers, "ANSWER_HELD_S", 0.0)
    monkeypatch.setattr(shared_answers, "READING_HELD_S", 3600.0)
    world = World()
    await asyncio.gather(*world.ask(4 * PORTION))
    assert (world.shared.readings, world.shared.made) == (1, 4)


async def test_who_still_waits_when_the_reading_has_grown_old_gets_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_answers, "ANSWER_HELD_S", 0.0)
    monkeypatch.setattr(shared_answers, "READING_HELD_S", 0.0)
    world = World()
    await asyncio.gather(*world.ask(4 * PORTION))
    assert world.shared.readings == 4


async def test_what_has_changed_since_the_reading_is_read_before_more_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_answers, "ANSWER_HELD_S", 0.0)
    monkeypatch.setattr(shared_answers, "READING_HELD_S", 3600.0)
    world = World()
    world.is_current = False
    await asyncio.gather(*world.ask(3 * PORTION))
    assert world.shared.readings == 3


@pytest.mark.usefixtures("patient")
async def test_who_goes_away_takes_nothing_from_the_others() -> None:
    world = World()
    first, second, third = await world.ask_while_reading(2)
    first.cancel()
    second.cancel()
    world.version = 1
    world.may_end.set()
    assert await third == 1
    assert first.cancelled()
    assert second.cancelled()
    assert await world.shared.get() == 1


async def test_when_all_have_gone_the_reading_ends_by_itself() -> None:
    world = World()
    asked = await world.ask_while_reading(3)
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)
    world.may_end.set()
    await world.shared.finish()
    assert not world.shared._waiting


async def test_a_failure_is_told_to_all_who_wait_for_it_and_to_nobody_else() -> None:
    world = World()
    asked = await world.ask_while_reading(0)
    asked += world.ask(3 * PORTION)
    world.fault = LookupError("gone")
    world.may_end.set()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(error) for error in told] == ["gone"] * len(asked)
    assert all(isinstance(error, LookupError) for error in told)
    world.fault = None
    assert await world.shared.get() == 0


async def test_an_answer_that_cannot_be_made_is_a_failure_too() -> None:
    async def read() -> Callable[[], int]:
        return lambda: 1 // 0

    shared = SharedAnswers(read)
    told = await asyncio.gather(*(shared.get() for _ in range(20)), return_exceptions=True)
    assert [type(error) for error in told] == [ZeroDivisionError] * 20


async def test_more_than_may_wait_are_refused_and_the_others_are_answered() -> None:
    world = World()
    world.shared = SharedAnswers(world.read, most_waiting=3)
    told = await asyncio.gather(*world.ask(5), return_exceptions=True)
    assert told[:3] == [0, 0, 0]
    assert [type(error) for error in told[3:]] == [OverloadedError] * 2
    assert "overloaded" in str(told[3])
    assert world.shared.refused == 2


async def test_each_question_has_answers_of_its_own_and_is_forgotten_once_answered() -> None:
    asked: list[str] = []

    async def read(key: str) -> Callable[[], str]:
        asked.append(key)
        await asyncio.sleep(0)
        return lambda: f"of {key}"

    shared = SharedAnswersByKey(read)
    answers = await asyncio.gather(*(shared.get(key) for key in ["a", "b", "a", "b", "c"]))
    assert answers == ["of a", "of b", "of a", "of b", "of c"]
    assert sorted(asked) == ["a", "b", "c"]
    await shared.get("a")
    await shared.finish()
    assert not shared._shared
    assert shared.refused == 0


async def test_who_came_while_a_reading_was_failing_does_not_wait_for_another_to_fail() -> None:
    world = World()
    asked = await world.ask_while_reading(20)
    world.fault = TimeoutError("no answer within 2 s")
    world.may_end.set()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in told] == [TimeoutError] * 21
    assert world.shared.readings == 1
    world.fault = None
    assert await asyncio.gather(*world.ask(2)) == [0, 0]
