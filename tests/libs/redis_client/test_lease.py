import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price, PriceWrite
from libs.redis_client.client import RedisClient, RedisUnavailableError, redis_url
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.lease import (
    LEASE_KEY,
    STANDBY_KEY,
    Lease,
    LeaseLostError,
    check_fence,
    new_instance,
)
from libs.redis_client.price_cache import PriceCache
from tests.support.waiting import eventually

NOW = datetime(2025, 10, 19, 14, 30, 15, 123456, UTC)
STATUS = FeedStatus(LinkState.STREAMING, True, NOW, "c1", "iex", Mode.PAPER, frozenset({"AAPL"}), MarketPhase.OPEN)  # noqa: FBT003


def price_write(mid: str) -> PriceWrite:
    return PriceWrite(Price("AAPL", Decimal(mid), NOW, epoch="c1", seq=1), publish=True)


@pytest.fixture
def first(redis_client: RedisClient) -> Lease:
    return Lease(redis_client, "one:1:a")


@pytest.fixture
def second(redis_client: RedisClient) -> Lease:
    return Lease(redis_client, "two:2:b")


def test_a_name_is_that_of_one_process_and_no_other() -> None:
    names = {new_instance() for _ in range(50)}
    assert len(names) == 50
    assert all(name.split(":")[-2] == str(os.getpid()) for name in names)


async def test_the_first_takes_it_and_the_second_is_told_who_holds_it(
    first: Lease, second: Lease, redis_client: RedisClient
) -> None:
    taken = await first.claim()
    assert (taken.holder, taken.was_free) == ("one:1:a", True)
    assert await redis_client.get(LEASE_KEY) == b"one:1:a"
    for answer in (await second.claim(), await second.look()):
        assert (answer.holder, answer.was_free) == ("one:1:a", False)
        assert answer.remaining_s is not None
        assert 4.0 < answer.remaining_s <= 5.0
        assert answer.server == taken.server
    assert taken.server is not None
    assert len(taken.server) == 40
    assert await redis_client.get(LEASE_KEY) == b"one:1:a"


async def test_of_two_at_the_same_moment_one_gets_it(redis_url: str) -> None:
    clients = [RedisClient(redis_url) for _ in range(8)]
    answers = await asyncio.gather(*(Lease(client, f"host:{n}:x").claim() for n, client in enumerate(clients)))
    assert sum(answer.was_free for answer in answers) == 1
    assert len({answer.holder for answer in answers}) == 1
    for client in clients:
        await client.aclose()


async def test_its_holder_extends_it_and_knows_when_it_was_gone(first: Lease, redis_client: RedisClient) -> None:
    await first.claim()
    await redis_client.raw.pexpire(LEASE_KEY, 100)
    extended = await first.claim()
    assert (extended.holder, extended.was_free) == ("one:1:a", False)
    assert await redis_client.raw.pttl(LEASE_KEY) > 4000
    await redis_client.raw.flushall()
    retaken = await first.claim()
    assert (retaken.holder, retaken.was_free) == ("one:1:a", True)


async def test_without_renewal_it_ends(redis_client: RedisClient, second: Lease) -> None:
    await Lease(redis_client, "one:1:a", lease_s=0.2).claim()
    assert (await second.claim()).was_free is False

    async def is_taken() -> bool:
        return (await second.claim()).holder == "two:2:b"

    await eventually(is_taken, within_s=1)


async def test_to_look_takes_nothing_and_leaves_a_name(second: Lease, redis_client: RedisClient) -> None:
    answer = await second.look()
    assert (answer.holder, answer.remaining_s, answer.was_free) == (None, None, True)
    assert await redis_client.get(LEASE_KEY) is None
    assert await redis_client.get(STANDBY_KEY) == b"two:2:b"
    assert 4000 < await redis_client.raw.pttl(STANDBY_KEY) <= 5000


async def test_a_lease_that_never_ends_is_told_as_such(second: Lease, redis_client: RedisClient) -> None:
    await redis_client.set(LEASE_KEY, "a person")
    answer = await second.claim()
    assert (answer.holder, answer.remaining_s) == ("a person", None)


async def test_only_its_holder_releases_it(first: Lease, second: Lease, redis_client: RedisClient) -> None:
    await first.claim()
    assert await second.release() is False
    assert await redis_client.get(LEASE_KEY) == b"one:1:a"
    assert await first.release() is True
    assert await redis_client.get(LEASE_KEY) is None
    assert await first.release() is False


async def test_every_operation_is_one_request(first: Lease, redis_client: RedisClient) -> None:
    for operation in (first.claim, first.look, first.release):
        await operation()  # loads the script
        before = (await redis_client.raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await operation()
        assert (await redis_client.raw.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1


async def test_a_server_that_was_started_again_is_another(tmp_path: Path) -> None:
    """Also when it still holds the lease, from a file: what was written after that file is lost all the same."""
    with EmbeddedRedis(tmp_path) as server:
        clients = [RedisClient(server.url) for _ in range(2)]
        before = await Lease(clients[0], "one:1:a", lease_s=60).claim()
        await clients[0].execute("SAVE")
        server.kill()
        server.start()
        after = await Lease(clients[1], "one:1:a", lease_s=60).claim()
        assert (after.holder, after.was_free) == ("one:1:a", False)
        assert after.server not in {None, before.server}
        for client in clients:
            await client.aclose()


async def test_a_server_that_does_not_tell_its_name_still_leases(redis_client: RedisClient, redis_url: str) -> None:
    await redis_client.raw.acl_setuser(
        "plain", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all", "-info"]
    )
    try:
        plain = RedisClient(redis_url.replace("redis://", "redis://plain:x@"))
        answer = await Lease(plain, "one:1:a").claim()
        assert (answer.holder, answer.server) == ("one:1:a", None)
        await plain.aclose()
    finally:
        await redis_client.raw.acl_deluser("plain")


@pytest.fixture
async def closed(free_port: int) -> AsyncIterator[RedisClient]:
    client = RedisClient(redis_url("127.0.0.1", free_port))
    yield client
    await client.aclose()


async def test_a_server_that_is_away_is_one_kind_of_error(closed: RedisClient) -> None:
    lease = Lease(closed, "one:1:a")
    for operation in (lease.claim, lease.look, lease.release):
        with pytest.raises(RedisUnavailableError):
            await operation()


async def test_a_key_of_another_kind_is_a_fault_of_the_server(first: Lease, redis_client: RedisClient) -> None:
    await redis_client.raw.hset(LEASE_KEY, "a", "1")
    with pytest.raises(RedisUnavailableError, match="WRONGTYPE"):
        await first.claim()


async def test_the_lease_is_renewed_by_a_server_without_memory(first: Lease, redis_client: RedisClient) -> None:
    await first.claim()
    await redis_client.raw.config_set("maxmemory", 1)
    try:
        assert (await first.claim()).holder == "one:1:a"
        with pytest.raises(RedisUnavailableError, match=r"OOM|memory"):
            await first.look()
    finally:
        await redis_client.raw.config_set("maxmemory", 0)


async def test_a_server_that_takes_no_writes_is_a_fault_for_all(first: Lease, redis_client: RedisClient) -> None:
    await first.claim()
    await redis_client.raw.replicaof("127.0.0.1", "1")
    try:
        for operation in (first.claim, first.look):
            with pytest.raises(RedisUnavailableError, match=r"(?i)read.?only"):
                await operation()
    finally:
        await redis_client.raw.replicaof("NO", "ONE")


# --- the fence ----------------------------------------------------------------------------------------------------


async def test_only_the_holder_writes(first: Lease, second: Lease, redis_client: RedisClient) -> None:
    mine, theirs = (PriceCache(redis_client, 300, fence=lease.instance) for lease in (first, second))
    await first.claim()
    await mine.write([price_write("152.00")])
    assert await mine.write_feed_status(STATUS) is False
    assert await mine.write_feed_status(STATUS) is True
    status_before = await redis_client.get("feed:status")
    subscriber = redis_client.pubsub()
    try:
        await subscriber.psubscribe("*")
        await subscriber.get_message(timeout=1)
        for write in (lambda: theirs.write([price_write("1.00")]), lambda: theirs.write_feed_status(STATUS)):
            with pytest.raises(LeaseLostError, match="one:1:a") as caught:
                await write()
            assert caught.value.holder == "one:1:a"
        assert await subscriber.get_message(timeout=0.05) is None, "nothing was published either"
    finally:
        await subscriber.aclose()
    assert (await mine.read(["AAPL"]))["AAPL"].mid == Decimal("152.00")
    assert await redis_client.get("feed:status") == status_before


async def test_an_old_leader_that_wakes_up_writes_nothing(
    first: Lease, second: Lease, redis_client: RedisClient
) -> None:
    mine = PriceCache(redis_client, 300, fence=first.instance)
    await first.claim()
    await redis_client.raw.delete(LEASE_KEY)
    with pytest.raises(LeaseLostError, match="nobody") as caught:
        await mine.write([price_write("152.00")])
    assert caught.value.holder is None
    await second.claim()
    with pytest.raises(LeaseLostError, match="two:2:b"):
        await mine.write([price_write("152.00")])
    assert await mine.read(["AAPL"]) == {}
    await second.release()
    await first.claim()
    await mine.write([price_write("152.00")])
    assert set(await mine.read(["AAPL"])) == {"AAPL"}


async def test_without_a_fence_anybody_writes(first: Lease, redis_client: RedisClient) -> None:
    await first.claim()
    cache = PriceCache(redis_client, 300)
    await cache.write([price_write("152.00")])
    assert await cache.write_feed_status(STATUS) is False
    assert set(await cache.read(["AAPL"])) == {"AAPL"}


@pytest.mark.parametrize("reply", [None, b"OK", 1, [], [2], [1, 2, 3], [0, 7], "text"])
def test_an_answer_that_is_none_is_a_fault(reply: object) -> None:
    with pytest.raises(RedisUnavailableError) as caught:
        check_fence("write", reply)
    assert not isinstance(caught.value, LeaseLostError)
