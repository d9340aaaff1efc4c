import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from libs.market_data.daily_bars import ClosingPrices
from scripts.fetch_daily_bars import main
from tests.support.bars_server import bars_server
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.simulator import running_simulator

BARS = "/v2/stocks/bars"
POSITIONS = "/api/v1/positions"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        yield script


NO_BARS = '{"bars":{},"next_page_token":null}'


def held(path: Path) -> dict[tuple[str, date], Decimal]:
    return dict(ClosingPrices.load(path).closes)


@pytest.fixture
def no_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without a `.env`, and no setting of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "ALPACA_DATA_URL", "API_TOKEN", "EXECUTION_GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAILY_BARS_PATH", str(tmp_path / "bars"))
    return tmp_path


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(main, arguments)


class TestTheCommand:
    async def test_named_symbols(
        self, no_dotenv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with running_simulator(rate=0) as simulator:
            monkeypatch.setenv("ALPACA_DATA_URL", simulator.base_url)
            assert await run("--symbols", "aapl, MSFT,", "--days", "3") == 0
            assert await run("--symbols", "AAPL", "--days", "2") == 0
            assert await run("--symbols", "AAPL,MSFT", "--days", "3", "--verify", "3") == 0
        told, again, both = (line for line in capsys.readouterr().out.splitlines() if "bars of" in line)
        assert again.startswith(f"{no_dotenv / 'bars'} holds all bars of 1 symbols, 2 sessions to ")
        assert told.startswith("6 bars of 2 symbols, 3 sessions to ")
        assert told.endswith(f"added to {no_dotenv / 'bars'} (simulated figures)")
        assert "holds all bars of 2 symbols" in both
        assert {symbol for symbol, _ in held(no_dotenv / "bars")} == {"AAPL", "MSFT"}

    @pytest.mark.usefixtures("no_dotenv")
    async def test_the_gateways_positions(
        self,
        server: ScriptedHttp,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        server.say(POSITIONS, '{"positions":[{"symbol":"AAPL","qty":1},{"symbol":"BTC/USD","qty":1}]}')
        server.say("/health", '{"daily_bars":{"missing_symbols":["FB"]}}')
        server.say(BARS, NO_BARS)
        monkeypatch.setenv("EXECUTION_GATEWAY_URL", server.url)
        monkeypatch.setenv("ALPACA_DATA_URL", server.url)
        monkeypatch.setenv("API_TOKEN", "hush-hush-hush-hush")
        assert await run() == 0
        assert server.asked[0].headers["Authorization"] == "Bearer hush-hush-hush-hush"
        assert [asked.path for asked in server.asked[:2]] == [POSITIONS, "/health"]
        assert server.asked[2].query["symbols"] == "AAPL,FB"
        told = capsys.readouterr()
        assert "0 bars of 2 symbols, 10 sessions" in told.out
        assert "20 are not to be had" in told.out
        skipped, gaps, _ = told.err.splitlines()
        assert skipped == "BTC/USD: no stock symbol, skipped"
        assert gaps.startswith("no bar of AAPL: ")
        assert gaps.endswith("(10 sessions)")

    async def test_no_position_needs_no_key(
        self,
        no_dotenv: Path,
        server: ScriptedHttp,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        server.say(POSITIONS, '{"positions":[]}')
        monkeypatch.setenv("EXECUTION_GATEWAY_URL", server.url)
        assert await run() == 0
        assert "nothing to fetch" in capsys.readouterr().out
        assert not (no_dotenv / "bars").exists()

    @pytest.mark.parametrize(
        ("said", "complaint"),
        [
            (Said('{"detail":"no database"}', 503), "answered 503: no database"),
            (Said("<html>", 500), "answered 500 with something else"),
            (Said('{"positions":null}'), "without a list of positions"),
            (Said('{"positions":[1]}'), "without a list of positions"),
            (Said("{}"), "without a list of positions"),
        ],
    )
    @pytest.mark.usefixtures("no_dotenv")
    async def test_a_gateway_that_answers_oddly(
        self,
        server: ScriptedHttp,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        said: Said,
        complaint: str,
    ) -> None:
        server.say(POSITIONS, said)
        monkeypatch.setenv("EXECUTION_GATEWAY_URL", server.url)
        assert await run() == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert complaint in line

    async def test_closes_that_differ_are_named_and_replaced_when_told(
        self, no_dotenv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with bars_server() as server:
            monkeypatch.setenv("ALPACA_DATA_URL", server.url)
            assert await run("--symbols", "AAPL,SPY", "--days", "2") == 0
            last = max(session for _, session in held(no_dotenv / "bars"))
            official = held(no_dotenv / "bars")
            server.history.split("AAPL", 2, 1, last + timedelta(days=1))
            assert await run("--symbols", "AAPL,SPY", "--days", "2", "--verify", "1") == 1
            told = capsys.readouterr()
            assert f"AAPL {last}: {official['AAPL', last]} here, " in told.err
            assert "2 closes compared, 1 differ" in told.out
            assert held(no_dotenv / "bars") == official
            assert await run("--symbols", "AAPL,SPY", "--days", "2", "--verify", "1", "--replace") == 0
            assert "2 closes compared, 1 replaced" in capsys.readouterr().out
        assert held(no_dotenv / "bars")["AAPL", last] != official["AAPL", last]

    async def test_a_failure_on_the_way_tells_what_is_kept(
        self, no_dotenv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with bars_server() as server:
            server.refuse = lambda _: web.Response(status=403) if len(server.asked) > 1 else None
            monkeypatch.setenv("ALPACA_DATA_URL", server.url)
            assert await run("--symbols", "AAPL", "--days", "120") == 1
        (*_, line) = capsys.readouterr().err.splitlines()
        assert line.endswith("; 60 bars are kept, run it again for the rest")
        assert len(held(no_dotenv / "bars")) == 10

    @pytest.mark.usefixtures("no_dotenv")
    async def test_many_gaps_and_refusals_are_told_in_few_lines(
        self, server: ScriptedHttp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        symbols = [f"S{number}" for number in range(25)]
        # Whatever day it is, sessions that are asked for lie on both sides of it.
        days_ago = datetime.now(UTC).date() - timedelta(days=4)
        saturday = days_ago - timedelta(days=(days_ago.weekday() - 5) % 7)
        bar = f'{{"t":"{saturday}T05:00:00Z","o":1,"h":1,"l":1,"c":1,"v":1}}'
        server.say(BARS, f'{{"bars":{{{",".join(f"{chr(34)}{name}{chr(34)}:[{bar}]" for name in symbols)}}}}}')
        monkeypatch.setenv("ALPACA_DATA_URL", server.url)
        assert await run("--symbols", ",".join(symbols)) == 0
        told = capsys.readouterr()
        lines = told.err.splitlines()
        assert len(lines) == 42
        assert "refused: 5 more" in lines
        assert "nor of some sessions of 5 more symbols" in lines
        assert "250 are not to be had" in told.out

    @pytest.mark.usefixtures("no_dotenv")
    def test_replacing_needs_a_comparison(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--symbols", "AAPL", "--replace"])
        assert caught.value.code == 2
        assert "--replace: it needs --verify" in capsys.readouterr().err

    @pytest.mark.usefixtures("no_dotenv")
    async def test_alpaca_without_keys(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert await run("--symbols", "AAPL") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line == "cannot fetch daily bars: ALPACA_API_KEY and ALPACA_SECRET_KEY are needed to ask Alpaca"

    async def test_a_refusal_is_one_line_without_the_key(
        self,
        no_dotenv: Path,
        server: ScriptedHttp,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        server.say(BARS, Said('{"message":"subscription does not permit querying recent SIP data"}', 403))
        monkeypatch.setenv("ALPACA_DATA_URL", server.url)
        monkeypatch.setenv("ALPACA_API_KEY", "PKTEST")
        monkeypatch.setenv("ALPACA_SECRET_KEY", "hush-hush")
        assert await run("--symbols", "AAPL") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "403: subscription does not permit" in line
        assert "hush-hush" not in line
        assert server.asked[0].headers["APCA-API-SECRET-KEY"] == "hush-hush"
        assert not (no_dotenv / "bars").exists()

    async def test_a_path_that_cannot_be_written(
        self,
        no_dotenv: Path,
        server: ScriptedHttp,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        broken = no_dotenv / "bars.parquet"
        broken.write_bytes(b"half a file")
        monkeypatch.setenv("DAILY_BARS_PATH", str(broken))
        monkeypatch.setenv("ALPACA_DATA_URL", server.url)
        assert await run("--symbols", "AAPL") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "bars.parquet: is no usable Parquet file" in line

    @pytest.mark.usefixtures("no_dotenv")
    @pytest.mark.parametrize("symbols", ["price:x", "AAPL\r\n,*", "*"])
    async def test_a_malformed_symbol_is_refused(self, capsys: pytest.CaptureFixture[str], symbols: str) -> None:
        assert await run("--symbols", symbols) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "malformed symbol" in line

    @pytest.mark.usefixtures("no_dotenv")
    @pytest.mark.parametrize("days", ["0", "-1", "2501", "many", "1.5"])
    def test_days_out_of_range(self, capsys: pytest.CaptureFixture[str], days: str) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--symbols", "AAPL", "--days", days])
        assert caught.value.code == 2
        assert "--days" in capsys.readouterr().err

    @pytest.mark.usefixtures("no_dotenv")
    def test_wrong_settings(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("ALPACA_FEED", "nyse")
        with pytest.raises(SystemExit) as caught:
            main(["--symbols", "AAPL"])
        assert caught.value.code == 2
        assert "ALPACA_FEED" in capsys.readouterr().err
