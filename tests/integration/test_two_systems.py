"""Two whole systems on one Redis server: each is well, and neither shows anything of the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.redis_client.embedded import EmbeddedRedis
from tests.support.ports import service_port
from tests.support.simulator import running_simulator
from tests.support.stack import GATEWAY, MARKET_DATA, PNL, Service, fill_body
from tests.support.waiting import eventually

OURS, THEIRS = 150, 777


@contextlib.asynccontextmanager
async def system(folder: Path, price: int, **environment: str) -> AsyncIterator[tuple[Service, Service]]:
    """Run a simulator that quotes AAPL at `price`, a market data service and a gateway that holds AAPL."""
    folder.mkdir()
    async with running_simulator(rate=0) as source:
        ports = {"EXECUTION_GATEWAY_PORT": str(service_port()), "MARKET_DATA_PORT": str(service_port())}
        known = {
            **ports,
            "DATABASE_URL": f"sqlite:///{folder}/ledger.db",
            "DAILY_BARS_PATH": f"{folder}/bars",
            "EXECUTION_GATEWAY_URL": f"http://127.0.0.1:{ports['EXECUTION_GATEWAY_PORT']}",
            "ALPACA_STREAM_URL": source.stream_url(),
            **environment,
        }
        gateway = Service(folder, GATEWAY, "EXECUTION_GATEWAY_PORT", **known)
        market_data = Service(folder, MARKET_DATA, "MARKET_DATA_PORT", **known)
        try:
            await asyncio.gather(gateway.until_ready(), market_data.until_ready())
            answer = await gateway.http.post("/api/v1/fills", json=fill_body("AAPL", 100, 100))
            assert answer.status_code == 201

            async def is_live() -> bool:
                source.emit("AAPL", price - 0.01, price + 0.01)
                body = await gateway.get(PNL)
                row = body["positions"][0]
                return row["price_source"] == "real-time" and row["current_price"] == price

            await eventually(is_live, within_s=30, every_s=0.2)
            yield gateway, market_data
            for service in (gateway, market_data):
                await service.stop()
        finally:
            for service in (gateway, market_data):
                service.kill()
                await service.http.aclose()


def seen(body: Any) -> Decimal | None:
    price: Decimal | None = body["positions"][0]["current_price"]
    return price


@pytest.mark.parametrize("apart", ["database", "namespace"])
async def test_neither_sees_the_other(apart: str, tmp_path: Path) -> None:
    with EmbeddedRedis() as redis:
        base = redis.url.removesuffix("/0")
        one, two = (
            ({"REDIS_URL": f"{base}/0"}, {"REDIS_URL": f"{base}/1"})
            if apart == "database"
            else ({"REDIS_URL": redis.url, "REDIS_NAMESPACE": name} for name in ("paper", "live"))
        )
        async with (
            system(tmp_path / "one", OURS, **one) as (gateway, market_data),
            system(tmp_path / "two", THEIRS, **two) as (other, other_data),
        ):
            # Two leaders: neither waits for the other's lease.
            for service in (market_data, other_data):
                assert (await service.health())["link"]["state"] == "streaming"

            async def are_apart() -> bool:
                assert seen(await gateway.get(PNL)) == OURS
                assert seen(await other.get(PNL)) == THEIRS
                healths = [await gateway.health(), await other.health()]
                named = [health["redis"]["foreign_instances"] for health in healths]
                return all(len(names) == (1 if apart == "database" else 0) for names in named)

            await eventually(are_apart, within_s=30, every_s=0.2)
            for service in (gateway, other):
                reasons = await service.reasons()
                assert reasons == ({"foreign_messages"} if apart == "database" else set()), str(reasons)
            # One ends: the other's heartbeat does not keep its feed alive.
            await other_data.stop()

            async def is_unknown() -> bool:
                return bool((await other.get(PNL))["feed"]["state"] in {"unknown", "stopped"})

            await eventually(is_unknown, within_s=30, every_s=0.2)
            assert seen(await gateway.get(PNL)) == OURS
