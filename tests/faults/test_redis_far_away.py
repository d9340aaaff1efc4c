"""The way to Redis is slow, or swallows all: the P&L answers in time, and afterwards the newest value is there."""

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs.redis_client.embedded import EmbeddedRedis
from tests.support.faulty_line import FaultyLine, faulty_line
from tests.support.patient import Patient
from tests.support.stack import running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

DEADLINE_S = 0.25


@asynccontextmanager
async def on_a_line(folder: Path) -> AsyncIterator[tuple[Patient, FaultyLine]]:
    with EmbeddedRedis() as far:
        async with (
            faulty_line(far.port) as line,
            running_stack(folder, REDIS_URL=f"redis://127.0.0.1:{line.port}/0") as stack,
        ):
            patient = Patient(stack)
            await patient.admit()
            await patient.recovers()
            yield patient, line


async def answers_in_time(patient: Patient, seconds: float) -> None:
    took_s: list[float] = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        began_s = time.monotonic()
        await patient.rows()
        took_s.append(time.monotonic() - began_s)
    assert statistics.median(took_s) < DEADLINE_S
    assert max(took_s) < DEADLINE_S * 4, "a machine that is busy with other things gets four times as long"


async def test_a_slow_redis_holds_up_no_answer_and_no_price(tmp_path: Path) -> None:
    async with on_a_line(tmp_path) as (patient, line):
        line.break_by("delay", delay_s=0.3)
        await answers_in_time(patient, 3)
        patient.quote()
        await patient.shows_the_last_quotes(within_s=5)
        line.mend()


async def test_a_line_that_swallows_everything(tmp_path: Path) -> None:
    async with on_a_line(tmp_path) as (patient, line):
        line.break_by("hold")
        cut_s = time.monotonic()
        for _ in range(20):
            patient.quote()
        await answers_in_time(patient, 3)

        async def is_missed() -> bool:
            body = await patient.stack.pnl()
            return bool(body["feed"]["state"] == "unknown")

        await eventually(is_missed, within_s=8, every_s=0.1)
        assert time.monotonic() - cut_s < 8
        await patient.until_reason("redis_unavailable")
        await patient.until_source("stale", within_s=20)
        line.mend()
        await patient.shows_the_last_quotes(within_s=8)
