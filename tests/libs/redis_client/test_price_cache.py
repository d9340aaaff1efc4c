import dataclasses
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import structlog

from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price, PriceWrite
from libs.redis_client.client import RedisClient, RedisUnavailableError, redis_url
from libs.redis_client.price_cache import (
    PriceCache,
    decode_feed_status,
    decode_price_update,
)

NOW = datetime(2025, 10, 19, 14, 30, 15, 123456, UTC)
STATUS = FeedStatus(LinkState.STREAMING, True, NOW, "c1", "iex", Mode.PAPER, frozenset({"AAPL"}), MarketPhase.OPEN)  # noqa: FBT003


def price(symbol: str, mid: str = "152.00", seq: int = 1) -> Price:
    middle, cent = Decimal(mid), Decimal("0.01")
    return Price(symbol, middle, NOW, bid=middle - cent, ask=middle + cent, epoch="c1", seq=seq)


def write_of(symbol: str, mid: str = "152.00", *, publish: bool = True) -> PriceWrite:
    return PriceWrite(price(symbol, mid), publish)


@pytest.fixture
def cache(redis_client: RedisClient) -> PriceCache:
    return PriceCache(redis_client, ttl_s=300)


async def test_reads_what_it_wrote(cache: PriceCache, redis_client: RedisClient) -> None:
    await cache.write([write_of("AAPL"), write_of("BRK.B", "480.125")])
    assert await cache.read(["AAPL", "BRK.B", "MSFT"]) == {"AAPL": price("AAPL"), "BRK.B": price("BRK.B", "480.125")}
    assert 295 <= await redis_client.raw.ttl("price:AAPL") <= 300
    assert json.loads(await redis_client.get("price:AAPL") or b"")["mid"] == 152.0


async def test_nothing_to_write_or_read_asks_nothing(free_port: int) -> None:
    client = RedisClient(redis_url("127.0.0.1", free_port))
    cache = PriceCache(client, ttl_s=300)
    await cache.write([])
    assert await cache.read([]) == {}
    await client.aclose()


async def test_publishes_only_what_asks_for_it_each_on_its_channel(
    cache: PriceCache, redis_client: RedisClient
) -> None:
    subscriber = redis_client.pubsub()
    try:
        await subscriber.psubscribe("price.updated.*")
        await subscriber.get_message(timeout=1)
        await cache.write([write_of("AAPL"), write_of("MSFT", publish=False), write_of("BRK.B", "480.125")])
        messages = [await subscriber.get_message(timeout=1) for _ in range(2)]
        assert [message["channel"] for message in messages] == [b"price.updated.AAPL", b"price.updated.BRK.B"]
        assert decode_price_update(messages[1]["data"]).mid == Decimal("480.125")
        assert await subscriber.get_message(timeout=0.05) is None
    finally:
        await subscriber.aclose()
    assert set(await cache.read(["AAPL", "MSFT", "BRK.B"])) == {"AAPL", "MSFT", "BRK.B"}


async def test_a_batch_is_one_command(cache: PriceCache, redis_client: RedisClient) -> None:
    await cache.write([write_of("AAPL")])  # loads the script
    before = (await redis_client.raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    network_before = (await redis_client.raw.info("stats"))["total_commands_processed"]
    await cache.write([write_of(f"S{number}") for number in range(1000)])
    after = await redis_client.raw.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] == before + 1
    assert (await redis_client.raw.info("stats"))["total_commands_processed"] - network_before < 1000 * 2 + 10
    assert len(await cache.read(f"S{number}" for number in range(1000))) == 1000


async def test_a_restarted_server_that_has_forgotten_the_script_is_served(
    cache: PriceCache, redis_client: RedisClient
) -> None:
    await cache.write([write_of("AAPL")])
    await redis_client.raw.script_flush()
    await cache.write([write_of("AAPL", "153.00")])
    assert (await cache.read(["AAPL"]))["AAPL"].mid == Decimal("153.00")


async def test_replaces_whatever_was_under_the_key(cache: PriceCache, redis_client: RedisClient) -> None:
    await redis_client.raw.hset("price:AAPL", "a", "1")
    assert await cache.read(["AAPL"]) == {}
    await cache.write([write_of("AAPL")])
    assert "AAPL" in await cache.read(["AAPL"])


async def test_a_ttl_is_at_least_a_second(redis_client: RedisClient) -> None:
    await PriceCache(redis_client, ttl_s=0.2).write([write_of("AAPL")])
    assert await redis_client.raw.ttl("price:AAPL") == 1


async def test_unreadable_entries_are_left_out_counted_and_told_once(
    cache: PriceCache, redis_client: RedisClient
) -> None:
    await cache.write([write_of("AAPL")])
    await redis_client.set("price:MSFT", b'{"mid":null}')
    await redis_client.set("price:KO", b"\xff")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert set(await cache.read(["AAPL", "MSFT", "KO"])) == {"AAPL"}
    assert cache.unreadable == 6
    assert [(entry["event"], entry["count"], entry["first"]) for entry in logs] == [
        ("cached_prices_unreadable", 2, "MSFT")
    ]
    await cache.write([write_of("MSFT")])
    assert set(await cache.read(["AAPL", "MSFT"])) == {"AAPL", "MSFT"}
    # A new spell is told again.
    await redis_client.set("price:MSFT", b"{}")
    with structlog.testing.capture_logs() as logs:
        assert set(await cache.read(["AAPL", "MSFT"])) == {"AAPL"}
    assert len(logs) == 1


async def test_the_status_is_kept_announced_and_says_whether_the_server_remembered(
    cache: PriceCache, redis_client: RedisClient
) -> None:
    assert await cache.read_feed_status() is None
    subscriber = redis_client.pubsub()
    try:
        await subscriber.subscribe("feed.status")
        await subscriber.get_message(timeout=1)
        assert await cache.write_feed_status(STATUS) is False
        stopped = dataclasses.replace(STATUS, state=LinkState.STOPPED, connected=False)
        assert await cache.write_feed_status(stopped) is True
        heard = [await subscriber.get_message(timeout=1) for _ in range(2)]
    finally:
        await subscriber.aclose()
    assert [decode_feed_status(message["data"]) for message in heard] == [STATUS, stopped]
    assert await cache.read_feed_status() == stopped
    assert 9 <= await redis_client.raw.ttl("feed:status") <= 10
    await redis_client.raw.flushall()
    assert await cache.write_feed_status(STATUS) is False


async def test_an_unreadable_status_is_unknown(cache: PriceCache, redis_client: RedisClient) -> None:
    await redis_client.set("feed:status", b'{"state":"flying"}')
    with structlog.testing.capture_logs() as logs:
        assert await cache.read_feed_status() is None
    assert logs[0]["event"] == "feed_status_unreadable"


async def test_a_server_that_is_away_is_an_error_for_each_call(free_port: int) -> None:
    client = RedisClient(redis_url("127.0.0.1", free_port))
    cache = PriceCache(client, ttl_s=300)
    for call in (
        lambda: cache.write([write_of("AAPL")]),
        lambda: cache.read(["AAPL"], deadline_s=0.15),
        lambda: cache.write_feed_status(STATUS),
        cache.read_feed_status,
    ):
        with pytest.raises(RedisUnavailableError):
            await call()
    await client.aclose()


async def test_a_price_that_the_reader_has_is_not_decoded_again(redis_client: RedisClient) -> None:
    cache = PriceCache(redis_client, 300)
    first, newer = price("AAPL", "152.00"), replace(price("AAPL", "153.00"), seq=8)
    await cache.write([PriceWrite(first, publish=True)])
    assert await cache.read(["AAPL"], held={"AAPL": first}.get) == {}
    await cache.write([PriceWrite(newer, publish=True)])
    assert await cache.read(["AAPL"], held={"AAPL": first}.get) == {"AAPL": newer}
    nameless = replace(first, epoch=None)
    await cache.write([PriceWrite(nameless, publish=True)])
    assert await cache.read(["AAPL"], held={"AAPL": nameless}.get) == {"AAPL": nameless}
    await redis_client.set("price:AAPL", b"not json")
    assert await cache.read(["AAPL"], held={"AAPL": first}.get) == {}
    assert cache.unreadable == 1
