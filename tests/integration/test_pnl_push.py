"""The P&L as server-sent events over a real socket, with a real feed behind it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from tests.support.stack import STREAM, Stack, decoded

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIN_INTERVAL_S = 0.050

Event = tuple[str, Any]


@asynccontextmanager
async def listening(stack: Stack) -> AsyncIterator[AsyncIterator[Event]]:
    """Open a stream; yield its events as name and decoded body."""
    async with stack.gateway.http.stream("GET", STREAM) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.aiter_lines())


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    name = ""
    async for line in lines:
        field, _, value = line.partition(": ")
        match field:
            case "event":
                name = value
            case "data":
                yield name, decoded(value)
            case _:
                assert not field, f"no field of an event: {line!r}"


async def next_about(stream: AsyncIterator[Event], symbol: str, **wanted: object) -> tuple[Any, Any]:
    """Return the first update, and the row in it, that has these values for `symbol`."""
    async with asyncio.timeout(5):
        async for name, body in stream:
            assert name == "update"
            for row in body["positions"]:
                if row["symbol"] == symbol and {key: row[key] for key in wanted} == wanted:
                    return body, row
    raise AssertionError("the stream has ended")


async def held(stack: Stack, symbol: str, price: float) -> None:
    """Hold 10 shares of `symbol`, quoted at `price`."""
    await stack.fill(symbol, 10, 50)
    await stack.until_confirmed(symbol)
    stack.simulator.emit(symbol, price - 0.01, price + 0.01)
    await stack.until_row(symbol, current_price=Decimal(str(price)))


async def test_first_the_endpoints_body_then_whole_rows_that_changed(stack: Stack) -> None:
    await held(stack, "AAPL", 52)
    await held(stack, "MSFT", 60)
    async with listening(stack) as stream:
        name, snapshot = await anext(stream)
        assert name == "snapshot"
        endpoint = await stack.pnl()
        assert snapshot.keys() == endpoint.keys()
        assert figures(snapshot) == figures(endpoint)

        stack.simulator.emit("AAPL", 52.99, 53.01)
        update, row = await next_about(stream, "AAPL", current_price=Decimal(53))
        assert row.keys() == snapshot["positions"][0].keys(), "a whole row"
        assert [one["symbol"] for one in update["positions"]] == ["AAPL"], "and no row that did not change"
        assert update.keys() == snapshot.keys() | {"removed"}
        assert update["removed"] == []
        endpoint = await stack.pnl()
        assert row_figures(row) == row_figures(next(one for one in endpoint["positions"] if one["symbol"] == "AAPL"))
        assert totals(update) == totals(endpoint)


async def test_a_position_that_is_closed_is_removed(stack: Stack) -> None:
    await held(stack, "KO", 60)
    async with listening(stack) as stream:
        await anext(stream)
        await stack.fill("KO", -10, 61)
        async with asyncio.timeout(5):
            async for _, update in stream:
                if update["removed"]:
                    break
        assert update["removed"] == ["KO"]
        assert "KO" not in [row["symbol"] for row in update["positions"]]
        assert totals(update) == totals(await stack.pnl())


async def test_a_new_position_comes_with_its_first_mark(stack: Stack) -> None:
    async with listening(stack) as stream:
        await anext(stream)
        await stack.fill("JPM", 5, 250)
        _, row = await next_about(stream, "JPM", price_source="real-time")
        assert row["qty"] == 5


async def test_a_burst_is_held_together_and_its_last_value_comes(stack: Stack) -> None:
    await held(stack, "NVDA", 100)
    async with listening(stack) as stream:
        await anext(stream)
        began_s = time.monotonic()
        arrivals_s: list[float] = []
        last: Decimal | None = None
        for step in range(1, 101):
            stack.simulator.emit("NVDA", 100 + step - 0.01, 100 + step + 0.01)
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while last != 200:
                _, update = await anext(stream)
                arrivals_s.append(time.monotonic())
                last = next(row["current_price"] for row in update["positions"] if row["symbol"] == "NVDA")
        assert len(arrivals_s) <= (time.monotonic() - began_s) / MIN_INTERVAL_S + 1


async def test_the_interval_is_kept_and_the_first_change_goes_out_at_once(stack: Stack) -> None:
    await held(stack, "TSLA", 300)
    async with listening(stack) as stream:
        await anext(stream)
        arrivals_s: list[float] = []
        for step in range(1, 12):
            price = Decimal(300 + step)
            stack.simulator.emit("TSLA", float(price) - 0.01, float(price) + 0.01)
            await next_about(stream, "TSLA", current_price=price)
            arrivals_s.append(time.monotonic())
        gaps_s = sorted(after - before for before, after in pairwise(arrivals_s))
        # Buffers on the way may bring two together; on the whole the pace is the server's.
        assert gaps_s[len(gaps_s) // 2] >= MIN_INTERVAL_S * 0.8
        assert arrivals_s[-1] - arrivals_s[0] >= (len(arrivals_s) - 1) * MIN_INTERVAL_S * 0.8


def figures(body: Any) -> Any:
    return totals(body), {row["symbol"]: row_figures(row) for row in body["positions"]}


def row_figures(row: Any) -> Any:
    return {name: value for name, value in row.items() if name != "price_age_seconds"}


def totals(body: Any) -> Any:
    passing = {"positions", "removed", "calculated_at", "calculation_id"}
    return {name: value for name, value in body.items() if name not in passing}
