"""What a client that asks for unadjusted bars sees of a split: the real jump."""

from datetime import UTC, date, datetime

import pytest

from libs.market_data.alpaca_rest import AlpacaRest
from tests.support.bars_server import bars_server

NOW = datetime(2025, 11, 8, tzinfo=UTC)
SPLIT_DAY = date(2025, 11, 5)


@pytest.mark.parametrize(("new", "old"), [(10, 1), (1, 8)])
async def test_bars_jump_by_the_ratio_on_the_effective_date(new: int, old: int) -> None:
    async with bars_server() as server, AlpacaRest(server.url, server.url, "k", "s") as rest:
        before = await rest.daily_bars(["AAPL", "SPY"], date(2025, 11, 3), NOW, now=NOW)
        server.history.split("AAPL", new, old, SPLIT_DAY)
        after = await rest.daily_bars(["AAPL", "SPY"], date(2025, 11, 3), NOW, now=NOW)
    assert len(after) == 10
    for was, is_now in zip(before, after, strict=True):
        ratio = new / old if was.symbol == "AAPL" and was.date < SPLIT_DAY else 1
        assert float(is_now.close) == pytest.approx(float(was.close) * ratio, rel=1e-3)
