"""The subscriber with a real Redis: what it reads, what it survives."""

import os
import signal
from datetime import timedelta

import msgspec
import pytest

from apps.execution_gateway import delivery, price_subscriber
from apps.execution_gateway.delivery import Delivery
from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.event_publisher import FEED_STATUS_CHANNEL
from libs.redis_client.price_cache import FEED_STATUS_KEY, PriceCache, encode_feed_status, encode_price_update
from tests.support.faulty_line import faulty_line
from tests.support.gateway import price, streaming, utc_now
from tests.support.subscriber import listening
from tests.support.waiting import eventually


@pytest.fixture
def cache(redis_client: RedisClient) -> PriceCache:
    return PriceCache(redis_client, 300)


def writes(symbol: str, mid: object, seq: int, *, publish: bool = True) -> list[PriceWrite]:
    return [PriceWrite(price(symbol, mid, seq=seq), publish)]


async def test_the_snapshot_then_what_comes_live(redis_url: str, cache: PriceCache):
    await cache.write(writes("AAPL", 150, 7))
    await cache.write_feed_status(streaming("AAPL"))
    async with listening(redis_url) as here:
        await eventually(lambda: here.watcher.connections == 1)
        assert here.book.price("AAPL").mid == 150
        assert here.book.feed.symbols == {"AAPL"}
        await cache.write(writes("AAPL", 151, 8))
        await eventually(lambda: here.book.price("AAPL").mid == 151)
        assert here.watcher.symbols == ["AAPL"]
        assert here.subscriber.counters.gaps == 0


async def test_after_a_gap_the_cache_is_read_again(redis_url: str, cache: PriceCache):
    await cache.write_feed_status(streaming("AAPL"))
    async with listening(redis_url) as here:
        await eventually(lambda: here.watcher.connections == 1)
        await cache.write(writes("AAPL", 150, 1))
        # Written without a message: as if the message had been lost.
        await cache.write(writes("MSFT", 400, 1, publish=False))
        await cache.write(writes("AAPL", 152, 3))
        await eventually(lambda: here.book.price("MSFT") is not None)
        assert (here.subscriber.counters.gaps, here.subscriber.counters.resyncs) == (1, 2)


async def test_an_old_word_of_a_dead_feed_is_not_believed(redis_url: str, redis_client: RedisClient, cache: PriceCache):
    await cache.write_feed_status(streaming("AAPL"))
    await redis_client.execute("PEXPIRE", "feed:status", 3000)
    async with listening(redis_url) as here:
        await eventually(lambda: here.watcher.connections == 1)
        assert here.book.feed is None


async def test_silence_is_noticed(redis_url: str, cache: PriceCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(price_subscriber, "HEARTBEAT_SILENCE_S", 0.2)
    monkeypatch.setattr("libs.market_data.freshness.HEARTBEAT_SILENCE_S", 0.2)
    async with listening(redis_url) as here:
        await eventually(lambda: here.subscriber.is_connected)

        async def is_heard() -> bool:
            # Again and again: silence has it dial anew, and what was said meanwhile may be too old by then.
            await cache.write_feed_status(streaming("AAPL"))
            return here.book.feed is not None

        await eventually(is_heard)
        await eventually(lambda: here.book.feed is None)
        assert here.subscriber.is_connected
        await eventually(is_heard)


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("price.updated.AAPL", b"no json"),
        ("price.updated.AAPL", b'{"symbol":"AAPL","price":null,"timestamp":"2025-10-19T14:30:15Z"}'),
        ("price.updated.AAPL", b'{"symbol":"AAPL","price":-1,"timestamp":"2025-10-19T14:30:15Z"}'),
        ("price.updated.AAPL", encode_price_update(price("MSFT"))),
        ("price.updated.", b""),
        ("feed.status", b"{}"),
        ("feed.status", msgspec.json.encode({"state": "confused"})),
    ],
)
async def test_one_unreadable_message_costs_one_message(
    redis_url: str, redis_client: RedisClient, cache: PriceCache, channel: str, message: bytes
):
    async with listening(redis_url) as here:
        await eventually(lambda: here.watcher.connections == 1)
        await redis_client.publish(channel, message)
        await cache.write(writes("AAPL", 151, 1))
        await eventually(lambda: here.book.price("AAPL") is not None)
        assert here.book.price("AAPL").mid == 151
        assert here.subscriber.counters.unreadable == 1
        assert here.watcher.connections == 1


async def test_an_older_message_is_counted(redis_url: str, redis_client: RedisClient, cache: PriceCache):
    await cache.write_feed_status(streaming("AAPL"))
    async with listening(redis_url) as here:
        await eventually(lambda: here.watcher.connections == 1)
        await cache.write(writes("AAPL", 151, 5))
        await redis_client.publish("price.updated.AAPL", encode_price_update(price(seq=4)))
        await eventually(lambda: here.subscriber.counters.outdated == 1)


async def test_a_server_gone_and_back():
    first = EmbeddedRedis()
    first.start()
    async with listening(first.url) as here:
        await eventually(lambda: here.watcher.connections == 1)
        first.stop()
        await eventually(lambda: not here.subscriber.is_connected)
        assert here.subscriber.last_error
        with EmbeddedRedis(port=first.port) as second:
            client = RedisClient(second.url)
            await PriceCache(client, 300).write(writes("AAPL", 160, 1))
            await eventually(lambda: here.watcher.connections == 2, within_s=10)
            # It may have read the cache before the price was there: then it has heard of it, or is about to.
            await eventually(lambda: here.book.price("AAPL") is not None)
            assert here.book.price("AAPL").mid == 160
            assert here.subscriber.last_error is None
            await client.aclose()


async def test_a_frozen_server_is_noticed_and_its_thaw_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivery, "LATE_AFTER", timedelta(seconds=0.7))
    monkeypatch.setattr(price_subscriber, "SUBSCRIBE_TIMEOUT_S", 0.3)
    with EmbeddedRedis() as server:
        async with listening(server.url) as here:
            await eventually(lambda: here.watcher.connections == 1)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                await eventually(lambda: not here.subscriber.is_connected, within_s=10)
                assert here.subscriber.counters.late == 1
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await eventually(lambda: here.subscriber.is_connected, within_s=10)


async def test_a_flood_starves_nobody(redis_url: str, cache: PriceCache):
    await cache.write_feed_status(streaming("*"))
    async with listening(redis_url) as here:
        await eventually(lambda: here.watcher.connections == 1)
        for seq in range(1, 21):
            many = [PriceWrite(price(f"S{one}", seq, seq=seq), publish=True) for one in range(200)]
            await cache.write(many)
        await eventually(lambda: len(here.book) == 200 and here.book.price("S199").seq == 20)
        assert here.subscriber.counters.messages == 4000


async def test_what_piled_up_while_the_process_slept_is_not_believed(
    redis_url: str, redis_client: RedisClient, cache: PriceCache
) -> None:
    slept = timedelta()
    async with listening(redis_url, lambda: utc_now() + slept) as it:
        await cache.write_feed_status(streaming("AAPL"))
        await eventually(lambda: it.book.feed is not None)
        # Else the new connection takes it from there, and knows of a feed again.
        await redis_client.execute("DEL", FEED_STATUS_KEY)
        slept = timedelta(minutes=1)
        # As if sent while it slept: the newest message, and yet old.
        await redis_client.publish(FEED_STATUS_CHANNEL, encode_feed_status(streaming("AAPL", "MSFT")))
        await eventually(lambda: it.watcher.connections == 2)
        assert (it.subscriber.counters.late, it.book.feed) == (1, None)
        await cache.write_feed_status(streaming("KO"))
        await eventually(lambda: it.book.feed is not None and it.book.feed.symbols == {"KO"})


async def test_what_waited_on_the_way_is_not_taken_for_news(redis_server: EmbeddedRedis, cache: PriceCache) -> None:
    async with faulty_line(redis_server.port) as line, listening(f"redis://127.0.0.1:{line.port}/0") as it:
        await eventually(lambda: it.subscriber.is_connected)
        line.break_by("hold")
        await cache.write_feed_status(streaming("AAPL"))
        written_at = utc_now()
        await cache.write(writes("AAPL", 150, 1))
        await eventually(lambda: utc_now() - written_at > timedelta(seconds=1.5))
        line.mend()
        await eventually(lambda: it.book.price("AAPL") is not None)
        assert it.book.feed is not None
        assert it.book.heard_at <= written_at
        assert it.subscriber.counters.late == 0, "nor is it a reason to begin anew"


async def test_a_fresh_heartbeat_is_believed_to_the_second(redis_url: str, cache: PriceCache) -> None:
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)

        async def is_heard_at_once() -> bool:
            written_at = utc_now()
            await cache.write_feed_status(streaming("AAPL"))
            await eventually(lambda: it.book.feed is not None)
            assert it.book.heard_at > written_at - timedelta(seconds=1.2)
            return it.book.heard_at > written_at - timedelta(seconds=0.6)

        await eventually(is_heard_at_once)


async def test_a_heartbeat_vouches_for_nothing_before_the_prices_have_been_read(
    redis_url: str, redis_client: RedisClient, cache: PriceCache
) -> None:
    await cache.write(writes("AAPL", 150, 1))
    await cache.write_feed_status(streaming("AAPL"))
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        heard_at = it.book.heard_at
        await redis_client.execute("ACL", "SETUSER", "default", "-mget")
        try:
            await redis_client.execute("CLIENT", "KILL", "TYPE", "pubsub")
            # What the subscriber misses: it holds 150 still.
            await cache.write(writes("AAPL", 151, 2, publish=False))

            async def has_tried_again() -> bool:
                await cache.write_feed_status(streaming("AAPL", "MSFT"))
                return it.subscriber.counters.reconnects >= 4

            await eventually(has_tried_again)
            assert "mget" in it.subscriber.last_error
            assert (it.book.price("AAPL").mid, it.book.heard_at) == (150, heard_at)
        finally:
            await redis_client.execute("ACL", "SETUSER", "default", "+mget")
        await eventually(lambda: it.subscriber.is_connected)
        assert it.book.price("AAPL").mid == 151
        assert it.book.heard_at > heard_at


async def test_after_an_outage_nothing_is_held_that_was_not_read_again(
    redis_url: str, redis_client: RedisClient, cache: PriceCache
) -> None:
    await cache.write_feed_status(streaming("AAPL", "KO"))
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        await cache.write([*writes("AAPL", 150, 1), *writes("KO", 60, 1)])
        await eventually(lambda: len(it.book) == 2)
        await redis_client.execute("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: it.watcher.connections == 2)
        assert (it.book.price("AAPL").mid, it.book.price("KO")) == (150, None)


async def test_a_library_that_dials_again_by_itself_is_found_out(redis_url: str) -> None:
    async with listening(redis_url) as it:
        with pytest.raises(ConnectionError):
            it.subscriber._take({"type": "psubscribe", "channel": b"price.updated.*", "data": 1}, Delivery(utc_now()))
