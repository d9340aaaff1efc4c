"""The soak as a whole: it passes where nothing is wrong, and fails where the services are made to lie."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from libs.service.supervise import Supervisor
from tests.soak.judge import Judge
from tests.soak.watch import Verdicts, Watch
from tests.soak.world import WALKING, running_world
from tests.support.stack import ROOT, clean_environment, session_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


async def test_a_short_soak_passes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    options = ("--minutes", "0.2", "--seed", "3", "--only", "tcp_drop,quote_nan,redis_killed", "--json", str(report))
    soak = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.run", *options, cwd=ROOT, start_new_session=True,
        env=clean_environment(TMPDIR=str(tmp_path)), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(soak.communicate(), timeout=90)
    assert soak.returncode == 0, said.decode()
    read = json.loads(report.read_text())
    assert read["faults"] >= 2
    assert not read["violations"]
    assert not session_of(soak.pid)
    assert list(tmp_path.iterdir()) == [report]


async def test_services_that_call_old_prices_live_are_caught(tmp_path: Path) -> None:
    """With a minute for young, all that was known before Redis froze stays live, though the market moves on."""
    judge = Judge()
    verdicts = Verdicts(lambda _: None, tuple)
    watcher = Supervisor()
    async with running_world(tmp_path, seed=1, rate=100, STALE_AFTER_SECONDS="60") as world:
        await world.quote_canaries()
        watch = Watch(world, judge, verdicts)
        watcher.spawn("watch", watch.run)
        try:
            await eventually(lambda: watch.pnl is not None and watch.pnl.is_complete, within_s=20)
            assert not verdicts.violations
            world.freeze(world.server.pid)
            await eventually(lambda: verdicts.counts["false live"], within_s=25)
        finally:
            world.thaw(world.server.pid)
            await watcher.stop()
    assert {one.finding.subject for one in verdicts.violations if one.finding.rule == "false live"} <= {*WALKING}
