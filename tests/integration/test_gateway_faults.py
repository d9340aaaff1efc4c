"""What the market data service makes of a gateway that answers nonsense: it keeps what it has, and says so."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.stack import MARKET_DATA, Stack, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/v1/positions"
HELD = (
    '{"positions":[{"symbol":"AAPL","qty":100,"avg_entry_price":150,"cost_basis":15000},'
    '{"symbol":"BTC/USD","qty":1,"avg_entry_price":1,"cost_basis":1}]}'
)
NOTHING = '{"positions":[]}'


@dataclass
class Faulty:
    stack: Stack
    gateway: ScriptedHttp


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def faulty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Faulty]:
    async with scripted_http() as gateway:
        gateway.say(PATH, HELD)
        async with running_stack(
            tmp_path_factory.mktemp("stack"),
            MARKET_DATA,
            EXECUTION_GATEWAY_URL=gateway.url,
            POSITION_SYNC_SECONDS="0.1",
        ) as stack:
            yield Faulty(stack, gateway)


async def is_well(stack: Stack) -> bool:
    health = await stack.market_data.health()
    return health["position_sync"]["last_error"] is None and set(await stack.subscriptions()) == {"AAPL"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Said("boom", status=500), "500"),
        (Said("<html><body>502 Bad Gateway</body></html>", headers={"Content-Type": "text/html"}), "no position list"),
        (Said('{"positions": null}'), "no position list"),
        (Said('{"positions": [{"symbol": null}]}'), "no position list"),
        (Said('{"detail": "who are you?"}', status=401), "API_TOKEN"),
        (Said(NOTHING, status=404), "404"),
        (Said(""), "no position list"),
    ],
    ids=lambda value: f"{value.status}-{value.body[:12]}" if isinstance(value, Said) else None,
)
async def test_an_answer_that_is_no_position_list_changes_nothing(faulty: Faulty, answer: Said, told: str) -> None:
    stack = faulty.stack
    faulty.gateway.say(PATH, HELD)
    await eventually(lambda: is_well(stack), within_s=12)
    await stack.until_confirmed("AAPL")
    failures = (await stack.market_data.health())["position_sync"]["failures"]

    faulty.gateway.say(PATH, answer)

    async def is_shown() -> bool:
        health = await stack.market_data.health()
        sync = health["position_sync"]
        assert sync["failures"] >= failures + 2
        assert told in sync["last_error"]
        assert health["status"] == "degraded"
        return "position_sync_failing" in {reason["code"] for reason in health["reasons"]}

    await eventually(is_shown)
    details = await stack.subscriptions()
    assert set(details) == {"AAPL"}
    assert (details["AAPL"]["owners"], details["AAPL"]["confirmed"]) == (["positions"], True)
    assert (await stack.market_data.http.get("/health/ready")).status_code == 200


async def test_an_empty_list_is_an_answer(faulty: Faulty) -> None:
    faulty.gateway.say(PATH, HELD)
    await eventually(lambda: is_well(faulty.stack), within_s=12)
    faulty.gateway.say(PATH, NOTHING)

    async def is_given_up() -> bool:
        return not await faulty.stack.subscriptions()

    await eventually(is_given_up)


async def test_what_cannot_be_streamed_is_named(faulty: Faulty) -> None:
    faulty.gateway.say(PATH, HELD)
    await eventually(lambda: is_well(faulty.stack), within_s=12)
    assert (await faulty.stack.market_data.health())["position_sync"]["not_streamable"] == ["BTC/USD"]
