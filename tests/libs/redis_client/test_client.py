import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from libs.redis_client.client import REDIS_FAULTS, RedisClient, RedisUnavailableError, redis_url, without_credentials
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.lease import Lease
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


@contextlib.asynccontextmanager
async def server_that_says(reply: bytes) -> AsyncIterator[str]:
    """Answer every command, whatever it is, with `reply`; the address is what is yielded."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while header := await reader.readline():
                for _ in range(int(header[1:])):
                    size = int((await reader.readline())[1:])
                    await reader.readexactly(size + 2)
                writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield redis_url("127.0.0.1", server.sockets[0].getsockname()[1])
        for writer in writers:
            writer.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"-LOADING the dataset is being read\r\n",
        b"-BUSY somebody's script is running\r\n",
        b"-NOSCRIPT no matching script\r\n",
        b"-NOAUTH authentication required\r\n",
        b"-WRONGPASS invalid username-password pair\r\n",
        b"-NOPERM no permission\r\n",
        b"-READONLY a replica takes no writes\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'\r\n",
        b"-MISCONF the snapshot cannot be saved\r\n",
        b"-MASTERDOWN link with the primary is down\r\n",
        b"-CLUSTERDOWN the hash slot is not served\r\n",
        b"-MOVED 1234 127.0.0.1:1\r\n",
        b"-ERR max number of clients reached\r\n",
        b"-\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\r\n",
        b"",
    ],
    ids=lambda reply: reply.decode(errors="replace").split(" ")[0].strip() or "silence",
)
async def test_whatever_the_server_complains_of_is_one_kind_of_error(reply: bytes) -> None:
    async with server_that_says(reply) as address:
        client = RedisClient(address, connect_timeout_s=0.2, command_timeout_s=0.2)
        script = Script("any", "return 1")
        for command in (client.ping, lambda: client.get("a"), lambda: client.run_script(script, ["k"], ["v"])):
            with pytest.raises(RedisUnavailableError) as caught:
                await command()
            assert caught.value.reason
        await client.aclose()


@pytest.mark.parametrize("reply", [b"+OK\r\n", b":7\r\n", b"*0\r\n", b"$-1\r\n", b"*-1\r\n"])
async def test_a_lease_is_not_believed_of_a_server_that_talks_nonsense(reply: bytes) -> None:
    async with server_that_says(reply) as address:
        client = RedisClient(address)
        lease = Lease(client, "one:1:a")
        for operation in (lease.claim, lease.look):
            with pytest.raises(RedisUnavailableError):
                await operation()
        await client.aclose()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux can drop what was not taken in time")
async def test_a_command_that_was_given_up_does_not_arrive_later() -> None:
    """The server takes nothing, then everything: what did not fit into its buffers meanwhile is gone."""
    size, got = 30_000_000, 0
    takes_again, is_over = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        while b"\nSET\r\n" not in (data := await reader.read(4096)):
            writer.write(b"+OK\r\n" * data.count(b"CLIENT"))
        await takes_again.wait()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                got += len(data)
        is_over.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        client = RedisClient(redis_url("127.0.0.1", server.sockets[0].getsockname()[1]), command_timeout_s=0.3)
        with pytest.raises(RedisUnavailableError):
            await client.set("a", b"x" * size)
        # The kernel looks after it in its own time.
        await asyncio.sleep(1.5)
        takes_again.set()
        await eventually(is_over.is_set)
        assert got < size / 2
        await client.aclose()
