"""Asks the account's clock and measures ours by it: the shell of `account_time.py`."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from libs.market_data.account_time import CONFIRMS_AFTER_S, AccountTime
from libs.market_data.market_hours import AccountClock

_LOOK_EVERY_S: Final = 1.0
_PATIENCE_S: Final = 3.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ClockCheck:
    """`ask` the account's clock through it: each answer is measured. `run` asks again while one is in doubt.

    `now` is our own clock, right or wrong; `time` is what is known of it.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[AccountClock]],
        account_time: AccountTime,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._ask = ask
        self.time = account_time
        self._own_now = now
        self._asked_s = time.monotonic()

    def now(self) -> datetime:
        """Return the time: ours, corrected where it is known to be wrong."""
        return self._own_now() + self.time.offset

    async def ask(self) -> AccountClock:
        """Ask the account's clock, and measure ours by its answer. Raises what asking raises."""
        asked_at, asked_s = self._own_now(), time.monotonic()
        self._asked_s = asked_s
        answer = await self._ask()
        self.time.answered(answer.timestamp, asked_at, asked_s, time.monotonic(), answer.simulator_mode)
        return answer

    async def run(self) -> None:
        """Look every second, and ask when an answer has to be confirmed. Runs until cancelled."""
        while True:
            now_s = time.monotonic()
            self.time.look(self._own_now(), now_s)
            if self.time.wants_answer and now_s - self._asked_s > CONFIRMS_AFTER_S:
                # Whoever asks for the market's hours reports that the clock cannot be had; here it says nothing.
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(_PATIENCE_S):
                        await self.ask()
            await asyncio.sleep(_LOOK_EVERY_S)
