"""Several systems on one Redis server: pub/sub carries the messages of all, and a reader believes its own."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from libs.market_data.prices import LinkState, Mode, PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache, encode_price_update
from tests.support.gateway import price, serving, settings_in, streaming, utc_now
from tests.support.subscriber import Listening, listening
from tests.support.waiting import eventually

OTHER = "host:2:other"


@pytest.fixture
def ours(redis_client: RedisClient) -> PriceCache:
    return PriceCache(redis_client, 300)


@pytest.fixture
async def theirs(redis_url: str) -> AsyncIterator[PriceCache]:
    """The other system's, in another database of the same server."""
    client = RedisClient(redis_url.removesuffix("/0") + "/1")
    yield PriceCache(client, 300)
    await client.execute("FLUSHDB")
    await client.aclose()


def write(mid: object, seq: int = 1, **fields: object) -> list[PriceWrite]:
    return [PriceWrite(price("AAPL", mid, seq=seq, **fields), publish=True)]


async def price_is(it: Listening, mid: int) -> None:
    def is_so() -> bool:
        held = it.book.price("AAPL")
        return held is not None and held.mid == mid

    await eventually(is_so)


async def test_the_prices_and_the_feed_of_another_database_are_not_seen(
    redis_url: str, ours: PriceCache, theirs: PriceCache
) -> None:
    mine = streaming("AAPL", mode=Mode.PAPER)
    await ours.write_feed_status(mine)
    await ours.write(write(150))
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        other = streaming("AAPL", instance=OTHER, epoch="x1", mode=Mode.LIVE, state=LinkState.BACKING_OFF)
        await theirs.write_feed_status(other)
        # The same epoch, whoever may have given it out, does not make it ours either.
        for seq, epoch in ((1, "x1"), (2, "e1"), (10**6, "e1")):
            await theirs.write(write(777, seq, instance=OTHER, epoch=epoch))
        await ours.write(write(151, 2))
        await price_is(it, 151)
        assert it.book.feed == mine
        assert it.subscriber.own_feed.foreign_messages == 4
        assert it.subscriber.counters.gaps == 0


async def test_a_foreign_heartbeat_keeps_no_dead_feed_alive(
    redis_url: str, ours: PriceCache, theirs: PriceCache
) -> None:
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        await ours.write_feed_status(streaming("AAPL"))
        died_at = utc_now()
        await eventually(lambda: it.book.feed is not None)

        async def is_silent() -> bool:
            await theirs.write_feed_status(streaming("AAPL", instance=OTHER))
            return it.book.is_silent(utc_now())

        await eventually(is_silent, within_s=15)
        assert it.book.heard_at <= died_at + timedelta(seconds=1)
        await eventually(lambda: it.book.feed is None, within_s=10)


async def test_where_our_feed_is_not_known_another_is_none(redis_url: str, theirs: PriceCache) -> None:
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        await theirs.write_feed_status(streaming("AAPL", instance=OTHER))
        await theirs.write(write(777, instance=OTHER))
        await eventually(lambda: it.subscriber.counters.messages == 2)
        assert (it.book.feed, it.book.price("AAPL")) == (None, None)


async def test_another_process_takes_over(redis_url: str, ours: PriceCache) -> None:
    await ours.write_feed_status(streaming("AAPL"))
    await ours.write(write(150, 5))
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        await ours.write_feed_status(streaming("AAPL", instance=OTHER, epoch="e2"))
        await ours.write(write(151, 1, instance=OTHER, epoch="e2"))
        await price_is(it, 151)
        await eventually(lambda: it.book.feed.instance == OTHER)
        await ours.write(write(152, 2, instance=OTHER, epoch="e2"))
        await price_is(it, 152)
        assert it.subscriber.own_feed.lasting(utc_now()) == []


async def test_a_new_connection_of_our_own_process(redis_url: str, ours: PriceCache) -> None:
    await ours.write_feed_status(streaming("AAPL"))
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        for number in range(2, 6):
            await ours.write_feed_status(streaming("AAPL", epoch=f"e{number}"))
            await ours.write(write(100 + number, 1, epoch=f"e{number}"))
            await price_is(it, 100 + number)
            await eventually(lambda epoch=f"e{number}": it.book.feed.epoch == epoch)
        assert it.subscriber.own_feed.foreign_messages == 0


async def test_a_program_that_gives_no_instance_is_believed_by_its_keys(
    redis_url: str, ours: PriceCache, redis_client: RedisClient
) -> None:
    nameless = {"instance": None, "epoch": None}
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        await ours.write(write(150, 1, **nameless))
        await eventually(lambda: it.book.price("AAPL") is not None)
        # Published, and never written under the key.
        await redis_client.publish("price.updated.AAPL", encode_price_update(price("AAPL", 777, seq=2, **nameless)))
        await ours.write(write(151, 3, **nameless))
        await price_is(it, 151)
        await ours.write_feed_status(streaming("AAPL", **nameless))
        await eventually(lambda: it.book.feed is not None)


async def test_our_key_stands_whatever_is_published_with_our_name(
    redis_url: str, ours: PriceCache, redis_client: RedisClient
) -> None:
    await ours.write_feed_status(streaming("AAPL"))
    await ours.write(write(150, 7))
    async with listening(redis_url) as it:
        await eventually(lambda: it.subscriber.is_connected)
        seen = set()

        async def publish(seq: int) -> None:
            await redis_client.publish("price.updated.AAPL", encode_price_update(price("AAPL", 777, seq=seq)))

        for number, seq in enumerate((10**12, 2**63 - 1, 9, 7), 1):
            await publish(seq)
            await eventually(lambda number=number: it.subscriber.counters.messages == number)
            seen.add(it.book.price("AAPL").mid)
        await ours.write(write(151, 8))
        await price_is(it, 151)
        # The next in sequence cannot be told from ours, but the key can: it is looked at within two seconds.
        await publish(9)
        await price_is(it, 777)
        await price_is(it, 151)
        await ours.write(write(152, 9))
        await price_is(it, 152)
        assert seen == {Decimal(150)}


IMPOSSIBLE: tuple[dict[str, object], ...] = (
    {"bid": Decimal(900), "ask": Decimal(700)},
    {"bid": Decimal(778), "ask": Decimal(779)},
    {"bid": Decimal(775), "ask": Decimal(776)},
    {"bid": Decimal(1), "ask": Decimal(1553)},
    {"seq": 2**63},
    {"seq": -1},
)


@pytest.mark.parametrize("fields", IMPOSSIBLE)
async def test_what_no_writer_writes_is_not_believed_whatever_its_name(
    fields: dict[str, object], tmp_path: Path, redis_url: str, ours: PriceCache, redis_client: RedisClient
) -> None:
    await ours.write_feed_status(streaming("AAPL"))
    await ours.write(write(150, 7))
    async with serving(settings_in(tmp_path, redis_url)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")
        counters = gateway.gateway.subscriber.counters
        await eventually(lambda: gateway.gateway.subscriber.is_connected)
        forged = {"seq": 8, **fields}
        await redis_client.publish("price.updated.AAPL", encode_price_update(price("AAPL", 777, **forged)))
        await eventually(lambda: counters.unreadable == 1)
        body = await gateway.get("/api/v1/positions/pnl/realtime")
        assert body["positions"][0]["current_price"] == Decimal(150)
        await ours.write(write(151, 8))
        await eventually(lambda: gateway.gateway.prices.price("AAPL").mid == 151)


async def test_two_gateways_on_one_server_each_with_its_own_feed(
    tmp_path: Path, redis_url: str, ours: PriceCache, theirs: PriceCache
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    other_url = redis_url.removesuffix("/0") + "/1"
    async with (
        serving(settings_in(folders[0], redis_url)) as one,
        serving(settings_in(folders[1], other_url), is_alone=False) as two,
    ):
        for gateway in (one, two):
            await gateway.fill("AAPL", 100, "150.00")
            await eventually(lambda gateway=gateway: gateway.gateway.subscriber.is_connected)
        seqs = {"mine": 0, "other": 0}

        async def both_speak() -> None:
            seqs["mine"] += 1
            await ours.write_feed_status(streaming("AAPL", mode=Mode.SIMULATED))
            await ours.write(write(152, seqs["mine"]))
            other = {"instance": OTHER, "epoch": "x1"}
            await theirs.write_feed_status(streaming("AAPL", mode=Mode.REPLAY, **other))
            await theirs.write(write(160, seqs["mine"], **other))

        async def is_named() -> bool:
            await both_speak()
            bodies = [await gateway.get("/api/v1/positions/pnl/realtime") for gateway in (one, two)]
            for body, mid, mode in zip(bodies, (152, 160), ("simulated", "replay"), strict=True):
                row = body["positions"][0]
                assert row["current_price"] in {None, Decimal(mid)}, "the other's price"
                assert body["feed"]["state"] == "unknown" or body["mode"] == mode
            codes = [[reason["code"] for reason in (await gateway.get("/health"))["reasons"]] for gateway in (one, two)]
            return all("foreign_messages" in found for found in codes)

        await eventually(is_named, within_s=20)
        for gateway, instance in ((one, OTHER), (two, "host:1:own")):
            health = await gateway.get("/health")
            assert (health["status"], health["redis"]["foreign_instances"]) == ("healthy", [instance])
            (reason,) = health["reasons"]
            assert instance in reason["detail"]
            assert "REDIS_NAMESPACE" in reason["detail"]
