"""Redis is killed and comes back, empty: the P&L answers all the while, and nothing is lost that is still true."""

import statistics
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.redis_client.client import RedisClient
from tests.support.stack import Stack, decoded, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

DEADLINE_S = 0.25
"""The endpoint's own; a machine that is busy with other things gets four times as long for the worst answer."""


async def test_a_redis_that_was_killed_is_missed_by_nobody(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        await stack.fill("AAPL", 100, 150)
        await stack.until_confirmed("AAPL")
        stack.simulator.emit("AAPL", 151.99, 152.01)
        await stack.until_row("AAPL", current_price=Decimal(152), price_source="real-time")

        stack.redis.kill()
        took_s: list[float] = []
        ask = timed(stack, took_s)

        async def is_known() -> bool:
            await ask()
            return "redis_away" in await stack.gateway.reasons() and (
                "redis_unavailable" in await stack.market_data.reasons()
            )

        await eventually(is_known)
        stack.simulator.emit("AAPL", 152.99, 153.01)
        await stack.fill("KO", 10, 60)
        await eventually(lambda: known_price(stack, Decimal(153)))

        async def is_silent() -> bool:
            body = await ask()
            assert body["positions"][0]["current_price"] == 152, "the last price that could be known"
            return bool(body["feed"]["state"] == "unknown")

        await eventually(is_silent, within_s=9, every_s=0.1)
        assert (await stack.pnl())["feed"]["connected"] is False

        stack.redis.start()
        back_s = time.monotonic()
        await eventually(lambda: cached_mid(stack, "AAPL", Decimal(153)), within_s=1.5)
        assert time.monotonic() - back_s < 1.5

        async def is_newest() -> bool:
            return bool((await ask())["positions"][0]["current_price"] == 153)

        await eventually(is_newest, within_s=2)
        await stack.until_streaming(within_s=6)
        # The fill that nobody could be told of is told now.
        await stack.until_confirmed("KO", within_s=6)
        await stack.until_row("KO", 3, price_source="real-time")
        stack.simulator.emit("AAPL", 153.99, 154.01)
        await stack.until_row("AAPL", 2, current_price=Decimal(154), price_source="real-time")

        async def is_well() -> bool:
            return not await stack.gateway.reasons() and not await stack.market_data.reasons()

        await eventually(is_well)
        assert statistics.median(took_s) < DEADLINE_S
        assert max(took_s) < 4 * DEADLINE_S


def timed(stack: Stack, took_s: list[float]) -> Callable[[], Awaitable[Any]]:
    """Return a question for the P&L that notes how long each answer took."""

    async def ask() -> Any:
        began_s = time.monotonic()
        body = await stack.pnl()
        took_s.append(time.monotonic() - began_s)
        return body

    return ask


async def known_price(stack: Stack, mid: Decimal) -> bool:
    """Say whether the market data service itself knows this price of AAPL."""
    return bool((await stack.market_data.get("/api/v1/market-data/prices/AAPL"))["mid"] == mid)


async def cached_mid(stack: Stack, symbol: str, mid: Decimal) -> bool:
    redis = RedisClient(stack.redis.url)
    try:
        return bool(decoded(await redis.get(f"price:{symbol}") or b"{}").get("mid") == mid)
    finally:
        await redis.aclose()
