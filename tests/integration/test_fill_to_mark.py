"""From a fill to its live mark, and back: subscribed by itself, valued, given up."""

import asyncio
import time
from decimal import Decimal
from typing import Any

import pytest

from apps.alpaca_simulator.points import Channel
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIVE_WITHIN_S = 2.0


async def test_a_fill_is_subscribed_by_itself_and_marked_live_within_two_seconds(stack: Stack) -> None:
    assert "AAPL" not in await stack.subscriptions()
    began_s = time.monotonic()
    await stack.fill("AAPL", 100, 150)
    await stack.until_row("AAPL", LIVE_WITHIN_S, price_source="real-time")
    assert time.monotonic() - began_s < LIVE_WITHIN_S
    assert (await stack.subscriptions())["AAPL"]["owners"] == ["positions"]

    stack.simulator.emit("AAPL", 151.99, 152.01)
    row = await stack.until_row("AAPL", current_price=Decimal(152))
    assert row["unrealized_pnl"] == 200
    assert row["market_value"] == 15200
    assert (row["bid"], row["ask"]) == (Decimal("151.99"), Decimal("152.01"))
    assert row["price_age_seconds"] < 2


async def test_a_closed_position_is_unsubscribed_and_what_a_person_wants_stays(stack: Stack) -> None:
    await stack.subscribe("MSFT")
    await stack.fill("KO", 10, 60)
    await stack.until_confirmed("KO")
    await stack.fill("KO", -10, 61)

    async def is_given_up() -> bool:
        return "KO" not in await stack.subscriptions()

    await eventually(is_given_up, within_s=2)
    assert await stack.row("KO") is None
    assert (await stack.subscriptions())["MSFT"]["owners"] == ["manual"]
    (connection,) = stack.simulator.connections
    await eventually(lambda: "KO" not in connection.session.symbols(Channel.QUOTES))
    assert "MSFT" in connection.session.symbols(Channel.QUOTES)


async def test_what_is_bought_again_is_not_marked_at_the_price_of_before(stack: Stack) -> None:
    await stack.fill("DIS", 10, 60)
    await stack.until_confirmed("DIS")
    for cents in range(5):
        stack.simulator.emit("DIS", 60 + cents / 100, 60.02 + cents / 100)
        await stack.until_row("DIS", bid=Decimal(60) + Decimal(cents) / 100, price_source="real-time")
    await stack.fill("DIS", -10, 61)

    async def is_given_up() -> bool:
        answer = await stack.market_data.http.get("/api/v1/market-data/prices/DIS")
        return answer.status_code == 200 and answer.json()["epoch"] is None

    await eventually(is_given_up)
    # Nobody listens: neither the stream nor we hear of this one.
    stack.simulator.emit("DIS", 40.0, 40.02)
    await stack.fill("DIS", 10, 40)
    await stack.until_row("DIS", bid=Decimal(40), price_source="real-time")
    stack.simulator.emit("DIS", 41.0, 41.02)
    await stack.until_row("DIS", bid=Decimal(41), price_source="real-time")


async def test_a_symbol_that_a_person_wants_too_stays_when_its_position_is_closed(stack: Stack) -> None:
    await stack.subscribe("JPM")
    await stack.fill("JPM", -5, 250)
    await eventually(lambda: owners(stack, "JPM", {"manual", "positions"}))
    await stack.fill("JPM", 5, 249)
    await eventually(lambda: owners(stack, "JPM", {"manual"}))
    answer = await stack.market_data.http.delete("/api/v1/market-data/subscribe/JPM")
    assert answer.json()["still_held_by"] == []
    assert "JPM" not in await stack.subscriptions()


async def owners(stack: Stack, symbol: str, wanted: set[str]) -> bool:
    return set((await stack.subscriptions())[symbol]["owners"]) == wanted


async def test_many_fills_at_once_are_all_taken_once(stack: Stack) -> None:
    """As a script posts a day's executions. Nobody has to try again because of others who ask at the same time."""
    await asyncio.gather(*(stack.fill("AMD", 1, 100, fill_id=f"many-{number}") for number in range(60)))
    assert (await stack.row("AMD"))["qty"] == 60


async def test_a_short_gains_when_the_price_falls(stack: Stack) -> None:
    await stack.fill("TSLA", -40, 400)
    await stack.until_confirmed("TSLA")
    stack.simulator.emit("TSLA", 389.99, 390.01)
    row = await stack.until_row("TSLA", current_price=Decimal(390))
    assert (row["qty"], row["cost_basis"], row["market_value"]) == (-40, -16000, -15600)
    assert (row["unrealized_pnl"], row["unrealized_pnl_pct"]) == (400, Decimal("2.5"))


async def test_a_quote_that_may_not_mark_is_counted_and_the_last_good_mark_stands(stack: Stack) -> None:
    await stack.fill("NVDA", 10, 100)
    await stack.until_confirmed("NVDA")

    async def has_its_first_quote() -> bool:
        return bool((await stack.subscriptions())["NVDA"]["quotes"])

    # Fetched at the subscription: should it come after those of the stream, it would be counted as rejected too.
    await eventually(has_its_first_quote)
    stack.simulator.emit("NVDA", 109.99, 110.01)
    await stack.until_row("NVDA", current_price=Decimal(110))
    for bid, ask in ((0, 111), (111, 0), (112, 111), (50, 170), (-1, 110), (float("nan"), 111), (111, float("inf"))):
        stack.simulator.emit("NVDA", bid, ask)

    async def are_counted() -> Any:
        rejected = (await stack.subscriptions())["NVDA"]["rejected"]
        return rejected if sum(rejected.values()) == 7 else None

    rejected = await eventually(are_counted)
    assert set(rejected) == {"one_sided", "crossed", "too_wide", "negative", "not_finite"}
    assert (await stack.row("NVDA"))["current_price"] == 110


async def test_a_fill_that_is_voided_is_as_if_it_had_not_been(stack: Stack) -> None:
    recorded = await stack.fill("F", 1000, 12)
    await stack.until_confirmed("F")
    answer = await stack.gateway.http.post(f"/api/v1/fills/{recorded['fill_id']}/void", json={"reason": "mistyped"})
    assert answer.status_code == 200, answer.text
    assert await stack.row("F") is None

    async def is_given_up() -> bool:
        return "F" not in await stack.subscriptions()

    await eventually(is_given_up, within_s=2)
