"""The last trade beside the quote, from the venue's socket to Redis: with MARK_RULE=last, and only then."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from apps.alpaca_simulator.points import Channel
from tests.support.stack import MARKET_DATA, Stack, decoded, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def marking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("last"), MARKET_DATA, MARK_RULE="last") as stack:
        yield stack


async def cached(stack: Stack, symbol: str) -> Any:
    async with Redis.from_url(stack.redis.url) as redis:
        content = await redis.get(f"price:{symbol}")
    return None if content is None else decoded(content)


async def until_last(stack: Stack, symbol: str, wanted: str | None, mid: str | None = None) -> Any:
    """Return the cached price once its last trade is this one; None: once it has none. `mid` None: any."""

    async def is_so() -> Any:
        price = await cached(stack, symbol)
        assert price is not None
        assert price.get("last") == (None if wanted is None else Decimal(wanted)), price
        assert mid is None or price["mid"] == Decimal(mid), price
        return price

    return await eventually(is_so, within_s=5, every_s=0.02)


async def subscribe(stack: Stack, symbol: str) -> None:
    await stack.subscribe(symbol)

    async def has_trades() -> bool:
        return bool((await stack.subscriptions())[symbol]["trades"])

    await eventually(has_trades, within_s=5, every_s=0.05)


async def test_trades_corrections_and_cancels_change_the_cached_price(marking: Stack) -> None:
    venue = marking.simulator
    await subscribe(marking, "AAPL")
    venue.emit("AAPL", 149.99, 150.05)
    venue.trade("AAPL", 150.0, trade_id=1)
    venue.trade("AAPL", 150.01, trade_id=2, size=30)
    # REST may tell the last trade before the stream brings the quote.
    price = await until_last(marking, "AAPL", "150.01", mid="150.02")
    assert price["last_size"] == 30
    assert price["last_timestamp"].endswith("+00:00")
    venue.trade("AAPL", 149.0, conditions=("@", "I"))
    venue.trade("AAPL", 150.02, trade_id=3)
    await until_last(marking, "AAPL", "150.02")
    assert venue.cancel_trade("AAPL", 3) == 1
    await until_last(marking, "AAPL", "150.01")
    assert venue.cancel_trade("AAPL", 2) == 1
    await until_last(marking, "AAPL", "150")
    assert venue.correct_trade("AAPL", 1, price=149.995) == 1
    price = await until_last(marking, "AAPL", "149.995")
    assert price["bid"] == Decimal("149.99")
    assert venue.cancel_trade("AAPL") == 1
    assert "last_size" not in await until_last(marking, "AAPL", None)


async def test_a_new_last_is_published_like_a_quote(marking: Stack) -> None:
    await subscribe(marking, "KO")
    marking.simulator.emit("KO", 59.99, 60.01)
    # Not the quote that the venue had when it was subscribed.
    await until_last(marking, "KO", None, mid="60")
    async with Redis.from_url(marking.redis.url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe("price.updated.KO")
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        before = await cached(marking, "KO")
        marking.simulator.trade("KO", 60.0)
        update = decoded((await pubsub.get_message(timeout=5))["data"])
    assert (update["last"], update["price"], update["seq"]) == (60, 60, before["seq"] + 1)
    assert update["last_timestamp"] > update["timestamp"]


async def test_after_a_reconnect_rest_tells_the_last_trade(marking: Stack) -> None:
    venue = marking.simulator
    await subscribe(marking, "MSFT")
    venue.emit("MSFT", 399.99, 400.01)
    venue.trade("MSFT", 400.0)
    first = await until_last(marking, "MSFT", "400")
    (lost,) = venue.connections
    await venue.drop_all(clean=False)
    # Missed on the stream, and the last of all. One that the venue took back while nobody listened is not. All of it
    # in one breath: the service may be connected again a moment later.
    venue.trade("MSFT", 399.995)
    venue.trade("MSFT", 390.0)
    venue.cancel_trade("MSFT")
    await eventually(lambda: lost not in venue.connections)
    await until_last(marking, "MSFT", "399.995")

    # The quote is fetched by a request of its own, which may be answered after that of the trade.
    async def is_of_this_connection() -> bool:
        price = await cached(marking, "MSFT")
        assert price["last"] == Decimal("399.995"), price
        return bool(price["epoch"] != first["epoch"])

    await eventually(is_of_this_connection)
    assert (await marking.market_data.health())["trades"]["why_not"] is None


async def test_health_and_metrics_show_it(marking: Stack) -> None:
    await subscribe(marking, "F")
    marking.simulator.trade("F", 11.0, conditions=("@", "I"))

    async def is_told() -> bool:
        told = (await marking.market_data.health())["trades"]
        return bool(told["wanted"] and told["confirmed"] and told["told"].get("condition"))

    await eventually(is_told, within_s=5, every_s=0.05)
    metrics = (await marking.market_data.http.get("/metrics")).text
    assert 'markstream_trade_messages_total{kind="condition"}' in metrics
    assert "markstream_symbols_confirmed_trades" in metrics


async def test_a_plan_without_room_for_trades_streams_the_quotes(tmp_path: Path) -> None:
    parts = running_stack(tmp_path, MARKET_DATA, simulator={"symbol_limit": 3}, MARK_RULE="last")
    async with parts as stack:
        for symbol in ("AAPL", "MSFT"):
            await stack.subscribe(symbol)

        async def is_refused() -> bool:
            return bool((await stack.market_data.health())["trades"]["why_not"] == "over_limit")

        await eventually(is_refused, within_s=5, every_s=0.05)

        # Trades that were streamed until then are given up by a request of their own.
        async def none_have_trades() -> bool:
            details = await stack.subscriptions()
            for symbol in ("AAPL", "MSFT"):
                assert details[symbol]["confirmed"]
                assert (details[symbol]["trades"], details[symbol]["why_no_trades"]) == (False, "over_limit")
            return True

        await eventually(none_have_trades)
        assert "trades_not_streamed" in await stack.market_data.reasons()
        stack.simulator.emit("AAPL", 149.99, 150.01)
        await until_last(stack, "AAPL", None, mid="150")
        assert (await stack.market_data.health())["link"]["state"] == "streaming"


async def test_with_another_rule_no_trades_are_streamed(tmp_path: Path) -> None:
    async with running_stack(tmp_path, MARKET_DATA) as stack:
        await stack.subscribe("AAPL")
        stack.simulator.emit("AAPL", 149.99, 150.01)
        await until_last(stack, "AAPL", None)
        assert stack.simulator.connections
        assert not any(one.session.symbols(Channel.TRADES) for one in stack.simulator.connections)
        assert (await stack.market_data.health())["trades"]["why_not"] == "not_asked_for"
        assert "trades_not_streamed" not in await stack.market_data.reasons()
