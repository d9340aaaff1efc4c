import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from apps.market_data_service.position_sync import PositionBasedSubscription, PositionListError, read_positions
from libs.market_data.subscriptions import Subscriptions
from libs.redis_client.client import RedisClient
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.event_publisher import POSITION_CHANGED_CHANNEL, EventPublisher
from libs.service.supervise import Supervisor
from tests.support.scripted_http import Said, scripted_http
from tests.support.waiting import eventually

PATH = "/api/v1/positions"
AAPL = '{"positions":[{"symbol":"AAPL","qty":100,"avg_entry_price":150.0,"cost_basis":15000.00}]}'
NOTHING = '{"positions":[]}'


@dataclass
class Wishes:
    """Records what the sync tells the stream."""

    told: list[dict[str, Decimal]] = field(default_factory=list)

    def want_positions(self, cost_basis: Mapping[str, Decimal]) -> None:
        self.told.append(dict(cost_basis))


@asynccontextmanager
async def running_sync(
    url: str, redis_url: str, **settings: Any
) -> AsyncIterator[tuple[PositionBasedSubscription, Wishes]]:
    wishes, redis = Wishes(), RedisClient(redis_url)
    sync = PositionBasedSubscription(wishes, url, redis=redis, **settings)
    supervisor = Supervisor(on_death=lambda _name, _reason: None)
    supervisor.spawn("sync", sync.start_sync_loop)
    supervisor.spawn("listen", sync.listen)
    try:
        yield sync, wishes
    finally:
        await supervisor.stop()
        await redis.aclose()
    assert supervisor.failures == {}


async def test_positions_are_asked_for_at_the_start_with_the_token(redis_url: str) -> None:
    async with scripted_http() as gateway:
        gateway.say(PATH, AAPL)
        async with running_sync(gateway.url, redis_url, api_token="letmein") as (sync, wishes):
            await eventually(lambda: wishes.told)
            assert wishes.told[0] == {"AAPL": Decimal(15000)}
            assert gateway.asked[0].headers["Authorization"] == "Bearer letmein"
            assert (sync.positions, sync.last_error) == (1, None)
            assert sync.last_success_at is not None


async def test_an_announced_change_is_followed_at_once(redis_url: str) -> None:
    async with scripted_http() as gateway:
        gateway.say(PATH, NOTHING)
        async with running_sync(gateway.url, redis_url) as (sync, wishes):
            # The second one follows from the listener's connection.
            await eventually(lambda: sync.syncs >= 2)
            gateway.say(PATH, AAPL)
            client = RedisClient(redis_url)
            await EventPublisher(client).publish(POSITION_CHANGED_CHANNEL, {"symbols": ["AAPL"]})
            await eventually(lambda: "AAPL" in wishes.told[-1], within_s=2)
            await client.aclose()


async def test_the_poll_is_the_safety_net(redis_url: str) -> None:
    async with scripted_http() as gateway:
        gateway.say(PATH, NOTHING)
        async with running_sync(gateway.url, redis_url, every_s=0.05) as (sync, _):
            await eventually(lambda: sync.syncs >= 5)


@pytest.mark.parametrize(
    "answer",
    [
        Said("boom", status=500),
        Said("<html>a proxy's page</html>"),
        Said('{"positions": null}'),
        Said('{"positions": [{"qty": 1}]}'),
        Said('{"positions": {"AAPL": 1}}'),
        Said("{}"),
        Said("[]"),
        Said(""),
        Said('{"positions": [', status=200),
        Said("{}", status=401),
        Said(NOTHING, status=404),
    ],
)
async def test_an_answer_that_is_no_position_list_changes_nothing(redis_url: str, answer: Said) -> None:
    async with scripted_http() as gateway:
        gateway.say(PATH, Said(AAPL), answer)
        async with running_sync(gateway.url, redis_url, every_s=0.05) as (sync, wishes):
            await eventually(lambda: sync.last_error is not None)
            assert wishes.told == [{"AAPL": Decimal(15000)}]
            assert sync.failures >= 1
            gateway.say(PATH, NOTHING)
            sync.sync_soon()
            await eventually(lambda: wishes.told[-1] == {} and sync.last_error is None)


async def test_a_gateway_that_is_not_there_is_asked_again(redis_url: str, free_port: int) -> None:
    async with running_sync(f"http://127.0.0.1:{free_port}", redis_url) as (sync, wishes):
        await eventually(lambda: sync.failures >= 2, within_s=4)
        assert wishes.told == []
        assert "cannot be asked" in str(sync.last_error)


async def test_a_slow_gateway_is_not_waited_for(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.market_data_service.position_sync._TIMEOUT_S", 0.1)
    async with scripted_http() as gateway:
        gateway.say(PATH, Said(AAPL, drip_s=0.05))
        async with running_sync(gateway.url, redis_url) as (sync, _):
            await eventually(lambda: sync.failures >= 1)


async def test_an_endless_answer_is_cut(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.market_data_service.position_sync._MOST_BYTES", 10)
    async with scripted_http() as gateway:
        gateway.say(PATH, AAPL)
        async with running_sync(gateway.url, redis_url) as (sync, _):
            await eventually(lambda: "more than 10 bytes" in str(sync.last_error))


async def test_what_cannot_be_streamed_is_named_and_left_out(redis_url: str) -> None:
    async with scripted_http() as gateway:
        gateway.say(PATH, '{"positions":[{"symbol":"BTC/USD"},{"symbol":"AAPL260116C00200000"},{"symbol":"KO"}]}')
        async with running_sync(gateway.url, redis_url) as (sync, wishes):
            await eventually(lambda: wishes.told)
            assert wishes.told[-1] == {"KO": Decimal(0)}
            assert sync.not_streamable == ["AAPL260116C00200000", "BTC/USD"]


async def test_after_redis_returns_the_gateway_is_asked_again() -> None:
    with EmbeddedRedis() as server:
        async with scripted_http() as gateway:
            gateway.say(PATH, NOTHING)
            async with running_sync(gateway.url, server.url) as (sync, _):
                await eventually(lambda: sync.syncs >= 2)
                before = sync.syncs
                server.kill()
                server.start()
                await eventually(lambda: sync.syncs > before, within_s=6)


async def test_listening_alone_asks_nothing(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.market_data_service.position_sync._PING_AFTER_S", 0.05)
    async with scripted_http() as gateway:
        gateway.say(PATH, NOTHING)
        async with running_sync(gateway.url, redis_url) as (sync, _):
            await eventually(lambda: sync.syncs >= 2)
            before = sync.syncs
            await asyncio.sleep(0.5)
            assert sync.syncs == before, "the answer to a ping is no announcement"


def test_the_signed_cost_is_read_exactly() -> None:
    body = b'{"positions":[{"symbol":"TSLA","qty":-40,"cost_basis":-16540.123456789,"more":1}]}'
    assert read_positions(body) == {"TSLA": Decimal("-16540.123456789")}
    with pytest.raises(PositionListError):
        read_positions(b"null")


@pytest.mark.parametrize(
    "body",
    [
        b'{"positions":[{"symbol":"A","x":' + b"[" * 5_000,
        b"[" * 5_000,
        b"\xff",
        b'{"positions":[{"symbol":"\\ud800"}]}',
    ],
)
def test_an_answer_that_overflows_a_decoder_is_no_position_list(body: bytes) -> None:
    with pytest.raises(PositionListError):
        read_positions(body)


@pytest.mark.parametrize("cost", ['"NaN"', '"sNaN"', '"Infinity"', '"-Infinity"', '"1e999999999"', "null"])
def test_a_cost_that_cannot_be_compared_says_nothing_of_how_much_a_position_matters(cost: str) -> None:
    held = read_positions(
        b'{"positions":[{"symbol":"A","cost_basis":%s},{"symbol":"B","cost_basis":5}]}' % cost.encode()
    )
    subscriptions = Subscriptions()
    subscriptions.replace_positions(held)
    assert subscriptions.by_priority() == ["B", "A"]


def test_one_symbol_under_two_spellings_is_held_once() -> None:
    body = b'{"positions":[{"symbol":"BRK/B","cost_basis":5},{"symbol":"BRK.B","cost_basis":7},{"symbol":"btc-usd"}]}'
    assert read_positions(body) == {"BRK.B": Decimal(12), "BTC/USD": Decimal(0)}
