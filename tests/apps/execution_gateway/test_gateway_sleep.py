"""The gateway's process is stopped and goes on later: what waited for it meanwhile makes no price live."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import FEED_STATUS_KEY, PriceCache
from tests.support.gateway import price, streaming, utc_now
from tests.support.stack import GATEWAY, PNL, STREAM, Stack, decoded, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

STATUS = streaming("AAPL")


@contextlib.asynccontextmanager
async def feed_of(stack: Stack) -> AsyncIterator[tuple[RedisClient, PriceCache]]:
    """Stand in for the market data service, which says what the test says, when the test says it."""
    client = RedisClient(stack.redis.url)
    try:
        yield client, PriceCache(client, 300)
    finally:
        await client.aclose()


async def holding_a_quiet_quote(stack: Stack, cache: PriceCache) -> None:
    """Hold AAPL at a quote of a minute ago, which the feed vouches for."""
    await stack.fill("AAPL", 100, 150)
    then = utc_now() - timedelta(minutes=1)
    await cache.write([PriceWrite(price(timestamp=then, received_at=then), publish=True)])
    await cache.write_feed_status(STATUS)
    await stack.until_row("AAPL", price_source="real-time")


async def test_heartbeats_that_waited_vouch_for_nothing(tmp_path: Path) -> None:
    async with (
        running_stack(tmp_path, GATEWAY) as stack,
        feed_of(stack) as (client, cache),
        httpx2.AsyncClient(trust_env=False, timeout=20) as stranger,
    ):
        await holding_a_quiet_quote(stack, cache)
        pid = stack.gateway.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                await cache.write_feed_status(STATUS)
            # The writer dies; all that is left of it waits in the socket.
            await client.execute("DEL", FEED_STATUS_KEY)
            died_s = time.monotonic()
            # Over a connection of its own: one that was idle for so long is closed when the server wakes.
            asked = asyncio.create_task(stranger.get(f"{stack.gateway.base_url}{PNL}"))
            await eventually(lambda: time.monotonic() - died_s > 7, within_s=10)
        finally:
            os.kill(pid, signal.SIGCONT)
        woke_s = time.monotonic()
        assert sources(decoded((await asked).content)) == {"stale"}, "asked while it slept, answered when it woke"
        looks = 0
        while time.monotonic() - woke_s < 2:
            assert sources(await stack.pnl()) == {"stale"}
            looks += 1
        assert looks > 20
        assert (await stack.pnl())["feed"]["state"] == "unknown"
        await cache.write_feed_status(STATUS)
        await stack.until_row("AAPL", 2, price_source="real-time")


async def test_a_stream_tells_at_once_what_has_become_of_it(tmp_path: Path) -> None:
    async with running_stack(tmp_path, GATEWAY) as stack, feed_of(stack) as (client, cache):
        await holding_a_quiet_quote(stack, cache)
        async with stack.gateway.http.stream("GET", STREAM) as answer:
            events = told(answer.aiter_lines())
            await anext(events)
            pid = stack.gateway.process.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                # Prices that are still live as they come, and would be taken for news of now.
                for seq in range(2, 6):
                    await cache.write([PriceWrite(price(mid=150 + seq, seq=seq), publish=True)])
                    await cache.write_feed_status(STATUS)
                await client.execute("DEL", FEED_STATUS_KEY)
                written_at, died_s = utc_now(), time.monotonic()
                await eventually(lambda: time.monotonic() - died_s > 17, within_s=20)
            finally:
                os.kill(pid, signal.SIGCONT)
            woke_s = time.monotonic()
            async with asyncio.timeout(2):
                async for body in events:
                    # What was on its way when the process was stopped says of when it is.
                    if datetime.fromisoformat(body["calculated_at"]) < written_at:
                        continue
                    assert sources(body) <= {"stale"}
                    if any(row["current_price"] == 155 for row in body["positions"]):
                        break
            assert time.monotonic() - woke_s < 2
            assert body["feed"]["state"] == "unknown"


def sources(body: Any) -> set[str]:
    return {row["price_source"] for row in body["positions"]}


async def told(lines: AsyncIterator[str]) -> AsyncIterator[Any]:
    async for line in lines:
        if line.startswith("data: "):
            yield decoded(line.removeprefix("data: "))
