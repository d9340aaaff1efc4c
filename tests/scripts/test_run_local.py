"""`make run` as a person's shell sees it, without a terminal: what it says, what it restarts, what it leaves behind."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.stack import Run, run_local
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


def pid_of(run: Run, module: str) -> int | None:
    return next((pid for pid, command in run.family().items() if f"-m {module}" in command), None)


async def test_the_demo_runs_mends_itself_and_leaves_nothing(tmp_path: Path) -> None:
    gateway = "apps.execution_gateway.main"
    async with run_local(tmp_path) as run:
        await run.says("SIMULATED", "AAPL qty=100", "source=real-time", "total unrealized=", "Feed connected")
        await run.says("XOM qty=45", "GME qty=200", "TSLA qty=-40", "KO qty=12.345678")
        assert "\x1b[" not in run.output, "no colours without a terminal"
        assert "redis-cli -p " in run.output
        await run.says("daily bars: ")

        async def is_priced() -> bool:
            rows = {row["symbol"]: row["price_source"] for row in (await run.pnl())["positions"]}
            assert rows["AAPL"] == "real-time"
            return rows["XOM"] == rows["GME"] == "closing"

        await eventually(is_priced, within_s=15, every_s=0.1)
        assert (await run.pnl())["mode"] == "simulated"

        first = pid_of(run, gateway)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await run.says("execution-gateway ended with -9", "it is started again", within_s=5)

        async def is_back() -> bool:
            return await run.pnl() is not None and pid_of(run, gateway) not in {None, first}

        await eventually(is_back, within_s=20, every_s=0.1)
        assert len((await run.pnl())["positions"]) == 12
        assert {path.name for path in (tmp_path / "var" / "demo" / "log").iterdir()} == {
            "execution-gateway.log",
            "market-data.log",
            "simulator.log",
        }
        await run.stop(signal.SIGINT)
        assert "Stopped." in run.output
    assert [path.name for path in (tmp_path / "var").iterdir()] == ["demo"], "all that is made up lives there"


@pytest.mark.parametrize("variable", ["MARKET_DATA_PORT", "EXECUTION_GATEWAY_PORT", "SIMULATOR_PORT"])
async def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with run_local(tmp_path, **{variable: port}) as run:
            assert await run.end() == 1
            assert run.output.count("\n") == 1, run.output
            assert port in run.output
            assert variable in run.output


async def test_a_recording_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    async with run_local(tmp_path, "--replay", "nowhere.csv") as run:
        assert await run.end() == 1
        assert run.output.count("\n") == 1, run.output
        assert "nowhere.csv" in run.output
