import asyncio
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
from sqlalchemy import Connection, inspect, make_url, select
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
from apps.execution_gateway.tables import FILL_VOIDS, FILLS, METADATA, ExactDecimal, UtcDateTime
from tests.support.postgres import PostgresServer
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


@pytest.fixture
async def blank(empty_database: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database without tables, of either kind."""
    engine = create_engine(empty_database)
    yield engine
    await engine.dispose()
    await sqlite_threads_ended()


async def tables_of(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
        ("sqlite+aiosqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
        ("sqlite:///./var/a.db", f"sqlite+aiosqlite:///{Path.cwd()}/var/a.db"),
        ("postgresql://u:p@db:5433/m", "postgresql+asyncpg://u:p@db:5433/m"),
        ("postgresql+asyncpg://db/m", "postgresql+asyncpg://db/m"),
        ("postgresql://db/m?sslmode=require", "postgresql+asyncpg://db/m?ssl=require"),
        ("postgresql:///m?host=/run/postgresql", "postgresql+asyncpg:///m?host=%2Frun%2Fpostgresql"),
        (
            "postgresql://db/m?connect_timeout=10&channel_binding=prefer&keepalives_idle=30&sslmode=allow&sslkey=k",
            "postgresql+asyncpg://db/m?ssl=allow&sslkey=k",
        ),
        (
            "postgresql://db/m?application_name=me&target_session_attrs=read-write&gssencmode=disable",
            "postgresql+asyncpg://db/m?application_name=me&target_session_attrs=read-write",
        ),
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


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (
            "options=-c%20search_path%3Dhunter2",
            "option 'options' that is not known here: accepted are application_name",
        ),
        ("password=hunter2", "option 'password'"),
        ("hunter2=hunter2", "option with another name"),
        ("sslmode=hunter2", "sslmode a value that cannot be had here: use one of disable, allow"),
        ("channel_binding=require", "channel_binding a value that cannot be had here: use one of disable, prefer"),
        ("target_session_attrs=standby", "use one of any, primary, read-write"),
        ("application_name=hunter2&application_name=hunter2", "application_name more than once"),
        ("ssl=require&sslmode=require", "both ssl and sslmode"),
    ],
)
def test_an_option_that_cannot_be_carried_out_is_named(query: str, complaint: str) -> None:
    with pytest.raises(MalformedDatabaseUrlError, match=r"^DATABASE_URL ") as caught:
        create_engine(f"postgresql://u:hunter2@db/m?{query}")
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_the_usual_options_of_an_address_connect(postgres: PostgresServer) -> None:
    options = "sslmode=disable&channel_binding=prefer&connect_timeout=10&application_name=mine&target_session_attrs=any"
    engine = create_engine(f"{postgres.url()}?{options}")
    async with database_call(), engine.connect() as connection:
        assert (await connection.exec_driver_sql("SHOW application_name")).scalar_one() == "mine"
    await engine.dispose()


async def test_certificate_files_reach_the_driver(postgres: PostgresServer, tmp_path: Path) -> None:
    engine = create_engine(f"{postgres.url()}?sslmode=verify-full&sslrootcert={tmp_path}/no%20ca.pem")
    with pytest.raises(DatabaseUnavailableError, match="No such file"):
        async with database_call(), engine.connect():
            pass
    await engine.dispose()
    (tmp_path / "ca.pem").write_text("no certificate")
    engine = create_engine(f"{postgres.url()}?sslmode=require&sslrootcert={tmp_path}/ca.pem")
    with pytest.raises(DatabaseUnavailableError, match=r"certificate|PEM"):
        async with database_call(), engine.connect():
            pass
    await engine.dispose()


async def test_migrating_creates_folder_and_private_file_and_can_be_repeated(engine: AsyncEngine, path: Path) -> None:
    for _ in range(2):
        await migrate(engine)
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_migrated_schema_is_the_one_the_code_uses(blank: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), METADATA))

    for _ in range(2):
        await migrate(blank)
        async with blank.connect() as connection:
            assert await connection.run_sync(differences) == []
    assert await tables_of(blank) == {*METADATA.tables, "alembic_version"}


async def test_gateways_that_start_together_all_find_the_tables(blank: AsyncEngine, empty_database: str) -> None:
    others = [create_engine(empty_database) for _ in range(3)]
    await asyncio.gather(*(migrate(engine) for engine in (blank, *others)))
    async with blank.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    for engine in others:
        await engine.dispose()


async def test_a_database_of_a_newer_program_is_refused(blank: AsyncEngine) -> None:
    await migrate(blank)
    async with blank.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseNewerError, match=r"9999.*newer Markstream"):
        await migrate(blank)


async def test_a_failed_migration_leaves_nothing_behind(blank: AsyncEngine, empty_database: str) -> None:
    if empty_database.startswith("sqlite"):
        Path(make_url(empty_database).database or "").touch()
    async with blank.begin() as connection:
        # Of the last migration: those before it have made their tables by then.
        await connection.exec_driver_sql("CREATE TABLE pnl_history (other TEXT)")
    with pytest.raises(DatabaseUnavailableError, match=r"pnl_history.* already exists"):
        await migrate(blank)
    assert await tables_of(blank) == {"pnl_history"}


async def test_an_older_database_is_brought_up_to_date_with_what_it_holds(blank: AsyncEngine) -> None:
    """The fills of the first version are there after the step to the newest."""
    await migrate(blank)
    newer = set(METADATA.tables) - {"fills", "fill_voids"}
    async with blank.begin() as connection:
        for table in sorted(newer, key=lambda name: "void" not in name):
            await connection.exec_driver_sql(f"DROP TABLE {table}")
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        await connection.execute(
            FILLS.insert().values(
                fill_id="1", symbol="AAPL", side="buy", qty=Decimal("0.123456789"), price=Decimal(150), fee=Decimal(0),
                filled_at=datetime(2025, 10, 20, tzinfo=UTC), recorded_at=datetime(2025, 10, 20, tzinfo=UTC),
            )
        )  # fmt: skip
    await migrate(blank)
    assert set(METADATA.tables) <= await tables_of(blank)
    async with blank.connect() as connection:
        assert [row.qty for row in await connection.execute(select(FILLS))] == [Decimal("0.123456789")]


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


async def test_a_violated_constraint_is_an_answer(blank: AsyncEngine) -> None:
    await migrate(blank)
    with pytest.raises(IntegrityError):
        async with database_call(), blank.begin() as connection:
            await connection.execute(
                FILL_VOIDS.insert().values(fill_id="none", reason="", voided_at=datetime(2025, 10, 20, tzinfo=UTC))
            )


async def test_no_digit_and_no_microsecond_is_lost(blank: AsyncEngine) -> None:
    await migrate(blank)
    moment = datetime(2025, 10, 20, 9, 30, 0, 1, tzinfo=timezone(timedelta(hours=-4)))
    widest = Decimal("999999999999.999999999")
    async with blank.begin() as connection:
        await connection.execute(
            FILLS.insert().values(
                fill_id="é/1", symbol="AAPL", side="buy", qty=widest, price=Decimal("1E-9"), fee=Decimal("0.10"),
                filled_at=moment, recorded_at=moment,
            )
        )  # fmt: skip
        (row,) = await connection.execute(select(FILLS))
    assert (row.fill_id, row.account, row.qty, row.price, str(row.fee)) == (
        "é/1",
        "default",
        widest,
        Decimal("1E-9"),
        "0.10",
    )
    assert (row.filled_at, row.filled_at.tzinfo) == (moment, UTC)


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
