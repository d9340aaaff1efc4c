"""Which part of the trading day the gateway takes a moment for, from the feed's last word and the calendar."""

from datetime import UTC, datetime

import pytest

from apps.execution_gateway.pnl_report import PnlReporter, PnlRules
from apps.execution_gateway.price_book import PriceBook
from libs.market_data.daily_bars import DailyBarsStore
from libs.market_data.freshness import MarkRule, MarkRules
from libs.market_data.prices import MarketPhase, Mode
from libs.market_data.trading_sessions import TradingPhase
from libs.portfolio.book import Book
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import HOURS, streaming

OPEN, CLOSED = MarketPhase.OPEN, MarketPhase.CLOSED


class NoPositions:
    """A ledger with nothing in it."""

    async def book(self) -> Book:
        return Book()


@pytest.mark.parametrize(
    ("moment", "said", "expected"),
    [
        ("2025-10-20T07:59:59", CLOSED, TradingPhase.CLOSED),  # 03:59:59 in New York
        ("2025-10-20T08:00:00", CLOSED, TradingPhase.PRE),
        ("2025-10-20T13:30:01", CLOSED, TradingPhase.PRE),  # the last heartbeat is of before the opening
        ("2025-10-20T13:30:01", OPEN, TradingPhase.REGULAR),
        ("2025-10-20T13:30:07", CLOSED, TradingPhase.CLOSED),  # an unscheduled closure
        ("2025-10-20T20:00:01", OPEN, TradingPhase.REGULAR),
        ("2025-10-20T20:00:01", CLOSED, TradingPhase.POST),
        ("2025-10-21T00:00:00", CLOSED, TradingPhase.CLOSED),  # 20:00 in New York
        ("2025-11-28T18:00:00", CLOSED, TradingPhase.POST),  # after the early close of 13:00
        ("2025-11-27T15:00:00", CLOSED, TradingPhase.CLOSED),  # Thanksgiving
        ("2025-10-19T15:00:00", CLOSED, TradingPhase.CLOSED),  # a Sunday
        ("2025-10-19T15:00:00", OPEN, TradingPhase.REGULAR),  # a simulator that is open on it
    ],
)
async def test_the_session(moment: str, said: MarketPhase, expected: TradingPhase, redis_client: RedisClient) -> None:
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    HOURS.load()
    book = PriceBook()
    book.hear(streaming("AAPL", market=said), now)
    bars = DailyBarsStore("no such folder", HOURS, lambda: now)
    rules = PnlRules(MarkRules(15, 300, MarkRule.MID, extended_hours=True), Mode.SIMULATED)
    cache = PriceCache(redis_client, 300)
    reporter = PnlReporter(NoPositions(), book, cache, lambda: bars.prices, HOURS, rules, lambda: now)
    assert reporter.market(now).session is expected
