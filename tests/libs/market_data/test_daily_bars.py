import asyncio
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import structlog

from libs.market_data.daily_bars import SESSIONS_IN_MEMORY, ClosingPrices, DailyBarsStore, _load_file, _written_at
from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.freshness import ClosingPrice
from libs.market_data.market_hours import MarketHours
from tests.support.waiting import eventually

MONDAY = date(2025, 11, 3)
TUESDAY = date(2025, 11, 4)


def bar(symbol: str, day: date, close: str) -> DailyBar:
    price = Decimal(close)
    return DailyBar(symbol, day, price, price, price, price, 1000)


def half_written(file: Path) -> None:
    file.write_bytes(b"PAR1 and then the power went")


class TestASnapshot:
    def test_answers_by_symbol_and_session(self, tmp_path: Path) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5"), bar("A", TUESDAY, "3.5")])
        prices = ClosingPrices.load(tmp_path)
        assert prices.close("A", MONDAY) == ClosingPrice(Decimal("2.5"), MONDAY)
        assert prices.close("A", MONDAY - timedelta(days=3)) is None
        assert prices.close("B", MONDAY) is None
        assert prices.sessions == (MONDAY, TUESDAY)
        assert len(prices) == 2
        assert prices.problems == ()

    def test_keeps_the_latest_ten_sessions_of_all_files(self, tmp_path: Path) -> None:
        days = [MONDAY + timedelta(days=number) for number in range(25)]
        for number, day in enumerate(days):
            write_bars(tmp_path / f"{number}.parquet", [bar("A", day, "1")])
        assert ClosingPrices.load(tmp_path).sessions == tuple(days[-10:])

    def test_a_missing_and_an_empty_folder_are_problems_not_faults(self, tmp_path: Path) -> None:
        (problem,) = ClosingPrices.load(tmp_path / "none").problems
        assert "does not exist" in problem
        (problem,) = ClosingPrices.load(tmp_path).problems
        assert "holds no *.parquet file" in problem

    def test_one_bad_file_costs_one_file(self, tmp_path: Path) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
        half_written(tmp_path / "half.parquet")
        pl.DataFrame({"symbol": ["B"], "close": [1.0]}).write_parquet(tmp_path / "wrong.parquet")
        prices = ClosingPrices.load(tmp_path)
        assert prices.close("A", MONDAY) is not None
        assert [problem.split(": ")[0] for problem in prices.problems] == [
            f"skipped {tmp_path / 'half.parquet'}",
            f"skipped {tmp_path / 'wrong.parquet'}",
        ]

    def test_bad_rows_are_told(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"symbol": ["A", "B"], "date": [MONDAY, MONDAY], "close": [1.0, -1.0]})
        frame.write_parquet(tmp_path / "a.parquet")
        prices = ClosingPrices.load(tmp_path)
        assert prices.close("A", MONDAY) is not None
        (problem,) = prices.problems
        assert "1 rows have no symbol or no positive close" in problem


class TestLoadingAgain:
    def test_an_unchanged_file_is_not_read_again(self, tmp_path: Path) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
        first = ClosingPrices.load(tmp_path)
        again = ClosingPrices.load(tmp_path, first)
        (file,) = first.files
        assert again.files[file] is first.files[file]

    def test_a_file_that_breaks_keeps_what_it_held(self, tmp_path: Path) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
        first = ClosingPrices.load(tmp_path)
        half_written(tmp_path / "daily-2025-11.parquet")
        broken = ClosingPrices.load(tmp_path, first)
        assert broken.close("A", MONDAY) is not None
        assert len(broken.problems) == 1
        still = ClosingPrices.load(tmp_path, broken)
        assert still.close("A", MONDAY) is not None
        assert still.problems == broken.problems
        (tmp_path / "daily-2025-11.parquet").unlink()
        write_bars(tmp_path, [bar("B", MONDAY, "3.5")])
        repaired = ClosingPrices.load(tmp_path, still)
        assert repaired.problems == ()
        assert repaired.close("A", MONDAY) is None
        assert repaired.close("B", MONDAY) is not None

    def test_a_folder_that_vanishes_keeps_what_it_held(self, tmp_path: Path) -> None:
        folder = tmp_path / "bars"
        write_bars(folder, [bar("A", MONDAY, "2.5")])
        first = ClosingPrices.load(folder)
        folder.rename(tmp_path / "elsewhere")
        gone = ClosingPrices.load(folder, first)
        assert gone.close("A", MONDAY) is not None
        assert "does not exist" in gone.problems[0]
        (tmp_path / "elsewhere").rename(folder)
        assert ClosingPrices.load(folder, gone).problems == ()

    def test_a_file_taken_away_takes_its_closes(self, tmp_path: Path) -> None:
        write_bars(tmp_path / "a.parquet", [bar("A", MONDAY, "2.5")])
        write_bars(tmp_path / "b.parquet", [bar("B", MONDAY, "2.5")])
        first = ClosingPrices.load(tmp_path)
        (tmp_path / "a.parquet").unlink()
        assert ClosingPrices.load(tmp_path, first).close("A", MONDAY) is None


class TestTheStore:
    async def test_knows_nothing_before_its_first_look(self, tmp_path: Path) -> None:
        store = DailyBarsStore(str(tmp_path))
        assert store.close("A", MONDAY) is None
        assert store.problems == ()

    async def test_looks(self, tmp_path: Path) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
        store = DailyBarsStore(tmp_path)
        await asyncio.gather(*(store.refresh() for _ in range(5)))
        assert store.close("A", MONDAY) == ClosingPrice(Decimal("2.5"), MONDAY)
        assert len(store.prices) == 1

    async def test_tells_a_new_problem_once(self, tmp_path: Path) -> None:
        store = DailyBarsStore(tmp_path)
        with structlog.testing.capture_logs() as logs:
            await store.refresh()
            await store.refresh()
            write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
            await store.refresh()
        assert [(entry["event"], len(entry["problems"])) for entry in logs] == [
            ("daily_bars_problems", 1),
            ("daily_bars_problems", 0),
        ]

    async def test_sees_new_bars_by_itself(self, tmp_path: Path) -> None:
        store = DailyBarsStore(tmp_path)
        task = asyncio.create_task(store.keep_current(every_s=0.01))
        await eventually(lambda: store.problems)
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
        await eventually(lambda: store.close("A", MONDAY))
        assert store.problems == ()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestContradictions:
    def test_a_contradicted_close_is_none(self, tmp_path: Path) -> None:
        write_bars(tmp_path / "a.parquet", [bar("A", MONDAY, "2.5"), bar("A", TUESDAY, "2.5")])
        write_bars(tmp_path / "b.parquet", [bar("A", MONDAY, "2.6"), bar("A", TUESDAY, "2.50")])
        prices = ClosingPrices.load(tmp_path)
        assert prices.close("A", MONDAY) is None
        assert prices.close("A", TUESDAY) == ClosingPrice(Decimal("2.5"), TUESDAY)
        (problem,) = prices.problems
        assert str(tmp_path / "a.parquet") in problem
        assert str(tmp_path / "b.parquet") in problem


HOURS = MarketHours()
WEDNESDAY = date(2025, 11, 5)
TUESDAY_NOON = datetime(2025, 11, 4, 17, 0, tzinfo=UTC)
TUESDAY_BELL = datetime(2025, 11, 4, 21, 0, tzinfo=UTC)


class Clock:
    """A time that the test sets."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def written_at(file: Path, moment: datetime) -> None:
    os.utime(file, (moment.timestamp(), moment.timestamp()))


class TestWithTheCalendar:
    async def test_a_session_that_is_not_over_has_no_close(self, tmp_path: Path) -> None:
        clock = Clock(TUESDAY_NOON)
        write_bars(tmp_path, [bar("A", MONDAY, "2.5"), bar("A", TUESDAY, "3.5")])
        store = DailyBarsStore(tmp_path, HOURS, clock)
        await store.refresh()
        assert store.close("A", TUESDAY) is None
        assert store.close("A", MONDAY) is not None
        assert store.problems == ()
        clock.now = TUESDAY_BELL
        await store.refresh()
        assert store.close("A", TUESDAY) == ClosingPrice(Decimal("3.5"), TUESDAY)

    async def test_nor_when_its_bar_was_written_while_it_was_on(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.parquet"
        write_bars(file, [bar("A", MONDAY, "2.5"), bar("A", TUESDAY, "3.5")])
        written_at(file, TUESDAY_NOON)
        clock = Clock(TUESDAY_NOON)
        store = DailyBarsStore(tmp_path, HOURS, clock)
        await store.refresh()
        assert store.problems == ()
        clock.now = TUESDAY_BELL + timedelta(hours=1)
        await store.refresh()
        assert store.close("A", TUESDAY) is None
        assert store.close("A", MONDAY) is not None
        assert "written before their session was over (2025-11-04)" in store.problems[0]
        # The official bar comes beside it, in a file of ours.
        assert write_bars(tmp_path, [bar("A", TUESDAY, "3.6")], {TUESDAY: TUESDAY_BELL}) == 1
        await store.refresh()
        assert store.close("A", TUESDAY) == ClosingPrice(Decimal("3.6"), TUESDAY)

    async def test_dates_that_are_no_session_are_named_and_push_nothing_out_of_memory(self, tmp_path: Path) -> None:
        odd = [bar("A", date(2099, 1, 1) + timedelta(days=number), "9") for number in range(SESSIONS_IN_MEMORY)]
        write_bars(tmp_path / "odd.parquet", [*odd, bar("A", date(2025, 11, 2), "9")])
        write_bars(tmp_path / "good.parquet", [bar("A", MONDAY, "2.5")])
        store = DailyBarsStore(tmp_path, HOURS, Clock(TUESDAY_NOON))
        await store.refresh()
        assert store.prices.sessions == (MONDAY,)
        (problem,) = store.problems
        assert "11 rows are of no session (2025-11-02, 2099-01-01" in problem

    async def test_only_a_few_sessions_are_kept_in_memory(self, tmp_path: Path) -> None:
        days = HOURS.sessions_between(date(2025, 6, 1), WEDNESDAY)
        for day in days[::20]:
            write_bars(tmp_path, [bar("A", some, "1") for some in days if some.month == day.month])
        write_bars(tmp_path, [bar("A", day, "1") for day in days])
        store = DailyBarsStore(tmp_path, HOURS, Clock(TUESDAY_NOON))
        prices = await store.refresh()
        assert prices.sessions == days[-SESSIONS_IN_MEMORY - 2 : -2]
        assert sum(len(file.held.rows) for file in prices.files.values()) == SESSIONS_IN_MEMORY + 2

    async def test_an_unchanged_file_is_read_again_only_when_older_sessions_are_wanted(self, tmp_path: Path) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
        clock = Clock(TUESDAY_NOON)
        store = DailyBarsStore(tmp_path, HOURS, clock)
        first = await store.refresh()
        clock.now += timedelta(days=1)
        second = await store.refresh()
        (file,) = first.files
        assert second.files[file] is first.files[file]
        clock.now -= timedelta(days=9)
        third = await store.refresh()
        assert third.files[file] is not first.files[file]

    async def test_a_broken_file_keeps_what_it_held_as_of_when_that_was_written(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.parquet"
        write_bars(file, [bar("A", TUESDAY, "3.5")])
        written_at(file, TUESDAY_NOON)
        clock = Clock(TUESDAY_NOON)
        store = DailyBarsStore(tmp_path, HOURS, clock)
        await store.refresh()
        half_written(file)
        clock.now = TUESDAY_BELL
        await store.refresh()
        assert store.close("A", TUESDAY) is None


def test_a_file_of_an_impossible_time_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write_bars(file, [bar("A", MONDAY, "2.5")])
    assert _written_at((1, 10**30, 1)) is None
    assert _written_at(None) is None


def test_a_file_that_goes_between_listing_and_reading_is_a_problem(tmp_path: Path) -> None:
    loaded = _load_file(tmp_path / "gone.parquet", None, None)
    assert loaded.fingerprint is None
    assert loaded.problem is not None
