"""The command line: what it understands, how it ends."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from decimal import Decimal
from math import inf
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from apps.alpaca_simulator import main as command
from apps.alpaca_simulator.config import HeldPosition, SimulatorConfig
from apps.alpaca_simulator.fault_switches import SWITCHES
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.frame_faults import FrameFault
from apps.alpaca_simulator.main import read_arguments
from apps.alpaca_simulator.market import MarketSetting
from apps.alpaca_simulator.protocol import ErrorCode, error
from apps.alpaca_simulator.pump import RandomWalkPump
from tests.support.stream_client import authenticated, dialled

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_port_setting(monkeypatch):
    monkeypatch.delenv("SIMULATOR_PORT", raising=False)


def test_the_defaults():
    assert read_arguments([]) == SimulatorConfig(port=8765)


def test_the_port_comes_from_the_settings_unless_given():
    assert read_arguments([]).port == 8765
    assert read_arguments([], 9001).port == 9001
    assert read_arguments(["--port", "9002"], 9001).port == 9002


def test_everything_can_be_said(tmp_path):
    positions = tmp_path / "positions.json"
    positions.write_text('[{"symbol":"aapl","qty":"-1.5","avg_entry_price":150.00}]')
    text = (
        f"--host 0.0.0.0 --port 0 --seed 7 --rate max --market auto --silent ko,F --one-sided GME --replay x.csv "
        f"--speed 10 --keep-timestamps --loop --symbol-limit 30 --key K --secret S --positions {positions} "
        f"--slot-hold-seconds 2 --no-compression"
    )
    assert read_arguments(text.split()) == SimulatorConfig(
        host="0.0.0.0",
        port=0,
        seed=7,
        rate=inf,
        market=MarketSetting.AUTO,
        silent_symbols=frozenset({"KO", "F"}),
        one_sided_symbols=frozenset({"GME"}),
        replay=Path("x.csv"),
        speed=10,
        keep_timestamps=True,
        loop=True,
        symbol_limit=30,
        key="K",
        secret="S",
        positions=(HeldPosition("AAPL", Decimal("-1.5"), Decimal(150)),),
        slot_hold_s=2,
        compress=False,
    )


def test_faults_from_the_start():
    text = "--fault mute --fault auth_error=402 --fault bad-frames=huge,truncated --fault rest_delay_s=0.5"
    assert read_arguments(text.split()).faults == Faults(
        mute=True, auth_error=ErrorCode.AUTH_FAILED, rest_delay_s=0.5,
        bad_frames=frozenset({FrameFault.HUGE, FrameFault.TRUNCATED}),
    )  # fmt: skip


def test_a_scenario(tmp_path):
    script = tmp_path / "script.toml"
    script.write_text("[[step]]\nat = 1.5\nact = 'drop'")
    scenario = read_arguments(["--scenario", str(script)]).scenario
    assert [step.at_s for step in scenario.steps] == [1.5]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot read"),
        ("[[step]]\nat = 1\nact = 'drop'\n[[step]]\nat = 2\nfaults = {mute = 1}", "step 2, faults.mute: "),
        ("[[step]]\nact = 'drop'", "step 1, at: missing"),
    ],
)
def test_a_wrong_scenario_is_refused_in_one_line(content, complaint, tmp_path, capsys):
    script = tmp_path / "script.toml"
    if content is not None:
        script.write_text(content)
    with pytest.raises(SystemExit) as ended:
        read_arguments(["--scenario", str(script)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("simulator: ")
    assert str(script) in line
    assert complaint in line


def test_the_help_lists_every_fault(capsys):
    with pytest.raises(SystemExit) as ended:
        read_arguments(["--help"])
    assert ended.value.code == 0
    words = capsys.readouterr().out.replace("=", " ").split()
    assert set(SWITCHES) <= set(words)


@pytest.mark.parametrize(
    "text",
    [
        "--fault mute=7",
        "--fault upgrade_status=1",
        "--fault unknown",
        "--fault",
        "--scenario",
        "--rate -1",
        "--rate nan",
        "--rate fast",
        "--speed 0",
        "--port 70000",
        "--port x",
        "--symbol-limit -1",
        "--silent b$d",
        "--market maybe",
        "--positions /no/such/file",
        "--unknown",
    ],
)
def test_wrong_arguments_end_with_the_usage(text, capsys):
    with pytest.raises(SystemExit) as ended:
        read_arguments(text.split())
    assert ended.value.code == 2
    assert text.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_runs_until_it_is_asked_to_stop(number):
    process = await _spawn("--port", "0", "--rate", "50")
    url = await _started_url(process)
    async with authenticated(url.replace("http", "ws") + "/v2/iex") as client:
        await client.ask({"action": "subscribe", "quotes": ["AAPL"]})
        await client.points(2)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_it_misbehaves_from_its_start(tmp_path):
    script = tmp_path / "script.toml"
    script.write_text("[[step]]\nat = 0\nact = 'drop'\nhow = 'close'\ncode = 4001")
    process = await _spawn("--port", "0", "--fault", "auth_error=409", "--scenario", str(script))
    url = await _started_url(process)
    try:
        async with dialled(url.replace("http", "ws") + "/v2/iex") as client:
            assert await client.authenticate() == error(ErrorCode.INSUFFICIENT_SUBSCRIPTION)
        async with httpx2.AsyncClient(base_url=url) as http:
            assert (await http.get("/control/state")).json()["faults"] == {"auth_error": 409}
            await http.delete("/control/faults")
        async with authenticated(url.replace("http", "ws") + "/v2/iex") as client:
            with pytest.raises(ConnectionClosed) as closed:
                await client.receive()
            assert closed.value.rcvd.code == 4001
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_port_in_use_is_one_clear_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert await command._run(SimulatorConfig(port=port)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"simulator: port {port} is in use: choose another with --port or SIMULATOR_PORT"]


async def test_other_failures_to_start_are_one_line_too(capsys):
    assert await command._run(SimulatorConfig(host="192.0.2.1")) == 1
    assert await command._run(SimulatorConfig(replay=Path("none.csv"))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("simulator: cannot listen on 192.0.2.1:0")
    assert lines[1] == "simulator: cannot replay none.csv: there is no such file"


async def test_a_dead_market_ends_the_process_with_an_error(monkeypatch):
    async def die(_pump):
        raise RuntimeError("the market is dead")

    monkeypatch.setattr(RandomWalkPump, "run", die)
    assert await asyncio.wait_for(command._run(SimulatorConfig()), 10) == 1


async def _spawn(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "apps.alpaca_simulator.main", *arguments,
        cwd=ROOT, env=os.environ | {"LOG_FORMAT": "json"}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _started_url(process):
    async with asyncio.timeout(20):
        while line := await process.stderr.readline():
            if re.search(rb"simulator_started", line):
                return json.loads(line)["url"]
    raise AssertionError("the simulator ended before it had started")
