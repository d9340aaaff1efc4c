"""Whatever Redis does, the P&L answers in time: from memory with honest ages, then down the ladder, then live again."""

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.price_cache import PriceCache
from tests.support.faulty_line import Fault, faulty_line
from tests.support.gateway import RunningGateway, price, serving, settings_in, streaming, utc_now
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

REALTIME = "/api/v1/positions/pnl/realtime"
PROMISE_S = 0.25
"""What half of a test's answers are held to at the least."""
DEADLINE_S = 1.0
"""What every one of them is held to: the rest is for a busy machine running tests side by side."""


_took_s: list[float] = []


@pytest.fixture(autouse=True)
def promise_is_kept() -> Iterator[None]:
    """Hold the median answer of each test to the promise."""
    _took_s.clear()
    yield
    assert statistics.median(_took_s) < PROMISE_S


ANSWERS = {
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "no_password": b"-NOAUTH Authentication required.\r\n",
    "wrong_password": b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    "no_permission": b"-NOPERM this user has no permissions to run the 'mget' command\r\n",
    "out_of_memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "read_only": b"-READONLY You can't write against a read only replica.\r\n",
    "busy": b"-BUSY Redis is busy running a script.\r\n",
    "no_redis_at_all": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "nonsense": b"*-7\r\n$garbage\r\n",
}
FAULTS: tuple[Fault, ...] = ("refuse", "swallow", "delay", "drip")


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        *(pytest.param(fault, b"", id=fault) for fault in FAULTS),
        *(pytest.param("answer", answer, id=name) for name, answer in ANSWERS.items()),
    ],
)
async def test_the_answer_is_in_time_and_honest(
    fault: Fault, answer: bytes, tmp_path: Path, redis_server: EmbeddedRedis, redis_client: RedisClient
) -> None:
    cache = PriceCache(redis_client, 300)
    async with faulty_line(redis_server.port) as line:
        settings = settings_in(tmp_path, f"redis://127.0.0.1:{line.port}/0", stale_after_seconds=1, price_ttl_seconds=2)
        async with serving(settings) as gateway:
            await gateway.fill("AAPL", 100, "150.00")
            await eventually(lambda: gateway.gateway.subscriber.is_connected)
            await cache.write([PriceWrite(price(), publish=True)])
            await eventually(lambda: gateway.gateway.prices.price("AAPL") is not None)

            line.break_by(fault, answer=answer)
            for source in ("real-time", "stale", "unavailable"):
                await until_source(gateway, source)
            # A server that is slow is away only for those who cannot wait.
            if fault != "delay":
                await eventually(lambda: has_reason(gateway, "redis_away"), within_s=8)
            await gateway.fill("MSFT", 1, "400.00")
            assert [row["price_source"] for row in await rows(gateway)] == ["unavailable", "unavailable"]

            line.mend()
            began_s = time.monotonic()
            await eventually(lambda: gateway.gateway.subscriber.is_connected, within_s=8)
            await cache.write([PriceWrite(price(mid=153, seq=2), publish=True)])
            await cache.write_feed_status(streaming("AAPL", "MSFT"))
            await until_source(gateway, "real-time")
            assert time.monotonic() - began_s < 8


async def test_a_price_is_vouched_for_6_s_at_most_when_redis_is_gone(
    tmp_path: Path, redis_server: EmbeddedRedis, redis_client: RedisClient
) -> None:
    cache = PriceCache(redis_client, 300)
    async with faulty_line(redis_server.port) as line:
        settings = settings_in(tmp_path, f"redis://127.0.0.1:{line.port}/0", stale_after_seconds=0.1)
        async with serving(settings) as gateway:
            await gateway.fill("AAPL", 100, "150.00")
            await eventually(lambda: gateway.gateway.subscriber.is_connected)
            await cache.write([PriceWrite(price(), publish=True)])
            await cache.write_feed_status(streaming("AAPL"))
            said_at = utc_now()
            await eventually(lambda: gateway.gateway.prices.feed is not None)
            line.break_by("swallow")
            await eventually(lambda: utc_now() - said_at > timedelta(seconds=1))
            assert (await rows(gateway))[0]["price_source"] == "real-time", "the last heartbeat counts on for a while"

            async def is_stale() -> bool:
                body = await report(gateway)
                source = body["positions"][0]["price_source"]
                # By the time of the figures: when we get to read them is another matter.
                after = datetime.fromisoformat(body["calculated_at"]) - said_at
                assert source == "stale" or after < timedelta(seconds=6.4), f"{source} {after} after the heartbeat"
                return bool(source == "stale")

            await eventually(_never_late(is_stale), within_s=8)
            await until_source(gateway, "stale")
            assert (await gateway.get(REALTIME))["feed"]["state"] == "unknown"


async def report(gateway: RunningGateway) -> Any:
    began_s = time.monotonic()
    found = await gateway.get(REALTIME)
    _took_s.append(time.monotonic() - began_s)
    assert _took_s[-1] < DEADLINE_S
    return found


async def rows(gateway: RunningGateway) -> Any:
    return (await report(gateway))["positions"]


async def until_source(gateway: RunningGateway, wanted: str, within_s: float = 5.0) -> None:
    """Wait for the first row's source, while every answer is in time and says what is so."""

    async def is_so() -> bool:
        row = (await rows(gateway))[0]
        if row["price_source"] == "stale":
            assert (row["current_price"], row["price_age_seconds"] >= Decimal("0.1")) == (152, True)
        if row["price_source"] == "unavailable":
            assert row["current_price"] is None
        return bool(row["price_source"] == wanted)

    await eventually(_never_late(is_so), within_s)


async def has_reason(gateway: RunningGateway, code: str) -> bool:
    return code in [reason["code"] for reason in (await gateway.get("/health"))["reasons"]]


def _never_late(condition: Callable[[], Any]) -> Callable[[], Any]:
    """Have a failed assertion of `condition` end the test: `eventually` would take it for "not yet"."""

    async def checked() -> Any:
        try:
            return await condition()
        except AssertionError as error:
            raise RuntimeError(f"an answer was late, or a lie: {error}") from error

    return checked
