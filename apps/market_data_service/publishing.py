"""Carries prices and the link's state from memory to Redis, as fast as Redis takes them and never faster.

`PriceWriter` drains the newest quotes in batches; `FeedAnnouncer` is the heartbeat on `feed:status` and `feed.status`.
Neither is ever waited for by the reader. What could not be written is written when Redis returns. Neither writes while
another instance leads.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from libs.market_data.freshness import is_doubted
from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.prices import FeedStatus, LinkState
from libs.market_data.quotes import Quote, Unmarkable
from libs.market_data.suspect_quotes import Rejection
from libs.market_data.trades import Ineligible, TradeEvent
from libs.redis_client.client import RedisUnavailableError
from libs.redis_client.lease import LeaseLostError
from libs.redis_client.price_cache import PriceCache

log = structlog.get_logger(__name__)

HEARTBEAT_S: Final = 2.0
_MOST_PER_BATCH: Final = 500
_FLOOD: Final = 50
_FLOOD_REST_S: Final = 0.005
"""After a batch this large newer quotes are about to replace what waits: to write a little later is to write less."""
_FIRST_RETRY_S: Final = 0.05
_CATCH_UP_S: Final = 0.05
_LAST_RETRY_S: Final = 0.25
"""Short enough that the newest values are in Redis within a second of its return, whatever else is slow then."""


def _always() -> bool:
    return True


def _nobody() -> None:
    """Nobody cares that the lease is lost."""


async def _not_announced() -> None:
    """Nobody reads the feed's status."""


class PriceWriter:
    """Takes quotes from the stream's reader and keeps Redis at the newest of every symbol.

    `announce_epoch` sets the feed's status before the first price of a connection, or readers would take that price for
    another system's; it raises RedisUnavailableError.
    It writes while `may_write()`; `on_lease_lost()` is called when the fence has refused a write all the same.
    `fault` is why the last write failed, None when it went well.
    """

    def __init__(
        self,
        latest: LatestQuotes,
        cache: PriceCache,
        epoch_of: Callable[[str], str | None],
        may_write: Callable[[], bool] = _always,
        on_lease_lost: Callable[[], None] = _nobody,
        announce_epoch: Callable[[], Awaitable[None]] = _not_announced,
    ) -> None:
        self._latest = latest
        self._cache = cache
        self._epoch_of = epoch_of
        self._announce_epoch = announce_epoch
        self._may_write = may_write
        self._on_lease_lost = on_lease_lost
        self._wake = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._owed: set[str] = set()
        self._unwritable: frozenset[str] = frozenset()
        self.fault: str | None = None
        self.written = 0
        self.published = 0
        self.batches = 0
        self.failed_batches = 0

    def take_quote(self, quote: Quote) -> Unmarkable | None:
        """Hold a quote for the next batch; return why not, if an older one stands. The stream's handler."""
        refusal = self._latest.put(quote, self._epoch_of(quote.symbol))
        if refusal is None:
            self._wake.set()
        return refusal

    def take_rejected(self, rejection: Rejection) -> None:
        """Hold what a quote that may not mark says of its symbol's price. The stream's rejection handler."""
        if self._latest.take_rejected(rejection):
            self._wake.set()

    def take_trade(self, event: TradeEvent) -> Ineligible | None:
        """Hold a new last trade for the next batch; return why it cannot be the last. The stream's trade handler."""
        refusal = self._latest.take_trade(event)
        if self._latest.pending:
            self._wake.set()
        return refusal

    def wake(self) -> None:
        """Have a look now at what waits to be written."""
        self._wake.set()

    @property
    def is_behind(self) -> bool:
        """Whether Redis still lacks what it did not take: until then nothing must vouch for what it holds."""
        self._owed.intersection_update(self._latest.symbols)
        return bool(self._owed)

    @property
    def unwritable(self) -> frozenset[str]:
        """The symbols whose newest price cannot be written: nothing must vouch for the older one that Redis holds."""
        return self._unwritable

    def write_all_again(self) -> None:
        """Write every price that is held, at once: Redis is back, and may have lost what it was told."""
        self._latest.mark_unwritten()
        self._owed.update(self._latest.waiting)
        self._wake.set()
        self._retry_now.set()

    def start_afresh(self) -> None:
        """Forget every price and every fault: another instance leads from here on, or did until now."""
        self._latest.forget_all()
        self._owed.clear()
        self._unwritable = frozenset()
        self.fault = None

    async def run(self) -> None:
        """Write for ever."""
        retry_s = _FIRST_RETRY_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._latest.pending and self._may_write():
                is_flood = self._latest.pending >= _FLOOD
                self._retry_now.clear()
                if await self.write_batch():
                    retry_s = _FIRST_RETRY_S
                    if is_flood:
                        await asyncio.sleep(_FLOOD_REST_S)
                else:
                    await self._rest(retry_s)
                    retry_s = min(_LAST_RETRY_S, retry_s * 2)

    async def _rest(self, rest_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._retry_now.wait()

    async def write_batch(self) -> bool:
        """Write one batch in one request; say whether Redis took it. What it did not take waits again."""
        if not await self._recall_suspects():
            return False
        batch = self._latest.take(time.monotonic(), _MOST_PER_BATCH)
        symbols = [write.price.symbol for write in batch]
        try:
            await self._announce_epoch()
            unwritable = await self._cache.write(batch)
        except RedisUnavailableError as error:
            self._latest.mark_unwritten(symbols)
            self._note_failed(error, len(symbols))
            return False
        except asyncio.CancelledError:
            self._latest.mark_unwritten(symbols)
            raise
        if self.fault is not None:
            log.info("prices_written_again", symbols=len(symbols))
        self.fault = None
        self._owed.difference_update(symbols)
        self._unwritable = self._unwritable.difference(symbols) | unwritable
        self._latest.note_written(symbols)
        self.batches += 1
        self.written += len(batch) - len(unwritable)
        self.published += sum(write.publish and write.price.symbol not in unwritable for write in batch)
        return True

    async def _recall_suspects(self) -> bool:
        """Read which prices an earlier process left suspect, before they are overwritten; return whether that worked.

        REST may still show the very quote that the venue has withdrawn since.
        """
        while symbols := list(self._latest.to_recall):  # more may come while the cache answers
            try:
                cached = await self._cache.read(symbols)
            except RedisUnavailableError as error:
                self._note_failed(error, len(symbols))
                return False
            self._latest.recall(symbols, cached.values())
        return True

    def _note_failed(self, error: RedisUnavailableError, symbols: int) -> None:
        self._owed.update(self._latest.waiting)
        self.failed_batches += 1
        self._note(error, symbols)

    def _note(self, error: RedisUnavailableError, symbols: int) -> None:
        # A write that was under way when we stepped down is no fault of Redis.
        if self._may_write():
            if self.fault is None:
                log.warning("prices_not_written", reason=str(error), symbols=symbols)
            self.fault = str(error)
            if isinstance(error, LeaseLostError):
                self._on_lease_lost()

    async def flush(self) -> None:
        """Write all that waits, or give up at the first fault. For the end of the service."""
        while self._latest.pending and self._may_write() and await self.write_batch():
            pass


class _Stream(Protocol):
    """What the announcer needs of the stream."""

    @property
    def subscribed_symbols(self) -> list[str]: ...

    @property
    def confirmed(self) -> frozenset[str]: ...


class FeedAnnouncer:
    """Says every 2 s, and at every change, how the link stands; sees to it that a vouched price does not expire.

    It writes while `may_write()`; `on_lease_lost()` is called when the fence has refused a write all the same.
    `fault` is why the last announcement failed, None when it went well.
    """

    def __init__(
        self,
        status: Callable[[], FeedStatus],
        stream: _Stream,
        latest: LatestQuotes,
        writer: PriceWriter,
        cache: PriceCache,
        price_ttl_s: float,
        may_write: Callable[[], bool] = _always,
        on_lease_lost: Callable[[], None] = _nobody,
    ) -> None:
        self._status = status
        self._stream = stream
        self._latest = latest
        self._writer = writer
        self._cache = cache
        self._may_write = may_write
        self._on_lease_lost = on_lease_lost
        self._renewal_s = price_ttl_s / 3
        self._renewed_at_s = time.monotonic()
        self._changed = asyncio.Event()
        self._is_late = False
        self._announced_epoch: str | None = None
        self._writing = asyncio.Lock()
        self.fault: str | None = None
        self.has_reached_redis = False

    def announce_soon(self) -> None:
        """Announce now, not at the next heartbeat."""
        self._changed.set()

    def start_afresh(self) -> None:
        """Forget every fault: another instance leads from here on, or did until now."""
        self.fault = self._announced_epoch = None

    async def run(self) -> None:
        """Announce for ever."""
        while True:
            self._changed.clear()
            self._release_what_is_not_streamed()
            self._age_what_came_late()
            self._forget_the_unwanted()
            self._renew()
            await self.announce()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest_s()):
                    await self._changed.wait()

    def _rest_s(self) -> float:
        if self._writer.is_behind:
            return _CATCH_UP_S
        return _LAST_RETRY_S if self.fault else min(HEARTBEAT_S, self._renewal_s)

    async def announce(self) -> None:
        """Write and publish the status once. A server that has forgotten the last one gets every price again."""
        # A heartbeat vouches for the prices that Redis holds: those must be ours before it does.
        if not self._may_write() or self._writer.is_behind:
            return
        try:
            await self._write()
        except RedisUnavailableError as error:
            self._note(error)

    async def announce_epoch(self) -> None:
        """Set the status if its connection has not been announced yet. Raises RedisUnavailableError.

        Whatever Redis lacks: a new connection vouches for none of the prices that it holds.
        """
        if self._may_write() and self._status().epoch != self._announced_epoch:
            await self._write()

    async def _write(self) -> None:
        # One at a time: an older status must not replace a newer one.
        async with self._writing:
            status = self._status()
            was_known = await self._cache.write_feed_status(status)
        self._announced_epoch = status.epoch
        self.fault = None
        if not was_known and self.has_reached_redis:
            log.warning("redis_had_forgotten", symbols=len(self._latest.symbols))
            self._writer.write_all_again()
        self.has_reached_redis = True

    def _note(self, error: RedisUnavailableError) -> None:
        # A write that was under way when we stepped down is no fault of Redis.
        if self._may_write():
            if self.fault is None:
                log.warning("feed_status_not_written", reason=str(error))
            self.fault = str(error)
            if isinstance(error, LeaseLostError):
                self._on_lease_lost()

    def _release_what_is_not_streamed(self) -> None:
        """See to it that no quote of before is vouched for when its symbol is streamed again on this connection."""
        status = self._status()
        is_streaming = status.connected and status.state is LinkState.STREAMING
        if is_streaming and status.epoch is not None and "*" not in status.symbols:
            self._latest.release(status.symbols, status.epoch)
            if self._latest.pending:
                self._writer.wake()

    def _age_what_came_late(self) -> None:
        """Have other readers see it too: what a late stream brought before it was known to be late is old."""
        was_late, self._is_late = self._is_late, self._status().lag_s is not None
        if self._is_late and not was_late:
            self._latest.count_from_venue_time()
            self._writer.wake()

    def _forget_the_unwanted(self) -> None:
        wanted = self._stream.subscribed_symbols
        if "*" not in wanted:
            self._latest.keep_only(frozenset(wanted))

    def _renew(self) -> None:
        """Keep the prices from expiring for which the link vouches, however quiet the symbol."""
        now_s = time.monotonic()
        status = self._status()
        if now_s - self._renewed_at_s < self._renewal_s or status.epoch is None:
            return
        self._renewed_at_s = now_s
        if status.connected and status.state is LinkState.STREAMING and status.lag_s is None:
            confirmed = self._stream.confirmed
            known = self._latest.symbols if "*" in confirmed else confirmed
            self._latest.renew([symbol for symbol in known if not is_doubted(status, symbol)], status.epoch)
            self._writer.wake()
