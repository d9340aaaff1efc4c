"""Fetches the latest quotes of newly confirmed symbols by REST, and decides when to try again.

The stream replays nothing, and a quiet symbol may not quote for minutes: without this it would have no price.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog

from libs.market_data.quotes import Quote

log = structlog.get_logger(__name__)

FetchLatestQuotes = Callable[[Sequence[str]], Awaitable[Sequence[Quote]]]

_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class SnapshotFetcher:
    """Fetches each wanted symbol's latest quote once. `last_fault`: why the last try failed, None after a good one."""

    def __init__(self, fetch: FetchLatestQuotes | None, take: Callable[[Quote], None]) -> None:
        self._fetch = fetch
        self._take = take
        self._unfetched: dict[str, None] = {}
        self._has_work = asyncio.Event()
        self.faults = 0
        self.last_fault: str | None = None

    def want(self, symbols: Iterable[str]) -> None:
        """Fetch these symbols' quotes soon."""
        self._unfetched.update(dict.fromkeys(symbols))
        self._has_work.set()

    def forget(self) -> None:
        """Drop what is still to be fetched: the connection it was for is over."""
        self._unfetched.clear()

    async def run(self) -> None:
        """Fetch for ever, patiently after failures."""
        failures = 0
        while True:
            self._has_work.clear()
            if not self._unfetched or self._fetch is None:
                await self._has_work.wait()
                continue
            if await self._fetch_waiting(self._fetch):
                failures = 0
            else:
                await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1

    async def _fetch_waiting(self, fetch: FetchLatestQuotes) -> bool:
        symbols = list(self._unfetched)
        try:
            quotes = await fetch(symbols)
        except Exception as error:  # noqa: BLE001 - whatever REST does, the stream goes on; the caller waits before the next
            self.faults += 1
            if self.last_fault is None:
                log.warning("snapshot_failed", reason=str(error), symbols=len(symbols))
            self.last_fault = str(error) or type(error).__name__
            return False
        self.last_fault = None
        for symbol in symbols:
            self._unfetched.pop(symbol, None)
        for quote in quotes:
            self._take(quote)
        return True
