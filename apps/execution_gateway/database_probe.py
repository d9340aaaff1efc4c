"""Asks the database a question of its own, so that whether it is usable is not judged by how busy this service is."""

import asyncio
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import DatabaseUnavailableError, database_call
from apps.execution_gateway.tables import FILLS

PROBE_TIMEOUT_S: Final = 2.0
HELD_FOR_S: Final = 1.0
"""How long an answer counts: however many ask for health, the database is asked once in this time."""

_QUESTION: Final = select(FILLS.c.seq).order_by(FILLS.c.seq.desc()).limit(1)


class DatabaseProbe:
    """Say whether the database behind `engine` answers. `questions` counts how often it was asked."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._asking: asyncio.Task[str | None] | None = None
        self._asked_at_s = 0.0
        self.questions = 0

    async def fault(self) -> str | None:
        """Return why the database cannot be used; None when it answers. As of the last second at the latest."""
        loop = asyncio.get_running_loop()
        is_old = loop.time() - self._asked_at_s > HELD_FOR_S
        if self._asking is None or (self._asking.done() and is_old):
            self._asked_at_s = loop.time()
            self._asking = loop.create_task(self._ask(), name="database-probe")
        # Shielded: one who goes away must not take the answer from the others.
        return await asyncio.shield(self._asking)

    async def finish(self) -> None:
        """Wait for the question that is under way, so that the database may be closed."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    async def _ask(self) -> str | None:
        self.questions += 1
        try:
            async with database_call(PROBE_TIMEOUT_S), self._engine.connect() as connection:
                await connection.execute(_QUESTION)
        except DatabaseUnavailableError as error:
            return str(error)
        return None
