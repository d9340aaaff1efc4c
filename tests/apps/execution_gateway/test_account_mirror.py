"""The gateway as a mirror of an account: our simulator over real sockets, a real database file, the real gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import SecretStr

from apps.alpaca_simulator import position_figures
from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.simulator import Simulator
from apps.alpaca_simulator.trading_desk import Announce
from apps.execution_gateway.settings import GatewaySettings
from tests.support.clock import NoonClock
from tests.support.gateway import RunningGateway, decode, serving, settings_in
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually

POSITIONS = "/api/v1/positions"
CENT = Decimal("0.01")
HELD = (HeldPosition("AAPL", Decimal(100), Decimal(150)), HeldPosition("MSFT", Decimal(-20), Decimal(400)))


def mirror_settings(folder: Path, redis_url: str, simulator: Simulator, **fields: Any) -> GatewaySettings:
    known = {"position_source": "alpaca", "alpaca_stream_url": simulator.stream_url(), "reconcile_seconds": 1.0}
    return settings_in(folder, redis_url, **(known | fields))


@asynccontextmanager
async def mirrored(
    folder: Path, redis_url: str, fields: dict[str, Any] | None = None, **simulator: Any
) -> AsyncIterator[tuple[RunningGateway, Simulator]]:
    clock = NoonClock()
    async with (
        running_simulator(rate=0, now=clock, **({"positions": HELD} | simulator)) as source,
        serving(mirror_settings(folder, redis_url, source, **(fields or {})), clock) as gateway,
    ):
        await eventually(lambda: in_step(gateway), within_s=20)
        yield gateway, source


async def in_step(gateway: RunningGateway) -> bool:
    return (await gateway.get("/health"))["account"]["state"] == "in_step"


async def quantities(gateway: RunningGateway) -> dict[str, Decimal]:
    answer = await gateway.client.get(POSITIONS)
    if answer.status_code != 200:
        return {}
    return {row["symbol"]: Decimal(row["qty"]) for row in decode(answer.content)["positions"]}


async def agrees(gateway: RunningGateway, simulator: Simulator) -> bool:
    """Say whether quantities and costs by Alpaca's method are the account's own."""
    ours = {row["symbol"]: row for row in (await gateway.get(f"{POSITIONS}?cost=alpaca"))["positions"]}
    theirs = simulator.account.book(simulator.config.now()).open_positions()
    return ours.keys() == theirs.keys() and all(
        Decimal(row["qty"]) == theirs[symbol].qty and Decimal(row["cost_basis"]) == theirs[symbol].cost.quantize(CENT)
        for symbol, row in ours.items()
    )


def show(simulator: Simulator, **fields: object) -> None:
    """Let the account report a holding that no execution explains."""
    symbol = str(fields["symbol"])
    simulator.account.exotic[symbol] = fields
    simulator.account.left_out[symbol] = frozenset()


async def test_what_the_account_holds_is_known_with_its_history(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, _):
        assert await quantities(gateway) == {"AAPL": 100, "MSFT": -20}
        rows = {row["symbol"]: row for row in (await gateway.get(POSITIONS))["positions"]}
        assert rows["AAPL"]["cost_basis"] == 15000
        fills = (await gateway.get("/api/v1/fills"))["fills"]
        assert len(fills) == 2, "explained by executions, not by an adjustment"
        assert (await gateway.get("/api/v1/adjustments"))["adjustments"] == []
        body = await gateway.get("/api/v1/positions/pnl/realtime")
        assert (body["position_source"], body["account"]["in_step"]) == ("alpaca", True)
        health = await gateway.get("/health")
        assert (health["account"]["differences"], health["position_source"]) == ([], "alpaca")
        metrics = (await gateway.client.get("/metrics")).text
        assert "markstream_gateway_account_in_step 1.0" in metrics
        assert "markstream_gateway_account_executions_total 2.0" in metrics
        assert "markstream_gateway_parity_unexplained_usd 0.0" in metrics


async def test_a_fill_comes_over_the_stream_at_once(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url, {"reconcile_seconds": 3600}) as (gateway, simulator):
        await simulator.desk.fill("AAPL", "buy", Decimal("10.5"), Decimal("232.02"), pieces=3)

        async def has_it() -> bool:
            return (await quantities(gateway))["AAPL"] == Decimal("110.5")

        await eventually(has_it, within_s=1)
        assert len((await gateway.get("/api/v1/fills?symbol=AAPL"))["fills"]) == 4


async def test_nobody_else_writes_a_mirrored_ledger(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, _):
        for path in ("/api/v1/fills", "/api/v1/fills/import", "/api/v1/fills/x/void", "/api/v1/adjustments"):
            answer = await gateway.client.post(path, content=b"{}")
            assert answer.status_code == 409, path
            assert "POSITION_SOURCE" in answer.json()["detail"]


async def test_flat_is_said_only_when_the_account_has_said_so(tmp_path: Path, redis_url: str) -> None:
    async with running_simulator(rate=0, positions=()) as simulator:
        simulator.faults = replace(simulator.faults, trading_rest_status=503)
        async with serving(mirror_settings(tmp_path, redis_url, simulator)) as gateway:
            await eventually(lambda: is_state(gateway, "unreachable"), within_s=10)
            for path in (POSITIONS, f"{POSITIONS}/pnl/realtime"):
                answer = await gateway.client.get(path)
                assert (answer.status_code, "has not said" in answer.json()["detail"]) == (503, True), path
            simulator.faults = replace(simulator.faults, trading_rest_status=None)
            await eventually(lambda: in_step(gateway), within_s=20)
            assert (await gateway.get(POSITIONS))["positions"] == []


async def is_state(gateway: RunningGateway, state: str) -> bool:
    return (await gateway.get("/health"))["account"]["state"] == state


async def test_a_confirmed_book_is_shown_while_the_account_cannot_be_asked(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (_, simulator):
        port_settings = mirror_settings(tmp_path, redis_url, simulator)
    async with serving(port_settings, simulator.config.now) as gateway:
        # The simulator is gone: what it confirmed before the restart is shown, and named as not in step.
        async def is_shown() -> bool:
            return await quantities(gateway) == {"AAPL": 100, "MSFT": -20}

        await eventually(is_shown, within_s=10)
        body = await gateway.get("/api/v1/positions/pnl/realtime")
        assert body["account"]["in_step"] is False
        assert "account_unreachable" in [reason["code"] for reason in (await gateway.get("/health"))["reasons"]]


async def test_another_account_s_keys_are_refused(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mirrored(tmp_path, redis_url):
        pass
    monkeypatch.setattr(position_figures, "ACCOUNT_NUMBER", "PAOTHER")
    async with (
        running_simulator(rate=0, positions=HELD) as simulator,
        serving(mirror_settings(tmp_path, redis_url, simulator)) as gateway,
    ):
        await eventually(lambda: is_state(gateway, "other_account"), within_s=10)
        answer = await gateway.client.get(POSITIONS)
        assert (answer.status_code, "PAOTHER" in answer.json()["detail"]) == (503, True)
        assert (await gateway.client.get("/health/ready")).status_code == 503


async def test_what_the_stream_lost_is_caught_up_and_nothing_is_doubled(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        desk = simulator.desk
        await desk.fill("AAPL", "buy", Decimal(5), Decimal(230), announce=Announce.NEVER)
        await desk.fill("AAPL", "sell", Decimal(7), Decimal(231), announce=Announce.TWICE)
        await simulator.updates.drop_all("tcp")
        await desk.fill("NVDA", "buy", Decimal("0.123456789"), Decimal(140), pieces=2)
        await eventually(lambda: agrees(gateway, simulator), within_s=30)
        assert await quantities(gateway) == {"AAPL": 98, "MSFT": -20, "NVDA": Decimal("0.123456789")}
        assert (await gateway.get("/api/v1/adjustments"))["adjustments"] == [], "by executions, not by adjustments"


async def test_busts_and_corrections_change_what_was_recorded(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        (busted,) = await simulator.desk.fill("AAPL", "buy", Decimal(10), Decimal(230))
        (corrected,) = await simulator.desk.fill("AAPL", "buy", Decimal(10), Decimal(230))
        await simulator.desk.bust(busted)
        await simulator.desk.correct(corrected, price=Decimal("229.50"), qty=Decimal(9))
        await eventually(lambda: agrees(gateway, simulator), within_s=20)
        assert await quantities(gateway) == {"AAPL": 109, "MSFT": -20}


async def test_corporate_actions_come_from_the_account(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        await simulator.desk.split("AAPL", Decimal(4), Decimal(1))
        await simulator.desk.pay_dividend("AAPL", Decimal("0.25"))
        await simulator.desk.change_symbol("MSFT", "MSFX")
        await eventually(lambda: agrees(gateway, simulator), within_s=30)
        assert await quantities(gateway) == {"AAPL": 400, "MSFX": -20}
        kinds = {one["kind"] for one in (await gateway.get("/api/v1/adjustments"))["adjustments"]}
        assert kinds == {"split", "dividend", "symbol_change"}
        body = await gateway.get("/api/v1/positions/pnl/realtime")
        assert body["total_income"] == 100


async def test_the_broker_is_the_truth_and_every_adjustment_is_recorded(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        # Shares that no execution and no activity explains.
        show(
            simulator,
            symbol="TSLA",
            qty="7",
            side="long",
            avg_entry_price="200",
            cost_basis="1400",
            asset_class="us_equity",
        )

        async def is_taken_over() -> bool:
            return (await quantities(gateway)).get("TSLA") == 7

        await eventually(is_taken_over, within_s=30)
        (adjustment,) = (await gateway.get("/api/v1/adjustments"))["adjustments"]
        assert (adjustment["kind"], adjustment["symbol"], adjustment["qty"]) == ("transfer", "TSLA", 7)
        assert adjustment["reason"] == "transfer"


async def test_an_exotic_holding_hides_nothing(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        show(
            simulator,
            symbol="BTC/USD",
            qty="0.5",
            side="long",
            avg_entry_price="60000",
            cost_basis="30000",
            asset_class="crypto",
            market_value=None,
        )
        show(
            simulator,
            symbol="AAPL270115C00200000",
            qty="2",
            side="long",
            avg_entry_price="12.5",
            cost_basis="2500",
            asset_class="global_equity",
        )
        show(simulator, symbol="ODD", qty="many")

        async def is_listed() -> bool:
            return {"BTC/USD", "AAPL270115C00200000"} <= (await quantities(gateway)).keys()

        await eventually(is_listed, within_s=30)
        assert (await quantities(gateway))["AAPL"] == 100
        body = await gateway.get("/api/v1/positions/pnl/realtime")
        assert {"BTC/USD", "AAPL270115C00200000"} <= set(body["unpriced"])
        health = await gateway.get("/health")
        assert "unreadable_holding" in [one["reason"] for one in health["account"]["differences"]]


async def test_what_was_adjusted_for_want_of_an_execution_is_taken_back_when_it_is_told(
    tmp_path: Path, redis_url: str
) -> None:
    """Activities lag behind positions for longer than we are patient: then both would count, twice the shares."""
    faults = Faults(activities_lag_s=6.0)
    async with mirrored(tmp_path, redis_url, faults=faults) as (gateway, simulator):
        await simulator.desk.fill("AAPL", "buy", Decimal(10), Decimal(230), announce=Announce.NEVER)

        async def is_adjusted() -> bool:
            return len((await gateway.get("/api/v1/adjustments"))["adjustments"]) == 1

        await eventually(is_adjusted, within_s=20)
        assert (await quantities(gateway))["AAPL"] == 110
        seen = set()

        async def is_explained() -> bool:
            seen.add((await quantities(gateway))["AAPL"])
            (adjustment,) = (await gateway.get("/api/v1/adjustments"))["adjustments"]
            return adjustment["void_reason"] == "explained"

        await eventually(is_explained, within_s=20, every_s=0.002)
        assert seen == {110}, "not for a moment did both count, or neither"
        await eventually(lambda: agrees(gateway, simulator), within_s=10)
        assert await quantities(gateway) == {"AAPL": 110, "MSFT": -20}
        assert len((await gateway.get("/api/v1/fills?symbol=AAPL"))["fills"]) == 2


async def test_a_holding_that_cannot_be_read_is_no_flat_account(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url, positions=()) as (gateway, simulator):
        assert await quantities(gateway) == {}
        assert (await gateway.client.get(POSITIONS)).status_code == 200
        show(simulator, symbol="912810TM0", qty="n/a", asset_class="treasury")

        async def is_told() -> bool:
            return (await gateway.client.get(POSITIONS)).status_code == 503

        await eventually(is_told, within_s=10)
        health = await gateway.get("/health")
        assert "account_unreadable" in [reason["code"] for reason in health["reasons"]]
        assert health["account"]["unreadable"]


async def test_keys_refused_for_a_moment_stop_nothing_for_good(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        calm = simulator.faults
        simulator.faults = replace(calm, trading_unauthorized=True)
        await simulator.updates.drop_all("tcp")

        async def stream() -> str:
            return str((await gateway.get("/health"))["account"]["stream"])

        async def is_refused() -> bool:
            return await stream() == "refused"

        await eventually(is_refused, within_s=10, every_s=0.005)
        simulator.faults = calm
        await eventually(lambda: in_step(gateway), within_s=30)
        assert await stream() == "streaming"


async def test_a_coin_that_positions_write_without_its_slash_is_one_holding(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        # Laid over the holding that the fills below make.
        simulator.account.exotic["ETH/USD"] = {"symbol": "ETHUSD", "asset_class": "crypto"}
        await simulator.desk.fill("ETH/USD", "buy", Decimal(2), Decimal(3000))
        await simulator.desk.fill("ETH/USD", "sell", Decimal("0.5"), Decimal(3100))
        await eventually(lambda: agrees(gateway, simulator), within_s=20)
        tesla = {"symbol": "TSLA", "qty": "7", "avg_entry_price": "200", "cost_basis": "1400"}
        show(simulator, **tesla, side="long", asset_class="us_equity")

        async def is_compared() -> bool:
            return "TSLA" in await quantities(gateway)

        await eventually(is_compared, within_s=30)
        assert await quantities(gateway) == {"AAPL": 100, "MSFT": -20, "TSLA": 7, "ETH/USD": Decimal("1.5")}
        adjustments = (await gateway.get("/api/v1/adjustments"))["adjustments"]
        assert [one["symbol"] for one in adjustments] == ["TSLA"], "neither name of the coin differs"
        rows = {row["symbol"]: row for row in (await gateway.get("/api/v1/positions/pnl/realtime"))["positions"]}
        assert rows["ETH/USD"]["realized_pnl"] == 50


async def test_two_gateways_on_one_database_record_each_execution_once(tmp_path: Path, redis_url: str) -> None:
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        settings = mirror_settings(tmp_path, redis_url, simulator)
        async with serving(settings, simulator.config.now, is_alone=False) as other:
            show(
                simulator,
                symbol="TSLA",
                qty="7",
                side="long",
                avg_entry_price="200",
                cost_basis="1400",
                asset_class="us_equity",
            )
            for number in range(5):
                await simulator.desk.fill("AAPL", "buy", Decimal(1), Decimal(230 + number))

            async def both_agree() -> bool:
                found = [await quantities(one) for one in (gateway, other)]
                return found[0] == found[1] == {"AAPL": 105, "MSFT": -20, "TSLA": 7}

            await eventually(both_agree, within_s=40)
            assert len((await gateway.get("/api/v1/adjustments"))["adjustments"]) == 1


async def test_random_disconnects_with_fills_in_flight_lose_and_double_nothing(tmp_path: Path, redis_url: str) -> None:
    dice = Random(4)
    async with mirrored(tmp_path, redis_url) as (gateway, simulator):
        stop = asyncio.Event()

        async def trade() -> None:
            while not stop.is_set():
                side = dice.choice(("buy", "sell"))
                await simulator.desk.fill(
                    dice.choice(("AAPL", "MSFT", "NVDA")),
                    side,
                    Decimal(dice.randint(1, 5000)).scaleb(dice.choice((-9, -3, 0))),
                    Decimal(dice.randint(100, 99_999)).scaleb(-2),
                    pieces=1,
                    announce=dice.choice((Announce.ONCE, Announce.ONCE, Announce.TWICE, Announce.NEVER)),
                )
                await asyncio.sleep(dice.random() * 0.02)

        trading = asyncio.create_task(trade())
        for _ in range(12):
            await asyncio.sleep(dice.random() * 0.3)
            await simulator.updates.drop_all(dice.choice(("tcp", "close", "error")))
        stop.set()
        await trading
        await eventually(lambda: agrees(gateway, simulator), within_s=60)
        booked = len(simulator.account.executions)
        recorded, after = 0, None
        while True:
            page = await gateway.get(f"/api/v1/fills?limit=1000{f'&after={after}' if after else ''}")
            recorded += len(page["fills"])
            after = page["next"]
            if after is None:
                break
        assert recorded == booked
        assert simulator.config.now() - timedelta(minutes=5) < datetime.fromisoformat(
            (await gateway.get("/health"))["account"]["confirmed_at"]
        )


def test_an_account_needs_its_keys(tmp_path: Path, redis_url: str) -> None:
    with pytest.raises(ValueError, match="ALPACA_API_KEY"):
        settings_in(tmp_path, redis_url, position_source="alpaca", alpaca_stream_url=None)
    keys = {"alpaca_api_key": SecretStr("k"), "alpaca_secret_key": SecretStr("s")}
    assert settings_in(tmp_path, redis_url, position_source="alpaca", **keys).position_source == "alpaca"
