"""The connection breaks, freezes, or falls silent: the user sees it in time, and afterwards all is live again."""

import asyncio
import time
from pathlib import Path

import pytest

from apps.alpaca_simulator.market import MarketSetting
from tests.support.patient import HELD, Patient
from tests.support.stack import running_stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

HALF_OPEN_SEEN_WITHIN_S = 15.0
MUTE_SEEN_WITHIN_S = 30.0


@pytest.mark.parametrize("how", ["tcp", 1001, 4000])
async def test_a_drop_costs_a_moment_and_is_told_as_a_gap(patient: Patient, how: str | int) -> None:
    before, gaps = await patient.reconnects(), (await patient.health())["gaps"]["count"]
    if how == "tcp":
        await patient.venue.drop_all(clean=False)
    else:
        await patient.venue.drop_all(clean=True, code=int(how), reason="bye")
    await patient.until_reconnected(before)
    health = await patient.health()
    assert health["gaps"]["count"] == gaps + 1
    gap = health["gaps"]["last"][-1]
    assert sorted(gap["symbols"]) == sorted(HELD)
    assert gap["from"] < gap["to"]
    assert gap["reason"]
    assert health["gaps"]["open"] == []
    states = [change["state"] for change in health["link"]["history"]]
    assert states[-5:] == ["backing_off", "connecting", "authenticating", "subscribing", "streaming"]


@pytest.mark.parametrize("with_message", [True, False])
async def test_a_slow_client_is_dropped_and_comes_back(patient: Patient, *, with_message: bool) -> None:
    before = await patient.reconnects()
    patient.venue.drop_slow(with_message=with_message)
    await patient.until_reconnected(before)
    fault = (await patient.health())["link"]["last_error"]
    assert (fault["code"] == 407) is with_message


async def test_a_half_open_connection_is_noticed_in_15_s(patient: Patient) -> None:
    before = await patient.reconnects()
    async with patient.suffering(half_open=True):
        began_s = time.monotonic()
        await patient.until_state("backing_off", "connecting", "subscribing", within_s=HALF_OPEN_SEEN_WITHIN_S)
        assert time.monotonic() - began_s < HALF_OPEN_SEEN_WITHIN_S
        await patient.until_reconnected(before)


async def test_a_mute_connection_is_never_shown_as_live(patient: Patient) -> None:
    before = (await patient.health())["link"]["mute_connections"]
    async with patient.suffering(mute=True):
        # Far enough behind the last quote that came through to be another one by its time.
        await asyncio.sleep(0.2)
        patient.quote()
        muted_s = time.monotonic()

        async def is_noticed() -> bool:
            return bool((await patient.health())["link"]["mute_connections"] > before)

        await eventually(is_noticed, MUTE_SEEN_WITHIN_S, every_s=0.2)
        await patient.until_source("stale", within_s=2)
        assert time.monotonic() - muted_s < MUTE_SEEN_WITHIN_S
        rows = await patient.rows()
        # What REST knows is shown, for what it is.
        assert {symbol: rows[symbol]["bid"] for symbol in HELD} == patient.bids
        # Connected again, and mute still: nothing is live, though REST prices it all the while.
        while time.monotonic() - muted_s < MUTE_SEEN_WITHIN_S + 5:
            patient.quote()
            assert "real-time" not in (await patient.sources()).values()
            await asyncio.sleep(0.2)
        assert (await patient.health())["status"] == "degraded"


async def test_a_closed_market_is_silent_without_consequence(tmp_path: Path) -> None:
    async with running_stack(tmp_path, simulator={"market": MarketSetting.CLOSED}) as stack:
        patient = Patient(stack)
        await patient.admit()
        async with patient.suffering(mute=True):
            patient.quote()
            silent_s = time.monotonic()
            while time.monotonic() - silent_s < MUTE_SEEN_WITHIN_S + 5:
                health = await patient.health()
                assert health["market"]["state"] == "closed"
                assert health["status"] == "healthy", str(health["reasons"])
                assert health["link"]["silence"] == "none"
            assert await patient.reconnects() == 0


async def test_one_dead_symbol_is_told_apart_and_priced_by_rest(patient: Patient) -> None:
    async def keep_quoting(until: str | None, within_s: float) -> None:
        """Have all three quote all the time, so that each has a pace of its own, until the service names the reason."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < within_s:
            patient.quote()
            if until in await patient.service.reasons():
                return
            await asyncio.sleep(0.1)
        assert until is None

    await keep_quoting(None, within_s=6)
    async with patient.suffering(dead_symbols=frozenset({"AAPL"})):
        await keep_quoting("symbols_dead", within_s=30)
        health = await patient.health()
        assert health["doubted"] == ["AAPL"]
        await patient.until_source("stale", "AAPL", within_s=2)
        assert await patient.sources() == {"AAPL": "stale", "MSFT": "real-time", "KO": "real-time"}

        patient.quote()

        async def is_polled() -> bool:
            return bool((await patient.rows())["AAPL"]["bid"] == patient.bids["AAPL"])

        await eventually(is_polled, within_s=8, every_s=0.2)
    patient.quote("AAPL")
    await patient.until_source("real-time", within_s=3)


async def test_a_halted_symbol_is_halted_not_stale(patient: Patient) -> None:
    patient.venue.halt("AAPL")
    await patient.until_source("halted", "AAPL", within_s=2)
    row = (await patient.rows())["AAPL"]
    assert row["bid"] == patient.bids["AAPL"]
    body = await patient.stack.pnl()
    assert body["complete"] is True
    assert (await patient.health())["halts"]["symbols"].keys() == {"AAPL"}
    assert await patient.service.reasons() == set(), "a halt is the venue's business, no fault of ours"
    assert (await patient.sources())["MSFT"] == "real-time"
    patient.venue.resume("AAPL")
    await patient.until_source("stale", "AAPL", within_s=2)
    assert await patient.service.reasons() == set(), "it trades again, only nobody knows yet where"
    patient.quote("AAPL")
    await patient.until_source("real-time", within_s=2)


async def test_a_backlog_is_taken_in_at_its_end(patient: Patient) -> None:
    async with patient.suffering(hold_data=True):
        for _ in range(500):
            patient.quote()
    await patient.shows_the_last_quotes()


async def test_a_stopped_venue_is_found_again_in_30_s(patient: Patient) -> None:
    before = await patient.reconnects()
    await patient.venue.stop(clean=False)
    await patient.until_state("backing_off", within_s=3)
    await patient.until_source("stale", within_s=20)
    await patient.venue.start()
    returned_s = time.monotonic()
    await patient.until_reconnected(before, within_s=30)
    assert time.monotonic() - returned_s < 30
