"""The command in a process of its own, cut off on its way: what has come is kept, and only the rest is asked again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random

import polars as pl
import pytest

from tests.support.bars_server import BarsServer, bars_server
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
DAYS = 240
PORTIONS = 4

pytestmark = pytest.mark.faults


@pytest.fixture
async def server() -> AsyncIterator[BarsServer]:
    async with bars_server() as running:
        yield running


@pytest.fixture
def environment(server: BarsServer, tmp_path: Path) -> Mapping[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "ALPACA_DATA_URL": server.url,
        "DAILY_BARS_PATH": str(tmp_path / "bars"),
    }


async def started(environment: Mapping[str, str], folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.fetch_daily_bars", "--symbols", "AAPL,SPY", "--days", str(DAYS),
        env=dict(environment), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def finished(environment: Mapping[str, str], folder: Path) -> tuple[int | None, str]:
    process = await started(environment, folder)
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def rows_on_disk(folder: Path) -> int:
    return sum(len(pl.read_parquet(file)) for file in (folder / "bars").glob("*.parquet"))


async def stalled_at_the_third(server: BarsServer) -> None:
    await eventually(lambda: len(server.asked) == 3, within_s=60)


async def test_killed_it_goes_on_where_it_was(
    server: BarsServer, environment: Mapping[str, str], tmp_path: Path
) -> None:
    server.stalls_after = 2
    process = await started(environment, tmp_path)
    await stalled_at_the_third(server)
    process.kill()
    await process.communicate()
    assert rows_on_disk(tmp_path) == 2 * 2 * 60
    first = list(server.asked)
    server.stalls_after = None
    server.asked.clear()
    code, output = await finished(environment, tmp_path)
    assert (code, len(server.asked)) == (0, PORTIONS - 2)
    assert server.asked[0] == first[2]
    assert "240 bars of 2 symbols, 240 sessions" in output
    assert rows_on_disk(tmp_path) == 2 * DAYS


async def test_interrupted_from_the_keyboard_it_tells_what_it_kept(
    server: BarsServer, environment: Mapping[str, str], tmp_path: Path
) -> None:
    server.stalls_after = 2
    process = await started(environment, tmp_path)
    await stalled_at_the_third(server)
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()
    assert process.returncode == 130
    assert output.decode().splitlines()[-1] == "interrupted; 240 bars are kept, run it again for the rest"
    assert rows_on_disk(tmp_path) == 240


async def test_killed_at_any_moment_every_file_stays_whole_and_one_portion_is_lost_at_most(
    server: BarsServer, environment: Mapping[str, str], tmp_path: Path
) -> None:
    dice, kills = Random(7), 0
    server.delay_s = 0.05
    while rows_on_disk(tmp_path) < 2 * DAYS and kills < 4:
        before = len(server.asked)
        process = await started(environment, tmp_path)
        await eventually(lambda before=before: len(server.asked) > before, within_s=60)
        with_luck_in_the_middle_of_a_write_s = 0.06 + 0.1 * dice.random()
        await asyncio.sleep(with_luck_in_the_middle_of_a_write_s)
        if process.returncode is None:
            process.kill()
            kills += 1
        await process.communicate()
        assert rows_on_disk(tmp_path) % 2 == 0
    code, _ = await finished(environment, tmp_path)
    assert code == 0
    assert rows_on_disk(tmp_path) == 2 * DAYS
    assert len(server.asked) <= PORTIONS + kills
