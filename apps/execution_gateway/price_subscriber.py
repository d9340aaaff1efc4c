"""Keeps the price book up to date from Redis: subscribe first, then read the snapshot, then apply what comes live.

It decides when the connection is dead (an error, or 6 s without a heartbeat) or not to be believed (this process was
stopped, and what has piled up is old) and starts over, for ever; which price is newer is the book's decision. Messages
are at most once: after a reconnect or a gap the cache is read again. Messages are also everybody's: what does not come
from the feed that `feed:status` of our own database names is not believed, and our own keys are read instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog
from redis.asyncio.client import PubSub

from apps.execution_gateway.delivery import Delivery
from apps.execution_gateway.key_reads import FEED_PAUSE_S, GATHER_S, KEY_PAUSE_S, KeyReads
from apps.execution_gateway.own_feed import OwnFeed
from apps.execution_gateway.price_book import PriceBook, Verdict
from libs.market_data.freshness import HEARTBEAT_SILENCE_S
from libs.market_data.prices import FeedStatus, Price
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

    `held_symbols` asks for the symbols whose cached prices matter, `held_now` names those last known (`hold` adds to
    them); `on_connected` runs after every (re)connect, when announcements sent meanwhile may have been lost. None of
    them may raise.
    """

    def __init__(
        self,
        client: RedisClient,
        cache: PriceCache,
        book: PriceBook,
        *,
        listener: PriceListener,
        held_symbols: Callable[[], Awaitable[Collection[str]]],
        held_now: Callable[[], Collection[str]],
        on_connected: Callable[[], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._price_channels = client.named(PRICE_CHANNEL_PREFIX)
        self._cache = cache
        self._book = book
        self._listener = listener
        self._held_symbols = held_symbols
        self._held_now = held_now
        self._on_connected = on_connected
        self._now = now
        self._needs_resync = False
        self._held: frozenset[str] = frozenset()
        self._newly_held: set[str] = set()
        self._reads = KeyReads()
        self._feed_reads = KeyReads(FEED_PAUSE_S)
        self._confirmed_at_s = 0.0
        self._heartbeat_at = now()
        self.own_feed = OwnFeed()
        self.counters = SubscriberCounters()
        self.is_connected = False
        self.last_error: str | None = None

    def hold(self, symbols: Collection[str]) -> None:
        """Read the keys of `symbols`, whose positions have just changed, and of what is doubted of them. At once."""
        self._newly_held.update(symbols)
        self._held = self._held.union(symbols)
        for symbol in symbols:
            if self._book.price(symbol) is None:
                self._reads.want(symbol)

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
            await pubsub.psubscribe(f"{self._price_channels}*")
            await pubsub.subscribe(self._client.named(FEED_STATUS_CHANNEL))
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
        await self._read_all_prices(held)
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
        self._heartbeat_at = last_resync_at = self._now()
        in_a_row = 0
        while True:
            has_doubts = self._reads.is_waiting or self._feed_reads.is_waiting
            message = await pubsub.get_message(timeout=GATHER_S if has_doubts else _POLL_S)
            now = self._now()
            if delivery.is_late(now):
                self.counters.late += 1
                waited_s = (now - delivery.sent_after).total_seconds()
                raise TimeoutError(f"what it sent may be {waited_s:.1f} s old: it, the way to it or we stood still")
            if delivery.wants_ping(now):
                delivery.pinged(now)
                await pubsub.ping()
            if message is not None and self._take(message, delivery):
                self._heartbeat_at = now
            elif (now - self._heartbeat_at).total_seconds() > HEARTBEAT_SILENCE_S:
                # The server answers, its publisher is gone. But it may have gone to another server of the same name.
                return
            if self._needs_resync and abs(now - last_resync_at) >= RESYNC_PAUSE:
                await self._read_all_prices(await self._held_symbols())
                self._listener.feed_changed()
                last_resync_at = now
            await self._read_keys()
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
        if not self.own_feed.owns_status(status):
            self._doubt_status(status)
            return False
        is_aligned_anew = self._book.alignment.heard(status.at, delivery.sent_after, self._now())
        if self._book.hear(status, delivery.sent_after) or is_aligned_anew:
            self._listener.feed_changed()
        return True

    def _doubt_status(self, status: FeedStatus) -> None:
        """Have our own key tell whether this is our feed, on a new connection or in a new process, or another's."""
        self._feed_reads.want(FEED_STATUS_KEY)
        if self.own_feed.is_foreign(status.instance):
            self.own_feed.note_foreign(status.instance, self._now())

    def _take_price(self, message: Message) -> None:
        self.counters.messages += 1
        try:
            price = self._price_in(message)
        except UnreadablePriceError as error:
            self._count_unreadable(message["channel"], error)
            return
        if not self.own_feed.owns_price(price):
            self._doubt_price(price)
            return
        symbol = price.symbol
        is_first = self._book.price(symbol) is None
        if is_first and price.seq != 1 and symbol in self._held:
            # What came before it has not been heard: it may be anything.
            self._reads.want(symbol)
            return
        match self._book.offer(price, is_live=True, now=self._now(), at_s=_clock_s()):
            case Verdict.OUTDATED:
                self.counters.outdated += 1
            case Verdict.GAP:
                self._note_gap(symbol)
            case Verdict.ACCEPTED:
                self._listener.price_changed(symbol)
            case Verdict.UNCHANGED:
                pass

    def _price_in(self, message: Message) -> Price:
        price = decode_price_update(message["data"], self._cache.max_spread_pct)
        if message["channel"] != f"{self._price_channels}{price.symbol}".encode():
            raise UnreadablePriceError(f"a price of {price.symbol[:40]!r} on another symbol's channel")
        return price

    def _doubt_price(self, price: Price) -> None:
        """Have our own key tell the price: this message is another feed's, or of a connection not heard of yet."""
        if price.epoch is not None:
            self._feed_reads.want(FEED_STATUS_KEY)
        if price.symbol in self._held:
            self._reads.want(price.symbol)
        # A program without an instance may well write our keys, too.
        if price.instance is not None and self.own_feed.is_foreign(price.instance):
            self.own_feed.note_foreign(price.instance, self._now())

    def _note_gap(self, symbol: str) -> None:
        self.counters.gaps += 1
        self._needs_resync = True
        if symbol in self._held:
            self._reads.want(symbol)
        else:
            # Its key is read when it is bought; until then nobody asks for it.
            self._book.forget_price(symbol)

    async def _read_keys(self) -> None:
        """Read what was doubted, and what was only published. Raises REDIS_FAULTS."""
        now_s = _clock_s()
        if self._feed_reads.is_waiting and self._feed_reads.take(now_s):
            await self._read_feed_status()
        symbols = self._reads.take(now_s) if self._reads.is_waiting else []
        if now_s - self._confirmed_at_s >= KEY_PAUSE_S:
            self._confirmed_at_s = now_s
            symbols += self._look_at_held(now_s)
        if symbols:
            for symbol in await self._read_prices(symbols):
                self._listener.price_changed(symbol)

    def _look_at_held(self, now_s: float) -> list[str]:
        """Return the held symbols that are new, or of which nothing but a message is known."""
        held, known = self._newly_held.union(self._held_now()), self._held
        self._held = frozenset(held)
        return [*(held - known), *self._book.unconfirmed(held & known, now_s - KEY_PAUSE_S)]

    async def _read_all_prices(self, held: Collection[str]) -> None:
        """Take in the cached prices of all symbols held. Raises REDIS_FAULTS."""
        self._needs_resync = False
        self._newly_held.clear()
        self._held = frozenset(held)
        await self._read_prices(held)
        self.counters.resyncs += 1

    async def _read_prices(self, symbols: Collection[str]) -> list[str]:
        """Take in the cached prices of `symbols`; return whose price is another now. Raises REDIS_FAULTS."""
        asked_at_s = _clock_s()
        cached = await self._cache.read(symbols, held=self._book.price)
        if any(price.epoch is not None and not self.own_feed.owns_price(price) for price in cached.values()):
            # Which connection is the present one is to be known before they are compared with what is held.
            await self._read_feed_status()
        now = self._now()
        changed = [
            symbol
            for symbol, price in cached.items()
            if self._book.offer(price, is_live=False, now=now, at_s=asked_at_s) is Verdict.ACCEPTED
        ]
        self._book.confirm(symbols, asked_at_s)
        return changed

    async def _read_feed_status(self) -> None:
        """Learn whose feed is ours, and take in its last heartbeat if that is young enough. Raises REDIS_FAULTS."""
        # The cached status may be the last word of a writer that has died since: its remaining life tells its age, as
        # of the question. It is asked for first: the status read after it can only be newer.
        asked_at = self._now()
        left_ms = await self._client.execute("PTTL", self._client.named(FEED_STATUS_KEY))
        status = await self._cache.read_feed_status()
        self.own_feed.learn(status)
        if status is None or not isinstance(left_ms, int) or left_ms <= 0:
            return
        age_s = max(0.0, FEED_STATUS_TTL_S - left_ms / 1000)
        if age_s > HEARTBEAT_SILENCE_S:
            return
        heard_at = asked_at - timedelta(seconds=age_s)
        self._heartbeat_at = max(self._heartbeat_at, heard_at)
        if self._book.hear(status, heard_at):
            self._listener.feed_changed()

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


def _clock_s() -> float:
    return asyncio.get_running_loop().time()


async def _close(pubsub: PubSub) -> None:
    try:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
    except REDIS_FAULTS as error:
        log.debug("price_subscriber_close_failed", reason=str(error))
