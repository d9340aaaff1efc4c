"""Whether the database is usable is asked of it, once for all who want to know."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database_probe import DatabaseProbe
from tests.apps.execution_gateway.conftest import DatabaseAway


async def test_many_who_ask_at_once_and_again_cost_one_question(engine: AsyncEngine) -> None:
    probe = DatabaseProbe(engine, held_s=3600)
    assert set(await asyncio.gather(*(probe.fault() for _ in range(200)))) == {None}
    assert await probe.fault() is None
    assert probe.questions == 1
    await probe.finish()


async def test_it_is_asked_again_when_the_answer_is_old(engine: AsyncEngine, database_away: DatabaseAway) -> None:
    probe = DatabaseProbe(engine, held_s=0)
    assert await probe.fault() is None
    async with database_away():
        assert "the ledger's database cannot be used" in str(await probe.fault())
    assert await probe.fault() is None
    assert probe.questions == 3


async def test_who_goes_away_leaves_the_answer_to_the_others(engine: AsyncEngine) -> None:
    probe = DatabaseProbe(engine)
    first, second = (asyncio.create_task(probe.fault()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None
    assert probe.questions == 1
