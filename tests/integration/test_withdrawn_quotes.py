"""A quote that the venue withdraws, over real parts: long 100 SYM at 140; 149.99/150.01, then 0/149, 0/148 …"""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.support.stack import STREAM, Stack, decoded, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

STALE_AFTER_S = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def marking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("withdrawn")
    async with running_stack(folder, MARK_RULE="last", STALE_AFTER_SECONDS=str(STALE_AFTER_S)) as stack:
        yield stack


async def hold(stack: Stack, symbol: str) -> None:
    await stack.fill(symbol, 100, 140)
    await stack.until_confirmed(symbol)
    stack.simulator.emit(symbol, 149.99, 150.01)
    await stack.until_row(symbol, price_source="real-time", current_price=150, suspect_since=None)


async def cached(redis: Any, symbol: str) -> Any:
    return decoded(await redis.get(f"price:{symbol}"))


def withdraw(stack: Stack, symbol: str) -> None:
    for ask in (149, 148, 147):
        stack.simulator.emit(symbol, 0, ask)


async def test_the_row_turns_stale_with_the_reason_and_is_pushed_without_another_message(marking: Stack) -> None:
    await hold(marking, "SYM")
    row: Any = None
    async with marking.gateway.http.stream("GET", STREAM) as answer:
        withdraw(marking, "SYM")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                row = next((row for row in decoded(line[6:])["positions"] if row["symbol"] == "SYM"), row)
                if row["price_source"] == "stale":
                    break
    assert (row["stale_reason"], row["state"], row["current_price"]) == ("one_sided", "stale", 150)
    assert row["suspect_since"].endswith("+00:00")
    assert (row["liquidation_price"], row["liquidation_pnl"]) == (None, None)
    assert row["unrealized_pnl"] == Decimal("1000.00")
    health = await marking.gateway.health()
    assert health["positions"]["suspect"] == ["SYM"]
    health = await marking.market_data.health()
    assert health["suspect"]["symbols"]["SYM"]["reason"] == "one_sided"
    assert health["status"] == "healthy", "a venue may withdraw what it likes"
    assert (await marking.subscriptions())["SYM"]["suspect"]["since"] == row["suspect_since"]
    metrics = (await marking.market_data.http.get("/metrics")).text
    assert 'markstream_symbol_suspect{reason="one_sided",symbol="SYM"} 1.0' in metrics

    # A print is not fenced off by the dead quote, and the next quote that may mark ends it.
    async def has_trades() -> bool:
        return bool((await marking.subscriptions())["SYM"]["trades"])

    await eventually(has_trades)
    marking.simulator.trade("SYM", 124.0)
    row = await marking.until_row("SYM", current_price=124, price_source="real-time", mark_rule="last")
    assert (row["unrealized_pnl"], row["bid"], row["ask"]) == (Decimal("-1600.00"), None, None)
    marking.simulator.emit("SYM", 123.99, 124.01)
    row = await marking.until_row("SYM", price_source="real-time", suspect_since=None, stale_reason=None)
    assert (row["liquidation_price"], row["liquidation_pnl"]) == (Decimal("123.99"), Decimal("-1601.00"))


async def test_closing_a_short_meets_the_newest_ask(marking: Stack) -> None:
    await marking.fill("SHRT", -100, 160)
    await marking.until_confirmed("SHRT")
    marking.simulator.emit("SHRT", 149.99, 150.01)
    await marking.until_row("SHRT", current_price=150, liquidation_price=Decimal("150.01"))
    withdraw(marking, "SHRT")
    row = await marking.until_row("SHRT", liquidation_price=147)
    assert row["liquidation_pnl"] == Decimal("1300.00")


async def test_a_reconnect_does_not_end_it(marking: Stack) -> None:
    await hold(marking, "RECO")
    withdraw(marking, "RECO")
    row = await marking.until_row("RECO", within_s=20, price_source="stale", stale_reason="one_sided")
    (lost,) = marking.simulator.connections
    await marking.simulator.drop_all(clean=False)
    await eventually(lambda: lost not in marking.simulator.connections)
    await marking.until_confirmed("RECO", within_s=15)
    await marking.until_streaming()
    again = await marking.until_row("RECO", within_s=20, price_source="stale", stale_reason="one_sided")
    assert again["suspect_since"] == row["suspect_since"]


async def test_it_is_published_once_and_the_key_has_the_newest_side(marking: Stack) -> None:
    await hold(marking, "ONCE")
    async with Redis.from_url(marking.redis.url) as redis, redis.pubsub() as pubsub:
        before = await cached(redis, "ONCE")
        await pubsub.subscribe("price.updated.ONCE")
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        withdraw(marking, "ONCE")

        async def newest_ask() -> bool:
            key = await cached(redis, "ONCE")
            assert key.get("newest_ask") == 147, key
            return True

        await eventually(newest_ask)
        marking.simulator.emit("ONCE", 149.99, 150.01)
        messages = [decoded((await pubsub.get_message(timeout=5))["data"]) for _ in range(2)]
    assert [message["seq"] - before["seq"] for message in messages] == [1, 2]
    assert [message["suspect_reason"] for message in messages] == ["one_sided", None]
    for message in messages:
        assert (message["bid"], message["ask"], message["price"]) == (Decimal("149.99"), Decimal("150.01"), 150)


async def test_quotes_behind_the_snapshot_do_not_lock_the_row_in(marking: Stack) -> None:
    """A stream whose times lie behind the held quote is refused: the row turns stale and says why."""
    await hold(marking, "BACK")
    now_ns = marking.simulator._now_ns()
    for ago in (12, 11, 10):  # further back than clocks explain, nearer than a late stream
        marking.simulator.emit("BACK", 129.99, 130.01, time_ns=now_ns - ago * 1_000_000_000)
    await marking.until_row("BACK", price_source="stale", stale_reason="out_of_order", within_s=20)
