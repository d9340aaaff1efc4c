"""When the ledger is asked, and when what it said last will do."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.pnl_report import PnlReporter, PnlRules
from apps.execution_gateway.price_book import PriceBook
from libs.market_data.daily_bars import DailyBarsStore
from libs.market_data.freshness import MarkRule, MarkRules
from libs.market_data.prices import Mode
from libs.portfolio.book import Book
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import HOURS
from tests.support.portfolio import fill

NOW = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


class SlowLedger(Ledger):
    """A ledger whose answers are under way until a test lets them arrive."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine, now=lambda: NOW)
        self.has_answered, self.may_arrive = asyncio.Event(), asyncio.Event()

    async def book(self) -> Book:
        book = await super().book()
        self.has_answered.set()
        await self.may_arrive.wait()
        return book


async def test_an_answer_of_before_a_fill_does_not_stand_for_a_second(
    engine: AsyncEngine, redis_client: RedisClient
) -> None:
    await asyncio.to_thread(HOURS.load)
    ledger = SlowLedger(engine)
    bars = DailyBarsStore("no such folder", HOURS, lambda: NOW)
    rules = PnlRules(MarkRules(15, 300, MarkRule.MID, extended_hours=True), Mode.PAPER)
    cache = PriceCache(redis_client, 300)
    reporter = PnlReporter(ledger, PriceBook(), cache, lambda: bars.prices, HOURS, rules, lambda: NOW)

    looking = asyncio.create_task(reporter.report_from_memory())
    await ledger.has_answered.wait()
    await ledger.record_fill(fill(10, 100))
    reporter.forget_book()
    ledger.may_arrive.set()
    assert (await looking).report.rows == ()
    rows = (await reporter.report_from_memory()).report.rows
    assert [row.qty for row in rows] == [10]
