"""The import against real gateways, and against a server that says what no honest gateway would."""

import asyncio
import io
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from scripts.fills_csv import COLUMNS, Row
from scripts.import_fills import Accepted, Refused, main, read_answer
from tests.support.gateway import RunningGateway, serving, settings_in
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http

ROOT = Path(__file__).parents[2]
IMPORT = "/api/v1/fills/import"
HEADER = ",".join(COLUMNS)
NUMBERS = "numbers take no thousands separators, and a point before the decimals"
GOOD = "f-1,AAPL,buy,0.123456789,150.10,,2025-10-19T14:30:15Z"


@pytest.fixture
def fills(tmp_path: Path) -> Path:
    return tmp_path / "fills.csv"


@pytest.fixture
async def gateway(tmp_path: Path, redis_url: str) -> AsyncIterator[RunningGateway]:
    async with serving(settings_in(tmp_path, redis_url)) as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        yield script


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder without a `.env`, and no setting of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("API_TOKEN", "EXECUTION_GATEWAY_URL", "BIND_HOST", "EXECUTION_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    return str(path)


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(main, arguments)


async def run_apart(*arguments: str) -> tuple[int, list[str], list[str]]:
    """Run the command as a process of its own: a gateway in this one logs to the same output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.import_fills", *arguments,
        stdout=PIPE, stderr=PIPE, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()


async def recorded(gateway: RunningGateway) -> dict[str, Any]:
    return {one["fill_id"]: one for one in (await gateway.get("/api/v1/fills"))["fills"]}


class TestOnAGateway:
    async def test_a_dry_run_then_an_import_then_another(self, gateway: RunningGateway, fills: Path) -> None:
        file = write(fills, GOOD, "", "f-2,brk.b,sell,7,1e2,0.35,2025-10-19T10:30:15-04:00")
        told = f"{file}: 2 fills would be imported, 0 are recorded already (dry run)"
        assert await run_apart(file, "--dry-run", "--url", gateway.base_url) == (0, [told], [])
        assert await recorded(gateway) == {}
        told = f"{file}: 2 fills imported, 0 were recorded already"
        assert await run_apart(file, "--url", gateway.base_url) == (0, [told], [])
        told = f"{file}: 0 fills imported, 2 were recorded already"
        assert await run_apart(file, "--url", f"{gateway.base_url}/") == (0, [told], [])
        held = await recorded(gateway)
        assert f"{held['f-1']['qty']:f}" == "0.123456789"
        assert (held["f-2"]["symbol"], held["f-2"]["price"]) == ("BRK.B", 100)

    async def test_void_fills_are_named(self, gateway: RunningGateway, fills: Path) -> None:
        file = write(fills, GOOD, "f-2,KO,sell,7,60,,2025-10-19T14:30:15Z")
        assert (await run_apart(file, "--url", gateway.base_url))[0] == 0
        answer = await gateway.client.post("/api/v1/fills/f-2/void", json={"reason": "mistyped"})
        void = f"'f-2' is VOID since {answer.json()['voided_at']} and counts for nothing"
        told = f"line 3, column fill_id: {void}: to record it again, give it a new fill_id"
        for option, summary in (
            ([], "0 fills imported, 1 were recorded already, 1 are void"),
            (["--dry-run"], "0 fills would be imported, 1 are recorded already, 1 are void (dry run)"),
        ):
            assert await run_apart(file, "--url", gateway.base_url, *option) == (1, [f"{file}: {summary}"], [told])

    @pytest.mark.parametrize("option", [[], ["--dry-run"]])
    async def test_every_fault_of_the_file_is_told_by_line_and_column(
        self, gateway: RunningGateway, fills: Path, option: list[str]
    ) -> None:
        await gateway.fill("KO", 1, 60, fill_id="known")
        file = write(
            fills,
            GOOD,
            "f-2,AAPL,BUY,-1,150,,2025-10-19T14:30:15Z",
            "too,short",
            "f-3,AAPL,buy,1,150,,2025-10-19T14:30:15",
            "f-4,AAPL,buy,1,150,,2999-01-01T00:00:00Z",
            "known,KO,buy,2,60,,2025-10-19T14:30:15Z",
            "",
            "f-1,AAPL,buy,5,150.1,,2025-10-19T14:30:15Z",
            f"f-6,,BUY,-1,{'9' * 501},x,soon",
        )
        remedy = "leave this fill out, or give it a new fill_id (and void the recorded one if that is wrong)"
        other_remedy = "give each fill a fill_id of its own (the other one: line 2)"
        code, out, err = await run_apart(file, "--url", gateway.base_url, *option)
        assert (code, out) == (1, [])
        assert err == [
            "line 3, column side: expected 'buy' or 'sell', got 'BUY'",
            "line 3, column qty: expected a number above 0, got -1",
            f"line 4: 2 cells for 7 columns: quote a cell that holds a comma; {NUMBERS}",
            "line 5, column filled_at: expected a time with its zone, such as 2025-10-19T14:30:15Z or …-04:00",
            "line 6, column filled_at: more than 5 minutes in the future: check the clock and the time zone",
            f"line 7, column fill_id: 'known' is recorded already with another qty, filled_at: {remedy}",
            f"line 9, column fill_id: 'f-1' is in the list twice, here with another qty: {other_remedy}",
            "line 10, column symbol: is empty: every fill needs it",
            f"line 10, column price: longer than 500 characters, '{'9' * 40}'…: is a quote missing?",
            "line 10, column side: expected 'buy' or 'sell', got 'BUY'",
            "line 10, column qty: expected a number above 0, got -1",
            "line 10, column fee: expected a decimal number such as 100 or \"150.25\", got 'x'",
            "line 10, column filled_at: expected an ISO-8601 time such as 2025-10-19T14:30:15Z, got 'soon'",
            f"{file}: refused with 13 faults, nothing was imported",
        ]
        assert list(await recorded(gateway)) == ["known"]

    async def test_numbers_written_for_people_are_refused_with_the_remedy(
        self, gateway: RunningGateway, fills: Path
    ) -> None:
        file = write(
            fills,
            'f-1,AAPL,buy,100,"$1,234.50",0,2025-10-19T14:30:15Z',
            "f-2,AAPL,buy,100,150,-1.00,2025-10-19T14:30:15Z",
            'f-3,AAPL,buy,"1.234,50",150,0,2025-10-19T14:30:15Z',
            "f-4,AAPL,buy,100,150 USD,0,2025-10-19T14:30:15Z",
            "f-5,AAPL,buy,100,$1,234.50,0,2025-10-19T14:30:15Z",
        )
        number = 'expected a decimal number such as 100 or "150.25", got'
        separators = "no thousands separators, and a point before the decimals"
        code, _, err = await run_apart(file, "--url", gateway.base_url)
        assert code == 1
        assert err == [
            f"line 2, column price: {number} '$1,234.50': write no $ or other currency; {separators}",
            "line 3, column fee: expected 0 or more, got -1.00: write what was paid as a positive number",
            f"line 4, column qty: {number} '1.234,50': write {separators}",
            f"line 5, column price: {number} '150 USD': write no $ or other currency",
            f"line 6: 8 cells for 7 columns: quote a cell that holds a comma; {NUMBERS}",
            f"{file}: refused with 5 faults, nothing was imported",
        ]

    async def test_a_fill_id_twice_in_one_file_is_named_with_both_lines(
        self, gateway: RunningGateway, fills: Path
    ) -> None:
        again = GOOD.replace("f-1", "f-2")
        file = write(fills, GOOD, again, "", GOOD)
        line = "line 5, column fill_id: 'f-1' is in the file twice (also in line 2), both the same: it counts once"
        told = f"{file}: 2 fills would be imported, 0 are recorded already, 1 are in the file twice (dry run)"
        assert await run_apart(file, "--dry-run", "--url", gateway.base_url) == (0, [told], [line])
        other = write(fills, GOOD, GOOD.replace("150.10", "150.20"))
        code, _, (told, _) = await run_apart(other, "--url", gateway.base_url)
        assert code == 1
        assert told == (
            "line 3, column fill_id: 'f-1' is in the list twice, here with another price: give each fill a fill_id of "
            "its own (the other one: line 2)"
        )

    async def test_of_many_faults_the_first_are_told_and_the_rest_counted(
        self, gateway: RunningGateway, fills: Path
    ) -> None:
        file = write(fills, *(f"f-{number},AAPL,BUY,1,150,,2025-10-19T14:30:15Z" for number in range(1_000)))
        code, _, err = await run_apart(file, "--url", gateway.base_url)
        assert code == 1
        assert [line.partition(",")[0] for line in err[:20]] == [f"line {number}" for number in range(2, 22)]
        assert err[20:] == [
            "980 more faults are not listed: correct these first",
            f"{file}: refused with 1000 faults, nothing was imported",
        ]

    async def test_a_conflict_alone_refuses_the_file(
        self, gateway: RunningGateway, fills: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await gateway.fill("KO", 1, 60, fill_id="known")
        file = write(fills, GOOD, "known,KO,buy,2,60,,2025-10-19T14:30:15Z")
        assert await run(file, "--url", gateway.base_url) == 1
        first, last = capsys.readouterr().err.splitlines()
        assert first.startswith("line 3, column fill_id: 'known' is recorded already")
        assert last.endswith("refused with 1 fault, nothing was imported")
        assert list(await recorded(gateway)) == ["known"]

    async def test_the_settings_say_where_and_with_which_token(
        self, tmp_path: Path, redis_url: str, fills: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        async with serving(settings_in(tmp_path, redis_url, api_token=SecretStr("hush-hush-hush-hush"))) as gateway:
            monkeypatch.setenv("EXECUTION_GATEWAY_URL", gateway.base_url)
            assert await run(write(fills, GOOD)) == 2
            monkeypatch.setenv("API_TOKEN", "hush-hush-hush-hush")
            assert await run(write(fills, GOOD)) == 0
        told = capsys.readouterr()
        assert "answered 401: set API_TOKEN" in told.err
        assert "1 fills imported" in told.out


class TestWithoutAGateway:
    @pytest.mark.parametrize("content", ["", HEADER, f"\n{HEADER}\r\n\r\n,,,,,,\n"])
    async def test_nothing_to_import(
        self, fills: Path, free_port: int, capsys: pytest.CaptureFixture[str], content: str
    ) -> None:
        fills.write_text(content)
        assert await run(str(fills), "--url", f"http://127.0.0.1:{free_port}") == 0
        assert capsys.readouterr().out == f"nothing to import: {fills} holds no fill\n"

    async def test_out_of_reach(self, fills: Path, free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
        assert await run(write(fills, GOOD), "--url", f"http://127.0.0.1:{free_port}") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"http://127.0.0.1:{free_port} cannot be reached" in line

    async def test_faults_of_the_file_are_told_all_the_same(
        self, fills: Path, free_port: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert await run(write(fills, GOOD, "a,b"), "--url", f"http://127.0.0.1:{free_port}") == 1
        fault, others, _ = capsys.readouterr().err.splitlines()
        assert fault.startswith("line 3: 2 cells for 7 columns")
        assert others.startswith("the rest could not be checked: ")

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (HEADER.replace(",", ";").encode(), "separated by semicolons"),
            (f"{HEADER}\nordré".encode("latin-1"), "line 2: the encoding is not UTF-8"),
            (b" " * (16 * 1024 * 1024 + 5), "larger than 16 MiB"),
        ],
    )
    async def test_a_file_that_cannot_be_read_as_fills(
        self, fills: Path, free_port: int, capsys: pytest.CaptureFixture[str], content: bytes, complaint: str
    ) -> None:
        fills.write_bytes(content)
        assert await run(str(fills), "--url", f"http://127.0.0.1:{free_port}") == 1
        first, _ = capsys.readouterr().err.splitlines()
        assert complaint in first

    async def test_a_file_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert await run(str(tmp_path / "none.csv")) == 2
        assert await run(str(tmp_path)) == 2
        first, second = capsys.readouterr().err.splitlines()
        assert first == f"cannot read {tmp_path}/none.csv: No such file or directory"
        assert second == f"cannot read {tmp_path}: Is a directory"

    @pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--url", "gateway"], ["a", "--url", "http://h:0"]])
    async def test_usage(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


class TestAnswers:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--dry-run"], "1 fills would be imported, 2 are recorded already (dry run)"),
            ([], "1 fills imported, 2 were recorded already"),
        ],
    )
    async def test_that_are_good(
        self, server: ScriptedHttp, fills: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
    ) -> None:
        server.say(IMPORT, '{"created":1,"repeated":2}')
        assert await run(write(fills, GOOD), "--url", server.url, *options) == 0
        assert capsys.readouterr().out == f"{fills}: {told}\n"
        assert server.asked[0].query == {"dry_run": "true" if options else "false"}

    async def test_a_file_with_faults_is_only_checked(
        self, server: ScriptedHttp, fills: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.say(IMPORT, '{"created":1,"repeated":0}')
        assert await run(write(fills, "a,b", GOOD), "--url", server.url) == 1
        assert server.asked[0].query == {"dry_run": "true"}
        assert "refused with 1 fault" in capsys.readouterr().err

    async def test_fills_may_come_from_standard_input(
        self, server: ScriptedHttp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.say(IMPORT, '{"created":1,"repeated":0}')
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{HEADER}\n{GOOD}".encode())))
        assert await run("-", "--url", server.url) == 0
        assert capsys.readouterr().out == "-: 1 fills imported, 0 were recorded already\n"

    @pytest.mark.parametrize(
        ("said", "code", "complaint"),
        [
            (Said("<html>"), 2, "not as a gateway does"),
            (Said("[]"), 2, "not as a gateway does"),
            (Said("{}"), 2, "the counts are missing"),
            (Said('{"created":0,"repeated":0,"void_fills":1}'), 2, "the void fills are no list"),
            (Said('{"created":0,"repeated":0,"void_fills":[{"index":7}]}'), 2, "a void fill without its place"),
            (Said('{"errors":[{"index":0}]}', 422), 2, "an error without its place"),
            (Said('{"errors":[{"index":1,"detail":"x"}]}', 409), 2, "an error without its place"),
            (Said('{"detail":"no database"}', 503), 2, "the gateway answered 503: no database"),
            (Said('{"title":"Not Found"}', 404), 2, "the gateway answered 404: Not Found"),
            (Said('{"detail":"too long"}', 413), 1, "the gateway answered 413: too long"),
            (Said('{"detail":"fills: too many","errors":[{"field":"fills"}]}', 422), 1, "422: fills: too many"),
        ],
    )
    async def test_that_are_odd(
        self, server: ScriptedHttp, fills: Path, capsys: pytest.CaptureFixture[str], said: Said, code: int,
        complaint: str,
    ) -> None:  # fmt: skip
        server.say(IMPORT, said)
        assert await run(write(fills, GOOD), "--url", server.url) == code
        assert complaint in capsys.readouterr().err
        assert server.asked[0].query == {"dry_run": "false"}

    async def test_a_connection_lost_midway_may_have_imported(
        self, fills: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            assert await run(write(fills, GOOD), "--url", f"http://127.0.0.1:{port}") == 2
        assert "gave no answer" in (line := capsys.readouterr().err)
        assert line.rstrip().endswith("run this again")


def test_answers() -> None:
    rows = [Row(2, {"fill_id": "a"}), Row(5, {"fill_id": "b"})]
    assert read_answer(200, {"status": "imported", "created": 1, "repeated": 1}, rows) == Accepted(1, 1)
    errors = [{"index": 1, "fill_id": None, "field": None, "detail": "no fill", "other_index": 0}]
    refused = read_answer(409, {"errors": errors}, rows)
    assert isinstance(refused, Refused)
    assert [str(fault) for fault in refused.faults] == ["line 5: no fill (the other one: line 2)"]
