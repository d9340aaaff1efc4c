"""Quotes and frames that are no good: each costs only itself. REST that is slow, broken or absurd costs no quote."""

from pathlib import Path
from typing import Any

import pytest

from apps.alpaca_simulator.frame_faults import FrameFault
from apps.alpaca_simulator.quote_faults import QuoteFault
from tests.support.patient import HELD, Patient
from tests.support.stack import running_stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]


async def counted(patient: Patient) -> dict[str, int]:
    """Return what the service has counted as odd, by kind and reason."""
    text = (await patient.service.http.get("/metrics")).text
    found = {}
    for line in text.splitlines():
        if line.startswith(("markstream_quotes_rejected_total{", "markstream_stream_faults_total{")):
            label, value = line.split('="')[1].split('"} ')
            found[label] = round(float(value))
    return found


async def test_every_kind_of_bad_quote_and_frame_costs_only_itself(tmp_path: Path) -> None:
    """All kinds in turn on one walking market; after each the rows still follow what the venue sent last."""
    async with running_stack(tmp_path, simulator={"rate": 60.0}) as stack:
        patient = Patient(stack)
        await patient.admit()
        kinds: list[dict[str, Any]] = [
            *({"bad_quotes": frozenset({kind}), "bad_quote_share": 0.5} for kind in QuoteFault),
            *({"bad_frames": frozenset({kind}), "bad_frame_every": 5} for kind in FrameFault),
            {"malformed_every": 5},
        ]
        for switches in kinds:
            async with patient.suffering(**switches):
                await sees_more_quotes(patient, 60)
            await follows_the_venue(patient, switches)
        health = await patient.health()
        assert health["link"]["reconnects"] == 0, health["link"]["last_error"]
        assert health["status"] == "healthy", health["reasons"]
        odd = await counted(patient)
        for reason in ("one_sided", "crossed", "too_wide", "not_finite", "not_firm", "unreadable_frames"):
            assert odd.get(reason), f"{reason} not counted in {odd}"


async def quotes_seen(patient: Patient) -> int:
    return sum(detail["quotes"] for detail in (await patient.stack.subscriptions()).values())


async def sees_more_quotes(patient: Patient, count: int) -> None:
    before = await quotes_seen(patient)

    async def has_seen() -> bool:
        return await quotes_seen(patient) >= before + count

    await eventually(has_seen, within_s=15, every_s=0.1)


def sent(patient: Patient) -> dict[str, tuple[float, float]]:
    """Return the bid and ask of the last good quote that was really sent of each symbol."""
    return {s: (one.quote.bid_price, one.quote.ask_price) for s, one in patient.venue.sent.by_symbol.items()}


async def follows_the_venue(patient: Patient, switches: dict[str, Any]) -> None:
    """Check that each row shows a quote that the venue has just sent as a good one."""

    async def is_so() -> bool:
        before = sent(patient)
        rows = await patient.rows()
        after = sent(patient)
        for symbol in HELD:
            good = {before[symbol], after[symbol]}
            shown = (float(rows[symbol]["bid"]), float(rows[symbol]["ask"]))
            assert shown in good, f"{symbol} shows {shown}, sent {good} under {switches}"
            assert rows[symbol]["price_source"] == "real-time"
        return True

    await eventually(is_so, within_s=5, every_s=0.03)


@pytest.mark.parametrize(
    "switches",
    [
        {"rest_status": 500},
        {"rest_status": 429, "rest_retry_after_s": 30.0},
        {"rest_status": 404},
        {"rest_html": True},
        {"rest_garbage": True},
        {"rest_delay_s": 60.0},
    ],
)
async def test_without_rest_the_stream_goes_on(patient: Patient, switches: dict[str, Any]) -> None:
    async with patient.suffering(**switches):
        await patient.venue.drop_all(clean=True)

        async def is_back() -> bool:
            health = await patient.health()
            return bool(health["link"]["state"] == "streaming" and health["status"] == "healthy")

        await eventually(is_back, within_s=30, every_s=0.1)
        patient.quote()
        await patient.shows_the_last_quotes()
    await patient.venue.drop_all(clean=True)


async def test_in_a_silent_market_without_rest_nothing_is_vouched_for(patient: Patient) -> None:
    async with patient.suffering(rest_status=500):
        await patient.until_source("stale", within_s=30)
        health = await patient.until_reason("feed_doubted")
        assert health["status"] == "degraded"
        assert health["link"]["reconnects"] == (await patient.health())["link"]["reconnects"]
