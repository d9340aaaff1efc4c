"""A ledger that can only be read: found out, named, and over by itself once it can be written again.

Real refusals: a file and a folder without write permission for the user who runs (as root: for nobody), a limit of the
system on the size of files, a full SQLite file, a read-only PostgreSQL.
"""

import asyncio
import contextlib
import resource
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import DatabaseUnavailableError, create_engine, migrate
from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.write_probe import WriteProbe
from tests.support.gateway import serving, settings_in
from tests.support.portfolio import fill
from tests.support.postgres import PostgresServer
from tests.support.sqlite_threads import sqlite_threads_ended
from tests.support.unprivileged import unwritable
from tests.support.waiting import eventually

FILL = {
    "fill_id": "f-1",
    "symbol": "AAPL",
    "side": "buy",
    "qty": 100,
    "price": "150.25",
    "filled_at": "2025-10-19T14:30:15Z",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user may be given: pytest's own stand in one that is closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.asynccontextmanager
async def ledger_in(folder: Path) -> AsyncIterator[tuple[Ledger, WriteProbe, AsyncEngine]]:
    engine = create_engine(f"sqlite:///{folder}/ledger.db")
    await migrate(engine)
    try:
        yield Ledger(engine), WriteProbe(engine, held_s=0), engine
    finally:
        await engine.dispose()
        await sqlite_threads_ended()


async def read_at_once(ledger: Ledger) -> None:
    """Read with several connections, so that the pool is full of such as were opened now."""
    await asyncio.gather(*(ledger.list_fills() for _ in range(4)))


@contextlib.contextmanager
def no_file_grows() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


REFUSALS = {
    "read-only file": (lambda folder: unwritable(folder / "ledger.db", 0o444, folder), "for this user"),
    "read-only folder": (lambda folder: unwritable(folder, 0o555, folder), "for this user"),
    "no file may grow": (lambda _folder: no_file_grows(), "check the disk and its quota"),
}


@pytest.mark.parametrize(("refusing", "remedy"), REFUSALS.values(), ids=list(REFUSALS))
async def test_a_ledger_that_cannot_be_written_is_named_and_recovers(
    folder: Path, refusing: Callable[[Path], contextlib.AbstractContextManager[None]], remedy: str
) -> None:
    async with ledger_in(folder) as (ledger, probe, _):
        await ledger.record_fill(fill(1, 10, fill_id="before"))
        assert await probe.fault() is None
        with refusing(folder):
            for number in range(2):
                with pytest.raises(DatabaseUnavailableError):
                    await ledger.record_fill(fill(1, 10, fill_id=str(number)))
                fault = await probe.fault()
                assert fault is not None
                assert fault.startswith("the ledger cannot be written, ")
                assert remedy in fault
                await read_at_once(ledger)
        await ledger.record_fill(fill(1, 10, fill_id="after"))
        assert await probe.fault() is None
        assert [one.fill.fill_id for one in (await ledger.list_fills()).fills] == ["after", "before"]


async def test_connections_opened_while_there_was_only_reading_are_renewed(folder: Path) -> None:
    # The file looks as before: only the connections know, as with a disk that was mounted read-only for a while.
    async with ledger_in(folder) as (ledger, _, engine):
        async with contextlib.AsyncExitStack() as held:
            for _ in range(4):
                connection = await held.enter_async_context(engine.connect())
                await connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(DatabaseUnavailableError, match="readonly database"):
            await ledger.record_fill(fill(1, 10, fill_id="1"))
        for number in range(8):
            await ledger.record_fill(fill(1, 10, fill_id=str(number)))
            await read_at_once(ledger)


async def test_a_full_database_is_refused_whole_and_recovers(folder: Path) -> None:
    async with ledger_in(folder) as (ledger, _, engine):
        with sqlite3.connect(folder / "ledger.db") as file:
            (pages,) = file.execute("PRAGMA page_count").fetchone()
        async with contextlib.AsyncExitStack() as held:
            for _ in range(10):
                connection = await held.enter_async_context(engine.connect())
                await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        many = [fill(1, 10, fill_id=f"{number:0100}") for number in range(500)]
        with pytest.raises(DatabaseUnavailableError, match="full"):
            await ledger.record_fills(many)
        assert (await ledger.list_fills()).fills == ()
        await engine.dispose()
        assert len((await ledger.record_fills(many)).new) == 500


async def test_a_full_disk_is_named_before_anything_is_lost(folder: Path) -> None:
    async with ledger_in(folder) as (_, _, engine):
        full = await WriteProbe(engine, least_free_bytes=10**20).fault()
        assert full is not None
        assert full.startswith("the ledger cannot be written, the disk is full (")
        assert full.endswith(f"make room on the disk of {folder}")


async def test_the_probe_leaves_nothing_behind_and_asks_seldom(folder: Path) -> None:
    async with ledger_in(folder) as (ledger, _, engine):
        probe = WriteProbe(engine)
        await ledger.record_fill(fill(1, 10, fill_id="1"))
        before = (folder / "ledger.db").read_bytes()
        assert await asyncio.gather(*(probe.fault() for _ in range(20))) == [None] * 20
        assert await probe.fault() is None
        assert probe.questions == 1
        assert (folder / "ledger.db").read_bytes() == before
        assert [path.name for path in folder.iterdir()] == ["ledger.db"]


async def test_another_writer_is_no_fault(folder: Path) -> None:
    async with ledger_in(folder) as (_, probe, _):
        with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert await probe.fault() is None
            other.execute("ROLLBACK")


Administer = Callable[..., Awaitable[None]]


@pytest.fixture
async def administer(postgres: PostgresServer) -> AsyncIterator[Administer]:
    connection = await asyncpg.connect(postgres.url())

    async def execute(statement: str, *values: str) -> None:
        await connection.execute(statement, *values)

    yield execute
    await connection.close()


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
async def test_a_read_only_server_is_named_and_recovers(engine: AsyncEngine, administer: Administer) -> None:
    ledger, probe = Ledger(engine), WriteProbe(engine, held_s=0)
    await ledger.record_fill(fill(1, 10, fill_id="before"))
    assert await probe.fault() is None
    name = engine.url.database
    await administer(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await engine.dispose()
    with pytest.raises(DatabaseUnavailableError):
        await ledger.record_fill(fill(1, 10, fill_id="refused"))
    fault = await probe.fault()
    assert fault is not None
    assert "read-only transaction: name the primary server in DATABASE_URL" in fault
    await read_at_once(ledger)
    await administer(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await ledger.record_fill(fill(1, 10, fill_id="after"))
    assert await probe.fault() is None
    for number in range(4):
        await ledger.record_fill(fill(1, 10, fill_id=str(number)))
        await read_at_once(ledger)


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
async def test_health_says_so_and_the_gateway_goes_on_reading(
    tmp_path: Path, redis_url: str, database: str, administer: Administer
) -> None:
    name = database.rpartition("/")[2]
    async with serving(settings_in(tmp_path, redis_url, database_url=SecretStr(database))) as gateway:
        await gateway.fill("AAPL", 1, 150)

        async def is_named() -> bool:
            codes = [one["code"] for one in (await gateway.get("/health"))["reasons"]]
            return "ledger_not_writable" in codes

        async def is_not_named() -> bool:
            return not await is_named()

        await administer(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await administer("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        refused = await gateway.client.post("/api/v1/fills", json=FILL)
        assert (refused.status_code, "read-only transaction" in refused.text) == (503, True)
        await eventually(is_named, within_s=30)
        health = await gateway.get("/health")
        assert (health["status"], health["database"]["usable"], health["database"]["writable"]) == (
            "degraded", True, False,
        )  # fmt: skip
        assert (await gateway.get("/health/ready"))["status"] == "ready"
        assert len((await gateway.get("/api/v1/positions"))["positions"]) == 1
        await administer(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert (await gateway.client.post("/api/v1/fills", json=FILL)).status_code == 201
        await eventually(is_not_named, within_s=30)
