"""Opens the ledger's database and brings its tables up to date. A database that cannot be used is always an error.

DatabaseError
├── MalformedDatabaseUrlError   the setting is wrong; also a ValueError
├── DatabaseNewerError          written by a newer version of this program
└── DatabaseUnavailableError    cannot be reached or read now; trying again may help; also a BookUnavailableError
    └── DatabaseTimeoutError    it took longer than it may; whether it answers at all is for the probe to find out
"""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from apps.execution_gateway.postgres_options import CERTIFICATE_FILES, read_options
from apps.execution_gateway.read_only import ReadOnlyRenewal
from apps.execution_gateway.sqlite_file import watch_file

CALL_TIMEOUT_S: Final = 2.0
"""The longest that one call to the database may take."""
SQLITE_LOCK_WAIT_S: Final = 1.5
"""How long SQLite waits for another writer: shorter than a call, so that it says "locked" rather than times out."""
_SQLITE_CONNECTIONS: Final = 10
"""More than are ever used at once (see `READERS_AT_ONCE`): nobody waits for one within the time of a call."""
MIGRATION_TIMEOUT_S: Final = 60.0

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_ACCEPTED_FORMS: Final = "use sqlite:///path/to/file.db or postgresql://user:password@host/database"
_MIGRATION_LOCK: Final = 0x6D61726B
"""Any number that nobody else locks: two gateways that start together migrate one after the other."""


class DatabaseError(Exception):
    """The ledger's database cannot be used."""


class MalformedDatabaseUrlError(DatabaseError, ValueError):
    """DATABASE_URL names no database that can be opened. Never repeats the URL: it may hold a password."""


class DatabaseNewerError(DatabaseError):
    """The database was migrated by a newer version of this program; running on it could lose data."""


class BookUnavailableError(Exception):
    """What is held cannot be told now: the ledger is unreadable, or nobody has said. Never an empty book instead."""


class DatabaseUnavailableError(DatabaseError, BookUnavailableError):
    """The database is locked, gone, corrupt or not answering. Trying again may help."""


class DatabaseTimeoutError(DatabaseUnavailableError):
    """A call took longer than it may."""


def parse_database_url(text: str) -> URL:
    """Return the URL with the asynchronous driver of its kind; a SQLite path is made absolute.

    Accepts `sqlite:///`, `sqlite+aiosqlite:///`, `postgresql://` and `postgresql+asyncpg://`, the latter two with the
    options in `postgres_options.py`.
    Raises MalformedDatabaseUrlError for anything else, in-memory SQLite included.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise MalformedDatabaseUrlError(f"DATABASE_URL is not a URL: {_ACCEPTED_FORMS}") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise MalformedDatabaseUrlError(f"DATABASE_URL is of the unknown kind {url.drivername!r}: {_ACCEPTED_FORMS}")
    if not url.database:
        raise MalformedDatabaseUrlError(f"DATABASE_URL names no database: {_ACCEPTED_FORMS}")
    url = url.set(drivername=driver)
    return _postgres_url(url) if driver == _DRIVERS["postgresql"] else _sqlite_url(url)


def create_engine(database_url: str) -> AsyncEngine:
    """Return an engine for `database_url` (forms as in `parse_database_url`). Opens nothing yet.

    SQLite is never created, and opened anew whenever the file is not just as it was: one that vanished or was damaged
    under a running program must be an error, not an empty book, nor one remembered by an open connection.
    """
    url = parse_database_url(database_url)
    if url.get_backend_name() == "postgresql":
        return _postgres_engine(url)
    uri = url.set(database=f"file:{quote(url.database or '')}", query={"mode": "rw", "uri": "true"})
    engine = create_async_engine(
        uri, pool_size=_SQLITE_CONNECTIONS, max_overflow=0, pool_timeout=CALL_TIMEOUT_S,
        connect_args={"timeout": SQLITE_LOCK_WAIT_S},
    )  # fmt: skip
    event.listen(engine.sync_engine, "connect", _enforce_foreign_keys)
    watch_file(engine, Path(url.database or ""))
    ReadOnlyRenewal(engine)
    return engine


async def migrate(engine: AsyncEngine) -> None:
    """Create the tables or bring them up to date, all or nothing; a SQLite file and its folder are created first.

    Raises DatabaseNewerError when the database is ahead of this program, DatabaseUnavailableError when it cannot be
    opened or written.
    """
    try:
        _create_sqlite_file(engine.url)
    except OSError as error:
        raise DatabaseUnavailableError(f"the ledger's database file cannot be created: {error}") from error
    async with database_call(MIGRATION_TIMEOUT_S), engine.begin() as connection:
        await connection.run_sync(_upgrade)


@asynccontextmanager
async def database_call(timeout_s: float = CALL_TIMEOUT_S) -> AsyncIterator[None]:
    """Bound what happens inside and turn every failure of the database into DatabaseUnavailableError.

    A violated constraint (IntegrityError) passes: it is an answer.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except IntegrityError:
        raise
    except asyncio.CancelledError as error:
        _let_go(error)
        raise
    except TimeoutError as error:
        _let_go(error)
        raise DatabaseTimeoutError(f"the ledger's database did not answer within {timeout_s:g} s") from error
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseUnavailableError(f"the ledger's database cannot be used: {_cause(error)}") from error
    except (ArithmeticError, ValueError) as error:
        # Our own column types and Fill refuse what no fill of ours can be: the file was damaged or edited.
        raise DatabaseUnavailableError(f"the ledger's database holds an unreadable row: {error}") from error


def _let_go(error: BaseException) -> None:
    """Let go of what was under way when a call was cut short.

    The frames of the error hold the cursor, and a SQLite connection that is closed with an open cursor lives on with
    its lock on the file, unseen: until the garbage collector comes by, nothing could be recorded.
    """
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def _postgres_url(url: URL) -> URL:
    try:
        return url.set(query=read_options(url.query))
    except ValueError as error:
        raise MalformedDatabaseUrlError(f"DATABASE_URL {error}") from None


def _postgres_engine(url: URL) -> AsyncEngine:
    # Loaded here: only those with a PostgreSQL need its driver.
    from apps.execution_gateway.postgres_connection import connect_arguments

    arguments = connect_arguments(CALL_TIMEOUT_S, url.query)
    # Pinged before each use: connections that a restart of the server has cut are replaced unnoticed.
    engine = create_async_engine(
        url.difference_update_query(["application_name", *CERTIFICATE_FILES]),
        pool_pre_ping=True, pool_timeout=CALL_TIMEOUT_S, connect_args=arguments,
    )  # fmt: skip
    ReadOnlyRenewal(engine)
    return engine


def _sqlite_url(url: URL) -> URL:
    path = url.database or ""
    if path == ":memory:" or path.startswith("file:") or url.query:
        raise MalformedDatabaseUrlError("DATABASE_URL must name a plain SQLite file: sqlite:///path/to/file.db")
    return url.set(database=str(Path(path).expanduser().absolute()))


def _create_sqlite_file(url: URL) -> None:
    if url.get_backend_name() != "sqlite":
        return
    path = Path(unquote((url.database or "").removeprefix("file:")))
    path.parent.mkdir(parents=True, exist_ok=True)
    # A person's trades are nobody else's business; an existing file keeps its mode.
    path.touch(mode=0o600)


def _upgrade(connection: Connection) -> None:
    # Alembic is imported by the one call at start that needs it: it costs memory and 0.1 s.
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "sqlite":
        # Python's driver begins no transaction for DDL by itself: half a migration must not remain.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise DatabaseNewerError(
            f"the ledger's database is at version {', '.join(sorted(unknown))}, which this program does not know: "
            "it was written by a newer Markstream; update the program, or name another database in DATABASE_URL"
        )
    command.upgrade(config, "head")


def _enforce_foreign_keys(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _cause(error: BaseException) -> str:
    """Return the driver's own first line: SQLAlchemy's would repeat the statement and its values."""
    origin = getattr(error, "orig", None) or error
    return str(origin).partition("\n")[0] or type(origin).__name__
