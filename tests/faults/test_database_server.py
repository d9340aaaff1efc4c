"""PostgreSQL stopped, crashed, frozen or cut off under a running gateway: nothing lost, nothing doubled, no restart."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from tests.support.postgres import PostgresServer, running_postgres
from tests.support.stack import GATEWAY, PNL, Stack, decoded, fill_body, running_stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

ANSWERS_WITHIN_S = 4.0
"""Two seconds for the database, some for a machine that runs whole stacks."""
READ_PATHS = (PNL, "/api/v1/positions", "/api/v1/fills?limit=1", "/api/v1/pnl/history")
UNAVAILABLE = httpx2.codes.SERVICE_UNAVAILABLE


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    async with running_stack(folder, GATEWAY, DATABASE_URL=server.url(), PNL_HISTORY_SECONDS="1") as running:
        yield running


class Trader:
    """Buys one share after another, each until the gateway has taken it, while somebody looks at the book."""

    def __init__(self, stack: Stack, symbol: str) -> None:
        self._stack = stack
        self._symbol = symbol
        self._acknowledged = 0
        self._begun = 0
        self._is_over = asyncio.Event()
        self.refused = 0
        self.unread = 0
        self.slowest_s = 0.0

    @contextlib.asynccontextmanager
    async def trading(self) -> AsyncIterator[None]:
        """Trade until the end of the block, and then until the last fill has been taken."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._trade())
            for path in (PNL, *READ_PATHS):
                tasks.create_task(self._watch(path))
            try:
                yield
            finally:
                self._is_over.set()

    async def until_taken(self, count: int, within_s: float = 15.0) -> None:
        """Wait until that many more fills have been taken."""
        wanted = self._acknowledged + count
        await eventually(lambda: self._acknowledged >= wanted, within_s)

    async def check(self) -> None:
        """What the book holds is what was taken, each once."""
        row = await self._stack.row(self._symbol)
        assert (row["qty"], self._begun) == (self._acknowledged, self._acknowledged)
        fills, after = [], ""
        while after is not None:
            page = await self._stack.gateway.get(f"/api/v1/fills?symbol={self._symbol}&limit=500&after={after}")
            fills += [one["fill_id"] for one in page["fills"]]
            after = page["next"]
        assert sorted(fills) == sorted(f"{self._symbol}-{number}" for number in range(self._acknowledged))

    async def _trade(self) -> None:
        while not self._is_over.is_set():
            body = fill_body(self._symbol, 1, 150, fill_id=f"{self._symbol}-{self._begun}")
            self._begun += 1
            while not await self._is_taken(body):
                self.refused += 1
            self._acknowledged += 1

    async def _is_taken(self, body: dict[str, object]) -> bool:
        answer = await self._stack.gateway.http.post("/api/v1/fills", json=body)
        assert answer.status_code in {200, 201, UNAVAILABLE}, answer.text
        return answer.status_code != UNAVAILABLE

    async def _watch(self, path: str) -> None:
        """Every answer is the whole book or none."""
        while not self._is_over.is_set():
            known, began = self._acknowledged, time.monotonic()
            answer = await self._stack.gateway.http.get(path)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            assert answer.status_code in {200, UNAVAILABLE}, answer.text
            if answer.status_code == UNAVAILABLE:
                self.unread += 1
                assert answer.json().keys() >= {"title", "status", "detail"}
            elif known and "position" in path:
                held = {row["symbol"]: row["qty"] for row in decoded(answer.content)["positions"]}
                assert known <= held[self._symbol] <= self._begun
            await asyncio.sleep(0.01)


async def recovers(stack: Stack) -> None:
    async def is_well() -> bool:
        assert (await stack.gateway.http.get("/health/ready")).status_code == 200
        return bool((await stack.gateway.health())["database"]["usable"])

    await eventually(is_well, within_s=6)


async def test_connections_that_are_cut_while_recording(stack: Stack, server: PostgresServer) -> None:
    trader = Trader(stack, "CUT")
    admin = await asyncpg.connect(server.url("template1"))
    async with trader.trading():
        for _ in range(30):
            await trader.until_taken(1)
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'")
    await admin.close()
    await recovers(stack)
    await trader.check()
    assert trader.slowest_s < ANSWERS_WITHIN_S


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_a_server_that_goes_and_comes_back(stack: Stack, server: PostgresServer, how: signal.Signals) -> None:
    trader = Trader(stack, how.name)
    async with trader.trading():
        for _ in range(3):
            await trader.until_taken(5)
            await asyncio.to_thread(server.stop, how)
            unread, refused = trader.unread, trader.refused
            await eventually(lambda: trader.unread > unread + 10 and trader.refused > refused)  # noqa: B023
            assert "database_unusable" in await stack.gateway.reasons()
            assert (await stack.gateway.http.get("/health/ready")).status_code == UNAVAILABLE
            await asyncio.to_thread(server.start)
        await trader.until_taken(5)
    await recovers(stack)
    await trader.check()
    assert trader.slowest_s < ANSWERS_WITHIN_S


async def test_a_server_that_freezes(stack: Stack, server: PostgresServer) -> None:
    trader = Trader(stack, "ICE")
    async with trader.trading():
        await trader.until_taken(5)
        server.freeze()
        try:
            unread = trader.unread
            # A fill may have to wait for the history's turn at writing to run out before its own does.
            await eventually(lambda: trader.unread >= unread + 8 and trader.refused, within_s=15)
            assert (await stack.gateway.http.get("/health/live")).status_code == 200
        finally:
            server.thaw()
        await trader.until_taken(5)
    await recovers(stack)
    await trader.check()
    assert trader.refused
    assert trader.slowest_s < ANSWERS_WITHIN_S


async def test_a_gateway_that_is_killed_while_recording(tmp_path: Path, stack: Stack, server: PostgresServer) -> None:
    """What it was about to record is there whole or not at all, and nobody waits for its locks."""
    async with running_stack(tmp_path, GATEWAY, DATABASE_URL=server.url()) as other:
        body = {"fills": [fill_body("KILL", 1, 150, fill_id=f"KILL-{number}") for number in range(8000)]}
        posting = asyncio.create_task(other.gateway.http.post("/api/v1/fills/import", json=body, timeout=30))
        admin = await asyncpg.connect(server.url())
        writing = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted"
        await eventually(lambda: admin.fetchval(writing), within_s=10, every_s=0.005)
        other.gateway.kill()
        with pytest.raises(httpx2.TransportError):
            await posting
        await admin.close()
    row = await stack.row("KILL")
    assert row is None or row["qty"] == 8000
    began = time.monotonic()
    await stack.fill("AFTER", 1, 150)
    assert time.monotonic() - began < ANSWERS_WITHIN_S
