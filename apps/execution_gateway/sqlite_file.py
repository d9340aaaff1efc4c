"""Lets a connection to a SQLite file serve only while the file is as it was when the connection was opened.

One that vanished, was replaced or damaged under a running program must be an error, not a book remembered by an open
connection.
"""

from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

FileState = tuple[int, ...]


def watch_file(engine: AsyncEngine, path: Path) -> None:
    """Replace connections of `engine` that were opened before the file at `path` became what it is now.

    To look costs some microseconds, to open anew milliseconds: our own writes are rare beside our reads.
    """

    def remember(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info.update(file=_state_of(path), is_new=True)

    def check(_connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        # A new one is taken as it is: our own writers may change the file at any moment.
        if not record.info.pop("is_new", False) and record.info["file"] != _state_of(path):
            raise DisconnectionError("the file has changed")  # the pool opens a new connection

    event.listen(engine.sync_engine, "connect", remember)
    event.listen(engine.sync_engine, "checkout", check)


def _state_of(path: Path) -> FileState | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns
