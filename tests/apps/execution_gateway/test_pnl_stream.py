"""The event stream over real sockets."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from apps.execution_gateway import pnl_feed
from libs.market_data.prices import LinkState, PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import RunningGateway, decode, price, serving, settings_in, streaming
from tests.support.waiting import eventually

STREAM = "/api/v1/positions/pnl/stream"
DEADLINE_S = 5.0


class Events:
    """What one client has received, in order; comments are kept apart."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments = 0

    async def next(self, wanted: str | None = None) -> tuple[str, Any]:
        """Return the next event, the next one of the name `wanted` if given."""
        async with asyncio.timeout(DEADLINE_S):
            name = ""
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: ") and wanted in {None, name}:
                    return name, decode(line.removeprefix("data: ").encode())
        raise AssertionError("the stream has ended")

    async def until(self, symbol: str, **fields: object) -> dict[str, Any]:
        """Return the first row of `symbol` with these values in an update."""
        while True:
            _, body = await self.next("update")
            for row in body["positions"]:
                if row["symbol"] == symbol and {name: row[name] for name in fields} == fields:
                    return row

    async def end(self) -> None:
        """Read until the stream ends."""
        async with asyncio.timeout(DEADLINE_S):
            async for line in self._lines:
                self.comments += line.startswith(":")


@contextlib.asynccontextmanager
async def reading(gateway: RunningGateway) -> AsyncIterator[Events]:
    async with gateway.client.stream("GET", STREAM) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response.aiter_lines())


@pytest.fixture
def cache(redis_client: RedisClient) -> PriceCache:
    return PriceCache(redis_client, 300)


async def publish(cache: PriceCache, mid: object, seq: int, symbol: str = "AAPL") -> None:
    await cache.write([PriceWrite(price(symbol, mid, seq=seq), publish=True)])


async def test_a_snapshot_then_what_changes(running_gateway: RunningGateway, cache: PriceCache):
    await running_gateway.fill("AAPL", 100, 150)
    await running_gateway.fill("MSFT", 1, 400)
    async with reading(running_gateway) as events:
        name, body = await events.next()
        assert name == "snapshot"
        assert [row["symbol"] for row in body["positions"]] == ["AAPL", "MSFT"]
        assert body.keys() == (await running_gateway.get("/api/v1/positions/pnl/realtime")).keys()

        await publish(cache, 152, 1)
        name, update = await events.next()
        assert name == "update"
        assert [row["symbol"] for row in update["positions"]] == ["AAPL"]
        assert update["positions"][0]["unrealized_pnl"] == Decimal("200.00")
        assert (update["total_unrealized"], update["removed"], update["unpriced"]) == (200, [], ["MSFT"])
        assert update.keys() == {*body.keys(), "removed"}


async def test_positions_come_and_go(running_gateway: RunningGateway, cache: PriceCache):
    await publish(cache, 152, 1)
    await running_gateway.fill("AAPL", 100, 150)
    async with reading(running_gateway) as events:
        await events.next("snapshot")
        await running_gateway.fill("KO", 5, 60)
        await events.until("KO", qty=5)
        await running_gateway.fill("AAPL", 100, 151, side="sell")
        while True:
            _, update = await events.next("update")
            if update["removed"]:
                break
        assert update["removed"] == ["AAPL"]
        assert update["realized_closed"] == 100


async def test_turning_stale_is_a_change(tmp_path: Path, redis_url: str, cache: PriceCache):
    async with serving(settings_in(tmp_path, redis_url, stale_after_seconds=0.3)) as gateway:
        await gateway.fill("AAPL", 100, 150)
        await publish(cache, 152, 1)
        await cache.write_feed_status(streaming("AAPL"))
        # Until it is vouched for it turns stale by itself, and there would be no change to tell of.
        await eventually(lambda: gateway.gateway.prices.feed is not None)
        async with reading(gateway) as events:
            await events.next("snapshot")
            await cache.write_feed_status(streaming("AAPL", state=LinkState.BACKING_OFF, connected=False))
            went_s = time.monotonic()
            row = await events.until("AAPL", price_source="stale")
            assert row["current_price"] == 152
            assert time.monotonic() - went_s < 2


async def test_what_the_feed_says_of_a_symbol_is_a_change(tmp_path: Path, redis_url: str, cache: PriceCache):
    async with serving(settings_in(tmp_path, redis_url, stale_after_seconds=0.3)) as gateway:
        await gateway.fill("AAPL", 100, 150)
        await gateway.fill("MSFT", 1, 400)
        await cache.write_feed_status(streaming("AAPL", "MSFT"))
        await cache.write([PriceWrite(price(symbol, 152), publish=True) for symbol in ("AAPL", "MSFT")])
        async with reading(gateway) as events:
            await events.next("snapshot")
            for said, source in (
                ({"halted": frozenset({"AAPL"})}, "halted"),
                ({"doubted": frozenset({"AAPL"})}, "stale"),
                ({"halted": frozenset({"AAPL"}), "doubted": frozenset({"AAPL"})}, "halted"),
                ({"doubted": frozenset({"*"})}, "stale"),
                ({}, "real-time"),
            ):
                await cache.write_feed_status(streaming("AAPL", "MSFT", **said))
                said_s = time.monotonic()
                row = await events.until("AAPL", price_source=source)
                assert time.monotonic() - said_s < 2
                assert (row["current_price"], row["market_value"]) == (152, 15200), "priced, whatever is said of it"


async def test_bursts_are_held_together_and_the_last_value_is_sent(running_gateway: RunningGateway, cache: PriceCache):
    await running_gateway.fill("AAPL", 100, 150)
    async with reading(running_gateway) as events:
        await events.next("snapshot")
        began_s = time.monotonic()
        for seq in range(1, 301):
            await publish(cache, 100 + seq, seq)
        updates = 1
        while (await events.next("update"))[1]["positions"][0]["current_price"] != 400:
            updates += 1
        assert updates <= (time.monotonic() - began_s) / 0.05 + 2


async def test_a_reader_who_takes_nothing_slows_nobody(running_gateway: RunningGateway, cache: PriceCache):
    symbols = [f"S{number}" for number in range(60)]
    for symbol in symbols:
        await running_gateway.fill(symbol, 1, 100)
    _, writer = await asyncio.open_connection("127.0.0.1", int(running_gateway.base_url.rpartition(":")[2]), limit=1024)
    writer.write(f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await writer.drain()
    await eventually(lambda: running_gateway.gateway.feed.readers == 1)
    async with reading(running_gateway) as events:
        await events.next("snapshot")
        for seq in range(1, 31):
            await cache.write([PriceWrite(price(one, 100 + seq, seq=seq), publish=True) for one in symbols])
            await events.until(symbols[-1], current_price=100 + seq)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await eventually(lambda: running_gateway.gateway.feed.readers == 0)


async def test_streams_end_first(tmp_path: Path, redis_url: str):
    async with serving(settings_in(tmp_path, redis_url)) as gateway, reading(gateway) as events:
        await events.next("snapshot")
        gateway.gateway.feed.close()
        await events.end()
        assert (await gateway.client.get(STREAM)).status_code == 503


async def test_a_comment_now_and_then(running_gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pnl_feed, "COMMENT_EVERY_S", 0.1)
    async with reading(running_gateway) as events:
        await events.next("snapshot")
        reader = asyncio.create_task(events.end())
        await eventually(lambda: events.comments >= 2)
        running_gateway.gateway.feed.close()
        await reader


async def test_an_unreadable_ledger_is_told_and_so_is_its_return(
    running_gateway: RunningGateway, database_away: Callable[[], AbstractAsyncContextManager[None]]
):
    await running_gateway.fill("AAPL", 100, 150)
    async with reading(running_gateway) as events:
        await events.next("snapshot")
        async with database_away():
            name, problem = await events.next()
            assert (name, problem["status"]) == ("problem", 503)
        name, update = await events.next()
        assert (name, update["removed"]) == ("update", [])


async def test_only_so_many_readers(running_gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pnl_feed, "MAX_READERS", 1)
    async with reading(running_gateway) as events:
        await events.next("snapshot")
        assert (await running_gateway.client.get(STREAM)).status_code == 503
    await eventually(lambda: running_gateway.gateway.feed.readers == 0)
    async with reading(running_gateway) as events:
        await events.next("snapshot")
