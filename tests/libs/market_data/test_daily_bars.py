import asyncio
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import structlog

from libs.market_data.daily_bars import ClosingPrices, DailyBarsStore, _load_file
from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.freshness import ClosingPrice
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


def test_a_file_that_goes_between_listing_and_reading_is_a_problem(tmp_path: Path) -> None:
    loaded = _load_file(tmp_path / "gone.parquet", None)
    assert loaded.fingerprint is None
    assert loaded.problem is not None
