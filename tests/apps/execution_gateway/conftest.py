"""For the tests of this folder: a running gateway, and databases of every kind that the settings accept."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import create_engine, migrate
from tests.support.gateway import RunningGateway, serving, settings_in
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.sqlite_threads import sqlite_threads_ended

DatabaseAway = Callable[[], AbstractAsyncContextManager[None]]

_TEMPLATE = "migrated"
_numbers = itertools.count(1)


@pytest.fixture
async def running_gateway(tmp_path: Path, redis_url: str, database: str) -> AsyncIterator[RunningGateway]:
    """A gateway with an empty ledger, on a real port, with the session's Redis; once for every kind of database."""
    async with serving(settings_in(tmp_path, redis_url, database_url=SecretStr(database))) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One real server for this test process. Tests that stop or freeze a server start one of their own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> None:
    """A database with our tables, to be copied: that is faster than migrating each time."""

    async def prepare() -> None:
        await _administer(postgres, f"CREATE DATABASE {_TEMPLATE}")
        engine = create_engine(postgres.url(_TEMPLATE))
        await migrate(engine)
        await engine.dispose()

    asyncio.run(prepare())


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """The kind of database: None is SQLite, which needs no server."""
    if request.param == "sqlite":
        return None
    # Here, because in an asynchronous fixture the template could not be made: a loop is running there.
    request.getfixturevalue("migrated_template")
    found: PostgresServer = request.getfixturevalue("postgres")
    return found


@pytest.fixture
async def empty_database(server: PostgresServer | None, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a database without any table."""
    if server is None:
        yield f"sqlite:///{tmp_path}/ledger.db"
        return
    async with _database(server, "template1") as url:
        yield url


@pytest.fixture
async def database(server: PostgresServer | None, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a database with our tables, all empty."""
    if server is not None:
        async with _database(server, _TEMPLATE) as url:
            yield url
        return
    url = f"sqlite:///{tmp_path}/ledger.db"
    engine = create_engine(url)
    await migrate(engine)
    await engine.dispose()
    yield url


@pytest.fixture
def database_away(server: PostgresServer | None, database: str, tmp_path: Path) -> DatabaseAway:
    """Make that database unreadable for the length of a block; what it holds is there again afterwards."""

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        if server is None:
            file = (tmp_path / "ledger.db").rename(tmp_path / "away.db")
            yield
            file.rename(tmp_path / "ledger.db")
            return
        name = database.rpartition("/")[2]
        # Cut by the server, as in a restart of it; nobody is let in again.
        await _administer(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await _administer(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        yield
        await _administer(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return away


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    """An engine on that database."""
    engine = create_engine(database)
    yield engine
    await engine.dispose()
    await sqlite_threads_ended()


@asynccontextmanager
async def _database(server: PostgresServer, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield server.url(name)
    finally:
        await _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(server: PostgresServer, statement: str, *values: str) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()
