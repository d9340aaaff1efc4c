"""How the ledger's database is read and written: each call bounded in time, one writer at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from apps.execution_gateway.database import CALL_TIMEOUT_S, DatabaseUnavailableError, database_call
from libs.service.overload import WaitingLine

WRITE_TURN_S: Final = 10.0
"""How long a writing waits for those before it."""
ROWS_AT_ONCE: Final = 500
"""How many rows of a list one statement asks for or writes: between two the event loop serves others."""
LOAD_ROWS: Final = 1000
"""How many rows one query loads: each is bounded in time, so a ledger of any size can be read, and others be served."""
READERS_AT_ONCE: Final = 3
"""How many pages are read at the same time: connections are left for the book, for fills and for the health check."""
MOST_READERS_WAITING: Final = 1_000
READ_TURN_S: Final = 3.0


class LedgerAccess:
    """The one way to the tables. Every method raises DatabaseUnavailableError when it cannot be used within the time.

    The time is the database's own: to wait for a turn is not part of it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._write_turn = asyncio.Lock()
        self.readers = WaitingLine(
            "the ledger", at_once=READERS_AT_ONCE, most_waiting=MOST_READERS_WAITING, wait_s=READ_TURN_S
        )

    @asynccontextmanager
    async def reading(self, timeout_s: float = CALL_TIMEOUT_S) -> AsyncIterator[AsyncConnection]:
        """Lend a connection to read with."""
        async with database_call(timeout_s), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def reading_in_line(self, timeout_s: float = CALL_TIMEOUT_S) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for one of the questions that any number of callers may ask. Raises OverloadedError."""
        async with self.readers.turn(), self.reading(timeout_s) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, timeout_s: float = CALL_TIMEOUT_S) -> AsyncIterator[AsyncConnection]:
        """Lend a connection in a transaction of which nobody else's writing can come in between."""
        # SQLite knows one writer at a time and no queue: our own must not take each other for a locked database.
        await self._wait_for_turn()
        try:
            async with database_call(timeout_s), self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # Sequence numbers must become visible in order, or a reader that saw 7 would never look for 6.
                    await connection.execute(text(_LOCK_ALL))
                else:
                    # Python's driver would begin only at the first writing, after what we have looked at.
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        finally:
            self._write_turn.release()

    async def _wait_for_turn(self) -> None:
        try:
            async with asyncio.timeout(WRITE_TURN_S):
                await self._write_turn.acquire()
        except TimeoutError as error:
            raise DatabaseUnavailableError(
                "this service is overloaded: too much is being recorded at once; post this once more"
            ) from error


_TOO_MUCH_TO_RECORD: Final = "this service is overloaded: too much is being recorded at once; post this once more"
_LOCK_ALL: Final = (
    "LOCK TABLE fills, fill_voids, adjustments, adjustment_voids, mirror_state, cash_journal "
    "IN SHARE ROW EXCLUSIVE MODE"
)
