"""The export, and what an import makes of it: the same positions, to the last digit."""

import asyncio
import os
import stat
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.bodies import fills_body
from apps.execution_gateway.database import create_engine, migrate
from apps.execution_gateway.fill_input import parse_fills
from apps.execution_gateway.ledger import Ledger
from libs.portfolio.fills import Fill
from scripts import export_fills, import_fills
from scripts.fills_csv import COLUMNS, read_fills, write_fills
from scripts.local_services import read_body
from tests.support.gateway import RunningGateway, serving, settings_in
from tests.support.portfolio import fill_lists
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.sqlite_threads import sqlite_threads_ended

ROOT = Path(__file__).parents[2]
FILLS = "/api/v1/fills"
ADJUSTMENTS = "/api/v1/adjustments"
HEADER = ",".join(COLUMNS)
POSITIONS = "/api/v1/positions"
NOW = datetime(2025, 12, 1, tzinfo=UTC)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        script.say(ADJUSTMENTS, '{"adjustments":[],"next":null}')
        yield script


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder without a `.env`, and no setting of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("API_TOKEN", "EXECUTION_GATEWAY_URL", "BIND_HOST", "EXECUTION_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)


async def export(*arguments: str) -> int:
    return await asyncio.to_thread(export_fills.main, arguments)


async def void(gateway: RunningGateway, fill_id: str, reason: str) -> None:
    answer = await gateway.client.post(f"{FILLS}/{fill_id}/void", json={"reason": reason})
    assert answer.status_code == 200


async def test_from_one_gateway_to_another(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_fills, "_PAGE", 2)
    file, everything, again = (tmp_path / name for name in ("fills.csv", "everything.csv", "again.csv"))
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    async with serving(settings_in(tmp_path / "first", redis_url)) as first:
        for number, (qty, side) in enumerate([("3", "buy"), ("10.123456789", "sell"), ("0.000000001", "buy")]):
            # Ties in time, and arrivals that are not in its order.
            when = f"2025-10-19T14:30:0{2 - number // 2}Z"
            await first.fill("AAPL", qty, "150.1", side, fill_id=f"f,{number}", filled_at=when, fee="0.01")
        await first.fill("MSFT", 5, "500", fill_id="wrong")
        await first.fill("KO", 5, "60", fill_id="é 'quoted \"", filled_at="2025-10-19T14:30:00Z")
        await void(first, "wrong", "=a typing error, sorry")
        assert await export(str(file), "--url", first.base_url) == 0
        assert await export(str(everything), "--all", "--url", first.base_url) == 0
        positions = await first.get(POSITIONS)
    async with serving(settings_in(tmp_path / "second", redis_url)) as second:
        assert await asyncio.to_thread(import_fills.main, [str(everything), "--url", second.base_url]) == 1
        assert (await second.get(POSITIONS))["positions"] == []
        assert await asyncio.to_thread(import_fills.main, [str(file), "--url", second.base_url]) == 0
        assert await second.get(POSITIONS) == positions
        assert await export(str(again), "--url", second.base_url) == 0
    assert again.read_bytes() == file.read_bytes()
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    assert header == HEADER
    assert lines == [
        '"é \'quoted """,KO,buy,5,60,0,2025-10-19T14:30:00+00:00',
        '"f,2",AAPL,buy,0.000000001,150.1,0.01,2025-10-19T14:30:01+00:00',
        '"f,0",AAPL,buy,3,150.1,0.01,2025-10-19T14:30:02+00:00',
        '"f,1",AAPL,sell,10.123456789,150.1,0.01,2025-10-19T14:30:02+00:00',
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    all_header, *all_lines = everything.read_text(encoding="utf-8").splitlines()
    assert all_header == f"{HEADER},voided_at,void_reason"
    assert all_lines[-1].startswith("wrong,MSFT,")
    assert all_lines[-1].endswith(',"=a typing error, sorry"')
    assert [line.endswith(",,") for line in all_lines] == [True] * 4 + [False]
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"4 fills exported to {file}", f"5 fills exported to {everything}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncEngine]:
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('ledgers')}/ledger.db")
    runner.run(migrate(engine))
    yield engine
    runner.run(engine.dispose())
    runner.run(sqlite_threads_ended())


_ACCOUNTS = count()


@given(fills=fill_lists(symbols=("AAPL", "BRK.B")), data=st.data())
def test_an_export_imports_into_the_same_book(
    runner: asyncio.Runner, engine: AsyncEngine, fills: list[Fill], data: st.DataObject
) -> None:
    voided = data.draw(st.sets(st.sampled_from([one.fill_id for one in fills])))
    page = data.draw(st.integers(1, 5))
    runner.run(_there_and_back(engine, fills, voided, page))


async def _there_and_back(engine: AsyncEngine, fills: list[Fill], voided: set[str], page: int) -> None:
    """Take the fills through each step that stands between two ledgers, but for the sockets."""
    # Accounts do not see each other: two new ones are two empty ledgers.
    first, second = (Ledger(engine, account=str(next(_ACCOUNTS))) for _ in range(2))
    await first.record_fills(fills)
    for fill_id in voided:
        await first.void_fill(fill_id, "test")
    rows: list[dict[str, object]] = []
    after = None
    while True:
        body = read_body(fills_body(listed := await first.list_fills(limit=page, after=after)))
        rows += body["fills"]
        if (after := listed.next) is None:
            break
    text = write_fills(row for row in reversed(rows) if row["voided_at"] is None)
    file = read_fills(text.encode())
    assert file.faults == ()
    posted = parse_fills(msgspec.json.encode({"fills": [row.cells for row in file.rows]}), NOW)
    assert posted.malformed == ()
    assert len((await second.record_fills(posted.fills)).new) == len(fills) - len(voided)
    assert (await second.book()).positions == (await first.book()).positions


async def test_an_empty_ledger_is_a_header(server: ScriptedHttp, tmp_path: Path) -> None:
    server.say(FILLS, '{"fills":[],"next":null}')
    file = tmp_path / "fills.csv"
    assert await export(str(file), "--url", server.url) == 0
    assert file.read_text() == f"{HEADER}\n"
    assert await asyncio.to_thread(import_fills.main, [str(file)]) == 0


ONE = (
    '{"fill_id":"1","symbol":"A","side":"buy","qty":1,"price":2.50,"fee":0,'
    '"filled_at":"2025-10-19T14:30:00+00:00","voided_at":null,"void_reason":null}'
)


async def test_pages_are_asked_for_one_after_the_other(
    server: ScriptedHttp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = ONE.replace('"1"', '"2"')
    server.say(FILLS, f'{{"fills":[{two}],"next":"a-_b"}}', f'{{"fills":[{ONE}],"next":null}}')
    monkeypatch.setenv("EXECUTION_GATEWAY_URL", server.url)
    monkeypatch.setenv("API_TOKEN", "hush-hush-hush-hush")
    assert await export("-") == 0
    assert [line[:1] for line in capsys.readouterr().out.splitlines()[1:]] == ["1", "2"]
    assert [asked.query.get("after") for asked in server.asked if asked.path == FILLS] == [None, "a-_b"]
    assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer hush-hush-hush-hush"}


async def test_more_than_an_import_takes_is_said(server: ScriptedHttp, capsys: pytest.CaptureFixture[str]) -> None:
    server.say(FILLS, f'{{"fills":[{",".join([ONE] * 10_001)}],"next":null}}')
    assert await export("--url", server.url) == 0
    assert capsys.readouterr().err.splitlines() == [
        "10001 fills exported",
        "an import takes 10,000 at once: split the file before, oldest fills first",
    ]


async def test_the_adjustments_that_count_are_said_to_be_missing(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_fills, "_PAGE", 2)
    # The engine of the test above lives as long as this module.
    async with serving(settings_in(tmp_path, redis_url), is_alone=False) as gateway:
        await gateway.fill("AAPL", 1, 150)
        for number in range(3):
            fee = {"adjustment_id": str(number), "kind": "fee", "symbol": "AAPL", "reason": "why", "amount": 1}
            answer = await gateway.client.post(ADJUSTMENTS, json=fee | {"date": "2025-10-10"})
            assert answer.status_code == 201
        await gateway.client.post(f"{ADJUSTMENTS}/1/void", json={"reason": "mistyped"})
        assert await export("fills.csv", "--url", gateway.base_url) == 0
        await gateway.client.post(f"{ADJUSTMENTS}/2/void", json={"reason": "mistyped"})
        assert await export("fills.csv", "--url", gateway.base_url) == 0
        await gateway.client.post(f"{ADJUSTMENTS}/0/void", json={"reason": "mistyped"})
        assert await export("fills.csv", "--url", gateway.base_url) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "export" in line or "adjustment" in line]
    first, two, second, one, third = told
    assert first == second == third == "1 fills exported to fills.csv"
    assert two.startswith("2 adjustments of the ledger are not in the file (splits")
    assert two.endswith("and record them where the fills go with make adjust")
    assert one.startswith("1 adjustment of the ledger is not in the file")


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (Said('{"detail":"no database"}', 503), "answered 503: no database"),
        (Said("{}"), "without a page of adjustments"),
        (Said('{"adjustments":[1],"next":null}'), "something else than adjustments"),
    ],
)
async def test_adjustments_that_cannot_be_read_are_not_none(
    server: ScriptedHttp, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: Said, complaint: str
) -> None:
    server.say(FILLS, f'{{"fills":[{ONE}],"next":null}}')
    server.say(ADJUSTMENTS, said)
    assert await export("fills.csv", "--url", server.url) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (Said('{"detail":"no database"}', 503), "answered 503: no database"),
        (Said("{}", 401), "answered 401: set API_TOKEN"),
        (Said("<html>"), "answered 200 with something else than JSON"),
        (Said("{}"), "without a page of fills"),
        (Said('{"fills":{},"next":null}'), "without a page of fills"),
        (Said('{"fills":[],"next":"for ever"}'), "without a page of fills"),
        (Said('{"fills":[1],"next":null}'), "something else than fills"),
        (Said('{"fills":[{"voided_at":null}],"next":null}'), "something else than fills"),
        (Said(f'{{"fills":[{ONE.replace("2.50", "true")}],"next":null}}'), "something else than fills"),
    ],
)
async def test_odd_answers_leave_the_file_alone(
    server: ScriptedHttp, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: Said, complaint: str
) -> None:
    file = tmp_path / "fills.csv"
    file.write_text("as it was")
    server.say(FILLS, said)
    assert await export(str(file), "--url", server.url) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "as it was"


async def test_out_of_reach(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert await export("--url", f"http://127.0.0.1:{free_port}") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "cannot be reached" in told.err


async def test_a_file_that_cannot_be_written(
    server: ScriptedHttp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.say(FILLS, '{"fills":[],"next":null}')
    (tmp_path / "folder").mkdir()
    assert await export("folder", "--url", server.url) == 1
    assert await export("no/such/file", "--url", server.url) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "cannot write folder: Is a directory"
    assert second == "cannot write no/such/file: No such file or directory"
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


async def test_a_link_stays_one(server: ScriptedHttp, tmp_path: Path) -> None:
    server.say(FILLS, '{"fills":[],"next":null}')
    (tmp_path / "link").symlink_to("there.csv")
    assert await export("link", "--url", server.url) == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there.csv").read_text() == f"{HEADER}\n"


async def test_a_reader_that_has_seen_enough_is_no_fault(server: ScriptedHttp) -> None:
    server.say(FILLS, f'{{"fills":[{ONE}],"next":null}}')
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.export_fills", "--url", server.url,
        stdout=writing, stderr=PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(writing)
    _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "1 fills exported\n")


def test_usage() -> None:
    with pytest.raises(SystemExit) as caught:
        export_fills.main(["a", "b"])
    assert caught.value.code == 2
