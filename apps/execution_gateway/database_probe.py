"""Asks the database a question of its own, so that whether it is usable is not judged by how busy this service is."""

from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import DatabaseUnavailableError, database_call
from apps.execution_gateway.held_answer import HeldAnswer
from apps.execution_gateway.tables import FILLS

PROBE_TIMEOUT_S: Final = 2.0
HELD_FOR_S: Final = 1.0
"""How long an answer counts: however many ask for health, the database is asked once in this time."""

_QUESTION: Final = select(FILLS.c.seq).order_by(FILLS.c.seq.desc()).limit(1)


class DatabaseProbe:
    """Say whether the database behind `engine` answers."""

    def __init__(self, engine: AsyncEngine, held_s: float = HELD_FOR_S) -> None:
        self._engine = engine
        self._answer = HeldAnswer(self._ask, held_s, "database-probe")

    @property
    def questions(self) -> int:
        """How often the database was asked."""
        return self._answer.questions

    async def fault(self) -> str | None:
        """Return why the database cannot be used; None when it answers. As of the last second at the latest."""
        return await self._answer.get()

    async def finish(self) -> None:
        """Wait for the question that is under way, so that the database may be closed."""
        await self._answer.finish()

    async def _ask(self) -> str | None:
        try:
            async with database_call(PROBE_TIMEOUT_S), self._engine.connect() as connection:
                await connection.execute(_QUESTION)
        except DatabaseUnavailableError as error:
            return str(error)
        return None
