"""Answers many who ask for the same at the same moment with one reading and one answer, a few in each turn of the loop.

A reading is shared by those who asked before it began, so no answer is older than its question. An answer is handed out
for `ANSWER_HELD_S` from when its making began, then made anew from the same reading. Between portions the event loop
serves others: what thousands wait for delays nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from libs.service.overload import OverloadedError

ANSWER_HELD_S: Final = 0.005
READING_HELD_S: Final = 0.050
"""Those who still wait then are answered from a new reading."""
PORTION: Final = 8
"""How many are answered in one turn of the event loop: some 3 ms of work."""
MOST_WAITING: Final = 2_000

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class SharedAnswers(Generic[Answer]):
    """The answers to one question.

    `read` finds out what an answer needs and returns how to make one as of now; what it raises is raised to all who
    wait by then. `is_current` says whether the last reading still holds. A caller who goes away takes nothing
    from the others. `on_idle` is called when nobody waits any more. `readings`, `made` and `refused` count.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Callable[[], Answer]]],
        *,
        is_current: Callable[[], bool] = lambda: True,
        most_waiting: int = MOST_WAITING,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._read = read
        self._is_current = is_current
        self._most_waiting = most_waiting
        self._on_idle = on_idle
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._asked = 0  # how many at the head of the line asked before the present reading began
        self._serving: asyncio.Task[None] | None = None
        self.readings = 0
        self.made = 0
        self.refused = 0

    async def get(self) -> Answer:
        """Return an answer whose reading begins after this call. Raises OverloadedError when too many wait."""
        if len(self._waiting) >= self._most_waiting:
            self.refused += 1
            raise OverloadedError(f"{len(self._waiting)} requests are waiting for the same answer")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(answer)
        if self._serving is None or self._serving.done():
            self._serving = loop.create_task(self._serve(), name="shared-answers")
        return await answer

    async def finish(self) -> None:
        """Wait for what is under way though nobody may wait for it any more."""
        if self._serving is not None:
            await asyncio.wait([self._serving])

    async def _serve(self) -> None:
        while self._waiting:
            self._asked = len(self._waiting)
            self.readings += 1
            try:
                await self._hand_out(await self._read())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is those who asked that must hear of it
                await self._fail(error)
        self._on_idle()

    async def _hand_out(self, make: Callable[[], Answer]) -> None:
        """Answer those who asked; who is left when the reading has grown old waits for the next one."""
        clock = asyncio.get_running_loop().time
        read_at_s = clock()
        while self._asked:
            began_s = clock()
            answer = make()
            self.made += 1
            await self._answer_portion(answer)
            while self._asked and clock() - began_s < ANSWER_HELD_S:
                await self._answer_portion(answer)
            if not self._is_current() or clock() - read_at_s >= READING_HELD_S:
                return

    async def _answer_portion(self, answer: Answer) -> None:
        for waiting in self._take(PORTION):
            waiting.set_result(answer)
        await asyncio.sleep(0)

    async def _fail(self, error: Exception) -> None:
        # All who wait by now: those who asked meanwhile would wait as long once more to be told the same.
        self._asked = len(self._waiting)
        while self._asked:
            for waiting in self._take(PORTION):
                waiting.set_exception(error)
            await asyncio.sleep(0)

    def _take(self, most: int) -> list[asyncio.Future[Answer]]:
        """Take up to `most` of those who asked out of the line. Who has gone meanwhile counts for nothing."""
        taken: list[asyncio.Future[Answer]] = []
        while self._asked and len(taken) < most:
            self._asked -= 1
            waiting = self._waiting.popleft()
            if not waiting.done():
                taken.append(waiting)
        return taken


class SharedAnswersByKey(Generic[Key, Answer]):
    """SharedAnswers for each of many questions, kept while somebody waits. `read` is given the question."""

    def __init__(self, read: Callable[[Key], Awaitable[Callable[[], Answer]]]) -> None:
        self._read = read
        self._shared: dict[Key, SharedAnswers[Answer]] = {}
        self._refused = 0

    @property
    def refused(self) -> int:
        """How many were turned away so far."""
        return self._refused + sum(shared.refused for shared in self._shared.values())

    async def get(self, key: Key) -> Answer:
        """Return an answer to `key`. Raises OverloadedError."""
        shared = self._shared.get(key)
        if shared is None:
            shared = SharedAnswers(lambda: self._read(key), on_idle=lambda: self._forget(key))
            self._shared[key] = shared
        return await shared.get()

    async def finish(self) -> None:
        """Wait for what is under way."""
        for shared in list(self._shared.values()):
            await shared.finish()

    def _forget(self, key: Key) -> None:
        self._refused += self._shared.pop(key).refused
