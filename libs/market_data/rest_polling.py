"""Prices by REST what the stream does not bring: symbols over the plan's limit, refused ones, dead ones.

Decides how often to ask. A polled quote is known since the venue made it, and no connection vouches for it.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from libs.market_data.latest_quotes_rest import SYMBOLS_PER_REQUEST
from libs.market_data.quotes import Quote
from libs.market_data.snapshots import FetchLatestQuotes

log = structlog.get_logger(__name__)

POLL_EVERY_S: Final = 5.0
_CLOSED_EVERY_S: Final = 60.0
_REQUEST_EVERY_S: Final = 1.0
"""A free plan allows 200 requests a minute for everything; this leaves more than half to others."""
_SLOWEST_S: Final = 60.0
_LOOK_EVERY_S: Final = 1.0


class QuotePoller:
    """Asks REST for the latest quotes of `symbols()`, every 5 s, or slower for many and after failures.

    `last_fault`: why the last question failed, None after a good answer.
    """

    def __init__(
        self,
        fetch: FetchLatestQuotes | None,
        symbols: Callable[[], Collection[str]],
        take: Callable[[Quote], None],
        is_market_open: Callable[[], bool],
    ) -> None:
        self._fetch = fetch
        self._symbols = symbols
        self._take = take
        self._is_market_open = is_market_open
        self._failures = 0
        self.polls = 0
        self.faults = 0
        self.last_fault: str | None = None

    async def run(self) -> None:
        """Poll for ever."""
        loop = asyncio.get_running_loop()
        asked_at_s: float | None = None
        while True:
            symbols = sorted(self._symbols()) if self._fetch is not None else []
            if not symbols:
                self.last_fault = None
            elif asked_at_s is None or loop.time() - asked_at_s >= self.pause_s(len(symbols)):
                asked_at_s = loop.time()
                await self._poll(symbols)
            await asyncio.sleep(_LOOK_EVERY_S)

    def pause_s(self, count: int) -> float:
        """Return the seconds from one question of `count` symbols to the next."""
        requests = -(-count // SYMBOLS_PER_REQUEST)
        usual_s = max(POLL_EVERY_S if self._is_market_open() else _CLOSED_EVERY_S, requests * _REQUEST_EVERY_S)
        return max(usual_s, min(_SLOWEST_S, usual_s * 2.0 ** min(self._failures, 10)))

    async def _poll(self, symbols: list[str]) -> None:
        if self._fetch is None:
            return
        self.polls += 1
        try:
            quotes = await self._fetch(symbols)
        except Exception as error:  # noqa: BLE001 - whatever REST does, the prices just age; the next question comes later
            self.faults += 1
            self._failures += 1
            if self.last_fault is None:
                log.warning("polling_failed", reason=str(error), symbols=len(symbols))
            self.last_fault = str(error) or type(error).__name__
            return
        self._failures, self.last_fault = 0, None
        # What streams by now has had its own quote fetched after its confirmation; this answer may be older.
        polled = frozenset(self._symbols())
        for quote in quotes:
            if quote.symbol in polled:
                self._take(quote)
