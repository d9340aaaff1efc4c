"""The command against real gateways, and against a server that says what no honest gateway would."""

import asyncio
import os
import shlex
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from scripts.adjust import main
from scripts.adjustment_arguments import Listing, Order, read_command
from scripts.adjustment_lines import adjustment_line, position_line
from tests.support.gateway import RunningGateway, serving, settings_in
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
ADJUSTMENTS = "/api/v1/adjustments"
POSITIONS = "/api/v1/positions"
NOW = datetime(2025, 10, 21, 3, 0, tzinfo=UTC)
"""Still the twentieth in New York."""
SPLIT = "split NVDA 10 1 --date 2024-06-10"
ANSWER = '{"status":"created","adjustment_id":"a","kind":"fee","symbol":"AAPL","amount":0.35,"reason":"why"}'


@pytest.fixture
async def gateway(tmp_path: Path, redis_url: str) -> AsyncIterator[RunningGateway]:
    async with serving(settings_in(tmp_path, redis_url)) as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        script.say(POSITIONS, '{"positions":[]}')
        yield script


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder without a `.env`, and no setting of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("API_TOKEN", "EXECUTION_GATEWAY_URL", "BIND_HOST", "EXECUTION_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)


async def run(command: str, url: str) -> int:
    return await asyncio.to_thread(main, [*shlex.split(command), "--url", url], lambda: NOW)


async def run_apart(command: str, url: str) -> tuple[int, list[str], list[str]]:
    """Run the command as a process of its own: a gateway in this one logs to the same output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.adjust", *shlex.split(command), "--url", url,
        stdout=PIPE, stderr=PIPE, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()


async def buy(gateway: RunningGateway, symbol: str, qty: object, at: object) -> None:
    await gateway.fill(symbol, qty, at, filled_at="2024-01-02T15:00:00Z")


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed since, without the log lines of a gateway in this process."""
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("20") or "[" not in line]


def order(command: str) -> Order:
    asked = read_command(shlex.split(command), NOW).asked
    assert isinstance(asked, Order)
    return asked


class TestOnAGateway:
    async def test_a_split_once_and_its_void(self, gateway: RunningGateway) -> None:
        await buy(gateway, "NVDA", "1.5", "1200.5")
        line = "2024-06-10 NVDA split 10 for 1 (recorded by command) id=split:NVDA:2024-06-10"
        before = "NVDA before: qty=1.5 avg=1,200.50 cost=1,800.75 realized=0.00 fees=0.00 income=0.00"
        after = "NVDA after:  qty=15 avg=120.05 cost=1,800.75 realized=0.00 fees=0.00 income=0.00"
        assert await run_apart(SPLIT, gateway.base_url) == (0, [f"recorded: {line}", before, after], [])
        assert await run_apart(SPLIT, f"{gateway.base_url}/") == (0, [f"already recorded: {line}"], [])
        code, out, err = await run_apart("void split:NVDA:2024-06-10 --reason 'too early'", gateway.base_url)
        assert (code, err) == (0, [])
        assert out[0].startswith(f"void: {line} VOID since 20")
        assert out[0].endswith(": too early")
        assert out[1:] == [after.replace("after: ", "before:"), before.replace("before:", "after: ")]
        code, out, err = await run_apart(SPLIT, gateway.base_url)
        assert (code, out, err[-2:]) == (
            1, [], ["to record it again, give it another --id", "refused, nothing has changed"],
        )  # fmt: skip
        assert (await gateway.get(POSITIONS))["positions"][0]["qty"] == 1.5

    async def test_every_kind_changes_what_it_must(
        self, gateway: RunningGateway, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await buy(gateway, "FB", 100, 150)
        commands = {
            "rename fb meta --date 2024-06-09": ["FB after:  not held", "META after:  qty=100"],
            "dividend META 24.00 --date 2024-06-10": ["META after:  qty=100", "income=24.00"],
            "fee 0.35 --symbol META --at 2024-06-10T10:00:00-04:00": ["fees=0.35"],
            "cash-in-lieu META 1.5 --date 2024-06-10": ["realized=1.50"],
            "transfer META -50 -7500.00 --at 2024-06-11T14:00:00Z": ["META after:  qty=50", "cost=7,500.00"],
            "split META 1 3 --date 2024-06-12 --cash-price 9": ["META after:  qty=16.666666666 avg=450.00"],
        }
        for command, expected in commands.items():
            assert await run(command, gateway.base_url) == 0, command
            shown = "\n".join(told(capsys))
            assert all(part in shown for part in expected), shown
            assert await run(command, gateway.base_url) == 0
            assert told(capsys)[0].startswith("already recorded: ")
        await run("list --symbol meta", gateway.base_url)
        assert [line.partition(" (")[0] for line in told(capsys)] == [
            "2024-06-12 META split 1 for 3, the rest paid at 9.00",
            "2024-06-11T14:00:00Z META transfer of -50 at a cost of -7,500.00",
            "2024-06-10T14:00:00Z META fee 0.35",
            "2024-06-10 META cash in lieu 1.50",
            "2024-06-10 META dividend 24.00",
            "2024-06-09 FB renamed to META",
        ]
        assert await run("list --symbol btc/usd", gateway.base_url) == 0
        assert told(capsys) == ["no adjustment is recorded of BTC/USD"]

    async def test_a_dry_run_sends_nothing(self, gateway: RunningGateway, capsys: pytest.CaptureFixture[str]) -> None:
        assert await run(f"{SPLIT} --dry-run", gateway.base_url) == 0
        where, what = told(capsys)
        assert where == f"would post to {gateway.base_url}{ADJUSTMENTS} (dry run)"
        assert msgspec.json.decode(what) == order(SPLIT).body
        assert await run("void a/b --reason x --dry-run", gateway.base_url) == 0
        assert told(capsys) == [f"would post to {gateway.base_url}{ADJUSTMENTS}/a%2Fb/void (dry run)", '{"reason":"x"}']
        assert (await gateway.get(ADJUSTMENTS))["adjustments"] == []

    async def test_every_fault_is_a_line(self, gateway: RunningGateway, capsys: pytest.CaptureFixture[str]) -> None:
        assert await run("split 'A B' 0 9999999999999 --date 2999-01-01 --reason ' '", gateway.base_url) == 1
        *faults, last = capsys.readouterr().err.splitlines()
        assert {line.partition(": ")[0] for line in faults} == {"symbol", "ratio_new", "ratio_old", "date", "reason"}
        assert last == "refused, nothing has changed"
        assert (await gateway.get(ADJUSTMENTS))["adjustments"] == []

    async def test_refusals(self, gateway: RunningGateway, capsys: pytest.CaptureFixture[str]) -> None:
        assert await run(SPLIT, gateway.base_url) == 0
        for command, complaint in {
            "split NVDA 20 1 --date 2024-06-10": "answered 409: adjustment 'split:NVDA:2024-06-10' is already recorded",
            "void nobody --reason x": "answered 404: no adjustment 'nobody' is recorded",
            "void split:NVDA:2024-06-10 --reason ''": "reason: expected 1 to 500 printable characters",
        }.items():
            capsys.readouterr()
            assert await run(command, gateway.base_url) == 1
            first, last = capsys.readouterr().err.splitlines()
            assert complaint in first
            assert last == "refused, nothing has changed"
        assert await run("list --symbol '*'", gateway.base_url) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "answered 422: symbol: expected a symbol" in line

    async def test_the_settings_say_where_and_with_which_token(
        self, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with serving(settings_in(tmp_path, redis_url, api_token=SecretStr("hush-hush-hush-hush"))) as gateway:
            monkeypatch.setenv("EXECUTION_GATEWAY_URL", gateway.base_url)
            arguments = shlex.split(SPLIT)
            assert await asyncio.to_thread(main, arguments) == 2
            assert "answered 401: set API_TOKEN" in capsys.readouterr().err
            monkeypatch.setenv("API_TOKEN", "hush-hush-hush-hush")
            assert await asyncio.to_thread(main, arguments) == 0
            assert any(line.startswith("recorded: ") for line in told(capsys))

    async def test_a_mirrored_account_takes_no_orders(
        self, tmp_path: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with running_simulator(rate=0) as simulator:
            settings = settings_in(
                tmp_path, redis_url, position_source="alpaca", alpaca_stream_url=simulator.stream_url()
            )
            async with serving(settings) as gateway:
                await eventually(lambda: is_readable(gateway), within_s=20)
                capsys.readouterr()
                assert await run(SPLIT, gateway.base_url) == 1
                first, last = capsys.readouterr().err.splitlines()
                assert "answered 409: the positions mirror the Alpaca account (POSITION_SOURCE=alpaca)" in first
                assert last == "refused, nothing has changed"


async def is_readable(gateway: RunningGateway) -> bool:
    return (await gateway.client.get(POSITIONS)).status_code == 200


class TestAnswers:
    async def test_out_of_reach(self, free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
        for command in (SPLIT, "void a --reason x", "list"):
            assert await run(command, f"http://127.0.0.1:{free_port}") == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert "cannot be reached" in line

    @pytest.mark.parametrize(
        ("said", "code", "complaint"),
        [
            (Said("<html>"), 2, "not as a gateway does"),
            (Said("[]"), 2, "not as a gateway does"),
            (Said("{}"), 2, "something else than an adjustment"),
            (Said('{"adjustments":[]}'), 2, "something else than an adjustment"),
            (Said('{"detail":"no database"}', 503), 2, "the gateway answered 503: no database"),
            (Said('{"errors":"many"}', 422), 1, "the gateway answered 422: no reason given"),
            (Said('{"detail":"too long"}', 413), 1, "the gateway answered 413: too long"),
        ],
    )
    async def test_that_are_odd(
        self, server: ScriptedHttp, capsys: pytest.CaptureFixture[str], said: Said, code: int, complaint: str
    ) -> None:
        server.say(ADJUSTMENTS, said)
        assert await run(SPLIT, server.url) == code
        assert complaint in capsys.readouterr().err

    @pytest.mark.parametrize("body", ["{}", '{"positions":[1]}', '{"positions":[{}]}', "<html>"])
    async def test_positions_that_are_none(
        self, server: ScriptedHttp, capsys: pytest.CaptureFixture[str], body: str
    ) -> None:
        server.say(POSITIONS, body)
        assert await run(SPLIT, server.url) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert [asked.path for asked in server.asked] == [POSITIONS], "nothing is sent before they are known"

    async def test_what_is_recorded_is_done_whatever_comes_after(
        self, server: ScriptedHttp, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.say(POSITIONS, Said('{"positions":[]}'), Said('{"detail":"away"}', 503))
        server.say(ADJUSTMENTS, Said(ANSWER, 201))
        assert await run("fee 0.35 --symbol AAPL", server.url) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith("recorded: — AAPL fee 0.35")
        assert "that is done, but the positions cannot be shown" in shown.err

    async def test_a_connection_lost_midway_may_have_recorded(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET"):
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"positions":[]}')
            writer.close()

        async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            assert await run(SPLIT, f"http://127.0.0.1:{port}") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("run this again")

    async def test_a_list_that_is_cut_off_says_so(
        self, server: ScriptedHttp, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [{"adjustment_id": str(number), "symbol": "KO", "kind": "fee", "amount": 1} for number in range(1000)]
        server.say(ADJUSTMENTS, msgspec.json.encode({"adjustments": rows}).decode())
        assert await run("list", server.url) == 0
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == 1000
        assert "the newest 1,000" in shown.err

    async def test_a_reader_that_has_seen_enough(self, server: ScriptedHttp) -> None:
        rows = [{"adjustment_id": "x" * 500, "symbol": str(number), "kind": "fee"} for number in range(900)]
        rows = [row | {"adjustment_id": f"{number}{row['adjustment_id']}"} for number, row in enumerate(rows)]
        server.say(ADJUSTMENTS, msgspec.json.encode({"adjustments": rows}).decode())
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"{sys.executable} -m scripts.adjust list --url {server.url} | head -n 1",
            stdout=PIPE, stderr=PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        out, err = await process.communicate()
        assert (len(out.splitlines()), err) == (1, b"")


class TestArguments:
    def test_what_is_posted(self) -> None:
        assert order("transfer brk.b 100 15000.00 --at 2024-06-10T10:00:00-04:00 --reason moved --id t-1") == Order(
            ADJUSTMENTS,
            {
                "adjustment_id": "t-1", "kind": "transfer", "symbol": "BRK.B", "qty": "100", "amount": "15000.00",
                "effective_at": "2024-06-10T10:00:00-04:00", "reason": "moved",
            },
        )  # fmt: skip
        assert order("split NVDA 3 2 --date 2024-06-10 --cash-price 1.25").body == {
            "adjustment_id": "split:NVDA:2024-06-10", "kind": "split", "symbol": "NVDA", "date": "2024-06-10",
            "ratio_new": "3", "ratio_old": "2", "amount": "1.25", "reason": "recorded by command",
        }  # fmt: skip
        assert order("void a/b --reason x") == Order(f"{ADJUSTMENTS}/a%2Fb/void", {"reason": "x"})
        assert read_command(["list", "--symbol", "ko"], NOW).asked == Listing("KO")
        assert read_command(["list"], NOW).asked == Listing(None)

    @pytest.mark.parametrize(
        ("command", "adjustment_id"),
        [
            ("dividend AAPL 24.00", "dividend:AAPL:2025-10-20:24"),
            ("dividend aapl 24 --date 2025-10-20", "dividend:AAPL:2025-10-20:24"),
            ("dividend AAPL 24.0 --at 2025-10-20T04:00:00Z", "dividend:AAPL:2025-10-20:24"),
            ("fee -0.350 --symbol AAPL", "fee:AAPL:2025-10-20:-0.35"),
            ("fee 100 --symbol AAPL", "fee:AAPL:2025-10-20:100"),
            ("rename FB META --date 2022-06-09", "symbol_change:FB:2022-06-09"),
            ("split NVDA 20 2 --date 2024-06-10 --cash-price 1", "split:NVDA:2024-06-10"),
            ("transfer KO -1 -60 --at 2024-06-10T14:00:00.5Z", "transfer:KO:2024-06-10T14:00:00.500000Z:-1:-60"),
        ],
    )
    def test_the_id_follows_from_the_content(self, command: str, adjustment_id: str) -> None:
        assert order(command).body["adjustment_id"] == adjustment_id

    @pytest.mark.parametrize(
        "command",
        [
            "", "merge A B", "split NVDA 10", "split NVDA 10 1", "rename FB META", "transfer KO 1 60", "fee 1",
            "void a", "split NVDA ten 1 --date 2024-06-10", "split NVDA 1e1 1 --date 2024-06-10",
            "split NVDA 10 1 --date 10/6/24", "split NVDA 10 1 --date 2024-06-10 --at 2024-06-10T00:00:00Z",
            "fee 1 --symbol A --at 2024-06-10T00:00:00", "fee 1 --symbol A --at 0001-01-01T00:00:00Z",
            "fee 1_0 --symbol A", "fee NaN --symbol A", "list extra", "list --url gateway",
        ],
    )  # fmt: skip
    def test_usage(self, command: str) -> None:
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(command))
        assert caught.value.code == 2


def test_lines_of_unknown_figures() -> None:
    row: dict[str, Any] = {"symbol": "KO", "qty": True, "avg_entry_price": None, "cost_basis": "12"}
    assert position_line(row) == "qty=— avg=— cost=— realized=— fees=— income=—"
    assert adjustment_line({"effective_at": "someday"}) == "— None None — (None) id=None"
