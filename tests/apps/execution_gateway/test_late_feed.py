"""A feed that says it is late, and prices stamped ahead: what the gateway makes of them, in rows and health."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import RunningGateway, price, serving, settings_in, streaming, utc_now
from tests.support.waiting import eventually

REALTIME = "/api/v1/positions/pnl/realtime"


async def row_of(gateway: RunningGateway) -> dict:
    (row,) = (await gateway.get(REALTIME))["positions"]
    return row


async def until_source(gateway: RunningGateway, wanted: str) -> dict:
    async def is_so() -> dict | None:
        row = await row_of(gateway)
        return row if row["price_source"] == wanted else None

    return await eventually(is_so)


async def reasons(gateway: RunningGateway) -> dict[str, str]:
    return {reason["code"]: reason["detail"] for reason in (await gateway.get("/health"))["reasons"]}


async def test_while_the_stream_is_late_nothing_is_live_and_ages_count_from_the_venue(
    tmp_path: Path, redis_client: RedisClient, redis_url: str
):
    cache = PriceCache(redis_client, 300)
    # So patient that only the feed's own word can make the price stale.
    async with serving(settings_in(tmp_path, redis_url, stale_after_seconds=250)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")
        made_at = utc_now() - timedelta(seconds=60)
        await cache.write_feed_status(streaming("AAPL"))
        await cache.write([PriceWrite(price(timestamp=made_at), publish=True)])
        assert (await until_source(gateway, "real-time"))["price_age_seconds"] < 30
        assert (await gateway.get(REALTIME))["feed"]["lag_seconds"] is None

        await cache.write_feed_status(streaming("AAPL", lag_s=60.0))
        row = await until_source(gateway, "stale")
        assert (row["current_price"], row["unrealized_pnl"]) == (Decimal("152.00"), Decimal("200.00"))
        assert row["price_age_seconds"] >= 60
        assert row["stale_reason"] == "late"
        assert (await gateway.get(REALTIME))["feed"]["lag_seconds"] == 60
        assert "60 s" in (await reasons(gateway))["stream_lagging"]
        assert "markstream_gateway_stream_lag_seconds 60.0" in (await gateway.client.get("/metrics")).text

        await cache.write_feed_status(streaming("AAPL"))
        await until_source(gateway, "real-time")
        assert "stream_lagging" not in await reasons(gateway)


@pytest.mark.parametrize("ahead", [timedelta(seconds=70), timedelta(hours=1), timedelta(days=36_525)])
@pytest.mark.parametrize("epoch", ["e1", None])
async def test_a_key_stamped_far_ahead_is_never_live_and_holds_up_no_later_one(
    running_gateway: RunningGateway, redis_client: RedisClient, ahead: timedelta, epoch: str | None
):
    cache = PriceCache(redis_client, 300)
    await running_gateway.fill("AAPL", 100, "150.00")
    await cache.write_feed_status(streaming("AAPL"))
    wrong = price(mid="777.00", timestamp=utc_now() + ahead, received_at=None, epoch=epoch, seq=None)
    await cache.write([PriceWrite(wrong, publish=True)])
    assert (await until_source(running_gateway, "stale"))["current_price"] == Decimal("777.00")
    await cache.write([PriceWrite(price(epoch=epoch, seq=None), publish=True)])
    assert (await until_source(running_gateway, "real-time"))["current_price"] == Decimal("152.00")


@pytest.mark.parametrize("wrong_by", [timedelta(seconds=-90), timedelta(seconds=90), timedelta(hours=5)])
async def test_a_wrong_clock_of_the_gateway_changes_no_age(
    tmp_path: Path, redis_client: RedisClient, redis_url: str, wrong_by: timedelta
):
    cache = PriceCache(redis_client, 300)
    async with serving(settings_in(tmp_path, redis_url), now=lambda: utc_now() + wrong_by) as gateway:
        await gateway.fill("AAPL", 100, "150.00", filled_at=(utc_now() - timedelta(hours=6)).isoformat())
        await cache.write([PriceWrite(price(), publish=True)])

        async def heartbeat_is_understood() -> dict:
            await cache.write_feed_status(streaming("AAPL", at=utc_now()))
            assert "clock_wrong" in await reasons(gateway)
            return await row_of(gateway)

        row = await eventually(heartbeat_is_understood, every_s=0.2)
        assert row["price_source"] == "real-time"
        assert row["price_age_seconds"] < 30
        way = "behind" if wrong_by < timedelta() else "ahead of"
        assert way in (await reasons(gateway))["clock_wrong"]

        # One that the venue has not made yet, by the right clock.
        ahead = price(seq=2, mid="777.00", timestamp=utc_now() + timedelta(seconds=75))
        await cache.write([PriceWrite(ahead, publish=True)])
        await cache.write_feed_status(streaming("AAPL", at=utc_now()))
        assert (await until_source(gateway, "stale"))["current_price"] == Decimal("777.00")
