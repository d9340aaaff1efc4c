"""Two market data services on one Redis and one connection slot: one leads, the other waits, and takes over in time."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from libs.redis_client.client import RedisClient
from libs.redis_client.lease import LEASE_KEY, STANDBY_KEY
from tests.support.stack import MARKET_DATA, Service, Stack, decoded, running_stack, service_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

TAKEN_OVER_WITHIN_S = 10.0
AFTER_A_RELEASE_WITHIN_S = 4.0
"""Two seconds of absence, the looks before and after, and a dial."""
GONE_WITHIN_S = 5.0
LONGER_THAN_THE_LEASE_S = 6.0
SUBSCRIBE = "/api/v1/market-data/subscribe"


@asynccontextmanager
async def second_instance(stack: Stack) -> AsyncIterator[Service]:
    """Start the market data service once more, on another port, and wait until it stands by."""
    folder = stack.folder / "second"
    folder.mkdir()
    environment = {**stack.market_data.environment, "MARKET_DATA_PORT": str(service_port())}
    service = Service(folder, MARKET_DATA, "MARKET_DATA_PORT", **environment)
    try:
        await eventually(lambda: is_up(service), within_s=20, every_s=0.1)
        await eventually(lambda: stands_by(service), within_s=2)
        await service.http.post(SUBSCRIBE, json={"symbol": "AAPL"})
        yield service
        await service.stop()
    except BaseException:
        print(f"--- the second said:\n{service.output[-6000:]}")
        raise
    finally:
        service.kill()
        await service.http.aclose()


async def is_up(service: Service) -> bool:
    try:
        return (await service.http.get("/health/live")).status_code == 200
    except httpx2.TransportError:
        assert not service.has_ended, service.output
        return False


async def is_role(service: Service, role: str) -> bool:
    return bool((await service.health())["lease"]["role"] == role)


async def stands_by(service: Service) -> bool:
    """Say whether it has seen that another leads. A standby is also who has not asked yet."""
    return await is_role(service, "standby") and await holder(service) is not None


async def leads(service: Service) -> bool:
    """Say whether it holds the lease, streams, and may be relied on."""
    health = await service.health()
    return bool(
        health["lease"]["role"] == "leader"
        and health["link"]["state"] == "streaming"
        and (await service.http.get("/health/ready")).status_code == 200
    )


async def holder(service: Service) -> str | None:
    told: str | None = (await service.health())["lease"]["holder"]
    return told


async def cached_mid(redis: RedisClient) -> Decimal | None:
    return decoded(await redis.get("price:AAPL") or b"{}").get("mid")


async def until_cached(redis: RedisClient, mid: int, within_s: float = 2.0) -> None:
    async def is_cached() -> bool:
        return await cached_mid(redis) == mid

    await eventually(is_cached, within_s)


@asynccontextmanager
async def a_pair(tmp_path: Path, **simulator: object) -> AsyncIterator[tuple[Stack, Service, Service, RedisClient]]:
    """One that leads and streams AAPL at 150, one that waits, and a client of their Redis."""
    async with running_stack(tmp_path, MARKET_DATA, simulator=simulator) as stack, second_instance(stack) as second:
        redis = RedisClient(stack.redis.url)
        await stack.subscribe("AAPL")
        stack.simulator.emit("AAPL", 149.99, 150.01)
        await until_cached(redis, 150)
        try:
            yield stack, stack.market_data, second, redis
        finally:
            await redis.aclose()


async def test_the_second_says_that_it_waits_and_touches_nothing(tmp_path: Path) -> None:
    async with a_pair(tmp_path) as (stack, first, second, redis):
        name = await holder(first)
        assert (await redis.get(LEASE_KEY) or b"").decode() == name
        health = await second.health()
        assert (health["status"], health["lease"]["role"], health["lease"]["holder"]) == ("degraded", "standby", name)
        assert (health["link"]["state"], health["websocket_connected"]) == ("standby", False)
        (reason,) = (reason for reason in health["reasons"] if reason["code"] == "standby")
        assert reason["detail"] == f"another instance ({name}) holds the feed; this one waits"
        ready = await second.http.get("/health/ready")
        assert ready.status_code == 503
        assert [reason["code"] for reason in ready.json()["reasons"]] == ["standby"]
        assert "standby" not in await first.reasons()
        refused = await second.http.post("/api/v1/market-data/reconnect")
        assert refused.status_code == 409
        assert name in refused.json()["detail"]
        for service, is_leader in ((first, 1), (second, 0)):
            lines = (await service.http.get("/metrics")).text.splitlines()
            assert f"markstream_leader {float(is_leader)}" in lines
            assert f"markstream_lease_changes_total {float(is_leader)}" in lines

        async def has_left_its_name() -> bool:
            return (await redis.get(STANDBY_KEY) or b"").decode() not in {"", name}

        await eventually(has_left_its_name, within_s=2)
        # Some heartbeats later nothing has changed: it has not dialled, and only one of them says how the feed is.
        pubsub = redis.pubsub()
        await pubsub.subscribe("feed.status")
        heard = []
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.5)
            heard += [decoded(message["data"])["state"]] if message else []
        await pubsub.aclose()
        assert set(heard) == {"streaming"}
        assert len(stack.simulator.dials) == 1
        assert second.output.count("standing_by") == 1
        assert "another instance holds the feed" in second.output


async def test_it_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    async with a_pair(tmp_path) as (stack, first, second, redis):
        first.kill()
        killed_s = time.monotonic()
        await eventually(lambda: leads(second), TAKEN_OVER_WITHIN_S, every_s=0.05)
        print(f"after SIGKILL: leads and streams after {time.monotonic() - killed_s:.2f} s")
        assert len(stack.simulator.dials) == 2
        stack.simulator.emit("AAPL", 150.99, 151.01)
        await until_cached(redis, 151)
        assert decoded(await redis.get("feed:status") or b"")["state"] == "streaming"


async def test_it_takes_over_from_one_that_was_stopped_without_a_refusal(tmp_path: Path) -> None:
    """A slot that is not freed by a close frame would be held for 90 s, and dialling meanwhile answered by 406."""
    async with a_pair(tmp_path, slot_hold_s=90.0) as (stack, first, second, redis):
        stack.simulator.emit("AAPL", 150.99, 151.01)
        # What is still in the venue's outbox when the connection is closed was never sent.
        await eventually(lambda: stack.simulator.sent.by_symbol["AAPL"].quote.bid_price == 150.99, every_s=0)
        await first.stop()
        stopped_s = time.monotonic()
        assert await redis.get(LEASE_KEY) is None, "the lease was released"
        assert decoded(await redis.get("feed:status") or b"")["state"] == "stopped"
        assert await cached_mid(redis) == 151, "the last value was written"
        await eventually(lambda: leads(second), AFTER_A_RELEASE_WITHIN_S, every_s=0.05)
        print(f"after SIGTERM: leads and streams after {time.monotonic() - stopped_s:.2f} s")
        assert len(stack.simulator.dials) == 2


async def test_redis_in_trouble_never_moves_the_feed(tmp_path: Path) -> None:
    """Forgetful, frozen, or gone for longer than a lease lasts: the leader keeps its connection and its lease."""
    async with a_pair(tmp_path) as (stack, first, second, redis):
        name = await holder(first)

        async def is_as_before() -> bool:
            assert await is_role(first, "leader")
            assert await is_role(second, "standby")
            assert (await redis.get(LEASE_KEY) or b"").decode() == name
            return True

        for _ in range(3):
            await redis.raw.flushall()
            await eventually(is_as_before, within_s=1)
        os.kill(stack.redis.pid, signal.SIGSTOP)
        await eventually(lambda: is_troubled(first, second), within_s=4)
        await stays_so(lambda: is_troubled(first, second), LONGER_THAN_THE_LEASE_S)
        os.kill(stack.redis.pid, signal.SIGCONT)
        await eventually(is_as_before, within_s=2)
        stack.redis.kill()
        await eventually(lambda: is_troubled(first, second), within_s=4)
        await stays_so(lambda: is_troubled(first, second), LONGER_THAN_THE_LEASE_S)
        stack.simulator.emit("AAPL", 150.99, 151.01)
        stack.redis.start()
        await until_cached(redis, 151, within_s=1.5)
        await eventually(is_as_before, within_s=2)
        # Longer than a standby waits for a lease that nobody takes.
        await stays_so(is_as_before, 4)
        assert len(stack.simulator.dials) == 1


async def stays_so(condition: Callable[[], Awaitable[bool]], for_s: float) -> None:
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        assert await condition()
        await asyncio.sleep(0.2)


async def is_troubled(first: Service, second: Service) -> bool:
    assert await is_role(first, "leader")
    assert await holder(second) is None
    assert "standby" in await second.reasons()
    return "redis_unavailable" in await first.reasons() and "redis_unavailable" in await second.reasons()


async def test_one_that_slept_through_its_lease_writes_nothing_and_steps_down(tmp_path: Path) -> None:
    async with a_pair(tmp_path) as (stack, first, second, redis):
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            slept_s = time.monotonic()
            await eventually(lambda: is_role(second, "leader"), TAKEN_OVER_WITHIN_S, every_s=0.05)
            print(f"after SIGSTOP: leads after {time.monotonic() - slept_s:.2f} s")

            async def is_refused() -> bool:
                fault = (await second.health())["link"]["last_error"]
                return fault is not None and bool(fault["code"] == 406)

            # Were the sleeper woken first, the new leader might find the slot free, and fetch the quote below itself.
            await eventually(is_refused)
            # It goes into the sleeper's socket, and must not come out of Redis as the sleeper's word.
            stack.simulator.emit("AAPL", 998.99, 999.01)
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        woken_s = time.monotonic()
        await eventually(lambda: is_role(first, "standby"), within_s=2, every_s=0.02)
        print(f"after SIGCONT: stepped down after {time.monotonic() - woken_s:.2f} s")
        assert await cached_mid(redis) == 150
        assert await holder(first) == await holder(second)

        async def is_closed() -> bool:
            health = await first.health()
            return bool(health["link"]["state"] == "standby" and not health["websocket_connected"])

        await eventually(is_closed, within_s=2)
        # The slot was held by the sleeper: the new leader's dials were refused, and became rare.
        await eventually(lambda: leads(second), within_s=25, every_s=0.1)
        dials = stack.simulator.dials
        assert all(later - earlier >= 10 for earlier, later in zip(dials[:-5], dials[5:], strict=True))
        epoch = decoded(await redis.get("feed:status") or b"")["epoch"]
        stack.simulator.emit("AAPL", 151.99, 152.01)
        await until_cached(redis, 152)
        assert decoded(await redis.get("price:AAPL") or b"")["epoch"] == epoch
        assert await is_role(first, "standby")
        assert "lease_lost" in first.output


@pytest.mark.parametrize("is_standby", [False, True], ids=["leader", "standby"])
async def test_a_stop_waits_for_no_redis(tmp_path: Path, is_standby: bool) -> None:
    async with a_pair(tmp_path) as (stack, first, second, _redis):
        leaving, staying = (second, first) if is_standby else (first, second)
        os.kill(stack.redis.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: is_troubled(first, second), within_s=4)
            stack.simulator.emit("AAPL", 150.99, 151.01)
            began_s = time.monotonic()
            await leaving.stop()
            took_s = time.monotonic() - began_s
        finally:
            os.kill(stack.redis.pid, signal.SIGCONT)
        print(f"SIGTERM while Redis hangs: gone after {took_s:.2f} s")
        assert took_s < GONE_WITHIN_S
        if is_standby:
            assert await leads(staying)


async def test_two_started_at_once_make_one_leader(tmp_path: Path) -> None:
    async with running_stack(tmp_path, MARKET_DATA) as stack:
        environment = stack.market_data.environment
        await stack.market_data.stop()
        folders = [tmp_path / name for name in ("a", "b", "c")]
        for folder in folders:
            folder.mkdir()
        dials_before = len(stack.simulator.dials)
        services = [
            Service(folder, MARKET_DATA, "MARKET_DATA_PORT", **{**environment, "MARKET_DATA_PORT": str(service_port())})
            for folder in folders
        ]
        try:

            async def one_leads() -> bool:
                leases = [(await service.health())["lease"] for service in services if await is_up(service)]
                assert None not in [lease["holder"] for lease in leases], "a standby is also who has not asked yet"
                return sorted(lease["role"] for lease in leases) == ["leader", "standby", "standby"]

            await eventually(one_leads, within_s=30, every_s=0.2)
            assert len({await holder(service) for service in services}) == 1
            await eventually(lambda: len(stack.simulator.dials) == dials_before + 1, within_s=3)
            for service in services:
                await service.stop()
        finally:
            for service in services:
                service.kill()
                await service.http.aclose()
