"""A stream that brings its quotes late, from the venue's socket to the P&L: nothing is live until one comes in time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.market import MarketSetting
from tests.support.stack import Stack, running_stack
from tests.support.waiting import eventually

WITHIN_S = 20.0


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """Both services; the venue quotes ten times a second, open whatever the hour."""
    async with running_stack(tmp_path, simulator={"rate": 10.0, "market": MarketSetting.OPEN}) as running:
        yield running


async def reasons(stack: Stack) -> dict[str, str]:
    """Return what both services complain of."""
    found = {}
    for service in stack.services.values():
        found |= {reason["code"]: reason["detail"] for reason in (await service.health())["reasons"]}
    return found


@pytest.mark.parametrize("late_s", [60.0, 900.0])
async def test_a_late_stream_makes_nothing_live_until_it_is_in_time_again(stack: Stack, late_s: float) -> None:
    await stack.fill("AAPL", 100, "150.00")
    await stack.until_row("AAPL", price_source="real-time", within_s=WITHIN_S)

    stack.simulator.faults = Faults(late_s=late_s)

    async def is_said() -> Any:
        row, body = await stack.row("AAPL"), await stack.pnl()
        assert row["price_source"] != "real-time", row
        assert body["feed"]["lag_seconds"] == pytest.approx(late_s, abs=2)
        assert row["price_age_seconds"] is None or row["price_age_seconds"] >= late_s
        return row

    row = await eventually(is_said, within_s=WITHIN_S, every_s=0.05)
    assert row["price_source"] in {"stale", "closing", "unavailable"}
    said = await reasons(stack)
    assert f"{late_s:.0f} s" in said["stream_lagging"]
    assert "clock_wrong" not in said
    for service in stack.services.values():
        assert (await service.health())["status"] == "degraded"

    # A new connection proves nothing: it is the next quote in time that does.
    dials = len(stack.simulator.dials)
    await stack.market_data.http.post("/api/v1/market-data/reconnect")
    await eventually(lambda: len(stack.simulator.dials) > dials, within_s=WITHIN_S)
    await stack.until_confirmed("AAPL", within_s=WITHIN_S)
    assert (await stack.row("AAPL"))["price_source"] != "real-time"

    stack.simulator.faults = Faults()
    row = await stack.until_row("AAPL", price_source="real-time", within_s=WITHIN_S)
    assert row["price_age_seconds"] < 15

    async def is_over() -> bool:
        return "stream_lagging" not in await reasons(stack)

    await eventually(is_over, within_s=WITHIN_S)


async def test_what_was_late_before_it_was_known_is_old_in_redis_too(stack: Stack) -> None:
    await stack.subscribe("AAPL")
    stack.simulator.faults = Faults(late_s=60.0)

    async def is_old() -> bool:
        answer = await stack.market_data.get("/api/v1/market-data/prices/AAPL")
        return bool(answer["age_seconds"] >= 60 and answer["received_at"] == answer["timestamp"])

    await eventually(is_old, within_s=WITHIN_S)


@pytest.mark.parametrize("skew_s", [-90.0, 90.0, 3_600.0])
async def test_a_wrong_clock_of_ours_is_no_late_stream(tmp_path: Path, skew_s: float) -> None:
    """The venue and the account agree on another time than this machine's."""
    skewed = {"rate": 10.0, "market": MarketSetting.OPEN, "faults": Faults(clock_skew_s=skew_s)}
    async with running_stack(tmp_path, simulator=skewed) as stack:
        await stack.fill("AAPL", 100, "150.00")

        async def is_understood() -> Any:
            said = await reasons(stack)
            assert "clock_wrong" in said, said
            assert not {"stream_lagging", "stream_ahead"} & said.keys(), said
            row = await stack.row("AAPL")
            assert row["price_source"] == "real-time", row
            assert row["price_age_seconds"] < 15, row
            return said

        said = await eventually(is_understood, within_s=2 * WITHIN_S, every_s=0.1)
        assert f"{abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead of'}" in said["clock_wrong"]
        price = await stack.market_data.get("/api/v1/market-data/prices/AAPL")
        assert price["age_seconds"] < 15

        # Late by the account's clock: now it is both.
        stack.simulator.faults = Faults(clock_skew_s=skew_s, late_s=60.0)

        async def is_late() -> bool:
            row = await stack.row("AAPL")
            return {"stream_lagging", "clock_wrong"} <= (await reasons(stack)).keys() and row[
                "price_source"
            ] != "real-time"

        await eventually(is_late, within_s=WITHIN_S)


async def test_without_an_account_clock_a_wrong_clock_of_ours_makes_nothing_live(tmp_path: Path) -> None:
    faults = Faults(clock_skew_s=-90.0, rest_status=404, rest_paths="clock")
    skewed = {"rate": 10.0, "market": MarketSetting.OPEN, "faults": faults}
    async with running_stack(tmp_path, simulator=skewed) as stack:
        await stack.fill("AAPL", 100, "150.00")

        async def is_said() -> bool:
            said = await reasons(stack)
            return "stream_lagging" in said and "clock_wrong" not in said

        await eventually(is_said, within_s=WITHIN_S)
        assert (await stack.row("AAPL"))["price_source"] != "real-time"
