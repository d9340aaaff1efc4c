"""A real gateway for tests: a SQLite file, a real Redis, a real port."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import uvicorn
from pydantic import SecretStr

from apps.execution_gateway.answers import Answers
from apps.execution_gateway.main import Gateway, create_app
from apps.execution_gateway.settings import GatewaySettings
from libs.market_data.market_hours import MarketHours
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price
from tests.support.sqlite_threads import sqlite_threads_ended

HOURS = MarketHours()
"""Shared by the gateways of one test process: a calendar takes a second to load."""


INSTANCE = "host:1:own"
"""The market data process whose prices and statuses the helpers here make."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def decode(content: bytes) -> Any:
    """Read a body as a careful client does: no number passes through a float."""
    return json.loads(content, parse_float=Decimal)


@dataclass
class RunningGateway:
    """A gateway on a port of its own."""

    client: httpx2.AsyncClient
    gateway: Gateway
    base_url: str
    deaths: list[str]
    answers: Answers

    async def get(self, path: str) -> Any:
        response = await self.client.get(path)
        assert response.status_code == 200, response.text
        return decode(response.content)

    async def fill(self, symbol: str, qty: object, price: object, side: str = "buy", **fields: object) -> Any:
        body = {
            "fill_id": f"{symbol}-{side}-{qty}-{price}",
            "symbol": symbol,
            "side": side,
            "qty": str(qty),
            "price": str(price),
            "filled_at": utc_now().isoformat(),
            **fields,
        }
        response = await self.client.post("/api/v1/fills", content=msgspec.json.encode(body))
        assert response.status_code == 201, response.text
        return decode(response.content)


def streaming(*symbols: str, epoch: str | None = "e1", **fields: Any) -> FeedStatus:
    """Return a status of a link that streams `symbols`, market open."""
    known: dict[str, Any] = {
        "state": LinkState.STREAMING,
        "connected": True,
        "since": utc_now(),
        "epoch": epoch,
        "feed": "iex",
        "mode": Mode.SIMULATED,
        "symbols": frozenset(symbols),
        "market": MarketPhase.OPEN,
        "instance": INSTANCE,
    }
    return FeedStatus(**{**known, **fields})


def price(symbol: str = "AAPL", mid: object = "152.00", **fields: Any) -> Price:
    """Return a price known as of now, one cent wide on each side."""
    middle = Decimal(str(mid))
    now = utc_now()
    known: dict[str, Any] = {
        "timestamp": now,
        "received_at": now,
        "bid": middle - Decimal("0.01"),
        "ask": middle + Decimal("0.01"),
        "epoch": "e1",
        "seq": 1,
        "feed": "iex",
        "instance": INSTANCE,
    }
    return Price(symbol=symbol, mid=middle, **{**known, **fields})


def settings_in(folder: Path, redis_url: str, **fields: Any) -> GatewaySettings:
    """Return settings of a gateway that keeps everything in `folder`."""
    known: dict[str, Any] = {
        "redis_url": SecretStr(redis_url),
        "database_url": SecretStr(f"sqlite:///{folder}/ledger.db"),
        "daily_bars_path": folder / "bars",
        # A stand-in's, and so a simulated account, which any price may mark.
        "alpaca_stream_url": "ws://127.0.0.1:1/v2/iex",
    }
    return GatewaySettings(_env_file=None, **{**known, **fields})


@contextlib.asynccontextmanager
async def serving(
    settings: GatewaySettings, now: Callable[[], datetime] = utc_now, *, is_alone: bool = True
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway on a free port until the end of the block. `is_alone`: no other one of this process goes on."""
    deaths: list[str] = []
    app = create_app(settings, now=now, hours=HOURS, on_death=lambda name, reason: deaths.append(f"{name}: {reason}"))
    # With the protocol named, asyncio sets TCP_NODELAY; without it every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=4)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # the signals are pytest's
    task = asyncio.create_task(server.serve([listener]))
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    headers = {} if settings.api_token is None else {"Authorization": f"Bearer {settings.api_token.get_secret_value()}"}
    try:
        async with asyncio.timeout(20):
            while not server.started:
                assert not task.done()
                await asyncio.sleep(0.01)
        gateway: Gateway = app.state.gateway
        async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=30) as client:
            yield RunningGateway(client, gateway, base_url, deaths, app.state.answers)
        assert not deaths
    finally:
        app.state.gateway.feed.close()
        server.should_exit = True
        await task
        listener.close()
        if is_alone:
            await sqlite_threads_ended()
