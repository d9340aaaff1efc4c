"""Finds out whether the ledger can be written, without changing it: a ledger that can only be read must be in health.

A row is written as it stands, and the transaction rolled back. That makes SQLite open the file for writing and its
journal beside it, and PostgreSQL refuse on a standby or a read-only server. A disk with no room left is asked for its
room, because what is rolled back takes none.
"""

import shutil
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import DatabaseTimeoutError, DatabaseUnavailableError, database_call
from apps.execution_gateway.held_answer import HeldAnswer
from apps.execution_gateway.read_only import READ_ONLY_SQLSTATE, sqlite_code, sqlstate

WRITE_PROBE_HELD_S: Final = 5.0
"""How long an answer counts."""
LEAST_FREE_BYTES: Final = 1024 * 1024
"""With less room on its disk a SQLite ledger is called full: a transaction takes up to some hundred kilobytes."""

_WRITE: Final = "UPDATE alembic_version SET version_num = version_num"
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_LOCK_NOT_AVAILABLE: Final = "55P03"
_SQLITE_REMEDIES: Final = {
    sqlite3.SQLITE_READONLY: "make the file, its folder and its disk writable for this user",
    sqlite3.SQLITE_CANTOPEN: "make the folder of the file writable for this user",
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_IOERR: "check the disk and its quota",
}
_POSTGRES_REMEDIES: Final = {
    READ_ONLY_SQLSTATE: "name the primary server in DATABASE_URL, or let this one be written",
    "53100": "make room on the database server's disk",
    "42501": "give the user of DATABASE_URL the right to write",
}


class WriteProbe:
    """Say whether the database behind `engine` can be written."""

    def __init__(
        self, engine: AsyncEngine, held_s: float = WRITE_PROBE_HELD_S, least_free_bytes: int = LEAST_FREE_BYTES
    ) -> None:
        self._engine = engine
        self._least_free_bytes = least_free_bytes
        self._last_fault: str | None = None
        self._answer = HeldAnswer(self._ask, held_s, "write-probe")

    @property
    def questions(self) -> int:
        """How often it was tried."""
        return self._answer.questions

    async def fault(self) -> str | None:
        """Return why nothing can be recorded and what to do; None when it can. As of the last seconds."""
        return await self._answer.get()

    async def finish(self) -> None:
        """Wait for the question that is under way, so that the database may be closed."""
        await self._answer.finish()

    async def _ask(self) -> str | None:
        fault = self._full_disk()
        if fault is None:
            try:
                async with database_call(), self._engine.connect() as connection:
                    await connection.exec_driver_sql(_WRITE)
                    await connection.rollback()
            except DatabaseTimeoutError:
                return self._last_fault  # somebody else is writing: nothing is learnt
            except DatabaseUnavailableError as error:
                if _is_busy(error):
                    return self._last_fault
                fault = f"the ledger cannot be written, {_told(error)}"
        self._last_fault = fault
        return fault

    def _full_disk(self) -> str | None:
        if self._engine.url.get_backend_name() != "sqlite":
            return None
        folder = Path(unquote((self._engine.url.database or "").removeprefix("file:"))).parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            return None
        if free >= self._least_free_bytes:
            return None
        return (
            f"the ledger cannot be written, the disk is full ({free:,} bytes left): make room on the disk of {folder}"
        )


def _origin(error: DatabaseUnavailableError) -> BaseException | None:
    return getattr(error.__cause__, "orig", None)


def _is_busy(error: DatabaseUnavailableError) -> bool:
    origin = _origin(error)
    return sqlite_code(origin) in _BUSY or sqlstate(origin) == _LOCK_NOT_AVAILABLE


def _told(error: DatabaseUnavailableError) -> str:
    origin = _origin(error)
    remedy = _SQLITE_REMEDIES.get(sqlite_code(origin) or 0) or _POSTGRES_REMEDIES.get(sqlstate(origin) or "")
    return f"{error}: {remedy}" if remedy else str(error)
