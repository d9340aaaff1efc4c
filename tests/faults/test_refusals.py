"""Alpaca refuses: at the upgrade, before the welcome, at the authentication. Nobody hammers, nobody waits for ever."""

import time

import pytest

from apps.alpaca_simulator.protocol import ErrorCode
from tests.support.patient import Patient
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

TRIED_WITHIN_S = 25.0
"""The tests before have used up the dials of 10 s; the next one waits for its turn."""


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_an_upgrade_that_is_refused_is_tried_later_and_later(patient: Patient, status: int) -> None:
    async with patient.suffering(upgrade_status=status):
        await patient.venue.drop_all(clean=True)
        health = await patient.until_reason("link_not_streaming")
        assert health["status"] == "degraded"

        async def is_told() -> bool:
            fault = (await patient.health())["link"]["last_error"]
            return fault is not None and bool(fault["code"] == status)

        await eventually(is_told, within_s=TRIED_WITHIN_S, every_s=0.1)
        patient.check_dials()


async def test_retry_after_is_honoured(patient: Patient) -> None:
    async with patient.suffering(upgrade_status=429, retry_after_s=8.0):
        await patient.venue.drop_all(clean=True)
        assert patient.new_dials >= 0
        await eventually(lambda: patient.new_dials, within_s=TRIED_WITHIN_S)
        refused_s = time.monotonic()
    await eventually(lambda: patient.new_dials, within_s=15)
    assert time.monotonic() - refused_s > 7


async def test_a_wrong_address_is_unhealthy_and_left_when_it_is_right_again(patient: Patient) -> None:
    async with patient.suffering(upgrade_status=404):
        await patient.venue.drop_all(clean=True)
        health = await patient.until_reason("wrong_address", within_s=TRIED_WITHIN_S)
        assert health["status"] == "unhealthy"
        assert (await patient.service.http.get("/health/ready")).status_code == 503


@pytest.mark.parametrize("code", [402, 409, 411])
async def test_a_refusal_stops_the_dialling_until_a_person_acts(patient: Patient, code: int) -> None:
    async with patient.suffering(auth_error=ErrorCode(code)):
        await patient.venue.drop_all(clean=True)
        await patient.until_state("refused", within_s=TRIED_WITHIN_S)
        health = await patient.health()
        assert health["status"] == "unhealthy"
        assert health["link"]["last_error"]["code"] == code

        # The gateway hears it by way of Redis, a moment later.
        async def is_heard() -> bool:
            assert (await patient.stack.gateway.health())["status"] == "degraded"
            return bool((await patient.stack.pnl())["feed"]["state"] == "refused")

        await eventually(is_heard, within_s=2)
        assert patient.new_dials >= 1
    with pytest.raises(AssertionError, match="did not come true"):
        await eventually(lambda: patient.new_dials, within_s=4)
    answer = await patient.service.http.post("/api/v1/market-data/reconnect")
    assert answer.status_code == 200


async def test_a_taken_slot_is_asked_for_on_the_slow_track(patient: Patient) -> None:
    async with patient.suffering(slot_hold_s=25.0):
        await patient.venue.drop_all(clean=False)
        await patient.until_state("backing_off", within_s=5)
        lost_s = time.monotonic()
        assert patient.new_dials >= 1

        async def is_told() -> bool:
            return bool((await patient.health())["link"]["last_error"]["code"] == 406)

        await eventually(is_told, within_s=TRIED_WITHIN_S, every_s=0.1)
        await patient.until_state("streaming", within_s=50)
        assert time.monotonic() - lost_s > 20
        assert patient.new_dials <= 3, "one every 10 to 20 s"


@pytest.mark.parametrize(
    "fault",
    [
        {"error_before_welcome": ErrorCode.CONNECTION_LIMIT_EXCEEDED},
        {"error_before_welcome": ErrorCode.INTERNAL_ERROR},
        {"auth_error": ErrorCode.AUTH_TIMEOUT},
        {"auth_error": ErrorCode.INTERNAL_ERROR},
    ],
)
async def test_other_errors_are_told_by_their_code_and_tried_again(
    patient: Patient, fault: dict[str, ErrorCode]
) -> None:
    (code,) = fault.values()
    before = (await patient.health())["link"]["last_error"]
    async with patient.suffering(**fault):
        await patient.venue.drop_all(clean=True)

        async def is_told() -> bool:
            fault = (await patient.health())["link"]["last_error"]
            # A test before may have left an error of this very code.
            return fault is not None and fault != before and bool(fault["code"] == int(code))

        await eventually(is_told, within_s=TRIED_WITHIN_S, every_s=0.1)


@pytest.mark.parametrize("fault", ["no_welcome", "no_auth_answer"])
async def test_a_server_that_says_nothing_is_left(patient: Patient, fault: str) -> None:
    async with patient.suffering(**{fault: True}):
        await patient.venue.drop_all(clean=True)
        await patient.until_state("connecting", "authenticating", within_s=TRIED_WITHIN_S)
        await patient.until_state("backing_off", within_s=20)
