"""`make parity` and `make adjust` with a mirrored account: cash to classify, an opening balance to confirm."""

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

from tests.apps.execution_gateway.test_account_mirror import in_step, mirror_settings
from tests.support.clock import NoonClock
from tests.support.gateway import RunningGateway, serving, settings_in
from tests.support.simulator import running_simulator
from tests.support.stack import ROOT, clean_environment
from tests.support.waiting import eventually


async def run(gateway: RunningGateway, folder: Path, script: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"scripts.{script}", *arguments),
        cwd=folder,
        env=clean_environment(EXECUTION_GATEWAY_URL=gateway.base_url, PYTHONPATH=str(ROOT)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_parity_names_the_parts_and_adjust_settles_them(tmp_path: Path, redis_url: str) -> None:
    clock = NoonClock()
    async with running_simulator(rate=0, positions=(), now=clock) as simulator:
        # 100,000 that no activity names, as in a paper account.
        simulator.account.activities.clear()
        async with serving(mirror_settings(tmp_path, redis_url, simulator), clock) as gateway:
            await eventually(lambda: in_step(gateway), within_s=30)

            async def parity_line(name: str, *words: str) -> str:
                code, out, err = await run(gateway, tmp_path, "parity")
                (line,) = [one for one in out.splitlines() if one.startswith(f"{name}:")]
                assert (code, err) == (0, ""), out
                assert all(word in line for word in words), line
                return line

            opening = "opening_balance -100000"
            await eventually(lambda: parity_line("cash", opening, "unexplained 0.00"), within_s=60)
            await simulator.desk.move_cash(Decimal(995), "WARP")
            await eventually(lambda: parity_line("total", opening, "unclassified -995"), within_s=60)
            code, out, err = await run(gateway, tmp_path, "adjust", "list")
            assert (code, err, "unclassified" in out, "995" in out) == (0, "", True, True)

            activity = simulator.account.activities[-1].activity_id
            for kind, word in (("income", "recorded"), ("income", "recorded"), ("outside", "recorded")):
                code, out, err = await run(gateway, tmp_path, "adjust", "classify", activity, kind)
                assert (code, err) == (0, ""), (out, err)
                assert word in out
                assert activity in out
            await eventually(lambda: parity_line("total", opening, "cash_from_outside -995"), within_s=60)
            code, out, err = await run(gateway, tmp_path, "adjust", "classify", "nobody", "fee")
            assert (code, out, "nobody" in err, "nothing has changed" in err) == (1, "", True, True)
            code, _, err = await run(gateway, tmp_path, "adjust", "classify", activity, "gift")
            assert (code, "income" in err) == (2, True)

            code, out, err = await run(gateway, tmp_path, "adjust", "opening-balance", "100000.00")
            assert (code, err) == (0, ""), (out, err)
            assert "confirmed: the account began with 100000" in out
            codes = [one["code"] for one in (await gateway.get("/health"))["reasons"]]
            assert not {"account_opening_assumed", "account_unclassified", "account_unexplained"} & set(codes)
            code, _, err = await run(gateway, tmp_path, "adjust", "opening-balance", "much")
            assert (code, "much" in err) == (2, True)


async def test_parity_ends_with_one_while_the_accounts_cash_is_unexplained(tmp_path: Path, redis_url: str) -> None:
    clock = NoonClock()
    async with (
        running_simulator(rate=0, positions=(), now=clock) as simulator,
        serving(mirror_settings(tmp_path, redis_url, simulator), clock) as gateway,
    ):
        await eventually(lambda: in_step(gateway), within_s=30)

        async def is_opened() -> bool:
            account = (await gateway.get("/api/v1/positions/parity"))["account"]
            return account is not None and account["opening_balance"] is not None

        await eventually(is_opened, within_s=30)
        await simulator.desk.move_cash(Decimal("12.34"))
        simulator.account.activities.pop()

        async def ends_with_one() -> bool:
            code, out, _ = await run(gateway, tmp_path, "parity")
            assert (code, "every cent is explained" in out) == (1, False), out
            assert "unexplained of the account, in USD: cash -12.34, day_change -12.34, total -12.34" in out, out
            return True

        await eventually(ends_with_one, within_s=60)


async def test_without_an_account_there_is_no_opening_balance_to_confirm(tmp_path: Path, redis_url: str) -> None:
    async with serving(settings_in(tmp_path, redis_url)) as gateway:
        code, out, err = await run(gateway, tmp_path, "adjust", "opening-balance", "100000")
    assert (code, out, "POSITION_SOURCE=alpaca" in err) == (1, "", True)
