"""What a PostgreSQL that restarts, freezes or loses a connection does to the ledger: errors in time, no harm."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import CALL_TIMEOUT_S, DatabaseUnavailableError, create_engine, migrate
from apps.execution_gateway.ledger import Ledger, Recorded
from apps.execution_gateway.postgres_connection import CLOSE_TIMEOUT_S, ROLLBACK_TIMEOUT_S, SERVER_SETTINGS
from libs.portfolio.fills import Fill
from tests.support.portfolio import fill
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.waiting import eventually

ANSWERS_WITHIN_S = CALL_TIMEOUT_S + ROLLBACK_TIMEOUT_S + CLOSE_TIMEOUT_S + 0.3


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server for this file alone: its tests stop it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def admin(own_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the ledger's, to look and to disturb; to another database, so that it outlives the test's."""
    connection = await asyncpg.connect(own_server.url("template1"))
    yield connection
    await connection.close()


@pytest.fixture
async def engine(own_server: PostgresServer) -> AsyncIterator[AsyncEngine]:
    """An engine on an empty ledger of that server."""
    engine = create_engine(own_server.url())
    await migrate(engine)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("TRUNCATE fills, fill_voids")
    yield engine
    await engine.dispose()


@pytest.fixture
async def ledger(engine: AsyncEngine) -> Ledger:
    """A ledger of one fill whose book has been read once, on several open connections."""
    ledger = Ledger(engine)
    await ledger.record_fill(fill(100, 150, fill_id="1"))
    await asyncio.gather(*(ledger.book() for _ in range(4)))
    return ledger


def more(fill_id: str = "2") -> Fill:
    return fill(1, 150, fill_id=fill_id)


async def assert_unusable(ledger: Ledger, within_s: float = ANSWERS_WITHIN_S) -> None:
    async def attempt(call) -> float:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError):
            await call
        return time.monotonic() - began

    took = await asyncio.gather(
        attempt(ledger.book()), attempt(ledger.list_fills()), attempt(ledger.record_fill(more()))
    )
    # Writings take turns: this one would wait for the one before.
    assert max(*took, await attempt(ledger.void_fill("1", "why"))) < within_s


async def assert_unharmed(ledger: Ledger) -> None:
    """The one fill stands, and whatever failed can be tried again."""
    assert (await ledger.book()).positions["AAPL"].qty in {100, 101}
    await ledger.record_fill(more())
    assert await ledger.record_fill(more()) is Recorded.REPEATED
    assert (await ledger.book()).positions["AAPL"].qty == 101


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
async def test_a_restart_between_two_calls_is_not_noticed(
    ledger: Ledger, own_server: PostgresServer, how: signal.Signals
) -> None:
    own_server.stop(how)
    own_server.start()
    books = await asyncio.gather(*(ledger.book() for _ in range(4)))
    assert all(book.positions["AAPL"].qty == 100 for book in books)
    await assert_unharmed(ledger)


async def test_a_stopped_server(ledger: Ledger, own_server: PostgresServer) -> None:
    own_server.stop()
    try:
        await assert_unusable(ledger, within_s=1)
    finally:
        own_server.start()
    await assert_unharmed(ledger)


@pytest.mark.faults
async def test_a_frozen_server(ledger: Ledger, own_server: PostgresServer) -> None:
    own_server.freeze()
    try:
        await assert_unusable(ledger)
    finally:
        own_server.thaw()
    await assert_unharmed(ledger)


async def test_closing_does_not_wait_for_a_frozen_server(engine: AsyncEngine, own_server: PostgresServer) -> None:
    ledger = Ledger(engine)
    await asyncio.gather(*(ledger.book() for _ in range(4)))
    own_server.freeze()
    try:
        async with asyncio.timeout(3):
            await engine.dispose()
    finally:
        own_server.thaw()


async def test_giving_a_connection_back_to_a_frozen_server(engine: AsyncEngine, own_server: PostgresServer) -> None:
    try:
        async with asyncio.timeout(2):
            async with engine.connect() as connection:
                await connection.exec_driver_sql("SELECT 1")
                own_server.freeze()
                began = time.monotonic()
            assert time.monotonic() - began < ROLLBACK_TIMEOUT_S + CLOSE_TIMEOUT_S + 0.3
    finally:
        own_server.thaw()
    await Ledger(engine).record_fill(fill(100, 150, fill_id="1"))
    await assert_unharmed(Ledger(engine))


async def writer_of(admin: asyncpg.Connection) -> int:
    """Return the process that waits for a lock in the ledger's database."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = 'postgres' AND wait_event_type = 'Lock'"
    found: int = await eventually(lambda: admin.fetchval(query))
    return found


async def sessions(admin: asyncpg.Connection) -> set[str]:
    """Return what the ledger's connections are doing."""
    query = "SELECT state FROM pg_stat_activity WHERE datname = 'postgres' AND application_name = $1"
    return {row["state"] for row in await admin.fetch(query, SERVER_SETTINGS["application_name"])}


async def test_a_connection_cut_while_recording(
    ledger: Ledger, own_server: PostgresServer, admin: asyncpg.Connection
) -> None:
    other = await asyncpg.connect(own_server.url())
    async with other.transaction():
        await other.execute("LOCK TABLE fills IN SHARE MODE")
        recording = asyncio.create_task(ledger.record_fill(more()))
        await admin.execute("SELECT pg_terminate_backend($1)", await writer_of(admin))
        with pytest.raises(DatabaseUnavailableError):
            await recording
    await other.close()
    assert (await ledger.book()).positions["AAPL"].qty == 100
    await assert_unharmed(ledger)


@pytest.mark.faults
async def test_a_table_that_another_has_locked_is_an_error_in_time(
    ledger: Ledger, own_server: PostgresServer, admin: asyncpg.Connection
) -> None:
    other = await asyncpg.connect(own_server.url())
    async with other.transaction():
        await other.execute("LOCK TABLE fills IN ACCESS EXCLUSIVE MODE")
        await assert_unusable(ledger)
        # Nothing of ours waits on over there: it would record later what was refused here.
        assert await sessions(admin) <= {"idle"}
    await other.close()
    assert (await ledger.book()).positions["AAPL"].qty == 100
    await assert_unharmed(ledger)


async def test_a_cancelled_recording_leaves_nothing_behind(
    ledger: Ledger, own_server: PostgresServer, admin: asyncpg.Connection
) -> None:
    other = await asyncpg.connect(own_server.url())
    async with other.transaction():
        await other.execute("LOCK TABLE fills IN SHARE MODE")
        recordings = [asyncio.create_task(ledger.record_fill(more(str(number)))) for number in range(2, 5)]
        await writer_of(admin)
        for recording in recordings:
            recording.cancel()
        ends = await asyncio.gather(*recordings, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    await other.close()
    assert await sessions(admin) <= {"idle"}
    assert [one.fill.fill_id for one in (await ledger.list_fills()).fills] == ["1"]
    await assert_unharmed(ledger)


async def test_a_writer_that_froze_in_mid_transaction_does_not_lock_out_others(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        for name, value in SERVER_SETTINGS.items():
            shown = (await connection.exec_driver_sql(f"SHOW {name}")).scalar_one()
            assert shown in {value, f"{int(value.rstrip('s')) / 60:g}min" if value.endswith("s") else value}
    frozen = create_engine(str(engine.url.render_as_string(hide_password=False)))
    ledger = Ledger(engine)
    async with frozen.connect() as connection:
        await connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '300ms'")
        await connection.commit()
        await connection.exec_driver_sql("LOCK TABLE fills IN SHARE ROW EXCLUSIVE MODE")
        # It says nothing more. Its lock goes with it.
        assert await ledger.record_fill(fill(100, 150, fill_id="1")) is Recorded.CREATED
        await connection.invalidate()
    await frozen.dispose()


async def test_a_number_that_is_none_is_an_unreadable_row(engine: AsyncEngine) -> None:
    await Ledger(engine).record_fill(more())
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE fills SET qty = 'NaN'")
    with pytest.raises(DatabaseUnavailableError, match="unreadable row"):
        await Ledger(engine).book()
