"""Tells the market data service over Redis that positions have changed. Best effort: a fill never waits for Redis.

What could not be announced is kept, one set of symbols however long it takes, and announced when Redis is back.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import structlog

from libs.redis_client.client import RedisUnavailableError
from libs.redis_client.event_publisher import POSITION_CHANGED_CHANNEL, EventPublisher

RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)


class PositionAnnouncer:
    """Publish `position.changed` for symbols whose positions have changed. `run` does the waiting."""

    def __init__(self, publisher: EventPublisher, now: Callable[[], datetime]) -> None:
        self._publisher = publisher
        self._now = now
        self._pending: set[str] = set()
        self._is_due = asyncio.Event()
        self.announced = 0
        self.failures = 0

    def announce(self, symbols: Iterable[str]) -> None:
        """Announce soon; returns at once. No symbols: announce that there may have been changes."""
        self._pending.update(symbols)
        self._is_due.set()

    async def run(self) -> None:
        """Publish what is due, for ever; returns only by cancellation."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            symbols, self._pending = self._pending, set()
            try:
                await self._publisher.publish(
                    POSITION_CHANGED_CHANNEL, {"symbols": sorted(symbols), "at": self._now().isoformat()}
                )
            except RedisUnavailableError as error:
                self._pending |= symbols
                self._is_due.set()
                if self.failures.bit_count() <= 1:
                    log.warning("position_change_not_announced", reason=error.reason, failures=self.failures + 1)
                self.failures += 1
                await asyncio.sleep(RETRY_S)
            else:
                self.announced += 1
                log.debug("position_change_announced", symbols=sorted(symbols))
