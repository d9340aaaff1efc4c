"""Looks at the P&L every few seconds and has what is new recorded; forgets what is too old. Nobody waits for it.

What could not be read or written is not made up for: the series then has a gap.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from apps.execution_gateway.database import BookUnavailableError, DatabaseUnavailableError
from apps.execution_gateway.history_store import HistoryStore
from apps.execution_gateway.pnl_history import Sighting, sample_of
from apps.execution_gateway.pnl_report import RealtimePnl

FORGET_EVERY_S: Final = 3600.0
"""Once nothing is left to forget, it is looked for this often; till then one batch goes with each sample."""

log = structlog.get_logger(__name__)


class Reporter(Protocol):
    """Where the figures come from."""

    async def report_from_memory(self) -> RealtimePnl:
        """Return the P&L as of now without waiting for Redis. Raises DatabaseUnavailableError."""
        ...


class HistorySampler:
    """Keep the history. `run` does the work until cancelled; `finish` notes at the end how long the last point stood.

    `keep_days` 0 keeps everything. `samples` counts looks, `failures` those of which nothing could be recorded,
    `forgotten` the points deleted; `last_error` is None while all is well.
    """

    def __init__(self, reporter: Reporter, store: HistoryStore, keep_days: int, now: Callable[[], datetime]) -> None:
        self._reporter = reporter
        self._store = store
        self._keep_days = keep_days
        self._now = now
        self._seen: Sighting | None = None
        self._forget_at_s = 0.0
        self.samples = 0
        self.failures = 0
        self.forgotten = 0
        self.last_error: str | None = None

    async def run(self) -> None:
        """Sample once in every slot, for ever; returns only by cancellation."""
        while True:
            await asyncio.sleep(self._store.sampling.until_next_s(self._now()))
            await self.sample()
            await self._forget_when_due()

    async def sample(self) -> None:
        """Look once. A failure is counted and told."""
        self.samples += 1
        try:
            sample = sample_of(await self._reporter.report_from_memory())
            self._seen = await self._store.record(sample, self._seen)
        except BookUnavailableError as error:
            self._tell_failure(error)
            return
        if self.last_error is not None:
            log.info("pnl_history_resumed")
        self.last_error = None

    async def finish(self) -> None:
        """Note how long the newest point has stood, so that a short stop leaves no gap. Never raises."""
        seen, self._seen = self._seen, None
        if seen is None:
            return
        try:
            await self._store.extend(seen)
        except DatabaseUnavailableError as error:
            self._tell_failure(error)

    async def _forget_when_due(self) -> None:
        if not self._keep_days or _clock_s() < self._forget_at_s:
            return
        try:
            forgotten = await self._store.forget_before(self._now() - timedelta(days=self._keep_days))
        except DatabaseUnavailableError as error:
            self._tell_failure(error)
            return
        self.forgotten += forgotten
        if not forgotten:
            self._forget_at_s = _clock_s() + FORGET_EVERY_S

    def _tell_failure(self, error: BookUnavailableError) -> None:
        self.failures += 1
        if self.last_error is None:
            log.warning("pnl_history_interrupted", reason=str(error))
        self.last_error = str(error)


def _clock_s() -> float:
    return asyncio.get_running_loop().time()
