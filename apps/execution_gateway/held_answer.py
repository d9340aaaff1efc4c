"""The answer to one question that many ask: it is asked once for all of them, and held for a while."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class HeldAnswer(Generic[Answer]):
    """What `ask` returns, at most `held_s` seconds old as of when it was asked. `questions` counts the askings."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, Answer]], held_s: float, name: str) -> None:
        self._ask = ask
        self._held_s = held_s
        self._name = name
        self._asking: asyncio.Task[Answer] | None = None
        self._asked_at_s = 0.0
        self.questions = 0

    async def get(self) -> Answer:
        """Return the answer that is held or under way, else ask. Raises what `ask` raises."""
        loop = asyncio.get_running_loop()
        is_old = loop.time() - self._asked_at_s >= self._held_s
        if self._asking is None or (self._asking.done() and is_old):
            self._asked_at_s = loop.time()
            self.questions += 1
            self._asking = loop.create_task(self._ask(), name=self._name)
        # Shielded: one who goes away must not take the answer from the others.
        return await asyncio.shield(self._asking)

    async def finish(self) -> None:
        """Wait for the question that is under way, so that what it is asked of may be closed."""
        if self._asking is not None:
            await asyncio.wait([self._asking])
