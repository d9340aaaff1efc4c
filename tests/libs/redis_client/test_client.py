import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from libs.redis_client.client import REDIS_FAULTS, RedisClient, RedisUnavailableError, redis_url, without_credentials
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.scripts import Script
from tests.support.waiting import eventually


@pytest.fixture
def own_server() -> Iterator[EmbeddedRedis]:
    """A server that a test may kill or freeze."""
    with EmbeddedRedis() as server:
        yield server


async def test_reads_what_it_wrote(redis_client: RedisClient) -> None:
    await redis_client.set("a", b"1", ex=100)
    await redis_client.set("b", "text")
    assert await redis_client.get("a") == b"1"
    assert await redis_client.get("missing") is None
    assert await redis_client.mget(["a", "missing", "b"]) == [b"1", None, b"text"]
    assert await redis_client.mget([]) == []
    assert 98 <= await redis_client.raw.ttl("a") <= 100
    assert await redis_client.raw.ttl("b") == -1


async def test_a_constructed_client_opens_nothing(redis_server: EmbeddedRedis, redis_client: RedisClient) -> None:
    before = int((await redis_client.raw.info("stats"))["total_connections_received"])
    idle = RedisClient(redis_server.url)
    await idle.aclose()
    assert int((await redis_client.raw.info("stats"))["total_connections_received"]) == before


async def test_publishes_to_subscribers(redis_client: RedisClient) -> None:
    assert await redis_client.publish("news", b"x") == 0
    subscriber = redis_client.pubsub()
    try:
        await subscriber.subscribe("news")
        assert (await subscriber.get_message(timeout=1))["type"] == "subscribe"
        assert await redis_client.publish("news", b"hello") == 1
        assert (await subscriber.get_message(timeout=1))["data"] == b"hello"
    finally:
        await subscriber.aclose()


async def test_a_script_is_loaded_when_the_server_does_not_know_it(redis_client: RedisClient) -> None:
    script = Script("echo", "return {KEYS[1], ARGV[1]}")
    assert await redis_client.run_script(script, ["k"], ["v"]) == [b"k", b"v"]
    assert await redis_client.run_script(script, ["k"], [b"w"]) == [b"k", b"w"]
    await redis_client.raw.script_flush()
    assert await redis_client.run_script(script, ["k"], [7]) == [b"k", b"7"]


async def test_a_faulty_script_is_one_error(redis_client: RedisClient) -> None:
    with pytest.raises(RedisUnavailableError, match="broken"):
        await redis_client.run_script(Script("broken", "return redis.call('NO SUCH COMMAND')"), [], [])


async def test_a_server_that_is_away_is_told_at_once(free_port: int) -> None:
    client = RedisClient(redis_url("127.0.0.1", free_port))
    started = time.monotonic()
    for command in (client.ping, lambda: client.get("a"), lambda: client.mget(["a"]), lambda: client.publish("a", "b")):
        with pytest.raises(RedisUnavailableError) as caught:
            await command()
        assert "refused" in caught.value.reason or "connecting" in caught.value.reason
    with pytest.raises(RedisUnavailableError):
        await client.run_script(Script("x", "return 1"), [], [])
    assert time.monotonic() - started < 1.0
    await client.aclose()


async def test_a_refusal_of_the_server_is_an_error_too(redis_client: RedisClient) -> None:
    await redis_client.raw.hset("hash", "a", "1")
    with pytest.raises(RedisUnavailableError, match="WRONGTYPE") as caught:
        await redis_client.get("hash")
    assert caught.value.operation == "GET"


async def test_a_killed_server_is_seen_and_a_returned_one_serves_again(own_server: EmbeddedRedis) -> None:
    client = RedisClient(own_server.url)
    await client.set("a", b"1")
    own_server.kill()
    with pytest.raises(RedisUnavailableError):
        await client.get("a")
    own_server.start()
    # Connections that died unseen are replaced: at most one command per old connection fails.
    assert await eventually(lambda: pinged(client))
    assert await client.get("a") is None
    await client.aclose()


async def pinged(client: RedisClient) -> bool:
    try:
        await client.ping()
    except RedisUnavailableError:
        return False
    return True


async def test_a_frozen_server_costs_no_more_than_the_deadline_and_mixes_no_answers(own_server: EmbeddedRedis) -> None:
    client = RedisClient(own_server.url)
    await client.set("a", b"1")
    await client.set("b", b"2")
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(RedisUnavailableError, match="MGET"):
            await client.mget(["a"], deadline_s=0.1)
        assert time.monotonic() - started < 0.3
        # Without a deadline the socket time-out bounds it.
        with pytest.raises(RedisUnavailableError):
            await client.get("a")
        assert time.monotonic() - started < 2.5
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    assert await eventually(lambda: pinged(client))
    # An answer that came too late must not be taken for that of the next question.
    for _ in range(20):
        assert await client.mget(["b"]) == [b"2"]
    await client.aclose()


async def test_many_callers_share_few_connections(redis_url: str) -> None:
    client = RedisClient(redis_url, max_connections=4)
    await client.set("a", b"1")
    answers = await asyncio.gather(*(client.mget(["a"]) for _ in range(200)))
    assert answers == [[b"1"]] * 200
    assert len(await client.raw.client_list()) <= 6
    await client.aclose()


async def test_a_cancelled_caller_leaves_the_client_usable(own_server: EmbeddedRedis) -> None:
    client = RedisClient(own_server.url, max_connections=2)
    await client.set("a", b"1")
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        callers = [asyncio.create_task(client.get("a")) for _ in range(6)]
        await asyncio.wait(callers, timeout=0.1)
        for caller in callers:
            caller.cancel()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    assert await eventually(lambda: pinged(client))
    assert await asyncio.gather(*(client.get("a") for _ in range(6))) == [b"1"] * 6
    await client.aclose()


async def test_a_subscriber_raises_the_declared_faults(own_server: EmbeddedRedis) -> None:
    client = RedisClient(own_server.url)
    subscriber = client.pubsub()
    await subscriber.psubscribe("price.updated.*")
    assert (await subscriber.get_message(timeout=1))["type"] == "psubscribe"
    assert await subscriber.get_message(timeout=0.01) is None
    own_server.kill()
    with pytest.raises(REDIS_FAULTS):
        await subscriber.get_message(timeout=1)
    await subscriber.aclose()
    await client.aclose()


async def test_the_password_works_and_never_shows(own_server: EmbeddedRedis) -> None:
    admin = RedisClient(own_server.url)
    await admin.raw.config_set("requirepass", "pa$sword")
    good = RedisClient(f"redis://:pa$sword@127.0.0.1:{own_server.port}/3")
    bad = RedisClient(f"redis://default:wr0ngword@127.0.0.1:{own_server.port}/0")
    none = RedisClient(own_server.url)
    await good.set("a", b"1")
    assert await good.get("a") == b"1"
    for client in (bad, none):
        with pytest.raises(RedisUnavailableError) as caught:
            await client.ping()
        assert "word" not in str(caught.value).replace("password", "").replace("username-password", "")
    assert repr(good) == f"RedisClient(redis://127.0.0.1:{own_server.port}/3)"
    assert "word" not in repr(bad) + bad.address
    for client in (admin, good, bad, none):
        await client.aclose()


def test_urls() -> None:
    assert redis_url("127.0.0.1", 6379) == "redis://127.0.0.1:6379/0"
    assert redis_url("::1", 6379) == "redis://[::1]:6379/0"
    assert without_credentials("rediss://user:p%40ss@example.com:6380/2") == "rediss://example.com:6380/2"
