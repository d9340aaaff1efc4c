"""Keeps the price book up to date from Redis: subscribe first, then read the snapshot, then apply what comes live.

It decides when the connection is dead (an error, or 6 s without a heartbeat) or not to be believed (this process was
stopped, and what has piled up is old) and starts over, for ever; which price is newer is the book's decision. Messages
are at most once: after a reconnect or a gap the cache is read again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from redis.asyncio.client import PubSub

from apps.execution_gateway.price_book import PriceBook, Verdict
from libs.market_data.freshness import HEARTBEAT_SILENCE_S
from libs.market_data.wakefulness import Wakefulness
from libs.redis_client.client import REDIS_FAULTS, RedisClient
from libs.redis_client.event_publisher import FEED_STATUS_CHANNEL, PRICE_CHANNEL_PREFIX
from libs.redis_client.price_cache import (
    FEED_STATUS_KEY,
    FEED_STATUS_TTL_S,
    PriceCache,
    UnreadableFeedStatusError,
    UnreadablePriceError,
    decode_feed_status,
    decode_price_update,
)

FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 2.0
SUBSCRIBE_TIMEOUT_S: Final = 2.0
RESYNC_PAUSE_S: Final = 1.0
"""Gaps come in swarms: the cache is read at most this often for them."""
_POLL_S: Final = 0.5
_YIELD_EVERY: Final = 64
"""Messages already in the buffer are read without a pause; after so many the other tasks get their turn."""
_SUBSCRIPTIONS: Final = 2

log = structlog.get_logger(__name__)


class PriceListener(Protocol):
    """Who wants to know that the book has changed. Both calls must return at once."""

    def price_changed(self, symbol: str) -> None:
        """Take note that the price of `symbol` is a new one."""
        ...

    def feed_changed(self) -> None:
        """Take note that the feed's state, or many prices, are new."""
        ...


@dataclass(slots=True)
class SubscriberCounters:
    """What has happened so far, for `/health` and `/metrics`."""

    messages: int = 0
    unreadable: int = 0
    outdated: int = 0
    gaps: int = 0
    resyncs: int = 0
    reconnects: int = 0
    sleeps: int = 0


class PriceSubscriber:
    """Read `price.updated.*` and `feed.status` into a book, over a connection of its own.

    `held_symbols` names the symbols whose cached prices matter; `on_connected` runs after every (re)connect, when
    announcements sent meanwhile may have been lost. Neither may raise.
    """

    def __init__(
        self,
        client: RedisClient,
        cache: PriceCache,
        book: PriceBook,
        *,
        listener: PriceListener,
        held_symbols: Callable[[], Awaitable[Collection[str]]],
        on_connected: Callable[[], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._cache = cache
        self._book = book
        self._listener = listener
        self._held_symbols = held_symbols
        self._on_connected = on_connected
        self._now = now
        self._needs_resync = False
        self.counters = SubscriberCounters()
        self.is_connected = False
        self.last_error: str | None = None

    async def run(self) -> None:
        """Listen for ever; returns only by cancellation."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            fault = None
            pubsub = self._client.pubsub()
            try:
                await self._connect(pubsub)
                backoff_s = FIRST_BACKOFF_S
                await self._listen(pubsub)
            except REDIS_FAULTS as error:
                fault = str(error) or type(error).__name__
            finally:
                await _close(pubsub)
            self._note_lost(fault)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    async def _connect(self, pubsub: PubSub) -> None:
        async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
            await pubsub.psubscribe(f"{PRICE_CHANNEL_PREFIX}*")
            await pubsub.subscribe(FEED_STATUS_CHANNEL)
            confirmed = 0
            while confirmed < _SUBSCRIPTIONS:
                # What is published from the first confirmation on is ours already: nothing may be thrown away here.
                message = await pubsub.get_message(timeout=SUBSCRIBE_TIMEOUT_S)
                if message is not None:
                    confirmed += message["type"] in {"subscribe", "psubscribe"}
                    self._take(message)
        await self._resync()
        if not self.is_connected:
            log.info("price_subscriber_connected", server=self._client.address)
        self.is_connected = True
        self.last_error = None
        await self._on_connected()

    async def _listen(self, pubsub: PubSub) -> None:
        """Apply what comes until the heartbeats stop. Raises REDIS_FAULTS."""
        loop = asyncio.get_running_loop()
        last_heartbeat_s = last_resync_s = loop.time()
        in_a_row = 0
        awake = Wakefulness(self._now())
        while True:
            message = await pubsub.get_message(timeout=_POLL_S)
            now_s, now = loop.time(), self._now()
            if awake.has_slept(now):
                # A heartbeat that waited meanwhile would vouch for prices of before: the cache tells what is true now.
                self.counters.sleeps += 1
                log.warning("woke_up", waited_for=str(now - (self._book.heard_at or now)))
                return
            awake.beat(now)
            if message is not None and self._take(message):
                last_heartbeat_s = now_s
            elif now_s - last_heartbeat_s > HEARTBEAT_SILENCE_S:
                # A dead publisher and a frozen server look alike from here. A new connection tells them apart.
                return
            if self._needs_resync and now_s - last_resync_s >= RESYNC_PAUSE_S:
                await self._resync()
                last_resync_s = now_s
            in_a_row = in_a_row + 1 if message is not None else 0
            if in_a_row >= _YIELD_EVERY:
                in_a_row = 0
                await asyncio.sleep(0)

    def _take(self, message: dict[str, object]) -> bool:
        """Apply one message; return whether it was a heartbeat."""
        channel, data = message["channel"], message["data"]
        if not isinstance(channel, bytes) or not isinstance(data, bytes):
            return False  # a confirmation: its data is a count
        self.counters.messages += 1
        try:
            if message["type"] == "pmessage":
                self._take_price(channel, data)
                return False
            status = decode_feed_status(data)
        except (UnreadablePriceError, UnreadableFeedStatusError) as error:
            self._count_unreadable(channel, error)
            return False
        if self._book.hear(status, self._now()):
            self._listener.feed_changed()
        return True

    def _take_price(self, channel: bytes, data: bytes) -> None:
        price = decode_price_update(data)
        if channel != f"{PRICE_CHANNEL_PREFIX}{price.symbol}".encode():
            raise UnreadablePriceError(f"a price of {price.symbol[:40]!r} on another symbol's channel")
        verdict = self._book.offer(price, is_live=True)
        if verdict is Verdict.OUTDATED:
            self.counters.outdated += 1
        if verdict is Verdict.ACCEPTED_AFTER_GAP:
            self.counters.gaps += 1
            self._needs_resync = True
        if verdict in {Verdict.ACCEPTED, Verdict.ACCEPTED_AFTER_GAP}:
            self._listener.price_changed(price.symbol)

    async def _resync(self) -> None:
        """Read the feed's status and the cached prices of what is held. Raises REDIS_FAULTS."""
        self._needs_resync = False
        await self._read_feed_status()
        for price in (await self._cache.read(await self._held_symbols())).values():
            self._book.offer(price, is_live=False)
        self.counters.resyncs += 1
        self._listener.feed_changed()

    async def _read_feed_status(self) -> None:
        status = await self._cache.read_feed_status()
        # The cached status may be the last word of a writer that has died since: its remaining life tells its age.
        left_ms = await self._client.execute("PTTL", FEED_STATUS_KEY)
        if status is None or not isinstance(left_ms, int) or left_ms <= 0:
            return
        age_s = max(0.0, FEED_STATUS_TTL_S - left_ms / 1000)
        heard_at = self._now() - timedelta(seconds=age_s)
        if age_s <= HEARTBEAT_SILENCE_S and (self._book.heard_at is None or heard_at > self._book.heard_at):
            self._book.hear(status, heard_at)

    def _note_lost(self, fault: str | None) -> None:
        self.counters.reconnects += 1
        if fault is not None:
            if self.is_connected or self.last_error is None:
                log.warning("price_subscriber_lost", server=self._client.address, reason=fault)
            self.is_connected = False
            self.last_error = fault
        # Without a fault it was the heartbeats that stopped. With one they may only be missed: the last one counts on
        # until it is too old.
        if (fault is None or self._book.is_silent(self._now())) and self._book.forget_feed():
            log.warning("feed_silent", heard_at=str(self._book.heard_at))
            self._listener.feed_changed()

    def _count_unreadable(self, channel: bytes, error: ValueError) -> None:
        self.counters.unreadable += 1
        if self.counters.unreadable.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …: a flood must not flood the log
            log.warning(
                "message_unreadable",
                channel=channel[:80].decode("utf-8", "replace"),
                reason=str(error)[:200],
                count=self.counters.unreadable,
            )


async def _close(pubsub: PubSub) -> None:
    try:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
    except REDIS_FAULTS as error:
        log.debug("price_subscriber_close_failed", reason=str(error))
