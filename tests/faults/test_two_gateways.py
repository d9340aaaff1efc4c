"""Two gateways on one database, told of the same fills at once: each counts once, and both show the same book."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest

from libs.redis_client.embedded import EmbeddedRedis
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.stack import GATEWAY, Service, decoded, fill_body
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

FILLS = 500
AT_ONCE = 8
SYMBOLS = ("AAPL", "MSFT", "TSLA")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@contextlib.asynccontextmanager
async def gateways(folder: Path, database_url: str, count: int = 2) -> AsyncIterator[list[Service]]:
    """Start that many at the same moment: they migrate one after the other."""
    with EmbeddedRedis() as redis:
        services = []
        for number in range(count):
            (folder / str(number)).mkdir()
            environment = {
                "REDIS_URL": redis.url,
                "DATABASE_URL": database_url,
                "DAILY_BARS_PATH": str(folder / "bars"),
                "PNL_HISTORY_SECONDS": "1",
            }
            services.append(Service(folder / str(number), GATEWAY, "EXECUTION_GATEWAY_PORT", **environment))
        try:
            await asyncio.gather(*(service.until_ready() for service in services))
            yield services
            await asyncio.gather(*(service.stop() for service in services))
        except BaseException:
            for service in services:
                print(f"--- a gateway said:\n{service.output[-4000:]}")
            raise
        finally:
            for service in services:
                service.kill()
                await service.http.aclose()


def all_fills() -> list[dict[str, object]]:
    return [
        fill_body(SYMBOLS[number % 3], 1 + number % 7, 100 + number, fill_id=f"f-{number}") for number in range(FILLS)
    ]


async def post_all(
    service: Service, fills: list[dict[str, object]], dice: random.Random, doubtful: set[object] | None = None
) -> list[int]:
    """Post every fill, in an order of one's own, several at once, until each is taken; return the last statuses.

    `doubtful` takes the ids of those that were refused at first, or not answered: they may have been recorded.
    """
    waiting = dice.sample(fills, len(fills))
    statuses: list[int] = []

    async def work() -> None:
        while waiting:
            body = waiting.pop()
            while True:
                with contextlib.suppress(httpx2.TimeoutException):
                    answer = await service.http.post("/api/v1/fills", json=body, timeout=15)
                    assert answer.status_code in {200, 201, 503}, answer.text
                    if answer.status_code != 503:
                        statuses.append(answer.status_code)
                        break
                if doubtful is not None:
                    doubtful.add(body["fill_id"])

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return statuses


@contextlib.asynccontextmanager
async def readers(services: list[Service]) -> AsyncIterator[None]:
    """Have both fold the book all the while: what a reader once passes over it never sees again."""

    async def read(service: Service) -> None:
        while True:
            with contextlib.suppress(httpx2.TimeoutException):
                await service.http.get("/api/v1/positions")

    tasks = [asyncio.create_task(read(service)) for service in services for _ in range(2)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def check(services: list[Service], fills: list[dict[str, object]]) -> None:
    """Both show the same book, and it is the one that the fills make, each counted once."""
    wanted = {symbol: sum(int(str(one["qty"])) for one in fills if one["symbol"] == symbol) for symbol in SYMBOLS}
    books = [await service.get("/api/v1/positions") for service in services]
    assert books[0] == books[1]
    assert {row["symbol"]: row["qty"] for row in books[0]["positions"]} == wanted
    ids: list[str] = []
    after = ""
    while after is not None:
        page = await services[0].get(f"/api/v1/fills?limit=1000&after={after}")
        ids += [one["fill_id"] for one in page["fills"]]
        after = page["next"]
    assert sorted(ids) == sorted(str(one["fill_id"]) for one in fills)


async def has_one_line_of_history(services: list[Service]) -> bool:
    """Both tell the same series, its slots filled once each."""
    series = [(await service.get("/api/v1/pnl/history?mode=paper"))["points"] for service in services]
    moments = [point["at"][:19] for point in series[0]]
    assert len(moments) == len(set(moments))
    assert series[0] == series[1]
    return len(moments) >= 1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_the_same_fills_told_to_both_count_once(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db" if kind == "sqlite" else request.getfixturevalue("postgres").url()
    fills = all_fills()
    async with gateways(tmp_path, url) as services:
        doubtful: set[object] = set()
        posting = (post_all(service, fills, random.Random(seed), doubtful) for seed, service in enumerate(services))
        async with readers(services):
            statuses = await asyncio.gather(*posting)
        assert [len(taken) for taken in statuses] == [FILLS, FILLS]
        # 201 says "new": that is said once for each, whoever was asked. (Unless a busy disk took too long to commit.)
        assert FILLS - len(doubtful) <= sum(taken.count(201) for taken in statuses) <= FILLS
        await check(services, fills)
        # One records, the other imports the lot again: nothing is new to it.
        imported = await services[1].http.post("/api/v1/fills/import", json={"fills": fills}, timeout=15)
        answer = decoded(imported.content)
        assert (answer["status"], answer["created"], answer["repeated"], answer["void"]) == ("imported", 0, FILLS, 0)
        voided = await services[0].http.post("/api/v1/fills/f-0/void", json={"reason": "typed twice"})
        assert voided.status_code == 200
        await check_void(services, fills)
        await eventually(lambda: has_one_line_of_history(services), within_s=5)


async def check_void(services: list[Service], fills: list[dict[str, object]]) -> None:
    """The other gateway counts the voided fill no longer either."""
    wanted = sum(int(str(one["qty"])) for one in fills if one["symbol"] == SYMBOLS[0]) - int(str(fills[0]["qty"]))
    for service in services:
        rows = {row["symbol"]: row for row in (await service.get("/api/v1/positions"))["positions"]}
        assert rows[SYMBOLS[0]]["qty"] == wanted


async def test_connections_cut_and_a_restart_double_nothing(tmp_path: Path, postgres: PostgresServer) -> None:
    admin = await asyncpg.connect(postgres.url("template1"))
    await admin.execute("CREATE DATABASE disturbed")
    fills = all_fills()
    async with gateways(tmp_path, postgres.url("disturbed")) as services:
        posting = (post_all(service, fills, random.Random(seed)) for seed, service in enumerate(services))
        recording = asyncio.gather(*posting)
        cuts = 0
        while not recording.done():
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'disturbed'")
            cuts += 1
            await asyncio.sleep(0.15)
            if cuts == 4:
                await admin.close()
                await asyncio.to_thread(postgres.stop)
                await asyncio.to_thread(postgres.start)
                admin = await asyncpg.connect(postgres.url("template1"))
        await recording
        assert cuts > 4
        await check(services, fills)
    await admin.close()
