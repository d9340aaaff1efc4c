"""Keeps the price book up to date from Redis: subscribe first, then read the snapshot, then apply what comes live.

It decides when the connection is dead (an error, or 6 s without a heartbeat) or not to be believed (this process was
stopped, and what has piled up is old) and starts over, for ever; which price is newer is the book's decision. Messages
are at most once: after a reconnect or a gap the cache is read again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog
from redis.asyncio.client import PubSub

from apps.execution_gateway.delivery import Delivery
from apps.execution_gateway.price_book import PriceBook, Verdict
from libs.market_data.freshness import HEARTBEAT_SILENCE_S
from libs.market_data.prices import Price
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
RESYNC_PAUSE: Final = timedelta(seconds=1)
"""Gaps come in swarms: the cache is read at most this often for them."""
_POLL_S: Final = 0.5
_YIELD_EVERY: Final = 64
"""Messages already in the buffer are read without a pause; after so many the other tasks get their turn."""
_SUBSCRIPTIONS: Final = 2
_CONFIRMATIONS: Final = frozenset({"subscribe", "psubscribe"})

Message = dict[str, Any]
"""As redis-py hands it out: `type`, `channel`, `data`."""

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
    late: int = 0
    """Times that a connection was given up because what it delivered was too old."""


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
                delivery = await self._connect(pubsub)
                backoff_s = FIRST_BACKOFF_S
                await self._listen(pubsub, delivery)
            except REDIS_FAULTS as error:
                fault = str(error) or type(error).__name__
            finally:
                await _close(pubsub)
            self._note_lost(fault)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    async def _connect(self, pubsub: PubSub) -> Delivery:
        delivery = Delivery(self._now())
        async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
            await pubsub.psubscribe(f"{PRICE_CHANNEL_PREFIX}*")
            await pubsub.subscribe(FEED_STATUS_CHANNEL)
            confirmed = 0
            while confirmed < _SUBSCRIPTIONS:
                # Prices that are published from the first confirmation on are ours already: none may be thrown away.
                message = await pubsub.get_message(timeout=SUBSCRIBE_TIMEOUT_S)
                if message is not None:
                    confirmed += message["type"] in _CONFIRMATIONS
                    if message["type"] == "pmessage":
                        self._take_price(message)
        # The prices first: a heartbeat would vouch for what is held, and that may have missed much. Those that come
        # meanwhile wait in the socket.
        held = await self._held_symbols()
        # Of the others nothing will be read: what was missed of them is not known, and they may be bought any moment.
        self._book.keep_only(held)
        await self._read_prices(held)
        await self._read_feed_status()
        self._listener.feed_changed()
        if not self.is_connected:
            log.info("price_subscriber_connected", server=self._client.address)
        self.is_connected = True
        self.last_error = None
        await self._on_connected()
        return delivery

    async def _listen(self, pubsub: PubSub, delivery: Delivery) -> None:
        """Apply what comes until the heartbeats stop. Raises REDIS_FAULTS, also when what comes is late."""
        last_heartbeat_at = last_resync_at = self._now()
        in_a_row = 0
        while True:
            message = await pubsub.get_message(timeout=_POLL_S)
            now = self._now()
            if delivery.is_late(now):
                self.counters.late += 1
                waited_s = (now - delivery.sent_after).total_seconds()
                raise TimeoutError(f"what it sent may be {waited_s:.1f} s old: it, the way to it or we stood still")
            if delivery.wants_ping(now):
                delivery.pinged(now)
                await pubsub.ping()
            if message is not None and self._take(message, delivery):
                last_heartbeat_at = now
            elif (now - last_heartbeat_at).total_seconds() > HEARTBEAT_SILENCE_S:
                # The server answers, its publisher is gone. But it may have gone to another server of the same name.
                return
            if self._needs_resync and abs(now - last_resync_at) >= RESYNC_PAUSE:
                await self._read_prices(await self._held_symbols())
                self._listener.feed_changed()
                last_resync_at = now
            in_a_row = in_a_row + 1 if message is not None else 0
            if in_a_row >= _YIELD_EVERY:
                in_a_row = 0
                await asyncio.sleep(0)

    def _take(self, message: Message, delivery: Delivery) -> bool:
        """Apply one message; return whether it was a heartbeat. Raises ConnectionError for a confirmation."""
        kind = message["type"]
        if kind == "pmessage":
            self._take_price(message)
        elif kind == "message":
            return self._take_heartbeat(message, delivery)
        elif kind == "pong":
            delivery.answered()
        elif kind in _CONFIRMATIONS:
            # The library has dialled again by itself: what was published in between is lost.
            raise ConnectionError("the connection was lost unnoticed")
        return False

    def _take_heartbeat(self, message: Message, delivery: Delivery) -> bool:
        self.counters.messages += 1
        try:
            status = decode_feed_status(message["data"])
        except UnreadableFeedStatusError as error:
            self._count_unreadable(message["channel"], error)
            return False
        if self._book.hear(status, delivery.sent_after):
            self._listener.feed_changed()
        return True

    def _take_price(self, message: Message) -> None:
        self.counters.messages += 1
        try:
            price = _price_in(message)
        except UnreadablePriceError as error:
            self._count_unreadable(message["channel"], error)
            return
        verdict = self._book.offer(price, is_live=True, now=self._now())
        if verdict is Verdict.OUTDATED:
            self.counters.outdated += 1
        if verdict is Verdict.ACCEPTED_AFTER_GAP:
            self.counters.gaps += 1
            self._needs_resync = True
        if verdict in {Verdict.ACCEPTED, Verdict.ACCEPTED_AFTER_GAP}:
            self._listener.price_changed(price.symbol)

    async def _read_prices(self, symbols: Collection[str]) -> None:
        """Take in the cached prices of `symbols`. Raises REDIS_FAULTS."""
        self._needs_resync = False
        for price in (await self._cache.read(symbols)).values():
            self._book.offer(price, is_live=False, now=self._now())
        self.counters.resyncs += 1

    async def _read_feed_status(self) -> None:
        """Take in the last heartbeat, if it is young enough. Raises REDIS_FAULTS."""
        # The cached status may be the last word of a writer that has died since: its remaining life tells its age, as
        # of the question. It is asked for first: the status read after it can only be newer.
        asked_at = self._now()
        left_ms = await self._client.execute("PTTL", FEED_STATUS_KEY)
        status = await self._cache.read_feed_status()
        if status is None or not isinstance(left_ms, int) or left_ms <= 0:
            return
        age_s = max(0.0, FEED_STATUS_TTL_S - left_ms / 1000)
        if age_s <= HEARTBEAT_SILENCE_S:
            self._book.hear(status, asked_at - timedelta(seconds=age_s))

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


def _price_in(message: Message) -> Price:
    price = decode_price_update(message["data"])
    if message["channel"] != f"{PRICE_CHANNEL_PREFIX}{price.symbol}".encode():
        raise UnreadablePriceError(f"a price of {price.symbol[:40]!r} on another symbol's channel")
    return price


async def _close(pubsub: PubSub) -> None:
    try:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
    except REDIS_FAULTS as error:
        log.debug("price_subscriber_close_failed", reason=str(error))
