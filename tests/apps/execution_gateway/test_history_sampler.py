"""The sampler on a real ledger and a real database: it goes on whatever happens, and only ever writes what it saw."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.database import DatabaseUnavailableError
from apps.execution_gateway.history_input import HistoryQuery
from apps.execution_gateway.history_sampler import HistorySampler
from apps.execution_gateway.history_store import HistorySeries, HistoryStore
from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.pnl_history import Gap, Sampling
from apps.execution_gateway.pnl_report import PnlReporter, PnlRules, RealtimePnl
from apps.execution_gateway.price_book import PriceBook
from libs.market_data.daily_bars import DailyBarsStore
from libs.market_data.freshness import MarkRule, MarkRules
from libs.market_data.prices import Mode
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from libs.service.supervise import Supervisor
from tests.support.gateway import HOURS, price
from tests.support.portfolio import fill
from tests.support.waiting import eventually

NOON = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


class World:
    """A ledger, prices and a clock that a test sets; the sampler looks when told to."""

    def __init__(self, engine: AsyncEngine, redis: RedisClient, keep_days: int = 0) -> None:
        self.at = NOON
        self.prices = PriceBook()
        self.ledger = Ledger(engine, now=self.now)
        cache = PriceCache(redis, 300)
        bars = DailyBarsStore("no such folder", HOURS, self.now)
        rules = PnlRules(MarkRules(15, 300, MarkRule.MID, extended_hours=True), Mode.PAPER)
        self.reporter = PnlReporter(self.ledger, self.prices, cache, lambda: bars.prices, HOURS, rules, self.now)
        self.store = HistoryStore(engine, Sampling(5_000))
        self.sampler = HistorySampler(self, self.store, keep_days, self.now)
        self.is_down = False
        self.seq = 0

    def now(self) -> datetime:
        return self.at

    async def report_from_memory(self) -> RealtimePnl:
        if self.is_down:
            raise DatabaseUnavailableError("gone")
        self.reporter.forget_book()
        return await self.reporter.report_from_memory()

    async def look(self, seconds: float, mid: str | None = None) -> None:
        self.at = NOON + timedelta(seconds=seconds)
        if mid is not None:
            self.seq += 1
            news = price(mid=mid, timestamp=self.at, received_at=self.at, seq=self.seq)
            self.prices.offer(news, is_live=True)
        await self.sampler.sample()

    async def series(self) -> HistorySeries:
        return await self.store.series(HistoryQuery(NOON, self.at + timedelta(seconds=1), 5_000, None), self.at)


@pytest.fixture
async def world(engine: AsyncEngine, redis_client: RedisClient) -> World:
    await asyncio.to_thread(HOURS.load)
    return World(engine, redis_client)


async def test_only_what_changes_is_a_point(world: World) -> None:
    await world.ledger.record_fill(fill(100, 150, fill_id="1", filled_at=NOON - timedelta(hours=1)))
    await world.look(0)
    await world.look(5, mid="152")
    await world.look(10, mid="152")
    await world.look(15, mid="151.50")
    points = (await world.series()).points
    assert [(point.at - NOON).total_seconds() for point in points] == [0, 5, 15]
    unknown, first, second = (point.figures for point in points)
    # A held position without a price is not worth 0.
    assert (unknown.unrealized, unknown.market_value, unknown.complete, unknown.unpriced) == (None, None, False, 1)
    assert (first.unrealized, first.market_value, first.complete) == (Decimal("200.00"), Decimal("15200.00"), True)
    assert second.unrealized == Decimal("150.00")
    # No previous close is known, so the day's P&L is not either.
    assert first.day_pnl is None


async def test_an_old_price_is_counted_as_such(world: World) -> None:
    await world.ledger.record_fill(fill(100, 150, fill_id="1", filled_at=NOON - timedelta(hours=1)))
    await world.look(0, mid="152")
    await world.look(20)
    assert [point.figures.stale for point in (await world.series()).points] == [0, 1]


async def test_what_could_not_be_read_is_a_gap_and_is_not_made_up(world: World) -> None:
    await world.look(0)
    world.is_down = True
    for second in range(5, 60, 5):
        await world.look(second)
    assert (world.sampler.failures, world.sampler.last_error) == (11, "gone")
    world.is_down = False
    await world.look(60)
    assert world.sampler.last_error is None
    series = await world.series()
    assert [(point.at, point.until) for point in series.points] == [(NOON, NOON), (world.at, world.at)]
    assert series.gaps == [Gap(NOON, world.at)]


async def test_at_the_end_it_is_noted_how_long_the_last_point_stood(world: World) -> None:
    for second in (0, 5, 10):
        await world.look(second)
    await world.sampler.finish()
    assert [point.until for point in (await world.series()).points] == [world.at]
    await world.sampler.finish()
    assert world.sampler.failures == 0


async def test_it_runs_by_itself_and_forgets_what_is_old(engine: AsyncEngine, redis_client: RedisClient) -> None:
    world = World(engine, redis_client, keep_days=1)
    await asyncio.to_thread(HOURS.load)
    world.store.sampling = Sampling(20)
    await world.look(-2 * 86_400)
    world.at = NOON
    supervisor = Supervisor()

    def passing_time() -> datetime:
        world.at += timedelta(milliseconds=7)
        return world.at

    world.sampler._now = passing_time
    supervisor.spawn("pnl_history", world.sampler.run)
    await eventually(lambda: world.sampler.samples >= 6 and world.sampler.forgotten == 1)
    await supervisor.stop()
    assert not supervisor.failures
    assert world.sampler.failures == 0
    series = await world.series()
    assert len(series.points) == 1
    assert series.points[0].at > NOON
