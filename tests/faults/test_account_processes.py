"""The mirror of an account by processes: broker frozen, gateway killed, database away, two gateways, wrong prices."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.account import account_health, all_fills, is_in_step, is_mirrored
from tests.support.account_stack import AccountStack, account_stack
from tests.support.postgres import running_postgres
from tests.support.stack import PNL, Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

FROZEN_S = 20.0
TAKEN_OVER_WITHIN_S = 35.0
"""Twenty seconds between two looks at a place that is taken, and the way there."""


async def mirrors(stack: AccountStack, gateway: Service, within_s: float = 30.0) -> None:
    await eventually(lambda: is_mirrored(gateway.http, stack.broker), within_s, every_s=0.2)
    await eventually(lambda: is_in_step(gateway.http), within_s, every_s=0.1)


async def trade(stack: AccountStack, times: int, dice: Random) -> None:
    """Let so many orders be filled, some of them unheard."""
    for _ in range(times):
        qty = Decimal(dice.choice((-1, 1)) * dice.randint(1, 900)).scaleb(-1)
        announce = dice.choice(("once", "once", "twice", "never", "late"))
        symbol, price = dice.choice(("AAPL", "MSFT", "NVDA")), dice.randint(50, 500)
        await stack.broker.fill(symbol, qty, price, announce=announce, delay_s=0.2)


async def has_state(gateway: Service, *states: str) -> bool:
    account = await account_health(gateway.http)
    assert account["state"] in states, str(account)
    return True


async def test_a_broker_frozen_for_twenty_seconds(tmp_path: Path) -> None:
    async with account_stack(tmp_path) as stack:
        gateway = await stack.gateway()
        await mirrors(stack, gateway)
        dice = Random(1)
        await trade(stack, 10, dice)
        os.kill(stack.broker_process.process.pid, signal.SIGSTOP)
        try:
            # It takes this when it wakes, and by then nobody listens to it.
            asked = asyncio.create_task(trade(stack, 1, dice))
            async with asyncio.timeout(FROZEN_S):
                await eventually(lambda: has_state(gateway, "unreachable"), FROZEN_S)
                body = await gateway.get(PNL)
                assert body["account"]["in_step"] is False
                assert {row["symbol"] for row in body["positions"]} >= {"AAPL", "MSFT"}
                await asyncio.Event().wait()
        except TimeoutError:
            pass
        finally:
            os.kill(stack.broker_process.process.pid, signal.SIGCONT)
        await asked
        await trade(stack, 10, dice)
        await mirrors(stack, gateway)


async def test_a_gateway_killed_in_the_midst_of_catching_up(tmp_path: Path) -> None:
    async with account_stack(tmp_path) as stack:
        # Older than what a catch-up repeats: whoever believes to have read it never asks for it again.
        began_at = datetime.now(UTC) - timedelta(days=20)
        for number in range(60):
            at = (began_at + timedelta(hours=number)).isoformat()
            await stack.broker.fill("AAPL", 20 * (-1) ** number, 100 + number, pieces=20, at=at)
        await stack.broker.switch(trading_rest_delay_s=0.25, trading_rest_path="/v2/account/activities")
        for least in (200, 700):
            gateway = await stack.gateway()

            async def has_begun(gateway: Service = gateway, least: int = least) -> bool:
                return len(await all_fills(gateway.http)) >= least

            await eventually(has_begun, within_s=20)
            gateway.kill()
            await gateway.http.aclose()
            await trade(stack, 3, Random(least))
        # Slow enough to be looked at before it has read on, however busy the machine is.
        await stack.broker.switch(trading_rest_delay_s=2.0)
        gateway = await stack.gateway()
        begun_with = len(await all_fills(gateway.http))
        assert 700 <= begun_with < 1200, "killed in the midst of it, the last time as well"
        await stack.broker.switch(trading_rest_delay_s=0.25)
        await mirrors(stack, gateway)


@asynccontextmanager
async def sqlite_away(folder: Path) -> AsyncIterator[None]:
    ledger, elsewhere = folder / "ledger.db", folder / "elsewhere.db"
    ledger.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(ledger)


async def trades_without_a_database(stack: AccountStack, gateway: Service, away: Any) -> None:
    dice = Random(2)
    await mirrors(stack, gateway)
    await trade(stack, 5, dice)
    async with away:
        await trade(stack, 20, dice)

        async def is_told() -> bool:
            return "database_unusable" in await gateway.reasons()

        await eventually(is_told, within_s=10)
        assert (await gateway.http.get(PNL)).status_code == 503
        await stack.broker.act("drop-trading", how="tcp")
        await trade(stack, 20, dice)
    await trade(stack, 5, dice)
    await mirrors(stack, gateway)


async def test_a_database_file_that_is_away_while_fills_come(tmp_path: Path) -> None:
    async with account_stack(tmp_path) as stack:
        await trades_without_a_database(stack, await stack.gateway(), sqlite_away(tmp_path))


async def test_a_database_server_that_is_away_while_fills_come(tmp_path: Path) -> None:
    with running_postgres() as server:

        @asynccontextmanager
        async def away() -> AsyncIterator[None]:
            await asyncio.to_thread(server.stop)
            try:
                yield
            finally:
                await asyncio.to_thread(server.start)

        async with account_stack(tmp_path, DATABASE_URL=server.url()) as stack:
            await trades_without_a_database(stack, await stack.gateway(), away())


async def test_a_second_gateway_takes_over_when_the_first_dies(tmp_path: Path) -> None:
    async with account_stack(tmp_path) as stack:
        first = await stack.gateway()
        await mirrors(stack, first)
        second = await stack.gateway()
        await eventually(lambda: has_state(second, "catching_up"), within_s=15)
        dice = Random(3)
        await trade(stack, 10, dice)
        # Without the account's one stream it knows by REST what the first wrote and what the broker says.
        await eventually(lambda: is_mirrored(second.http, stack.broker), within_s=20, every_s=0.2)
        assert (await account_health(second.http))["stream"] != "streaming"

        first.kill()
        await trade(stack, 10, dice)
        await mirrors(stack, second, TAKEN_OVER_WITHIN_S)
        assert (await account_health(second.http))["stream"] == "streaming"
        await trade(stack, 10, dice)
        await mirrors(stack, second)


async def test_a_wrong_price_at_the_broker_changes_no_figure_of_ours(tmp_path: Path) -> None:
    async with account_stack(tmp_path, "--rate", "0") as stack:
        gateway = await stack.gateway()
        await stack.market_data(gateway)
        await stack.broker.fill("AAPL", 10, 200)
        await mirrors(stack, gateway)

        async def is_marked() -> bool:
            # Sent again and again: the first quotes come before the subscription.
            quotes = [
                {"symbol": "AAPL", "bid": 199.99, "ask": 200.01},
                {"symbol": "MSFT", "bid": 399.99, "ask": 400.01},
            ]
            await stack.broker.act("quotes", quotes=quotes)
            rows = {row["symbol"]: row for row in (await gateway.get(PNL))["positions"]}
            shown = {symbol: (row["price_source"], row["current_price"]) for symbol, row in rows.items()}
            # Real-time is the quote of the subscription, too.
            assert shown == {"AAPL": ("real-time", 200), "MSFT": ("real-time", 400)}, str(shown)
            return True

        await eventually(is_marked, within_s=20, every_s=0.2)
        right = await figures(gateway)
        await stack.broker.act("wrong-price", symbol="AAPL", price="9999")
        confirmed_at = (await account_health(gateway.http))["confirmed_at"]
        told = await stack.broker.http.get(
            "/v2/positions/AAPL", headers={"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
        )
        assert Decimal(told.json()["current_price"]) == 9999, "the broker is wrong"

        async def was_compared_again() -> bool:
            assert await figures(gateway) == right
            return bool((await account_health(gateway.http))["confirmed_at"] > confirmed_at)

        for _ in range(2):
            await eventually(was_compared_again, within_s=15)
            confirmed_at = (await account_health(gateway.http))["confirmed_at"]
        await stack.broker.act("wrong-price", symbol="AAPL", price=None)
        assert await figures(gateway) == right
        await mirrors(stack, gateway)


async def figures(gateway: Service) -> dict[str, Any]:
    """Return every figure in money or shares of the P&L."""
    body = await gateway.get(PNL)
    names = ("qty", "cost_basis", "current_price", "market_value", "unrealized_pnl", "realized_pnl", "day_pnl", "fees")
    rows = {row["symbol"]: {name: row[name] for name in names} for row in body["positions"]}
    return {**rows, **{name: body[name] for name in body if name.startswith("total_")}}
