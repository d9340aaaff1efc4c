import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from libs.market_data.alpaca_rest import AlpacaRest, AlpacaRestError
from libs.market_data.daily_bars import ClosingPrices
from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.market_hours import MarketHours
from scripts.fetch_daily_bars import completed_sessions, fetch_missing, main
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.simulator import running_simulator

BARS = "/v2/stocks/bars"
POSITIONS = "/api/v1/positions"
MONDAY_EVENING = datetime(2025, 10, 20, 22, 0, tzinfo=UTC)
FRIDAY, MONDAY = date(2025, 10, 17), date(2025, 10, 20)


@pytest.fixture(scope="module")
def hours() -> MarketHours:
    return MarketHours()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        yield script


@pytest.fixture
async def rest(server: ScriptedHttp) -> AsyncIterator[AlpacaRest]:
    async with AlpacaRest(server.url, server.url, "k", "s") as client:
        yield client


def answer(**closes: dict[date, str]) -> str:
    bars = {
        symbol: ",".join(
            f'{{"t":"{day}T04:00:00Z","o":1,"h":1,"l":1,"c":{close},"v":1}}' for day, close in days.items()
        )
        for symbol, days in closes.items()
    }
    return '{"bars":{' + ",".join(f'"{symbol}":[{some}]' for symbol, some in bars.items()) + '},"next_page_token":null}'


def held(path: Path) -> dict[tuple[str, date], Decimal]:
    return dict(ClosingPrices.load(path).closes)


class TestWhichSessions:
    def test_the_last_ones_that_are_over(self, hours: MarketHours) -> None:
        assert completed_sessions(hours, MONDAY_EVENING, 2) == (FRIDAY, MONDAY)

    def test_a_session_counts_once_its_official_close_may_be_asked_for(self, hours: MarketHours) -> None:
        bell = datetime(2025, 10, 20, 20, 0, tzinfo=UTC)
        assert completed_sessions(hours, bell, 1) == (FRIDAY,)
        assert completed_sessions(hours, bell + timedelta(minutes=30), 1) == (FRIDAY,)
        assert completed_sessions(hours, bell + timedelta(minutes=31), 1) == (MONDAY,)

    @pytest.mark.parametrize("days", [1, 10, 250, 2500])
    def test_always_as_many_as_asked(self, hours: MarketHours, days: int) -> None:
        assert len(completed_sessions(hours, MONDAY_EVENING, days)) == days


class TestFetching:
    async def test_asks_for_what_is_missing_and_keeps_what_is_final(
        self, server: ScriptedHttp, rest: AlpacaRest, hours: MarketHours, tmp_path: Path
    ) -> None:
        tuesday = date(2025, 10, 21)
        server.say(BARS, answer(A={FRIDAY: "1.5", MONDAY: "2.5", tuesday: "9"}, B={MONDAY: "0"}))
        done = await fetch_missing(rest, hours, tmp_path, ["A", "B"], days=2, now=MONDAY_EVENING)
        assert (done.sessions, done.added, done.still_missing) == ((FRIDAY, MONDAY), 2, ("B",))
        assert held(tmp_path) == {("A", FRIDAY): Decimal("1.5"), ("A", MONDAY): Decimal("2.5")}
        assert server.asked[0].query["start"] == "2025-10-17"
        assert server.asked[0].query["end"] == "2025-10-20T21:44:00Z"

    async def test_asks_nothing_when_nothing_is_missing(
        self, server: ScriptedHttp, rest: AlpacaRest, hours: MarketHours, tmp_path: Path
    ) -> None:
        write_bars(tmp_path, [DailyBar("A", MONDAY, *[Decimal(1)] * 4, 1)])
        done = await fetch_missing(rest, hours, tmp_path, ["A"], days=1, now=MONDAY_EVENING)
        assert (done.added, done.still_missing) == (0, ())
        assert server.asked == []

    async def test_asks_for_the_symbols_and_days_that_lack_something(
        self, server: ScriptedHttp, rest: AlpacaRest, hours: MarketHours, tmp_path: Path
    ) -> None:
        write_bars(tmp_path, [DailyBar("A", day, *[Decimal(1)] * 4, 1) for day in (FRIDAY, MONDAY)])
        write_bars(tmp_path, [DailyBar("B", FRIDAY, *[Decimal(1)] * 4, 1)])
        server.say(BARS, answer(B={MONDAY: "2.5"}))
        await fetch_missing(rest, hours, tmp_path, ["A", "B"], days=2, now=MONDAY_EVENING)
        (asked,) = server.asked
        assert (asked.query["symbols"], asked.query["start"]) == ("B", "2025-10-20")

    async def test_a_passing_fault_is_waited_out(
        self, server: ScriptedHttp, rest: AlpacaRest, hours: MarketHours, tmp_path: Path
    ) -> None:
        server.say(BARS, Said("", 429, {"Retry-After": "0"}), Said("", 503, {"Retry-After": "0"}), answer())
        done = await fetch_missing(rest, hours, tmp_path, ["A"], days=1, now=MONDAY_EVENING)
        assert done.still_missing == ("A",)
        assert len(server.asked) == 3

    async def test_the_fourth_fault_is_the_last(
        self, server: ScriptedHttp, rest: AlpacaRest, hours: MarketHours, tmp_path: Path
    ) -> None:
        server.say(BARS, Said("", 503, {"Retry-After": "0"}))
        with pytest.raises(AlpacaRestError):
            await fetch_missing(rest, hours, tmp_path, ["A"], days=1, now=MONDAY_EVENING)
        assert len(server.asked) == 4

    @pytest.mark.parametrize("said", [Said("", 403), Said("", 429, {"Retry-After": "3600"})])
    async def test_what_cannot_be_waited_out_is_told_at_once(
        self, server: ScriptedHttp, rest: AlpacaRest, hours: MarketHours, tmp_path: Path, said: Said
    ) -> None:
        server.say(BARS, said)
        with pytest.raises(AlpacaRestError):
            await fetch_missing(rest, hours, tmp_path, ["A"], days=1, now=MONDAY_EVENING)
        assert len(server.asked) == 1

    async def test_from_the_simulator(self, hours: MarketHours, tmp_path: Path) -> None:
        now = datetime.now(UTC)
        symbols = ["AAPL", "BRK.B", "SPY"]
        async with (
            running_simulator(rate=0) as simulator,
            AlpacaRest(simulator.base_url, simulator.base_url, "k", "s") as rest,
        ):
            done = await fetch_missing(rest, hours, tmp_path, symbols, days=30, now=now)
            again = await fetch_missing(rest, hours, tmp_path, symbols, days=30, now=now)
        assert (done.added, done.still_missing) == (90, ())
        assert (again.added, again.still_missing) == (0, ())
        last = hours.last_completed_session(now - timedelta(minutes=31))
        closes = ClosingPrices.load(tmp_path)
        assert closes.problems == ()
        assert all(closes.close(symbol, last) is not None for symbol in symbols)


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
        told, again = (line for line in capsys.readouterr().out.splitlines() if "bars of" in line)
        assert again.startswith(f"{no_dotenv / 'bars'} holds all bars of 1 symbols, 2 sessions to ")
        assert told.startswith("6 bars of 2 symbols, 3 sessions to ")
        assert told.endswith(f"added to {no_dotenv / 'bars'} (simulated figures)")
        assert {symbol for symbol, _ in held(no_dotenv / "bars")} == {"AAPL", "MSFT"}

    @pytest.mark.usefixtures("no_dotenv")
    async def test_the_gateways_positions(
        self,
        server: ScriptedHttp,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        server.say(POSITIONS, '{"positions":[{"symbol":"AAPL","qty":1},{"symbol":"BTC/USD","qty":1}]}')
        server.say(BARS, answer())
        monkeypatch.setenv("EXECUTION_GATEWAY_URL", server.url)
        monkeypatch.setenv("ALPACA_DATA_URL", server.url)
        monkeypatch.setenv("API_TOKEN", "hush")
        assert await run() == 0
        assert server.asked[0].headers["Authorization"] == "Bearer hush"
        assert server.asked[1].query["symbols"] == "AAPL"
        told = capsys.readouterr()
        assert "0 bars of 1 symbols, 10 sessions" in told.out
        assert told.err.splitlines() == ["BTC/USD: no stock symbol, skipped", "no bar for some session of: AAPL"]

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
