"""A namespace stands before every key and channel; systems with different ones share nothing."""

import asyncio

import pytest

from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.event_publisher import POSITION_CHANGED_CHANNEL, EventPublisher
from libs.redis_client.lease import Lease
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import price, streaming


@pytest.mark.parametrize(
    ("namespace", "prefix"), [("", ""), ("paper", "paper:"), ("A-b_9" * 6 + "xy", "A-b_9" * 6 + "xy:")]
)
async def test_every_name_begins_with_it(namespace: str, prefix: str) -> None:
    with EmbeddedRedis() as server:
        client, plain = RedisClient(server.url, namespace=namespace), RedisClient(server.url)
        async with plain.pubsub() as pubsub:
            await pubsub.psubscribe("*")
            lease = Lease(client, "host:1:own")
            await lease.claim()
            await Lease(client, "host:2:other").look()
            cache = PriceCache(client, 300, fence="host:1:own")
            await cache.write_feed_status(streaming("AAPL"))
            await cache.write([PriceWrite(price("BRK.B"), publish=True)])
            await EventPublisher(client).publish(POSITION_CHANGED_CHANNEL, {"symbols": []})
            channels = []
            async with asyncio.timeout(5):
                while len(channels) < 3:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
                    channels += [] if message is None else [message["channel"].decode()]
        assert channels == [prefix + name for name in ("feed.status", "price.updated.BRK.B", "position.changed")]
        keys = {key.decode() for key in await plain.execute("KEYS", "*")}
        assert keys == {prefix + name for name in ("feed:lease", "feed:standby", "feed:status", "price:BRK.B")}
        assert (await cache.read(["BRK.B"])).keys() == {"BRK.B"}
        assert (await cache.read_feed_status()).symbols == {"AAPL"}
        assert await lease.release()
        await client.aclose()
        await plain.aclose()


async def test_two_namespaces_share_nothing(redis_url: str) -> None:
    one, two = (RedisClient(redis_url, namespace=name) for name in ("one", "two"))
    await PriceCache(one, 300).write([PriceWrite(price("AAPL"), publish=False)])
    await PriceCache(one, 300).write_feed_status(streaming("AAPL"))
    assert await PriceCache(two, 300).read(["AAPL"]) == {}
    assert await PriceCache(two, 300).read_feed_status() is None
    assert (await Lease(one, "host:1:a").claim()).holder == "host:1:a"
    assert (await Lease(two, "host:2:b").claim()).holder == "host:2:b"
    for client in (one, two):
        await client.aclose()
