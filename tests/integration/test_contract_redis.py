"""The keys and channels in Redis as other programs rely on them. Written from the contract, not from the code."""

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.support.stack import Stack, decoded
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CACHED = {
    "symbol", "bid", "ask", "mid", "bid_size", "ask_size", "timestamp", "exchange", "ask_exchange", "feed",
    "received_at", "epoch", "seq", "instance", "suspect_since", "suspect_reason", "mode",
}  # fmt: skip
PUBLISHED = {
    "symbol", "price", "timestamp", "bid", "ask", "epoch", "seq", "instance", "suspect_since", "suspect_reason", "mode",
}  # fmt: skip
STATUS = {
    "state", "connected", "since", "epoch", "feed", "mode", "symbols", "market", "halted", "doubted", "instance",
    "lag_s", "clock_offset_s", "at",
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(stack.redis.url) as client:
        yield client


async def messages(redis: Redis, channel: str) -> AsyncIterator[Any]:
    """Yield what is published on a channel, decoded; the first item, None, says that we listen."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        async for message in pubsub.listen():
            yield decoded(message["data"]) if message["type"] == "message" else None


async def test_a_price_is_cached_with_its_life_and_published(stack: Stack, redis: Redis) -> None:
    await stack.subscribe("AAPL")
    updates = messages(redis, "price.updated.AAPL")
    async with asyncio.timeout(5):
        assert await anext(updates) is None
        stack.simulator.emit("AAPL", 149.99, 150.01, bid_size=300, ask_size=100, bid_exchange="V", ask_exchange="Q")
        update = await anext(updates)
        while update["price"] != 150:
            update = await anext(updates)
    assert update.keys() >= PUBLISHED
    assert (update["symbol"], update["bid"], update["ask"]) == ("AAPL", Decimal("149.99"), Decimal("150.01"))
    cached = decoded(await redis.get("price:AAPL"))
    assert cached.keys() >= CACHED
    assert (cached["mid"], cached["bid_size"], cached["ask_size"]) == (150, 300, 100)
    assert (cached["exchange"], cached["ask_exchange"], cached["feed"]) == ("V", "Q", "iex")
    assert (cached["epoch"], cached["seq"]) == (update["epoch"], update["seq"])
    assert cached["timestamp"] == update["timestamp"]
    assert 290 < await redis.ttl("price:AAPL") <= 300
    await updates.aclose()


async def test_seq_grows_by_one_and_begins_again_with_a_new_epoch(stack: Stack, redis: Redis) -> None:
    await stack.subscribe("MSFT")
    updates = messages(redis, "price.updated.MSFT")
    async with asyncio.timeout(15):
        assert await anext(updates) is None
        first = await until_price(stack, updates, "MSFT", 400)
        seen = [first, *[await until_price(stack, updates, "MSFT", 400 + step) for step in range(1, 6)]]
        assert [one["seq"] - first["seq"] for one in seen] == [0, 1, 2, 3, 4, 5]
        assert {one["epoch"] for one in seen} == {first["epoch"]}

        await stack.simulator.drop_all(clean=False)
        # A new epoch says it: the moment without a connection may be too short to be seen.
        await eventually(lambda: streams_anew(redis, first["epoch"]), within_s=8)
        await stack.until_confirmed("MSFT")
        stack.simulator.emit("MSFT", 409.99, 410.01)
        numbers: list[int] = []
        while True:
            update = await anext(updates)
            assert update["epoch"] != first["epoch"]
            numbers.append(update["seq"])
            if update["price"] == 410:
                break
    # A quote fetched at the acknowledgement may come before.
    assert numbers == list(range(1, len(numbers) + 1))
    status = decoded(await redis.get("feed:status"))
    assert status["epoch"] == update["epoch"]
    await updates.aclose()


async def until_price(stack: Stack, updates: AsyncIterator[Any], symbol: str, price: float) -> Any:
    stack.simulator.emit(symbol, price - 0.01, price + 0.01)
    async for update in updates:
        if update["price"] == price:
            return update
    raise AssertionError("the channel has ended")


async def streams_anew(redis: Redis, old_epoch: str) -> bool:
    status = decoded(await redis.get("feed:status"))
    return bool(status["state"] == "streaming" and status["epoch"] != old_epoch)


async def test_an_unchanged_quote_is_published_once_a_second_at_most(stack: Stack, redis: Redis) -> None:
    await stack.subscribe("KO")
    updates = messages(redis, "price.updated.KO")
    async with asyncio.timeout(10):
        assert await anext(updates) is None
        # Before the first is sent: however late we come to hear of it, the second after it comes two seconds later.
        began_s = time.monotonic()
        first = await until_price(stack, updates, "KO", 60)
        repeating = asyncio.create_task(repeat(stack))
        try:
            repeats = [await anext(updates) for _ in range(2)]
        finally:
            repeating.cancel()
    assert [one["seq"] - first["seq"] for one in repeats] == [1, 2]
    assert repeats[1]["timestamp"] > repeats[0]["timestamp"] > first["timestamp"], "the newer time is the news"
    assert 2 < time.monotonic() - began_s < 4
    await updates.aclose()


async def repeat(stack: Stack) -> None:
    """Quote KO at the same price, many times a second."""
    while True:
        stack.simulator.emit("KO", 59.99, 60.01)
        await asyncio.sleep(0.02)


async def test_the_heartbeat(stack: Stack, redis: Redis) -> None:
    await stack.subscribe("JPM")

    async def is_announced() -> bool:
        return "JPM" in decoded(await redis.get("feed:status"))["symbols"]

    # That a symbol is confirmed is announced at once: a message of its own between two heartbeats.
    await eventually(is_announced)
    beats = messages(redis, "feed.status")
    at_s = []
    async with asyncio.timeout(10):
        assert await anext(beats) is None
        for _ in range(3):
            status = await anext(beats)
            at_s.append(time.monotonic())
    assert status.keys() >= STATUS
    assert (status["state"], status["connected"], status["feed"]) == ("streaming", True, "iex")
    assert (status["mode"], status["market"]) == ("simulated", "open")
    assert "JPM" in status["symbols"]
    assert status["symbols"] == sorted(status["symbols"])
    assert 3.5 < at_s[2] - at_s[0] < 5
    assert decoded(await redis.get("feed:status")) == status
    assert 7 < await redis.ttl("feed:status") <= 10
    await beats.aclose()


async def test_a_changed_position_is_announced(stack: Stack, redis: Redis) -> None:
    changes = messages(redis, "position.changed")
    async with asyncio.timeout(5):
        assert await anext(changes) is None
        await stack.fill("TSLA", 1, 300)
        change = await anext(changes)
        # After each connection to Redis the gateway announces all that is held, be it nothing.
        while "TSLA" not in change["symbols"]:
            change = await anext(changes)
    assert change.keys() == {"symbols", "at"}
    assert change["symbols"] == ["TSLA"]
    assert change["at"].endswith("+00:00")
    await changes.aclose()


async def test_nothing_else_is_kept_there(stack: Stack, redis: Redis) -> None:
    await stack.subscribe("AMZN")
    stack.simulator.emit("AMZN", 199.99, 200.01)
    await eventually(lambda: redis.exists("price:AMZN"))
    assert {key.decode().partition(":")[0] for key in await redis.keys()} == {"price", "feed"}
