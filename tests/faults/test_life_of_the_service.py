"""The service is stopped, killed, or put to sleep: prices grow old honestly, and the next start finds a free way."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.patient import Patient
from tests.support.stack import MARKET_DATA, Service, Stack, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

GONE_WITHIN_S = 5.0


async def restarted(stack: Stack) -> Service:
    """Start the market data service again, as it was started before."""
    old = stack.services[MARKET_DATA]
    await old.http.aclose()
    service = Service(stack.folder, MARKET_DATA, "MARKET_DATA_PORT", **old.environment)
    stack.services[MARKET_DATA] = service
    return service


async def admitted(stack: Stack) -> Patient:
    patient = Patient(stack)
    await patient.admit()
    await patient.recovers()
    return patient


async def test_a_requested_stop_frees_the_slot_and_is_quick(tmp_path: Path) -> None:
    async with running_stack(tmp_path, simulator={"slot_hold_s": 90.0}) as stack:
        patient = await admitted(stack)
        patient.quote()

        # What is still in the venue's outbox when the connection is closed was never sent.
        def is_sent() -> bool:
            sent = stack.simulator.sent.by_symbol
            return {symbol: sent[symbol].quote.bid_price for symbol in patient.bids} == {
                symbol: float(bid) for symbol, bid in patient.bids.items()
            }

        await eventually(is_sent, every_s=0)
        began_s = time.monotonic()
        await stack.market_data.stop()
        assert time.monotonic() - began_s < GONE_WITHIN_S
        assert (await stack.pnl())["feed"]["state"] == "stopped"
        await patient.until_source("stale", within_s=20)
        rows = await patient.rows()
        assert {symbol: row["bid"] for symbol, row in rows.items()} == patient.bids, "the last values were written"
        service = await restarted(stack)
        await service.until_ready()
        await patient.recovers(within_s=15)


async def test_a_killed_service_is_taken_over_by_the_next(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        patient = await admitted(stack)
        stack.market_data.kill()
        killed_s = time.monotonic()

        async def is_missed() -> bool:
            return bool((await stack.pnl())["feed"]["state"] == "unknown")

        await eventually(is_missed, within_s=8, every_s=0.1)
        assert time.monotonic() - killed_s < 7.5, "three heartbeats, and the time of looking"
        service = await restarted(stack)
        await service.until_ready()
        await patient.until_state("streaming", within_s=20)
        await patient.recovers()


async def test_a_service_that_slept_wakes_to_a_fresh_connection(tmp_path: Path) -> None:
    async with running_stack(tmp_path, simulator={"rate": 20.0}) as stack:
        patient = Patient(stack)
        await patient.admit()
        await patient.until_source("real-time", within_s=10)
        process = stack.market_data.process
        os.kill(process.pid, signal.SIGSTOP)
        try:
            # A minute in the field; long enough here for every threshold: 15 s of age, 6 s of heartbeats, 5 s of sleep.
            await asyncio.sleep(22)
            assert "real-time" not in (await patient.sources()).values()
        finally:
            os.kill(process.pid, signal.SIGCONT)

        async def is_fresh() -> bool:
            health = await patient.health()
            return bool(health["link"]["reconnects"] >= 1 and health["status"] == "healthy")

        await eventually(is_fresh, within_s=30, every_s=0.1)
        await patient.until_source("real-time", within_s=5)
        ages = [row["price_age_seconds"] for row in (await patient.rows()).values()]
        assert max(ages) < 15
        patient.check_dials()


async def test_a_gateway_that_slept_does_not_believe_what_piled_up(tmp_path: Path) -> None:
    async with running_stack(tmp_path, simulator={"rate": 50.0}) as stack:
        patient = Patient(stack)
        await patient.admit()
        await patient.until_source("real-time", within_s=10)
        process = stack.gateway.process
        os.kill(process.pid, signal.SIGSTOP)
        try:
            # Three heartbeats that vouch wait for the gateway; then the venue is gone.
            await asyncio.sleep(6)
            await stack.simulator.stop(clean=False)
            await asyncio.sleep(17)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        woke_s = time.monotonic()
        looks = 0
        while time.monotonic() - woke_s < 3:
            assert "real-time" not in (await patient.sources()).values()
            looks += 1
        assert looks > 10
        assert (await stack.pnl())["feed"]["connected"] is False
        await stack.simulator.start()
        await patient.until_source("real-time", within_s=30)
