"""From a fill in the account to its live mark, and back: mirrored, subscribed, valued, given up by processes alone."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.support.account import is_in_step, is_mirrored
from tests.support.account_stack import AccountStack, account_stack
from tests.support.stack import PNL, Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIVE_WITHIN_S = 3.0
GIVEN_UP_WITHIN_S = 3.0


@dataclass
class Whole:
    """The account, its mirror, and the service that follows it."""

    account: AccountStack
    gateway: Service
    market_data: Service

    async def row(self, symbol: str) -> Any:
        rows = (await self.gateway.get(PNL))["positions"]
        return next((row for row in rows if row["symbol"] == symbol), None)

    async def is_live(self, *symbols: str) -> bool:
        for symbol in symbols:
            row = await self.row(symbol)
            assert row is not None, f"no position in {symbol}"
            assert row["price_source"] == "real-time", str(row)
        return True

    async def subscriptions(self) -> Any:
        return (await self.market_data.get("/api/v1/market-data/subscriptions"))["details"]

    async def subscribed_at_the_broker(self) -> int:
        state = (await self.account.broker.http.get("/control/state")).json()
        (connection,) = state["connections"]
        count: int = connection["symbols"]
        return count


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    async with account_stack(tmp_path_factory.mktemp("account"), "--rate", "200") as account:
        gateway = await account.gateway()
        running = Whole(account, gateway, await account.market_data(gateway))
        await eventually(lambda: is_in_step(gateway.http), within_s=20)
        await eventually(lambda: running.is_live("AAPL", "MSFT"), within_s=20)
        yield running


async def test_a_fill_of_a_new_symbol_gets_a_live_mark_by_itself(whole: Whole) -> None:
    assert "NVDA" not in await whole.subscriptions()
    began_s = time.monotonic()
    await whole.account.broker.fill("NVDA", 10, 140, pieces=2)
    await eventually(lambda: whole.is_live("NVDA"), LIVE_WITHIN_S)
    assert time.monotonic() - began_s < LIVE_WITHIN_S
    # The first piece makes a live row; the second may still be on its way.
    await eventually(lambda: is_mirrored(whole.gateway.http, whole.account.broker), within_s=10)
    row = await whole.row("NVDA")
    assert (row["qty"], row["cost_basis"]) == (10, 1400)
    assert row["bid"] <= row["current_price"] <= row["ask"]
    assert row["unrealized_pnl"] == 10 * row["current_price"] - 1400
    subscription = (await whole.subscriptions())["NVDA"]
    assert (subscription["owners"], subscription["confirmed"]) == (["positions"], True)


async def test_a_close_in_the_account_unsubscribes(whole: Whole) -> None:
    await whole.account.broker.fill("KO", -5, 60)
    await eventually(lambda: whole.is_live("KO"), LIVE_WITHIN_S)
    before = await whole.subscribed_at_the_broker()
    await whole.account.broker.fill("KO", 5, 59)

    async def is_given_up() -> bool:
        assert await whole.row("KO") is None
        assert "KO" not in await whole.subscriptions()
        return await whole.subscribed_at_the_broker() == before - 1

    await eventually(is_given_up, GIVEN_UP_WITHIN_S)
    assert await whole.is_live("AAPL", "MSFT")
    body = await whole.gateway.get(PNL)
    assert Decimal(body["total_realized"]) == 5


async def is_well(whole: Whole) -> bool:
    account = (await whole.gateway.health())["account"]
    assert (account["state"], account["stream"], account["last_error"]) == ("in_step", "streaming", None)
    assert await whole.gateway.reasons() == set()
    assert await whole.market_data.reasons() == set()
    return True


async def test_the_health_of_both_tells_the_truth(whole: Whole) -> None:
    await eventually(lambda: is_well(whole), within_s=10)
    health = await whole.gateway.health()
    held = {row["symbol"] for row in (await whole.gateway.get(PNL))["positions"]}
    assert health["position_source"] == "alpaca"
    assert health["positions"]["open"] == len(held)
    assert health["positions"]["by_price_source"] == {"real-time": len(held)}
    assert set(await whole.subscriptions()) == held
    assert len(held) == await whole.subscribed_at_the_broker()

    broker = whole.account.broker
    await broker.switch(trading_rest_status=503, trading_upgrade_status=503)
    await broker.act("drop-trading", how="tcp")

    async def is_told() -> bool:
        health = await whole.gateway.health()
        account = health["account"]
        assert account["state"] == "unreachable", str(account)
        assert account["stream"] != "streaming"
        assert health["status"] != "healthy"
        return "account_unreachable" in await whole.gateway.reasons()

    await eventually(is_told, within_s=10)
    # The market's side of the venue is as well as before, and so is what follows it.
    assert await whole.market_data.reasons() == set()
    assert await whole.is_live("AAPL", "MSFT")
    assert (await whole.gateway.get(PNL))["account"]["in_step"] is False
    await broker.switch(trading_rest_status=None, trading_upgrade_status=None)
    await eventually(lambda: is_well(whole), within_s=30)
