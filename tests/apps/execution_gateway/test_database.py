import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import (
    DatabaseNewerError,
    DatabaseUnavailableError,
    MalformedDatabaseUrlError,
    create_engine,
    database_call,
    migrate,
    parse_database_url,
)
from apps.execution_gateway.tables import METADATA, ExactDecimal, UtcDateTime
from tests.support.sqlite_threads import sqlite_threads_ended


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # A name that means something else inside a URI.
    return tmp_path / "a folder" / "50% of #1&mode=rwc.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(f"sqlite:///{path}")
    yield engine
    await engine.dispose()
    await sqlite_threads_ended()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
        ("sqlite+aiosqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
        ("sqlite:///./var/a.db", f"sqlite+aiosqlite:///{Path.cwd()}/var/a.db"),
        ("postgresql://u:p@db:5433/m", "postgresql+asyncpg://u:p@db:5433/m"),
        ("postgresql+asyncpg://db/m", "postgresql+asyncpg://db/m"),
        ("postgresql://db/m?sslmode=require", "postgresql+asyncpg://db/m?ssl=require"),
    ],
)
def test_every_accepted_form_gets_its_driver(text: str, expected: str) -> None:
    assert parse_database_url(text).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ledger.db",
        "mysql://u:hunter2@db/m",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "sqlite:///a.db?timeout=1",
        "postgresql://db",
        "postgresql://u:hunter2@db:port/m",
    ],
)
def test_a_malformed_url_is_named_without_its_password(text: str) -> None:
    with pytest.raises(MalformedDatabaseUrlError, match="DATABASE_URL") as caught:
        create_engine(text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_migrating_creates_folder_and_private_file_and_can_be_repeated(engine: AsyncEngine, path: Path) -> None:
    for _ in range(2):
        await migrate(engine)
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_migrated_schema_is_the_one_the_code_uses(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), METADATA))

    await migrate(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_gateways_that_start_together_both_find_the_tables(engine: AsyncEngine, path: Path) -> None:
    other = create_engine(f"sqlite:///{path}")
    await asyncio.gather(migrate(engine), migrate(other))
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    await other.dispose()


async def test_a_database_of_a_newer_program_is_refused(engine: AsyncEngine) -> None:
    await migrate(engine)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseNewerError, match=r"9999.*newer Markstream"):
        await migrate(engine)


async def test_a_failed_migration_leaves_nothing_behind(engine: AsyncEngine, path: Path) -> None:
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE fill_voids (other TEXT)")
    other.close()
    with pytest.raises(DatabaseUnavailableError, match="fill_voids already exists"):
        await migrate(engine)
    with sqlite3.connect(path) as other:
        tables = [row[0] for row in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    other.close()
    assert tables == ["fill_voids"]


async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = create_engine(f"sqlite:///{tmp_path}/file/ledger.db")
    with pytest.raises(DatabaseUnavailableError, match="cannot be created"):
        await migrate(engine)
    await engine.dispose()
    await sqlite_threads_ended()


async def test_a_vanished_file_is_an_error_and_is_not_made_anew(engine: AsyncEngine, path: Path) -> None:
    await migrate(engine)
    path.unlink()
    with pytest.raises(DatabaseUnavailableError, match="unable to open"):
        async with database_call(), engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
    assert not path.exists()


async def test_a_failure_names_its_cause_but_neither_statement_nor_values(engine: AsyncEngine) -> None:
    await migrate(engine)
    with pytest.raises(DatabaseUnavailableError) as caught:
        async with database_call(), engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 'private' FROM nowhere")
    assert str(caught.value) == "the ledger's database cannot be used: no such table: nowhere"


async def test_a_call_that_hangs_is_ended() -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"within 0\.01 s"):
        async with database_call(0.01):
            await asyncio.Event().wait()


async def test_a_violated_constraint_is_an_answer(engine: AsyncEngine) -> None:
    await migrate(engine)
    with pytest.raises(IntegrityError):
        async with database_call(), engine.begin() as connection:
            await connection.exec_driver_sql(
                "INSERT INTO fill_voids (account, fill_id, reason, voided_at) VALUES ('default', 'none', '', '')"
            )


@pytest.mark.parametrize("error", [OperationalError("SELECT 1", None, Exception()), ConnectionRefusedError("no")])
async def test_every_fault_of_the_connection_means_unavailable(error: Exception) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        async with database_call():
            raise error
    assert caught.value.__cause__ is error


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_no_digit_is_lost_in_text(number: Decimal) -> None:
    kind = ExactDecimal()
    stored = kind.process_bind_param(number, sqlite.dialect())
    assert isinstance(stored, str)
    assert kind.process_result_value(stored, sqlite.dialect()) == number
    assert kind.process_bind_param(number, postgresql.dialect()) is number


@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 30)), st.integers(-1439, 1439))  # noqa: DTZ001
def test_an_instant_survives_as_text(naive: datetime, offset_min: int) -> None:
    kind = UtcDateTime()
    instant = naive.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    stored = kind.process_bind_param(instant, sqlite.dialect())
    assert isinstance(stored, str)
    assert len(stored) == 32
    back = kind.process_result_value(stored, sqlite.dialect())
    assert back == instant
    assert back is not None
    assert back.tzinfo is UTC


def test_null_stays_null_and_nonsense_is_refused() -> None:
    for kind in (ExactDecimal(), UtcDateTime()):
        assert kind.process_bind_param(None, sqlite.dialect()) is None
        assert kind.process_result_value(None, sqlite.dialect()) is None
    with pytest.raises(ValueError, match="NaN"):
        ExactDecimal().process_bind_param(Decimal("NaN"), sqlite.dialect())
    with pytest.raises(ValueError, match="zone"):
        UtcDateTime().process_bind_param(datetime(2025, 1, 1), sqlite.dialect())  # noqa: DTZ001
