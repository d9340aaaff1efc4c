import os
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from aiohttp import web

from libs.market_data.alpaca_rest import AlpacaRest, AlpacaRestError
from libs.market_data.daily_bars import ClosingPrices
from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.market_hours import MarketHours
from libs.market_data.missing_bars import Gap
from scripts.bars_download import BarsDownload, Fetched, completed_sessions
from scripts.progress_line import Progress
from tests.support.bars_server import BarsServer, bars_server
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http

BARS = "/v2/stocks/bars"
MONDAY_EVENING = datetime(2025, 10, 20, 22, 0, tzinfo=UTC)
THURSDAY, FRIDAY, MONDAY = date(2025, 10, 16), date(2025, 10, 17), date(2025, 10, 20)
HOURS = MarketHours()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        yield script


@pytest.fixture
async def rest(server: ScriptedHttp) -> AsyncIterator[AlpacaRest]:
    async with AlpacaRest(server.url, server.url, "k", "s") as client:
        yield client


@pytest.fixture
async def bars() -> AsyncIterator[BarsServer]:
    async with bars_server() as running:
        yield running


async def fetch(url: str, path: Path, symbols: list[str], days: int, now: datetime = MONDAY_EVENING) -> Fetched:
    async with AlpacaRest(url, url, "k", "s") as rest:
        return await BarsDownload(rest, path, now).fetch_missing(HOURS, symbols, days)


def wire(day: date, close: str, rest: str = '"o":1,"h":99,"l":1') -> str:
    return f'{{"t":"{day}T04:00:00Z",{rest},"c":{close},"v":1}}'


def answer(**bars: list[str]) -> str:
    return (
        '{"bars":{'
        + ",".join(f'"{symbol}":[{",".join(some)}]' for symbol, some in bars.items())
        + '},"next_page_token":null}'
    )


def held(path: Path) -> dict[tuple[str, date], Decimal]:
    return dict(ClosingPrices.load(path).closes)


def row(symbol: str, day: date, close: str) -> DailyBar:
    price = Decimal(close)
    return DailyBar(symbol, day, price, price, price, price, 1)


class TestWhichSessions:
    @pytest.mark.parametrize(("minutes", "day"), [(0, FRIDAY), (30, FRIDAY), (31, MONDAY)])
    def test_a_session_counts_once_its_official_close_may_be_asked_for(self, minutes: int, day: date) -> None:
        bell = datetime(2025, 10, 20, 20, 0, tzinfo=UTC)
        assert [session.date for session in completed_sessions(HOURS, bell + timedelta(minutes=minutes), 1)] == [day]

    @pytest.mark.parametrize("days", [1, 10, 250, 2500])
    def test_always_as_many_as_asked(self, days: int) -> None:
        assert len(completed_sessions(HOURS, MONDAY_EVENING, days)) == days


class TestOnlyWhatIsMissing:
    async def test_in_portions_the_newest_first(self, bars: BarsServer, tmp_path: Path) -> None:
        done = await fetch(bars.url, tmp_path, ["AAPL", "SPY"], 130)
        assert (done.added, done.gaps, done.refused) == (260, (), ())
        days = done.sessions
        assert bars.asked == [
            ("AAPL,SPY", days[70], MONDAY),
            ("AAPL,SPY", days[10], days[69] + timedelta(days=1)),
            ("AAPL,SPY", days[0], days[9] + timedelta(days=1)),
        ]

    async def test_nothing_the_second_time(self, bars: BarsServer, tmp_path: Path) -> None:
        await fetch(bars.url, tmp_path, ["AAPL"], 70)
        bars.asked.clear()
        again = await fetch(bars.url, tmp_path, ["AAPL"], 70)
        assert (again.added, again.gaps, bars.asked) == (0, (), [])

    async def test_the_next_day_asks_for_one_day_and_a_new_symbol_for_its_own(
        self, bars: BarsServer, tmp_path: Path
    ) -> None:
        await fetch(bars.url, tmp_path, ["AAPL"], 5, MONDAY_EVENING - timedelta(days=3))
        bars.asked.clear()
        done = await fetch(bars.url, tmp_path, ["AAPL", "SPY"], 5)
        assert done.added == 6
        tuesday = MONDAY + timedelta(days=1)
        assert bars.asked == [("SPY", done.sessions[0], MONDAY), ("AAPL", MONDAY, MONDAY)]
        assert tuesday not in done.sessions

    async def test_a_symbol_without_a_bar_on_some_day_is_asked_for_that_day_only(
        self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path
    ) -> None:
        server.say(BARS, answer(A=[wire(THURSDAY, "2"), wire(MONDAY, "2")]), answer())
        first = await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A"], 3)
        again = await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A"], 3)
        assert first.gaps == again.gaps == (Gap("A", FRIDAY),)
        assert [asked.query["start"] for asked in server.asked] == ["2025-10-16", "2025-10-17"]
        assert server.asked[1].query["end"] == "2025-10-18T03:59:59Z"

    async def test_never_asks_into_the_running_quarter_of_an_hour(
        self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path
    ) -> None:
        server.say(BARS, answer())
        await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A"], 1)
        (asked,) = server.asked
        assert asked.query["end"] == "2025-10-20T21:44:00Z"
        assert (asked.query["feed"], asked.query["adjustment"]) == ("sip", "raw")


class TestWhatIsKept:
    async def test_a_bar_belongs_to_its_own_date_not_to_the_day_it_is_given(
        self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path
    ) -> None:
        # Before the opening a server may still show Friday's bar where Monday's was asked for.
        server.say(BARS, answer(A=[wire(FRIDAY, "2.5")]))
        done = await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A"], 1)
        assert (done.added, done.gaps) == (0, (Gap("A", MONDAY),))
        assert held(tmp_path) == {}

    async def test_the_running_sessions_bar_is_left_out(
        self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path
    ) -> None:
        server.say(BARS, answer(A=[wire(MONDAY, "2.5"), wire(date(2025, 10, 21), "9")]))
        done = await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A"], 1)
        assert (held(tmp_path), done.refused) == ({("A", MONDAY): Decimal("2.5")}, ())

    async def test_an_impossible_bar_is_refused_by_name_and_the_rest_goes_on(
        self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path
    ) -> None:
        crooked = wire(FRIDAY, "2.5", '"o":2,"h":2,"l":1')
        server.say(BARS, answer(A=[crooked, wire(MONDAY, "2.5")], B=[wire(date(2025, 10, 18), "3")]))
        done = await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A", "B"], 2)
        assert held(tmp_path) == {("A", MONDAY): Decimal("2.5")}
        assert done.gaps == (Gap("A", FRIDAY), Gap("B", FRIDAY), Gap("B", MONDAY))
        assert done.refused == (
            "A 2025-10-17: its high 2 is below close 2.5",
            "B 2025-10-18: the market was closed that day",
        )

    async def test_a_row_written_during_the_session_is_replaced(self, bars: BarsServer, tmp_path: Path) -> None:
        file = tmp_path / "daily-2025-10.parquet"
        write_bars(file, [row("AAPL", FRIDAY, "1"), row("AAPL", MONDAY, "1")])
        noon = datetime(2025, 10, 20, 16, 0, tzinfo=UTC).timestamp()
        os.utime(file, (noon, noon))
        done = await fetch(bars.url, tmp_path, ["AAPL"], 2)
        assert done.added == 1
        assert held(tmp_path)["AAPL", FRIDAY] == 1
        assert held(tmp_path)["AAPL", MONDAY] == Decimal(repr(bars.history.close("AAPL", MONDAY)))


class TestFaults:
    async def test_a_passing_fault_is_waited_out_in_each_portion_anew(
        self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path
    ) -> None:
        fault = Said("", 429, {"Retry-After": "0"})
        server.say(BARS, fault, fault, fault, answer(), fault, fault, fault, answer())
        told: list[str] = []
        shown: list[Progress] = []
        download = BarsDownload(rest, tmp_path, MONDAY_EVENING, shown.append, told.append)
        done = await download.fetch_missing(HOURS, ["A"], 61)
        assert (len(server.asked), len(done.gaps), len(told)) == (8, 61, 6)
        assert "answered 429; asking again in 0 s" in told[0]
        assert [(progress.done, progress.total) for progress in shown] == [(1, 2), (2, 2)]

    async def test_the_fourth_fault_is_the_last(self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path) -> None:
        server.say(BARS, Said("", 503, {"Retry-After": "0"}))
        with pytest.raises(AlpacaRestError):
            await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A"], 1)
        assert len(server.asked) == 4

    @pytest.mark.parametrize("said", [Said("", 403), Said("", 429, {"Retry-After": "3600"})])
    async def test_what_cannot_be_waited_out_is_told_at_once(
        self, server: ScriptedHttp, rest: AlpacaRest, tmp_path: Path, said: Said
    ) -> None:
        server.say(BARS, said)
        with pytest.raises(AlpacaRestError):
            await BarsDownload(rest, tmp_path, MONDAY_EVENING).fetch_missing(HOURS, ["A"], 1)
        assert len(server.asked) == 1

    async def test_a_run_that_fails_on_the_way_is_continued(self, bars: BarsServer, tmp_path: Path) -> None:
        bars.refuse = lambda _: web.Response(status=403) if len(bars.asked) > 2 else None
        async with AlpacaRest(bars.url, bars.url, "k", "s") as rest:
            download = BarsDownload(rest, tmp_path, MONDAY_EVENING)
            with pytest.raises(AlpacaRestError):
                await download.fetch_missing(HOURS, ["AAPL"], 240)
        assert download.added == 120
        first = list(bars.asked)
        bars.refuse = lambda _: None
        bars.asked.clear()
        done = await fetch(bars.url, tmp_path, ["AAPL"], 240)
        assert (done.added, done.gaps) == (120, ())
        assert bars.asked[0] == first[2]
        assert len(bars.asked) == 2

    async def test_one_symbol_that_the_server_refuses_costs_only_itself(self, bars: BarsServer, tmp_path: Path) -> None:
        def refuse(request: web.Request) -> web.Response | None:
            is_bad = "BAD" in request.query["symbols"].split(",")
            return web.json_response({"message": "invalid symbol: BAD"}, status=400) if is_bad else None

        bars.refuse = refuse
        done = await fetch(bars.url, tmp_path, ["AAPL", "BAD", "MSFT", "SPY"], 61)
        assert done.added == 3 * 61
        assert {gap.symbol for gap in done.gaps} == {"BAD"}
        (refused,) = done.refused
        assert refused.startswith("BAD: ")
        assert "invalid symbol" in refused
        assert bars.asked[-1][0] == "AAPL,MSFT,SPY"

    async def test_a_server_that_refuses_every_symbol_is_a_failure(self, bars: BarsServer, tmp_path: Path) -> None:
        bars.refuse = lambda _: web.json_response({"message": "no"}, status=422)
        with pytest.raises(AlpacaRestError, match="answered 422"):
            await fetch(bars.url, tmp_path, ["A", "B"], 1)
        with pytest.raises(AlpacaRestError, match="answered 422"):
            await fetch(bars.url, tmp_path, [f"S{number}" for number in range(40)], 1)
        assert len(bars.asked) < 60


class TestVerifying:
    async def test_names_what_differs_and_takes_it_only_when_told(self, bars: BarsServer, tmp_path: Path) -> None:
        await fetch(bars.url, tmp_path, ["AAPL", "SPY"], 3)
        official = Decimal(repr(bars.history.close("AAPL", FRIDAY)))
        for file in tmp_path.iterdir():
            wrong = pl.when((pl.col("symbol") == "AAPL") & (pl.col("date") == FRIDAY)).then(1.5)
            pl.read_parquet(file).with_columns(wrong.otherwise(pl.col("close")).alias("close")).write_parquet(file)
        async with AlpacaRest(bars.url, bars.url, "k", "s") as rest:
            download = BarsDownload(rest, tmp_path, MONDAY_EVENING)
            looked = await download.verify(HOURS, ["AAPL", "SPY", "MSFT"], 3, replace=False)
            assert looked.compared == 6
            assert [str(found) for found in looked.corrections] == [f"AAPL 2025-10-17: 1.5 here, {official} officially"]
            assert held(tmp_path)["AAPL", FRIDAY] == Decimal("1.5")
            await download.verify(HOURS, ["AAPL", "SPY"], 3, replace=True)
            assert held(tmp_path)["AAPL", FRIDAY] == official
            assert (await download.verify(HOURS, ["AAPL", "SPY"], 3, replace=False)).corrections == ()
        assert len(held(tmp_path)) == 6

    async def test_settles_rows_that_contradict_each_other(self, bars: BarsServer, tmp_path: Path) -> None:
        write_bars(tmp_path / "a.parquet", [row("AAPL", MONDAY, "1")])
        write_bars(tmp_path / "b.parquet", [row("AAPL", MONDAY, "2")])
        assert held(tmp_path) == {}
        async with AlpacaRest(bars.url, bars.url, "k", "s") as rest:
            done = await BarsDownload(rest, tmp_path, MONDAY_EVENING).verify(HOURS, ["AAPL"], 1, replace=True)
        assert "1.0 and 2.0 here" in str(done.corrections[0])
        assert held(tmp_path) == {("AAPL", MONDAY): Decimal(repr(bars.history.close("AAPL", MONDAY)))}
