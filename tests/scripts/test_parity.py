"""`python -m scripts.parity` against a real gateway, its simulator, and none at all."""

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

from apps.alpaca_simulator.config import HeldPosition
from tests.support.clock import NoonClock
from tests.support.gateway import serving, settings_in
from tests.support.simulator import running_simulator
from tests.support.stack import ROOT, clean_environment
from tests.support.waiting import eventually


async def run(folder: Path, url: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "scripts.parity", *arguments),
        cwd=folder,
        env=clean_environment(EXECUTION_GATEWAY_URL=url, PYTHONPATH=str(ROOT)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_every_cent_and_what_is_unexplained(tmp_path: Path, redis_url: str) -> None:
    held = (HeldPosition("AAPL", Decimal(100), Decimal(150)),)
    clock = NoonClock()
    async with running_simulator(rate=0, positions=held, now=clock) as simulator:
        settings = settings_in(tmp_path, redis_url, position_source="alpaca", alpaca_stream_url=simulator.stream_url())
        async with serving(settings, clock) as gateway:

            async def is_known() -> bool:
                return (await gateway.client.get("/api/v1/positions")).status_code == 200

            await eventually(is_known, within_s=20)
            code, out, err = await run(tmp_path, gateway.base_url)
            assert (code, err) == (0, "")
            assert "AAPL" in out
            assert "every cent is explained" in out
            simulator.account.exotic["TSLA"] = {
                "symbol": "TSLA", "qty": "7", "side": "long", "avg_entry_price": "200", "cost_basis": "1400",
                "unrealized_pl": "70", "unrealized_intraday_pl": "0",
            }  # fmt: skip
            simulator.account.left_out["TSLA"] = frozenset()
            await asyncio.sleep(1.1)  # what was asked within a second is answered again
            code, out, _ = await run(tmp_path, gateway.base_url)
            assert (code, "unexplained: 70.00 USD in TSLA" in out) == (1, True)
            code, out, _ = await run(tmp_path, gateway.base_url, "--json")
            assert (code, '"unexplained":["TSLA"]' in out) == (1, True)


async def test_without_an_account_there_is_nothing_to_compare(tmp_path: Path, redis_url: str) -> None:
    async with serving(settings_in(tmp_path, redis_url)) as gateway:
        code, out, err = await run(tmp_path, gateway.base_url)
    assert (code, out) == (2, "")
    assert "POSITION_SOURCE=alpaca" in err


async def test_without_a_gateway_one_line_says_so(tmp_path: Path, free_port: int) -> None:
    code, _, err = await run(tmp_path, f"http://127.0.0.1:{free_port}")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be reached" in err
