"""The P&L history as a client sees it: sampled by a running gateway, kept over a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from apps.execution_gateway.pnl_history import Figures, HistorySample, Sampling
from apps.execution_gateway.settings import GatewaySettings
from libs.market_data.prices import Mode
from tests.support.gateway import RunningGateway, price, serving, settings_in, utc_now
from tests.support.waiting import eventually

HISTORY = "/api/v1/pnl/history"
NOON = datetime(2025, 10, 20, 12, 0, tzinfo=UTC)
FIGURES = Figures(
    unrealized=Decimal("200.00"),
    realized=Decimal("0.10"),
    fees=Decimal("0.00"),
    day_pnl=None,
    market_value=Decimal("15200.00"),
    complete=True,
    unpriced=0,
    stale=0,
)


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, database: str) -> GatewaySettings:
    return settings_in(tmp_path, redis_url, database_url=SecretStr(database), pnl_history_seconds=1)


@asynccontextmanager
async def sampling(settings: GatewaySettings) -> AsyncIterator[RunningGateway]:
    """Serve a gateway that samples more often than its settings allow."""
    async with serving(settings) as gateway:
        gateway.gateway.history.sampling = Sampling(200)
        yield gateway


async def history(gateway: RunningGateway) -> Any:
    """Return the last minute, unthinned."""
    since = quote((utc_now() - timedelta(minutes=1)).isoformat())
    return await gateway.get(f"{HISTORY}?from={since}&step=0.2")


async def points(gateway: RunningGateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await history(gateway))["points"]
    return found


async def shows(gateway: RunningGateway, unrealized: str | None) -> list[dict[str, Any]]:
    """Return the points once the newest has this figure."""
    found = await points(gateway)
    wanted = None if unrealized is None else Decimal(unrealized)
    assert found, "no point yet"
    assert found[-1]["total_unrealized"] == wanted, str(found[-1])
    return found


async def test_what_happens_is_on_record_and_survives_a_restart(settings: GatewaySettings) -> None:
    began = utc_now()
    async with sampling(settings) as gateway:
        await eventually(lambda: shows(gateway, "0"))
        await gateway.fill("AAPL", 100, "150.00")
        (*_, unpriced) = await eventually(lambda: shows(gateway, None))
        assert (unpriced["complete"], unpriced["unpriced"], unpriced["total_market_value"]) == (False, 1, None)
        gateway.gateway.prices.offer(price(mid="152.00"), is_live=True)
        seen = await eventually(lambda: shows(gateway, "200.00"))
        last = seen[-1]
        assert (last["total_market_value"], last["total_realized"], last["complete"]) == (15200, 0, True)
        assert began.isoformat() < last["at"] <= last["until"] <= utc_now().isoformat()

    async with sampling(settings) as gateway:
        after = await points(gateway)
        assert [point["at"] for point in after[: len(seen)]] == [point["at"] for point in seen]
        assert after[len(seen) - 1]["until"] >= last["until"]
        # The prices went with the process.
        await eventually(lambda: shows(gateway, None))
        assert not gateway.deaths


async def test_a_database_that_was_away_leaves_a_gap_and_no_made_up_point(
    settings: GatewaySettings, database_away: Any
) -> None:
    async with sampling(settings) as gateway:
        (before,) = await eventually(lambda: shows(gateway, "0"))
        async with database_away():
            assert (await gateway.client.get(HISTORY)).status_code == 503
            await eventually(lambda: gateway.gateway.sampler.failures >= 5, within_s=10)

        async def resumed() -> Any:
            body = await history(gateway)
            assert len(body["points"]) == 2, str(body)
            return body

        body = await eventually(resumed)
        assert gateway.gateway.sampler.last_error is None
        assert body["points"][0] == before | {"until": body["points"][0]["until"]}
        gap = body["gaps"][-1]
        assert gap == {"from": body["points"][0]["until"], "to": body["points"][1]["at"]}


async def test_the_body_says_what_was_asked_once_defaults_are_filled_in(running_gateway: RunningGateway) -> None:
    store = running_gateway.gateway.history
    for second in (0, 5, 600):
        sample = HistorySample(NOON + timedelta(seconds=second), Mode.PAPER, FIGURES)
        await store.record(sample, None)
    asked = f"from={quote(NOON.isoformat())}&to={quote('2025-10-20T12:20:00Z')}&step=60&mode=paper"
    answer = await running_gateway.client.get(f"{HISTORY}?{asked}")
    assert answer.headers["cache-control"] == "no-store"
    assert (
        answer.text == '{"points":['
        '{"at":"2025-10-20T12:00:00+00:00","until":"2025-10-20T12:00:00+00:00",'
        '"total_unrealized":200.00,"total_realized":0.10,"total_fees":0.00,"total_day_pnl":null,'
        '"total_market_value":15200.00,"complete":true,"unpriced":0,"stale":0},'
        '{"at":"2025-10-20T12:10:00+00:00","until":"2025-10-20T12:10:00+00:00",'
        '"total_unrealized":200.00,"total_realized":0.10,"total_fees":0.00,"total_day_pnl":null,'
        '"total_market_value":15200.00,"complete":true,"unpriced":0,"stale":0}],'
        '"gaps":[{"from":"2025-10-20T12:00:00+00:00","to":"2025-10-20T12:10:00+00:00"},'
        '{"from":"2025-10-20T12:10:00+00:00","to":"2025-10-20T12:20:00+00:00"}],'
        '"step_seconds":60,"mode":"paper",'
        '"from":"2025-10-20T12:00:00+00:00","to":"2025-10-20T12:20:00+00:00"}'
    )


async def test_every_fault_of_a_question_is_named(running_gateway: RunningGateway) -> None:
    answer = await running_gateway.client.get(f"{HISTORY}?from=2025-10-20T12:00:00&step=0&stepp=5")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {error["field"] for error in answer.json()["errors"]} == {"from", "step", "stepp"}
