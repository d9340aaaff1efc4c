"""Gives up connections that were opened while the database could only be read, so that it recovers without a restart.

SQLite opens a file that it may not write for reading only, and PostgreSQL starts a session as read-only as the server
is at that moment: both for as long as the connection lives.
"""

import sqlite3
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

READ_ONLY_SQLSTATE: Final = "25006"
_PRIMARY_CODE: Final = 0xFF
"""SQLite's extended codes hold the primary one in their last byte."""


class ReadOnlyRenewal:
    """Renew the connections of `engine`: each use of one while writes are refused, all once one has succeeded."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._generation = 0
        self._is_read_only = False
        event.listen(engine.sync_engine, "connect", self._remember)
        event.listen(engine.sync_engine, "checkout", self._check)
        event.listen(engine.sync_engine, "handle_error", self._look_at_error)
        event.listen(engine.sync_engine, "commit", self._committed)

    def _remember(self, _connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info.update(generation=self._generation, is_unused=True)

    def _check(self, _connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        is_unused = record.info.pop("is_unused", False)
        if not is_unused and (self._is_read_only or record.info["generation"] != self._generation):
            raise DisconnectionError("opened while the database could only be read")  # the pool opens a new one

    def _look_at_error(self, context: ExceptionContext) -> None:
        if is_read_only(context.original_exception):
            self._is_read_only = True

    def _committed(self, _connection: Connection) -> None:
        # Readers commit nothing: whoever gets here could write.
        if self._is_read_only:
            self._is_read_only = False
            self._generation += 1


def is_read_only(error: BaseException | None) -> bool:
    """Say whether a writing was refused because there is only reading."""
    return sqlite_code(error) == sqlite3.SQLITE_READONLY or sqlstate(error) == READ_ONLY_SQLSTATE


def sqlite_code(error: Any) -> int | None:
    """Return SQLite's primary result code of an error; None when it is not SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY_CODE if isinstance(code, int) else None


def sqlstate(error: Any) -> str | None:
    """Return PostgreSQL's code of an error; None when it is not PostgreSQL's."""
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else None
