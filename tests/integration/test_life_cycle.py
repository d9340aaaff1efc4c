"""How the services begin and end as processes: a clean stop whatever is open, and one clear line when they cannot."""

import socket
from pathlib import Path

import pytest

from tests.support.stack import (
    GATEWAY,
    MARKET_DATA,
    STREAM,
    Program,
    running_stack,
    service_port,
)
from tests.support.stream_client import authenticated
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


async def test_a_stop_ends_streams_and_link_cleanly(tmp_path: Path) -> None:
    """Also the stack's own end shows it: exit code 0 within 10 s, and no trace in the log."""
    held = {"slot_hold_s": 90.0}
    keys = {"ALPACA_API_KEY": "K", "ALPACA_SECRET_KEY": "S"}
    async with running_stack(tmp_path, simulator=held, **keys) as stack:
        await stack.fill("AAPL", 100, 150)
        await stack.until_confirmed("AAPL")
        async with stack.gateway.http.stream("GET", STREAM) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: snapshot"

            await stack.market_data.stop()
            # A close frame frees the connection slot at once; without one the venue would hold it for 90 s.
            async with authenticated(stack.simulator.stream_url()):
                pass

            async def is_told() -> bool:
                feed = (await stack.pnl())["feed"]
                return not feed["connected"] and feed["state"] == "stopped"

            await eventually(is_told, within_s=2)

            await stack.gateway.stop()
            # The stream has an end, not a break: a client can tell a stop from a broken line.
            assert [line async for line in lines]


async def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        nobody = f"127.0.0.1:{service_port()}"
        program = Program(
            tmp_path,
            MARKET_DATA,
            MARKET_DATA_PORT=port,
            ALPACA_STREAM_URL=f"ws://{nobody}/v2/iex",
            REDIS_URL=f"redis://{nobody}",
        )
        try:
            assert await program.end(within_s=20) == 1
        finally:
            program.kill()
    assert program.output.count("\n") == 1, program.output
    line = program.output
    assert port in line
    assert "MARKET_DATA_PORT" in line


async def test_without_keys_the_market_data_service_says_which(tmp_path: Path) -> None:
    program = Program(tmp_path, MARKET_DATA)
    try:
        assert await program.end(within_s=20) == 2
    finally:
        program.kill()
    assert "ALPACA_API_KEY" in program.output
    assert "ALPACA_SECRET_KEY" in program.output
    assert "Traceback" not in program.output


async def test_every_wrong_setting_is_named_at_once_and_no_secret_told(tmp_path: Path) -> None:
    wrong = {
        "EXECUTION_GATEWAY_PORT": "eighty",
        "STALE_AFTER_SECONDS": "-1",
        "DATABASE_URL": "mysql://root:hunter2@db/x",
        "REDIS_URL": "http://:hunter2@redis",
        "POSITION_SOURCE": "guess",
        "LOG_FORMAT": "xml",
    }
    program = Program(tmp_path, GATEWAY, **wrong)
    try:
        assert await program.end(within_s=20) == 2
    finally:
        program.kill()
    assert all(name in program.output for name in wrong), program.output
    assert "hunter2" not in program.output
    assert "Traceback" not in program.output
