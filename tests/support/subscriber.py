"""A price subscriber with a real Redis for tests, and what it tells."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

from apps.execution_gateway.price_book import PriceBook
from apps.execution_gateway.price_subscriber import PriceSubscriber
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import utc_now


@dataclass
class Watcher:
    """Keeps what the subscriber tells."""

    symbols: list[str] = field(default_factory=list)
    feeds: int = 0
    connections: int = 0

    def price_changed(self, symbol: str) -> None:
        self.symbols.append(symbol)

    def feed_changed(self) -> None:
        self.feeds += 1

    async def connected(self) -> None:
        self.connections += 1


@dataclass
class Listening:
    subscriber: PriceSubscriber
    book: PriceBook
    watcher: Watcher


async def held() -> Collection[str]:
    return ["AAPL", "MSFT"]


@contextlib.asynccontextmanager
async def listening(url: str, now: Callable[[], datetime] = utc_now) -> AsyncIterator[Listening]:
    client = RedisClient(url, connect_timeout_s=0.5, command_timeout_s=0.5)
    book, watcher = PriceBook(), Watcher()
    subscriber = PriceSubscriber(
        client,
        PriceCache(client, 300),
        book,
        listener=watcher,
        held_symbols=held,
        held_now=lambda: ["AAPL", "MSFT"],
        on_connected=watcher.connected,
        now=now,
    )
    task = asyncio.create_task(subscriber.run())
    try:
        yield Listening(subscriber, book, watcher)
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()
