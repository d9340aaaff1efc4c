"""The venue goes away and comes back: prices grow old honestly, and are live again without a restart."""

import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from tests.support.stack import Stack, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

STALE_AFTER_S, TTL_S = 1, 3


def write_closes(path: Path) -> dict[date, Decimal]:
    """Write a bar of AAPL for each weekday of the last two weeks, each with a close of its own; return the closes.

    Today among them: in the evening its session is the last that is over.
    """
    days = [datetime.now(UTC).date() - timedelta(days=number) for number in range(15)]
    closes = {day: Decimal(100 + day.day) for day in days if day.isoweekday() <= 5}
    write_bars(path, [DailyBar("AAPL", day, close, close, close, close, 1000) for day, close in closes.items()])
    return closes


async def feed(stack: Stack) -> Any:
    return (await stack.pnl())["feed"]


async def heartbeat(stack: Stack) -> None:
    """Return just after the link has vouched for its prices once more."""
    async with Redis.from_url(stack.redis.url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe("feed.status")
        while (await pubsub.get_message(timeout=5))["type"] != "message":
            pass


async def test_prices_turn_stale_then_closing_then_live_again(tmp_path: Path) -> None:
    closes = write_closes(tmp_path / "bars")
    async with running_stack(tmp_path, STALE_AFTER_SECONDS=str(STALE_AFTER_S), PRICE_TTL_SECONDS=str(TTL_S)) as stack:
        await stack.fill("AAPL", 100, 150)
        await stack.fill("KO", 10, 60)
        await stack.until_confirmed("KO")
        await stack.until_confirmed("AAPL")
        stack.simulator.emit("AAPL", 151.99, 152.01)
        stack.simulator.emit("KO", 60.99, 61.01)
        await stack.until_row("KO", current_price=Decimal(61), price_source="real-time")
        await stack.until_row("AAPL", current_price=Decimal(152), price_source="real-time")

        # A quiet quote is still the quote: the link vouches for it, and its key does not expire.
        async def is_old_and_live() -> bool:
            body = await stack.pnl()
            row = body["positions"][0]
            assert row["price_source"] == "real-time", str((row, body["feed"], body["market"]))
            return bool(row["price_age_seconds"] > TTL_S + 0.5)

        await eventually(is_old_and_live, within_s=8, every_s=0.1)

        # A price's life is counted from about the last heartbeat: how long ago that is must not be left to chance.
        await heartbeat(stack)
        await stack.simulator.stop(clean=False)
        killed_s = time.monotonic()

        # A heartbeat between the end of the connection and the change of the link's state says only half of it.
        async def says_so() -> bool:
            told = await feed(stack)
            assert not told["connected"]
            return told["state"] in {"backing_off", "connecting"}

        await eventually(says_so, within_s=2)
        stale = await stack.until_row("AAPL", 3, price_source="stale")
        assert (stale["current_price"], stale["unrealized_pnl"]) == (152, 200)

        async def is_older() -> bool:
            return bool((await stack.row("AAPL"))["price_age_seconds"] > stale["price_age_seconds"])

        await eventually(is_older)
        closing = await stack.until_row("AAPL", TTL_S + 2, price_source="closing")
        # Counted from the last heartbeat that vouched for it, a third of its life ago at most.
        assert time.monotonic() - killed_s > TTL_S * 2 / 3 - 0.2, "a price within its life is the better mark"
        close = closes[date.fromisoformat(closing["closing_date"])]
        assert (closing["current_price"], closing["unrealized_pnl"]) == (close, 100 * (close - 150))
        assert (closing["bid"], closing["ask"], closing["price_age_seconds"]) == (None, None, None)
        await is_unpriced(stack, "KO")
        assert (await stack.market_data.health())["status"] == "degraded"
        assert "price_feed_not_streaming" in await stack.gateway.reasons()

        await stack.simulator.start()
        await stack.until_streaming(within_s=12)
        await stack.until_confirmed("AAPL")
        stack.simulator.emit("AAPL", 159.99, 160.01)
        await stack.until_row("AAPL", 2, current_price=Decimal(160), price_source="real-time")
        assert await stack.market_data.reasons() == set()
        assert (await stack.market_data.health())["link"]["reconnects"] == 1


async def is_unpriced(stack: Stack, symbol: str) -> None:
    """Check a row whose price has expired and of which no close is known: unknown is null, never 0."""
    row = await stack.until_row(symbol, price_source="unavailable")
    unknown = ("current_price", "bid", "ask", "market_value", "unrealized_pnl", "unrealized_pnl_pct", "day_pnl")
    assert {row[name] for name in unknown} == {None}
    known = {name: row[name] for name in ("qty", "avg_entry_price", "cost_basis", "realized_pnl", "fees")}
    assert known == {"qty": 10, "avg_entry_price": 60, "cost_basis": 600, "realized_pnl": 0, "fees": 0}
    body = await stack.pnl()
    assert (body["complete"], body["unpriced"]) == (False, [symbol])
    priced = [one["unrealized_pnl"] for one in body["positions"] if one["symbol"] != symbol]
    assert body["total_unrealized"] == sum(priced)
