"""What marks a position around a split or a rename: closes of before in today's shares, and no quote of before.

On a clock that stands still: Tuesday, with closes of the days before on disk.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import RunningGateway, price, serving, settings_in, streaming
from tests.support.waiting import eventually

FRIDAY, MONDAY, TUESDAY = date(2025, 10, 17), date(2025, 10, 20), date(2025, 10, 21)
BEFORE_OPEN = datetime(2025, 10, 21, 12, 0, tzinfo=UTC)
MORNING = datetime(2025, 10, 21, 15, 0, tzinfo=UTC)
EVENING = datetime(2025, 10, 22, 1, 0, tzinfo=UTC)
MIDNIGHT = datetime(2025, 10, 21, 4, 0, tzinfo=UTC)
SPLIT = {"kind": "split", "ratio_new": 10, "ratio_old": 1, "date": "2025-10-21"}
CLOSES = {("NVDA", FRIDAY): "1200", ("NVDA", MONDAY): "1210", ("NVDA", TUESDAY): "122.50"}
"""Unadjusted, as they are published: Tuesday's is in new shares."""


@asynccontextmanager
async def gateway_at(
    now: datetime, folder: Path, redis_url: str, closes: dict[tuple[str, date], str] = CLOSES, **fields: object
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway whose clock stands at `now`. The files are written by the real clock, long after."""
    settings = settings_in(folder, redis_url, **fields)
    bars = [DailyBar(symbol, day, *[Decimal(close)] * 4, 1000) for (symbol, day), close in closes.items()]
    write_bars(settings.daily_bars_path, bars)
    async with serving(settings, now=lambda: now) as gateway:
        yield gateway


async def buy(gateway: RunningGateway, qty: object, at: object, when: str = "2025-10-16T15:00:00Z", **fields: object):
    await gateway.fill(str(fields.pop("symbol", "NVDA")), qty, at, filled_at=when, **fields)


async def record(gateway: RunningGateway, **fields: object) -> None:
    body = {"adjustment_id": str(fields["kind"]), "symbol": "NVDA", "reason": "why", **fields}
    answer = await gateway.client.post("/api/v1/adjustments", content=msgspec.json.encode(body))
    assert answer.status_code == 201, answer.text


async def pnl(gateway: RunningGateway) -> Any:
    return await gateway.get("/api/v1/positions/pnl/realtime")


async def row_of(gateway: RunningGateway) -> dict[str, Any]:
    (row,) = (await pnl(gateway))["positions"]
    return row


def quote(symbol: str, mid: object, at: datetime, **fields: object) -> PriceWrite:
    return PriceWrite(price(symbol, mid, timestamp=at, received_at=at, **fields), publish=False)


class TestCloses:
    @pytest.mark.parametrize(
        ("now", "mark", "closing_date", "state", "day_pnl"),
        [
            (BEFORE_OPEN, "121", MONDAY, "closed", 0),
            (MORNING, "121", MONDAY, "fallback", 0),
            (EVENING, "122.50", TUESDAY, "closed", 1500),
        ],
    )
    async def test_are_in_today_s_shares(
        self, tmp_path: Path, redis_url: str, now: datetime, mark: str, closing_date: date, state: str, day_pnl: int
    ) -> None:
        async with gateway_at(now, tmp_path, redis_url) as gateway:
            await buy(gateway, 100, 1000)
            await record(gateway, **SPLIT)
            row = await row_of(gateway)
        assert (row["current_price"], row["closing_date"], row["state"]) == (
            Decimal(mark), closing_date.isoformat(), state,
        )  # fmt: skip
        assert (row["qty"], row["overnight_qty"], row["previous_close"]) == (1000, 1000, 121)
        assert row["overnight_value"] == 121_000
        assert (row["day_pnl"], row["unrealized_pnl"]) == (day_pnl, 21_000 + day_pnl)

    async def test_a_split_of_the_day_before_is_in_monday_s_close_already(self, tmp_path: Path, redis_url: str) -> None:
        closes = {("NVDA", FRIDAY): "1200", ("NVDA", MONDAY): "121"}
        async with gateway_at(MORNING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 100, 1000)
            await record(gateway, **SPLIT | {"date": "2025-10-20"})
            row = await row_of(gateway)
        assert (row["current_price"], row["previous_close"], row["day_pnl"]) == (121, 121, 0)

    async def test_a_close_on_neither_side_of_a_split_leaves_the_day_unknown(
        self, tmp_path: Path, redis_url: str
    ) -> None:
        closes = {("NVDA", FRIDAY): "1200", ("NVDA", MONDAY): "400"}
        async with gateway_at(MORNING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 100, 1000)
            await record(gateway, **SPLIT | {"date": "2025-10-20", "adjustment_id": "activity:split:NVDA:1"})
            row = await row_of(gateway)
        assert (row["day_pnl"], row["previous_close"], row["day_unknown"]) == (None, None, "split")

    async def test_a_missing_previous_close_is_named(self, tmp_path: Path, redis_url: str) -> None:
        async with gateway_at(EVENING, tmp_path, redis_url, {("NVDA", TUESDAY): "1210"}) as gateway:
            await buy(gateway, 100, 1000)
            row = await row_of(gateway)
        assert (row["current_price"], row["day_pnl"], row["day_unknown"]) == (1210, None, "previous_close")

    async def test_a_split_that_is_void_again_leaves_them_alone(self, tmp_path: Path, redis_url: str) -> None:
        async with gateway_at(MORNING, tmp_path, redis_url) as gateway:
            await buy(gateway, 100, 1000)
            await record(gateway, **SPLIT)
            answer = await gateway.client.post("/api/v1/adjustments/split/void", json={"reason": "not yet"})
            assert answer.status_code == 200
            row = await row_of(gateway)
        assert (row["qty"], row["current_price"], row["previous_close"], row["day_pnl"]) == (100, 1210, 1210, 0)

    async def test_no_cent_is_lost_where_a_split_divides_badly(self, tmp_path: Path, redis_url: str) -> None:
        closes = {("NVDA", FRIDAY): "100.01", ("NVDA", MONDAY): "100.03"}
        async with gateway_at(MORNING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 1000, 100)
            await record(gateway, **SPLIT | {"ratio_new": 3, "ratio_old": 7})
            row = await row_of(gateway)
        assert f"{row['qty']:f}" == "428.571428571"
        assert f"{row['previous_close']:f}" == "233.403333333"
        # What the night's own thousand shares were worth at the night's own close; nothing has moved since.
        assert (row["overnight_value"], row["day_pnl"]) == (100_030, 0)

    async def test_day_pnl_does_not_jump(self, tmp_path: Path, redis_url: str, redis_client: RedisClient) -> None:
        cache = PriceCache(redis_client, 300)
        async with gateway_at(MORNING, tmp_path, redis_url) as gateway:
            await buy(gateway, 100, 1000)
            await gateway.fill("NVDA", 20, 1230, "sell", filled_at="2025-10-20T13:40:00Z", fee=1)
            await cache.write([quote("NVDA", 1220, MORNING - timedelta(seconds=2))])
            before = await row_of(gateway)
            # The quote of the new shares follows.
            await record(gateway, **SPLIT)
            await cache.write([quote("NVDA", 122, MORNING - timedelta(seconds=1), seq=2)])
            after = await row_of(gateway)
        assert (before["qty"], after["qty"]) == (80, 800)
        assert (before["overnight_qty"], after["overnight_qty"]) == (80, 800)
        assert before["day_pnl"] == 80 * 10
        same = ("day_pnl", "unrealized_pnl", "market_value", "realized_pnl", "realized_today", "cost_basis")
        assert {name: after[name] for name in same} == {name: before[name] for name in same}

    async def test_what_was_held_overnight_and_sold_after_the_split(self, tmp_path: Path, redis_url: str) -> None:
        async with gateway_at(MORNING, tmp_path, redis_url) as gateway:
            await buy(gateway, 100, 1000)
            await record(gateway, **SPLIT)
            await gateway.fill("NVDA", 1000, 123, "sell", filled_at="2025-10-21T14:30:00Z")
            body = await pnl(gateway)
        assert body["positions"] == []
        assert (body["closed"]["realized_today"], body["closed"]["day_pnl"]) == (23_000, 2000)
        assert body["account_day_pnl"] == 2000


class TestQuotes:
    async def test_one_of_before_the_split_is_not_used(
        self, tmp_path: Path, redis_url: str, redis_client: RedisClient
    ) -> None:
        cache = PriceCache(redis_client, 300)
        async with gateway_at(MORNING, tmp_path, redis_url) as gateway:
            await buy(gateway, 100, 1000)
            # Received a moment ago and vouched for by a live link: all the same it is a price of the old share.
            old = price("NVDA", 1215, timestamp=MIDNIGHT - timedelta(seconds=1), received_at=MORNING)
            await cache.write([PriceWrite(old, publish=True)])
            await cache.write_feed_status(streaming("NVDA"))
            await eventually(lambda: is_marked(gateway, "real-time", 1215))
            await record(gateway, **SPLIT)
            row = await row_of(gateway)
            assert (row["price_source"], row["current_price"], row["bid"]) == ("closing", 121, None)
            assert row["market_value"] == 121_000
            await cache.write([quote("NVDA", "121.50", MIDNIGHT, seq=2)])
            row = await row_of(gateway)
            assert (row["price_source"], row["current_price"]) == ("real-time", Decimal("121.50"))
            assert row["day_pnl"] == 500

    async def test_nor_is_it_shown_where_there_is_no_close(
        self, tmp_path: Path, redis_url: str, redis_client: RedisClient
    ) -> None:
        async with gateway_at(MORNING, tmp_path, redis_url, {("KO", MONDAY): "60"}) as gateway:
            await PriceCache(redis_client, 300).write([quote("NVDA", 1215, MIDNIGHT - timedelta(seconds=1))])
            await buy(gateway, 100, 1000)
            await record(gateway, **SPLIT)
            body = await pnl(gateway)
        assert (body["positions"][0]["current_price"], body["complete"], body["unpriced"]) == (None, False, ["NVDA"])

    async def test_one_of_before_a_split_of_long_ago_may_be_anything(
        self, tmp_path: Path, redis_url: str, redis_client: RedisClient
    ) -> None:
        async with gateway_at(MORNING, tmp_path, redis_url) as gateway:
            await PriceCache(redis_client, 300).write([quote("NVDA", 1215, MORNING - timedelta(seconds=1))])
            await buy(gateway, 10, 1000)
            await record(gateway, **SPLIT | {"date": "2025-10-17"})
            row = await row_of(gateway)
        assert (row["current_price"], row["price_source"]) == (1215, "real-time")

    async def test_one_of_an_earlier_day_is_not_live_however_long_its_connection_has_stood(
        self, tmp_path: Path, redis_url: str, redis_client: RedisClient
    ) -> None:
        """The link streams and the symbol is confirmed: it is Monday's quote all the same."""
        cache = PriceCache(redis_client, 300)
        async with gateway_at(MORNING, tmp_path, redis_url) as gateway:
            await buy(gateway, 100, 1000)
            await cache.write_feed_status(streaming("NVDA"))
            await cache.write([PriceWrite(quote("NVDA", 1199, MIDNIGHT - timedelta(hours=8)).price, publish=True)])
            await eventually(lambda: gateway.gateway.prices.price("NVDA"))
            row = await row_of(gateway)
            assert (row["price_source"], row["current_price"], row["closing_date"]) == ("closing", 1210, "2025-10-20")
            await cache.write([quote("NVDA", 1199, MIDNIGHT + timedelta(hours=8), seq=2)])
            await eventually(lambda: is_marked(gateway, "real-time", 1199))

    @pytest.mark.parametrize(
        ("traded_at", "is_split", "mark", "rule"),
        [
            (MORNING - timedelta(hours=1), False, "101.5", "last"),
            (MIDNIGHT - timedelta(hours=8), False, "100", "mid"),
            (MIDNIGHT - timedelta(hours=8), True, "100", "mid"),
            (None, False, "100", "mid"),
        ],
    )
    async def test_a_last_trade_of_before_is_not_the_last(
        self,
        tmp_path: Path,
        redis_url: str,
        redis_client: RedisClient,
        traded_at: datetime | None,
        is_split: bool,
        mark: str,
        rule: str,
    ) -> None:
        wide = {"bid": Decimal(98), "ask": Decimal(102), "last": Decimal("101.5"), "last_timestamp": traded_at}
        async with gateway_at(MORNING, tmp_path, redis_url, mark_rule="last") as gateway:
            await buy(gateway, 100, 100)
            if is_split:
                await record(gateway, **SPLIT | {"ratio_new": 21, "ratio_old": 20})
            await PriceCache(redis_client, 300).write([quote("NVDA", 100, MORNING, **wide)])
            row = await row_of(gateway)
        assert (row["current_price"], row["mark_rule"], row["state"]) == (Decimal(mark), rule, "live")
        assert (row["last_trade_at"] is None) == (rule == "mid")


async def is_marked(gateway: RunningGateway, source: str, at: int) -> bool:
    row = await row_of(gateway)
    return (row["price_source"], row["current_price"]) == (source, at)


class TestRenames:
    @pytest.mark.parametrize("first", [[], [SPLIT]])
    async def test_the_old_symbol_s_close_serves(
        self, tmp_path: Path, redis_url: str, redis_client: RedisClient, first: list[dict[str, Any]]
    ) -> None:
        closes = {("FB", FRIDAY): "1190", ("FB", MONDAY): "1210"}
        factor = 10 if first else 1
        async with gateway_at(MORNING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 100, 1000, symbol="FB")
            for split in first:
                await record(gateway, **split, symbol="FB")
            await record(gateway, kind="symbol_change", symbol="FB", new_symbol="META", date="2025-10-21")
            row = await row_of(gateway)
            assert (row["symbol"], row["qty"], row["overnight_qty"]) == ("META", 100 * factor, 100 * factor)
            assert row["current_price"] == row["previous_close"] == Decimal(1210) / factor
            assert (row["closing_date"], row["state"]) == ("2025-10-20", "fallback")
            assert (row["day_pnl"], row["unrealized_pnl"]) == (0, 21_000)
            at = Decimal(1220) / factor
            await PriceCache(redis_client, 300).write([quote("META", at, MORNING - timedelta(seconds=1))])
            row = await row_of(gateway)
            assert (row["current_price"], row["day_pnl"]) == (at, 1000)

    async def test_one_renamed_to_another_that_is_held_leaves_it_its_own_closes(
        self, tmp_path: Path, redis_url: str
    ) -> None:
        closes = {("FB", MONDAY): "100", ("META", MONDAY): "50"}
        async with gateway_at(MORNING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 10, 90, symbol="FB")
            await buy(gateway, 10, 40, symbol="META")
            await record(gateway, kind="symbol_change", symbol="FB", new_symbol="META", date="2025-10-21")
            row = await row_of(gateway)
        assert (row["qty"], row["current_price"], row["previous_close"]) == (20, 50, 50)
        assert row["overnight_value"] == 1500

    async def test_the_close_of_the_evening_has_the_new_name(self, tmp_path: Path, redis_url: str) -> None:
        closes = {("FB", MONDAY): "200", ("FB", TUESDAY): "5", ("META", MONDAY): "7", ("META", TUESDAY): "210"}
        async with gateway_at(EVENING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 10, 100, symbol="FB")
            await record(gateway, kind="symbol_change", symbol="FB", new_symbol="META", date="2025-10-21")
            row = await row_of(gateway)
        assert (row["symbol"], row["current_price"], row["previous_close"]) == ("META", 210, 200)
        assert row["day_pnl"] == 100

    async def test_the_old_symbol_s_close_never_serves_a_new_company_of_that_name(
        self, tmp_path: Path, redis_url: str, redis_client: RedisClient
    ) -> None:
        closes = {("FB", FRIDAY): "1190", ("FB", MONDAY): "1210", ("META", FRIDAY): "7", ("META", MONDAY): "8"}
        async with gateway_at(MORNING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 100, 1000, symbol="FB")
            await record(gateway, kind="symbol_change", symbol="FB", new_symbol="META", date="2025-10-21")
            await buy(gateway, 50, 20, when="2025-10-21T14:00:00Z", symbol="FB")
            new, old = (await pnl(gateway))["positions"]
            assert (new["symbol"], new["qty"], new["price_source"], new["previous_close"]) == (
                "FB", 50, "unavailable", None,
            )  # fmt: skip
            assert (old["symbol"], old["qty"], old["current_price"], old["previous_close"]) == ("META", 100, 1210, 1210)
            # A quote of before is the old company's too.
            await PriceCache(redis_client, 300).write([quote("FB", 1211, MIDNIGHT - timedelta(hours=8))])
            assert (await pnl(gateway))["positions"][0]["price_source"] == "unavailable"
            await PriceCache(redis_client, 300).write([quote("FB", 21, MORNING - timedelta(seconds=1))])
            new, _ = (await pnl(gateway))["positions"]
            assert (new["current_price"], new["unrealized_pnl"]) == (21, 50)
            missing = (await gateway.get("/health"))["daily_bars"]["missing_symbols"]
        assert missing == []

    async def test_the_new_company_s_own_closes_serve_from_the_rename_on(self, tmp_path: Path, redis_url: str) -> None:
        closes = {("FB", MONDAY): "1210", ("FB", TUESDAY): "22", ("META", TUESDAY): "1220"}
        async with gateway_at(EVENING, tmp_path, redis_url, closes) as gateway:
            await buy(gateway, 100, 1000, symbol="FB")
            await record(gateway, kind="symbol_change", symbol="FB", new_symbol="META", date="2025-10-21")
            await buy(gateway, 50, 20, when="2025-10-21T14:00:00Z", symbol="FB")
            new, old = (await pnl(gateway))["positions"]
        assert (new["current_price"], new["unrealized_pnl"], new["previous_close"]) == (22, 100, None)
        assert (old["current_price"], old["previous_close"], old["day_pnl"]) == (1220, 1210, 1000)
