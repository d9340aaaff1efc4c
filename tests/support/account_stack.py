"""A mirrored account as users run it: the broker, Redis, gateways and the market data service, each a process."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from libs.redis_client.embedded import EmbeddedRedis
from tests.support.account import Broker
from tests.support.stack import GATEWAY, MARKET_DATA, Program, Service, service_port
from tests.support.waiting import eventually

SIMULATOR = "apps.alpaca_simulator.main"
HELD = (("AAPL", "100", "150"), ("MSFT", "-20", "400"))


@dataclass
class AccountStack:
    """What runs. `broker_process` is the simulator, `broker` its control."""

    folder: Path
    broker_process: Program
    broker: Broker
    environment: dict[str, str]
    services: list[Service] = field(default_factory=list)

    async def gateway(self, **environment: str) -> Service:
        """Start a gateway of this account and wait until it answers; it may know nothing of the account yet."""
        folder = self.folder / f"gateway-{len(self.services)}"
        folder.mkdir()
        return await self._started(
            Service(folder, GATEWAY, "EXECUTION_GATEWAY_PORT", **self.environment, **environment)
        )

    async def market_data(self, gateway: Service) -> Service:
        """Start the market data service that follows the positions of `gateway`."""
        return await self._started(
            Service(
                self.folder,
                MARKET_DATA,
                "MARKET_DATA_PORT",
                **self.environment,
                EXECUTION_GATEWAY_URL=gateway.base_url,
            )
        )

    async def _started(self, service: Service) -> Service:
        self.services.append(service)
        await eventually(lambda: _answers(service), within_s=30, every_s=0.05)
        return service


async def _answers(service: Service) -> bool:
    assert not service.has_ended, service.output[-3000:]
    with contextlib.suppress(httpx2.TransportError):
        return (await service.http.get("/health/live")).status_code == httpx2.codes.OK
    return False


@contextlib.asynccontextmanager
async def account_stack(
    folder: Path, *options: str, held: tuple[tuple[str, str, str], ...] = HELD, **environment: str
) -> AsyncIterator[AccountStack]:
    """Run the broker and a Redis until the block ends; what the test starts beside them is then ended as well.

    `options` are the simulator's; unless told otherwise it quotes only what the test emits.
    """
    positions = [{"symbol": symbol, "qty": qty, "avg_entry_price": price} for symbol, qty, price in held]
    (folder / "positions.json").write_text(json.dumps(positions))
    port = service_port()
    url = f"http://127.0.0.1:{port}"
    known = {
        "POSITION_SOURCE": "alpaca",
        "RECONCILE_SECONDS": "1",
        "DATABASE_URL": f"sqlite:///{folder}/ledger.db",
        "DAILY_BARS_PATH": f"{folder}/bars",
        "ALPACA_STREAM_URL": f"ws://127.0.0.1:{port}/v2/iex",
        "ALPACA_DATA_URL": url,
        "ALPACA_TRADING_URL": url,
        **environment,
    }
    command = ["--port", str(port), "--positions", f"{folder}/positions.json", *(options or ("--rate", "0"))]
    with EmbeddedRedis() as redis:
        stack = AccountStack(
            folder, Program(folder, SIMULATOR, *command), Broker(url), known | {"REDIS_URL": redis.url}
        )
        try:
            await eventually(lambda: _trades(stack), within_s=20, every_s=0.05)
            yield stack
            living = [service for service in stack.services if not service.has_ended]
            await asyncio.gather(*(service.stop() for service in living))
        except BaseException:
            for service in stack.services:
                print(f"--- {service.module} said:\n{service.output[-6000:]}")
            raise
        finally:
            for service in stack.services:
                service.kill()
                await service.http.aclose()
            stack.broker_process.kill()
            await stack.broker.http.aclose()


async def _trades(stack: AccountStack) -> Any:
    assert not stack.broker_process.has_ended, stack.broker_process.output[-3000:]
    with contextlib.suppress(httpx2.TransportError):
        # The calendar takes a second to load.
        await stack.broker.http.get("/v2/clock")
        return await stack.broker.truth()
    return None
