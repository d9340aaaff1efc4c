"""Subscriptions are refused, ignored or cut. What fits streams; the rest is told, and priced by REST."""

import pytest

from apps.alpaca_simulator.protocol import ErrorCode
from tests.support.patient import HELD, Patient
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]


async def confirmed(patient: Patient) -> set[str]:
    return {symbol for symbol, detail in (await patient.stack.subscriptions()).items() if detail["confirmed"]}


async def test_a_plan_that_shrinks_keeps_what_fits(patient: Patient) -> None:
    async with patient.suffering(symbol_limit=2):
        await patient.venue.drop_all(clean=True)
        await patient.until_reason("symbols_not_streamed", within_s=30)

        async def is_full() -> bool:
            return len(await confirmed(patient)) == 2

        await eventually(is_full, within_s=30)
        (left_out,) = set(HELD) - await confirmed(patient)
        patient.quote()

        async def is_priced() -> bool:
            rows = await patient.rows()
            return all(rows[symbol]["bid"] == patient.bids[symbol] for symbol in HELD)

        await eventually(is_priced, within_s=10, every_s=0.2)
        health = await patient.health()
        assert health["polling"] == {"symbols": [left_out], "last_error": None}
        assert health["link"]["state"] == "streaming"
        assert health["status"] == "degraded"


@pytest.mark.parametrize("code", [400, 405, 410])
async def test_when_everything_is_refused_rest_prices_it_and_the_stream_comes_back_by_itself(
    patient: Patient, code: int
) -> None:
    async with patient.suffering(subscribe_error=ErrorCode(code)):
        await patient.venue.drop_all(clean=True)
        await patient.until_reason("symbols_not_streamed", within_s=30)
        patient.quote()

        async def is_priced() -> bool:
            rows = await patient.rows()
            return all(rows[symbol]["bid"] == patient.bids[symbol] for symbol in HELD)

        await eventually(is_priced, within_s=10, every_s=0.2)


async def test_one_refused_symbol_costs_only_itself(patient: Patient) -> None:
    async with patient.suffering(refused_symbols=frozenset({"KO"})):
        await patient.venue.drop_all(clean=True)
        await patient.until_reason("symbols_not_streamed", within_s=30)

        async def the_others_stream() -> bool:
            return await confirmed(patient) == {"AAPL", "MSFT"}

        await eventually(the_others_stream, within_s=30)
        assert (await patient.stack.subscriptions())["KO"]["why_not_streamed"] == "malformed"


async def test_requests_never_answered_end_the_connection(patient: Patient) -> None:
    async with patient.suffering(no_ack=True):
        await patient.venue.drop_all(clean=True)
        await patient.until_state("subscribing", within_s=30)

        async def is_told() -> bool:
            return "acknowledgement" in (await patient.health())["link"]["last_error"]["message"]

        await eventually(is_told, within_s=15, every_s=0.2)


@pytest.mark.parametrize("code", [400, 405, 410])
async def test_a_plan_without_statuses_streams_all_the_same(patient: Patient, code: int) -> None:
    async with patient.suffering(refuse_statuses=ErrorCode(code)):
        await patient.venue.drop_all(clean=True)

        async def is_told() -> bool:
            health = await patient.health()
            return bool(health["status"] == "healthy" and not health["halts"]["known"])

        await eventually(is_told, within_s=30, every_s=0.1)
        patient.quote()
        await patient.shows_the_last_quotes()
    await patient.venue.drop_all(clean=True)
