"""A recording as a market: its quotes at their pace, and what REST may know of them so far."""

import asyncio
import time
from collections.abc import Iterator
from typing import Final

import structlog
from msgspec.structs import replace

from apps.alpaca_simulator.broadcast import MARKET_FEEDS, Broadcaster
from apps.alpaca_simulator.config import FASTEST
from apps.alpaca_simulator.halts import Halts
from apps.alpaca_simulator.market import rescaled
from apps.alpaca_simulator.points import Feed, Quote, Trade
from apps.alpaca_simulator.recording import Recording
from apps.alpaca_simulator.trade_tape import TradeTape

log = structlog.get_logger(__name__)

_LONGEST_NAP_S: Final = 0.1
_NS_PER_S: Final = 1_000_000_000


class ReplayMarket:
    """Knows of each symbol the quote that was played last, and nothing of those that have not come yet."""

    def __init__(self) -> None:
        self.tape = TradeTape()
        self._latest: dict[str, Quote] = {}

    def put(self, quote: Quote) -> None:
        """Take over a quote: it is the latest of its symbol."""
        self._latest[quote.symbol] = quote

    def latest_quote(self, symbol: str, _feed: Feed, _now_ns: int) -> Quote | None:
        """Return the quote played last, as recorded on whatever feed; None before the first."""
        return self._latest.get(symbol)

    def put_trade(self, trade: Trade) -> None:
        """Take over a trade: recordings hold quotes alone."""
        self.tape.add(trade, is_given=True)

    def latest_trade(self, symbol: str, _feed: Feed, _now_ns: int) -> Trade | None:
        """Return the last of the trades that were given; None before the first."""
        last = self.tape.last(symbol)
        return None if last is None else last.trade

    def rescale(self, symbol: str, factor: float) -> None:
        """Multiply the prices of the symbol's latest quote and trades; what is played next is as it was recorded."""
        self.tape.rescale(symbol, factor)
        if (latest := self._latest.get(symbol)) is not None:
            self._latest[symbol] = rescaled(latest, factor)


class ReplayPump:
    """Plays a recording from the first subscription that names one of its symbols.

    `speed` is a factor, or `FASTEST`. Each quote carries the time of its sending unless `keep_timestamps`.
    At the end it falls quiet, or begins again when `loop`. Quotes of a halted symbol are left out.
    """

    def __init__(
        self,
        recording: Recording,
        market: ReplayMarket,
        broadcaster: Broadcaster,
        halts: Halts,
        *,
        speed: float,
        batch: int,
        keep_timestamps: bool,
        loop: bool,
    ) -> None:
        self._recording = recording
        self._market = market
        self._broadcaster = broadcaster
        self._halts = halts
        self._speed = speed
        self._batch = batch
        self._keeps_timestamps = keep_timestamps
        self._loops = loop

    async def run(self) -> None:
        """Play, then wait for ever: a replay that has ended is quiet, not dead."""
        while not self._broadcaster.wanted & self._recording.symbols:
            await self._broadcaster.wait_for_change()
        while True:
            log.info("replay_started", quotes=len(self._recording), speed=self._speed)
            if self._speed == FASTEST:
                await self._play_fast()
            else:
                await self._play_in_time()
            log.info("replay_ended")
            if not self._loops:
                await asyncio.Event().wait()
            # A recording of a single moment must not become a busy loop.
            await asyncio.sleep(0.01)

    async def _play_in_time(self) -> None:
        began_s = time.monotonic()
        quotes = self._recording.quotes()
        waiting: Quote | None = next(quotes, None)
        first_ns = waiting.time_ns if waiting else 0
        while waiting is not None:
            position_ns = first_ns + round((time.monotonic() - began_s) * self._speed * _NS_PER_S)
            waiting = self._send_due(waiting, quotes, position_ns)
            if waiting is not None:
                ahead_s = (waiting.time_ns - position_ns) / self._speed / _NS_PER_S
                await asyncio.sleep(min(max(ahead_s, 0.0), _LONGEST_NAP_S))

    def _send_due(self, waiting: Quote, quotes: Iterator[Quote], position_ns: int) -> Quote | None:
        """Send what is due, a batch at most, and return the first quote that has to wait; None at the end."""
        due: list[Quote] = []
        following: Quote | None = waiting
        while following is not None and following.time_ns <= position_ns and len(due) < self._batch:
            due.append(following)
            following = next(quotes, None)
        self._send(due)
        return following

    async def _play_fast(self) -> None:
        batch: list[Quote] = []
        for quote in self._recording.quotes():
            batch.append(quote)
            if len(batch) >= self._batch:
                await self._send_when_there_is_room(batch)
                batch = []
        await self._send_when_there_is_room(batch)

    async def _send_when_there_is_room(self, batch: list[Quote]) -> None:
        await self._broadcaster.wait_for_room()
        self._send(batch)
        await asyncio.sleep(0)

    def _send(self, quotes: list[Quote]) -> None:
        if silent := self._halts.silent:
            quotes = [quote for quote in quotes if quote.symbol not in silent]
        if not self._keeps_timestamps:
            now_ns = time.time_ns()
            quotes = [replace(quote, time_ns=now_ns) for quote in quotes]
        for quote in quotes:
            self._market.put(quote)
        self._broadcaster.deliver(quotes, MARKET_FEEDS, as_given=True)
