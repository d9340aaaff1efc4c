"""Money of two kinds: made-up prices mark nothing in an account at the broker, and it is said loudly."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.market_data.prices import Mode, PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import RunningGateway, price, serving, settings_in, streaming, utc_now
from tests.support.waiting import eventually

REALTIME = "/api/v1/positions/pnl/realtime"
ALPACA = {"alpaca_stream_url": None}
LIVE = {**ALPACA, "alpaca_paper": False}


async def heard(gateway: RunningGateway) -> None:
    await eventually(lambda: gateway.gateway.prices.feed is not None)
    await eventually(lambda: gateway.gateway.prices.price("AAPL") is not None)


async def body_with(
    folder: Path, redis_url: str, redis_client: RedisClient, account: dict[str, Any], prices: Mode, **fields: object
) -> tuple[Any, Any, int]:
    """Return the P&L, the health and the status of readiness with a feed and a price of this mode."""
    cache = PriceCache(redis_client, 300)
    async with serving(settings_in(folder, redis_url, **account)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")
        await cache.write_feed_status(streaming("AAPL", mode=prices))
        await cache.write([PriceWrite(price("AAPL", 152, **fields), publish=True)])
        await heard(gateway)
        ready = await gateway.client.get("/health/ready")
        return await gateway.get(REALTIME), await gateway.get("/health"), ready.status_code


@pytest.mark.parametrize(("account", "mode"), [(ALPACA, "paper"), (LIVE, "live")])
@pytest.mark.parametrize("prices", [Mode.SIMULATED, Mode.REPLAY])
@pytest.mark.parametrize("names_mode", [True, False])
async def test_made_up_prices_mark_nothing_in_a_real_account(
    account: dict[str, Any],
    mode: str,
    prices: Mode,
    names_mode: bool,
    tmp_path: Path,
    redis_url: str,
    redis_client: RedisClient,
) -> None:
    fields = {"mode": prices} if names_mode else {}
    body, health, ready = await body_with(tmp_path, redis_url, redis_client, account, prices, **fields)
    (row,) = body["positions"]
    assert (row["price_source"], row["current_price"], row["unrealized_pnl"]) == ("unavailable", None, None)
    assert (body["mode"], body["complete"], body["unpriced"]) == (mode, False, ["AAPL"])
    assert (body["feed"]["state"], body["feed"]["connected"]) == ("foreign_mode", False)
    assert (health["status"], health["mode"], ready) == ("unhealthy", mode, 503)
    (reason,) = [reason for reason in health["reasons"] if reason["code"] == "foreign_mode"]
    assert mode in reason["detail"]
    assert prices in reason["detail"]
    # Its clock is made up, too.
    assert health["market"]["said_by"] == "calendar"


@pytest.mark.parametrize(
    ("account", "prices", "mode"),
    [
        (ALPACA, Mode.PAPER, "paper"), (LIVE, Mode.LIVE, "live"), (LIVE, Mode.PAPER, "live"),
        ({}, Mode.SIMULATED, "simulated"), ({}, Mode.REPLAY, "replay"), ({}, Mode.PAPER, "paper"),
        ({"alpaca_stream_url": None, "alpaca_feed": "test"}, Mode.SIMULATED, "simulated"),
    ],
)  # fmt: skip
async def test_all_others_mark(
    account: dict[str, Any], prices: Mode, mode: str, tmp_path: Path, redis_url: str, redis_client: RedisClient
) -> None:
    body, health, ready = await body_with(tmp_path, redis_url, redis_client, account, prices, mode=prices)
    (row,) = body["positions"]
    assert (row["price_source"], row["unrealized_pnl"]) == ("real-time", Decimal("200.00"))
    assert (body["mode"], body["feed"]["state"], health["status"], ready) == (mode, "streaming", "healthy", 200)


async def test_a_made_up_price_that_outlives_its_feed_marks_nothing(
    tmp_path: Path, redis_url: str, redis_client: RedisClient
) -> None:
    await PriceCache(redis_client, 300).write([PriceWrite(price("AAPL", 152, mode=Mode.SIMULATED), publish=False)])
    async with serving(settings_in(tmp_path, redis_url, **ALPACA)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")
        assert (await gateway.get(REALTIME))["positions"][0]["price_source"] == "unavailable"


async def test_a_price_of_which_nobody_says_what_it_is_marks(
    tmp_path: Path, redis_url: str, redis_client: RedisClient
) -> None:
    await redis_client.set("price:AAPL", f'{{"mid": 152.00, "timestamp": "{utc_now().isoformat()}"}}', ex=300)
    async with serving(settings_in(tmp_path, redis_url, **ALPACA)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")
        body = await gateway.get(REALTIME)
        assert (body["mode"], body["positions"][0]["price_source"]) == ("paper", "real-time")


async def test_when_the_real_feed_comes_back_it_marks_again(
    tmp_path: Path, redis_url: str, redis_client: RedisClient
) -> None:
    cache = PriceCache(redis_client, 300)
    async with serving(settings_in(tmp_path, redis_url, **ALPACA)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")

        async def is_seen(source: str, mode: Mode, epoch: str) -> bool:
            await cache.write_feed_status(streaming("AAPL", mode=mode, epoch=epoch))
            await cache.write([PriceWrite(price("AAPL", 152, mode=mode, epoch=epoch), publish=True)])
            await heard(gateway)
            return bool((await gateway.get(REALTIME))["positions"][0]["price_source"] == source)

        await eventually(lambda: is_seen("unavailable", Mode.SIMULATED, "e1"))
        await eventually(lambda: is_seen("real-time", Mode.PAPER, "e2"))
        await eventually(lambda: _is_healthy(gateway))


async def _is_healthy(gateway: RunningGateway) -> bool:
    return bool((await gateway.get("/health"))["status"] == "healthy")
