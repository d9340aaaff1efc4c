"""Many clients at once: they share the work, none is told that the database failed, and health stays what it is."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from apps.execution_gateway import ledger_access
from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import RunningGateway, decode, price, serving, settings_in, streaming, utc_now
from tests.support.waiting import eventually

REALTIME = "/api/v1/positions/pnl/realtime"
CLIENTS = 100
FEWER = 40
"""Enough to want the same at the same moment, and light enough for a slow machine to answer within the time-outs."""
TIMES = 5


class Client:
    """One connection that asks again as soon as it is answered."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._address = gateway.base_url.removeprefix("http://").split(":")

    async def ask(self, path: str, times: int) -> list[tuple[int, dict[str, str], bytes]]:
        """Return status, headers and body of each answer."""
        reader, writer = await asyncio.open_connection(self._address[0], int(self._address[1]))
        try:
            answers = []
            for _ in range(times):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers["content-length"]))
                answers.append((int(first.split()[1]), headers, body))
            return answers
        finally:
            writer.close()


async def crowd(
    gateway: RunningGateway, *paths: str, times: int = TIMES, clients: int = CLIENTS
) -> list[tuple[int, dict[str, str], bytes]]:
    """Have as many clients ask, each one of `paths` in turn."""
    asking = [Client(gateway).ask(paths[number % len(paths)], times) for number in range(clients)]
    return [answer for answers in await asyncio.gather(*asking) for answer in answers]


async def is_priced(gateway: RunningGateway) -> bool:
    return bool((await gateway.get(REALTIME))["complete"])


async def test_a_crowd_shares_readings_and_valuations(running_gateway: RunningGateway, redis_client: RedisClient):
    await running_gateway.fill("AAPL", 100, "150.00")
    await PriceCache(redis_client, 300).write([PriceWrite(price(), publish=False)])
    # Then it is in memory, whatever Redis does while the crowd asks.
    await eventually(lambda: is_priced(running_gateway))
    pnl = running_gateway.answers.pnl
    before = pnl.readings

    answers = await crowd(running_gateway, REALTIME)

    assert {status for status, _, _ in answers} == {200}
    assert {decode(body)["total_unrealized"] for _, _, body in answers} == {Decimal("200.00")}
    # Counted, not timed: on a machine of any speed a reading answers a portion at least.
    assert 0 < pnl.readings - before <= CLIENTS * TIMES // 4
    ids = {decode(body)["calculation_id"] for _, _, body in answers}
    assert len(ids) <= pnl.made
    assert running_gateway.answers.refused == 0


@pytest.mark.parametrize(
    "paths",
    [
        ["/api/v1/positions", "/api/v1/positions?cost=alpaca"],
        ["/api/v1/fills", "/api/v1/fills?symbol=AAPL", "/api/v1/fills?limit=1"],
        ["/api/v1/adjustments"],
        ["/api/v1/pnl/history", "/api/v1/pnl/history?mode=live"],
        ["/metrics", "/health", "/health/ready", "/health/live"],
        [REALTIME, "/api/v1/positions", "/api/v1/fills", "/api/v1/pnl/history", "/metrics", "/health/ready"],
    ],
)
async def test_whatever_a_crowd_asks_for_is_answered(running_gateway: RunningGateway, paths: list[str]):
    await running_gateway.fill("AAPL", 100, "150.00")
    answers = await crowd(running_gateway, *paths, clients=FEWER)
    assert {status for status, _, _ in answers} == {200}


async def test_parameters_are_not_mixed_up(running_gateway: RunningGateway):
    await running_gateway.fill("AAPL", 1, "150.00")
    await running_gateway.fill("MSFT", 2, "400.00")

    async def symbols(path: str) -> set[tuple[str, ...]]:
        answers = await Client(running_gateway).ask(path, 10)
        return {tuple(fill["symbol"] for fill in decode(body)["fills"]) for _, _, body in answers}

    asked = ["/api/v1/fills?symbol=AAPL", "/api/v1/fills?symbol=MSFT", "/api/v1/fills?limit=1", "/api/v1/fills"]
    found = await asyncio.gather(*(symbols(path) for path in asked * 5))
    assert found == [{("AAPL",)}, {("MSFT",)}, {("MSFT",)}, {("MSFT", "AAPL")}] * 5


async def test_a_fill_is_in_every_answer_begun_after_it_was_acknowledged(running_gateway: RunningGateway):
    seen: list[tuple[datetime, Decimal]] = []
    is_over = False

    async def look() -> None:
        while not is_over:
            for _, _, body in await Client(running_gateway).ask(REALTIME, 5):
                answer = decode(body)
                held = sum((row["qty"] for row in answer["positions"]), Decimal(0))
                seen.append((datetime.fromisoformat(answer["calculated_at"]), held))

    looking = [asyncio.create_task(look()) for _ in range(20)]
    acknowledged: list[tuple[datetime, int]] = []
    for number in range(1, 16):
        await running_gateway.fill("AAPL", 1, "150.00", fill_id=str(number))
        acknowledged.append((utc_now(), number))
        mine = await running_gateway.get(REALTIME)
        assert mine["positions"][0]["qty"] >= number
    is_over = True
    await asyncio.gather(*looking)
    for at, held in acknowledged:
        assert [qty for calculated_at, qty in seen if calculated_at > at and qty < held] == []


async def test_overload_is_no_fault_of_the_database(
    running_gateway: RunningGateway, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
):
    await running_gateway.fill("AAPL", 100, "150.00")
    await PriceCache(redis_client, 300).write_feed_status(streaming("AAPL"))
    await eventually(lambda: running_gateway.gateway.prices.feed is not None)
    readers = running_gateway.gateway.ledger._access.readers
    monkeypatch.setattr(readers, "_wait_s", 0.01)
    async with AsyncExitStack() as stack:
        for _ in range(ledger_access.READERS_AT_ONCE):
            await stack.enter_async_context(readers.turn())
        for path in ("/api/v1/fills", "/api/v1/adjustments"):
            answer = await running_gateway.client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert answer.headers["content-type"] == "application/problem+json"
            assert "this service is overloaded" in answer.json()["detail"]
            assert "database" not in answer.json()["detail"]
        # What people watch and what a load balancer asks does not stand in that line.
        for path in (REALTIME, "/api/v1/positions", "/health/ready", "/health/live"):
            assert (await running_gateway.client.get(path)).status_code == 200
        health = await running_gateway.get("/health")
        assert (health["status"], health["database"]["usable"]) == ("healthy", True)
        metrics = (await running_gateway.client.get("/metrics")).text
        assert "markstream_gateway_requests_refused_total 2.0" in metrics
    assert (await running_gateway.client.get("/api/v1/fills")).status_code == 200


async def test_what_exceeds_the_line_for_one_answer_is_refused_and_the_rest_is_answered(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    async with serving(settings_in(tmp_path, redis_url)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")
        monkeypatch.setattr(gateway.answers.pnl, "_most_waiting", 3)
        answers = await crowd(gateway, REALTIME, times=2)
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 503}
        refused: list[Any] = [(headers, decode(body)) for status, headers, body in answers if status == 503]
        assert {headers["retry-after"] for headers, _ in refused} == {"2"}
        assert all("this service is overloaded" in body["detail"] for _, body in refused)
        assert (await gateway.client.get("/health/ready")).status_code == 200


async def test_health_asks_the_database_once_for_a_crowd(running_gateway: RunningGateway):
    probe = running_gateway.gateway.probe
    before = probe.questions
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert {status for status, _, _ in await crowd(running_gateway, "/health/ready", "/health")} == {200}
    assert probe.questions - before <= 1 + (loop.time() - began_s)
