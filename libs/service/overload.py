"""Bounds how much work waits: a caller waits in line for a bounded time, or learns at once that this is overload.

What is overloaded is this service, never what it asks: a database that has not been asked has not failed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

RETRY_AFTER_S = 2
"""When a refused caller should ask again."""


class OverloadedError(Exception):
    """More was asked at once than this service can answer. Asking again later helps."""

    def __init__(self, what: str) -> None:
        super().__init__(f"this service is overloaded: {what}; ask again in {RETRY_AFTER_S} seconds")


class WaitingLine:
    """Let `at_once` callers do something at the same time; the others wait in line, first come, first served.

    At most `most_waiting` wait, each for at most `wait_s`. `refused` counts those who were turned away.
    """

    def __init__(self, what: str, *, at_once: int, most_waiting: int, wait_s: float) -> None:
        self._what = what
        self._turns = asyncio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self._wait_s = wait_s
        self._waiting = 0
        self.refused = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Run the block when it is this caller's turn. Raises OverloadedError instead when that takes too long."""
        if self._waiting >= self._most_waiting:
            raise self._refusal(f"{self._waiting} requests for {self._what} are waiting")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise self._refusal(f"a request for {self._what} has waited for {self._wait_s:g} seconds") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    def _refusal(self, what: str) -> OverloadedError:
        self.refused += 1
        return OverloadedError(what)
