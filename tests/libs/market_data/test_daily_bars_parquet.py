import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.market_data.daily_bars_parquet import (
    BarsFileError,
    bar_files,
    read_closes,
    replace_bars,
    stored_bars,
    stored_closes,
    write_bars,
)
from libs.market_data.daily_bars_rest import DailyBar

FRIDAY = date(2025, 10, 31)
MONDAY = date(2025, 11, 3)
BELL = datetime(2025, 11, 3, 21, 0, tzinfo=UTC)
"""When Monday's session was over."""


def bar(symbol: str, day: date, close: str, volume: int = 1000) -> DailyBar:
    price = Decimal(close)
    return DailyBar(symbol, day, price, price, price, price, volume)


def write_rows(file: Path, rows: list[tuple[Any, ...]], close_type: Any = pl.Float64, date_type: Any = pl.Date) -> None:
    schema = {"symbol": pl.String, "date": date_type, "close": close_type}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(file)


def closes_in(file: Path, sessions: int = 10) -> dict[tuple[str, date], Decimal]:
    return dict(read_closes(file, sessions).rows)


class TestReading:
    def test_a_float_means_the_digits_that_were_written(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        write_rows(file, [("A", MONDAY, 150.8), ("B", MONDAY, 0.1 + 0.2), ("C", MONDAY, 1e-7)])
        closes = closes_in(file)
        assert closes["A", MONDAY] == Decimal("150.8")
        assert closes["B", MONDAY] == Decimal("0.30000000000000004")
        assert closes["C", MONDAY] == Decimal("0.0000001")

    def test_symbols_have_one_form_whoever_wrote_them(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        write_rows(file, [("BRK/B", MONDAY, 480.5), ("bf-a", MONDAY, 70.0), ("ABC.WS.A", MONDAY, 0.5)])
        assert {symbol for symbol, _ in closes_in(file)} == {"BRK.B", "BF.A", "ABC.WS.A"}

    def test_a_decimal_stays_as_it_is(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        write_rows(file, [("A", MONDAY, Decimal("150.800000001"))], pl.Decimal(20, 9))
        assert closes_in(file) == {("A", MONDAY): Decimal("150.800000001")}

    def test_what_is_no_price_is_counted_not_kept(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        rows = [("A", MONDAY, close) for close in (None, float("nan"), float("inf"), 0.0, -1.0)]
        write_rows(file, [*rows, (None, MONDAY, 1.0), ("", MONDAY, 1.0), ("B", None, 1.0), ("C", MONDAY, 1.0)])
        read = read_closes(file, 10)
        assert dict(read.rows) == {("C", MONDAY): Decimal("1.0")}
        assert read.rejected == 7

    def test_only_the_latest_sessions(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        days = [MONDAY - timedelta(days=number) for number in range(50)]
        write_rows(file, [("A", day, 1.0) for day in days])
        assert {day for _, day in closes_in(file, 3)} == set(days[:3])

    def test_a_file_without_rows(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        write_rows(file, [])
        assert closes_in(file) == {}

    @pytest.mark.parametrize("size", [0, 4, 100, -4])
    def test_a_half_written_file_is_named(self, tmp_path: Path, size: int) -> None:
        file = tmp_path / "half.parquet"
        write_rows(file, [("A", MONDAY, 1.0)])
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(BarsFileError, match=r"half\.parquet: is no usable Parquet file"):
            read_closes(file, 3)

    def test_a_file_scribbled_over_in_the_middle_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "bad.parquet"
        write_rows(file, [(f"S{number}", MONDAY, 1.0 + number) for number in range(1000)])
        content = bytearray(file.read_bytes())
        content[4:2000] = b"\xff" * 1996
        file.write_bytes(content)
        with pytest.raises(BarsFileError, match=r"bad\.parquet"):
            read_closes(file, 3)

    @pytest.mark.parametrize(
        ("frame", "complaint"),
        [
            ({"symbol": ["A"], "date": [MONDAY]}, "has no column 'close'"),
            ({"symbol": ["A"], "close": [1.0]}, "has no column 'date'"),
            ({"symbol": [1], "date": [MONDAY], "close": [1.0]}, "column 'symbol' is Int64, expected String"),
            ({"symbol": ["A"], "date": ["2025-11-03"], "close": [1.0]}, "column 'date' is String, expected Date"),
            ({"symbol": ["A"], "date": [datetime(2025, 11, 3)], "close": [1.0]}, "column 'date' is Datetime"),  # noqa: DTZ001
            ({"symbol": ["A"], "date": [MONDAY], "close": ["1.0"]}, "column 'close' is String, expected Float64 or"),
            ({"symbol": ["A"], "date": [MONDAY], "close": [1]}, "column 'close' is Int64"),
        ],
    )
    def test_a_wrongly_typed_file_is_named(self, tmp_path: Path, frame: dict[str, Any], complaint: str) -> None:
        file = tmp_path / "wrong.parquet"
        pl.DataFrame(frame).write_parquet(file)
        with pytest.raises(BarsFileError) as caught:
            read_closes(file, 3)
        assert complaint in str(caught.value)
        assert caught.value.file == file

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(BarsFileError, match="cannot be read"):
            read_closes(tmp_path / "none.parquet", 3)


class TestWhichFiles:
    def test_a_folders_own_visible_parquet_files(self, tmp_path: Path) -> None:
        for name in ("b.parquet", "a.parquet", ".c.parquet", "d.csv", ".daily-2025-11.parquet.77.tmp"):
            (tmp_path / name).touch()
        (tmp_path / "deeper").mkdir()
        (tmp_path / "deeper" / "e.parquet").touch()
        assert [file.name for file in bar_files(tmp_path)] == ["a.parquet", "b.parquet"]

    def test_one_file(self, tmp_path: Path) -> None:
        file = tmp_path / "bars.pq"
        file.touch()
        assert bar_files(file) == [file]

    def test_nothing_there_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(BarsFileError, match=r"holds no \*\.parquet file; python -m scripts\.fetch_daily_bars"):
            bar_files(tmp_path)
        with pytest.raises(BarsFileError, match="does not exist"):
            bar_files(tmp_path / "none")

    def test_a_folder_that_may_not_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "iterdir", refuse)  # tests may run as root, whom no mode bit stops
        with pytest.raises(BarsFileError, match="Permission denied"):
            bar_files(tmp_path)


class TestWriting:
    def test_a_folder_gets_a_file_for_each_month(self, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "bars"
        assert write_bars(folder, [bar("A", FRIDAY, "1.5"), bar("A", MONDAY, "2.5"), bar("B", MONDAY, "3.5")]) == 3
        assert sorted(file.name for file in folder.iterdir()) == ["daily-2025-10.parquet", "daily-2025-11.parquet"]
        frame = pl.read_parquet(folder / "daily-2025-11.parquet")
        assert frame.schema == {
            "symbol": pl.String,
            "date": pl.Date,
            "open": pl.Float64,
            "high": pl.Float64,
            "low": pl.Float64,
            "close": pl.Float64,
            "volume": pl.Int64,
        }
        assert frame.rows()[0] == ("A", MONDAY, 2.5, 2.5, 2.5, 2.5, 1000)

    def test_a_second_time_changes_nothing(self, tmp_path: Path) -> None:
        bars = [bar("A", MONDAY, "2.5")]
        write_bars(tmp_path, bars)
        before = [(file, file.stat().st_mtime_ns) for file in tmp_path.iterdir()]
        assert write_bars(tmp_path, bars) == 0
        assert [(file, file.stat().st_mtime_ns) for file in tmp_path.iterdir()] == before

    def test_only_what_is_missing_is_added(self, tmp_path: Path) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])
        assert write_bars(tmp_path, [bar("A", MONDAY, "99"), bar("B", MONDAY, "3.5"), bar("B", MONDAY, "3.5")]) == 1
        assert closes_in(tmp_path / "daily-2025-11.parquet", 3) == {
            ("A", MONDAY): Decimal("2.5"),
            ("B", MONDAY): Decimal("3.5"),
        }

    def test_what_another_file_of_the_folder_holds_is_not_missing(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "mine.parquet", [("A", MONDAY, 2.5)])
        assert write_bars(tmp_path, [bar("A", MONDAY, "99")]) == 0

    def test_an_unusable_row_is_replaced(self, tmp_path: Path) -> None:
        target = tmp_path / "daily-2025-11.parquet"
        write_rows(target, [("A", MONDAY, float("nan")), ("B", MONDAY, 1.0)])
        assert write_bars(tmp_path, [bar("A", MONDAY, "2.5")]) == 1
        assert closes_in(target) == {("A", MONDAY): Decimal("2.5"), ("B", MONDAY): Decimal("1.0")}

    def test_one_file_that_grows(self, tmp_path: Path) -> None:
        file = tmp_path / "bars.parquet"
        assert write_bars(file, [bar("A", FRIDAY, "1.5")]) == 1
        assert write_bars(file, [bar("A", FRIDAY, "1.5"), bar("A", MONDAY, "2.5")]) == 1
        assert set(closes_in(file)) == {("A", FRIDAY), ("A", MONDAY)}

    def test_a_file_of_decimals_with_columns_of_its_own_keeps_them(self, tmp_path: Path) -> None:
        file = tmp_path / "bars.parquet"
        schema = {"symbol": pl.String, "date": pl.Date, "close": pl.Decimal(20, 4), "note": pl.String}
        pl.DataFrame([("A", FRIDAY, Decimal("1.5"), "mine")], schema=schema, orient="row").write_parquet(file)
        assert write_bars(file, [bar("A", MONDAY, "2.5")]) == 1
        frame = pl.read_parquet(file)
        assert frame["close"].to_list() == [Decimal("1.5"), Decimal("2.5")]
        assert frame["note"].to_list() == ["mine", None]

    def test_a_file_of_too_few_decimals_gets_more_rather_than_round(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        write_rows(file, [("A", FRIDAY, Decimal("150.80"))], pl.Decimal(10, 2))
        write_bars(file, [bar("B", FRIDAY, "12.34")])
        assert pl.read_parquet_schema(file)["close"] == pl.Decimal(10, 2)
        write_bars(file, [bar("C", FRIDAY, "0.1234")])
        closes = {symbol: close for (symbol, _), close in closes_in(file).items()}
        assert closes == {"A": Decimal("150.80"), "B": Decimal("12.34"), "C": Decimal("0.1234")}

    def test_somebodys_unreadable_file_is_not_overwritten(self, tmp_path: Path) -> None:
        theirs = tmp_path / "daily-2025-11.parquet"
        theirs.write_bytes(b"half a file")
        assert write_bars(tmp_path, [bar("A", MONDAY, "2.5")]) == 1
        assert theirs.read_bytes() == b"half a file"
        assert closes_in(tmp_path / "daily-2025-11-2.parquet", 3) == {("A", MONDAY): Decimal("2.5")}
        assert write_bars(tmp_path, [bar("B", MONDAY, "3.5")]) == 1
        assert len(list(tmp_path.iterdir())) == 2

    def test_an_unreadable_single_file_is_an_error(self, tmp_path: Path) -> None:
        file = tmp_path / "bars.parquet"
        file.write_bytes(b"half a file")
        with pytest.raises(BarsFileError, match="no usable Parquet file"):
            write_bars(file, [bar("A", MONDAY, "2.5")])
        assert file.read_bytes() == b"half a file"

    def test_a_full_folder_of_unreadable_files_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.market_data.daily_bars_parquet._MOST_NAMES", 2)
        (tmp_path / "daily-2025-11.parquet").touch()
        (tmp_path / "daily-2025-11-2.parquet").touch()
        with pytest.raises(BarsFileError, match="too many unreadable files"):
            write_bars(tmp_path, [bar("A", MONDAY, "2.5")])

    def test_a_disk_that_fills_up_leaves_the_old_file_and_no_rubbish(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_bars(tmp_path, [bar("A", MONDAY, "2.5")])

        def fail(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(BarsFileError, match="No space left on device"):
            write_bars(tmp_path, [bar("B", MONDAY, "3.5")])
        assert [file.name for file in tmp_path.iterdir()] == ["daily-2025-11.parquet"]
        assert set(closes_in(tmp_path / "daily-2025-11.parquet", 3)) == {("A", MONDAY)}

    def test_a_path_below_a_file_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(BarsFileError, match=r"Not a directory|File exists"):
            write_bars(tmp_path / "file" / "bars", [bar("A", MONDAY, "2.5")])

    def test_nothing_to_write(self, tmp_path: Path) -> None:
        assert write_bars(tmp_path / "none", []) == 0
        assert not (tmp_path / "none").exists()


class TestOneWriterAtATime:
    def test_writers_side_by_side_lose_nothing(self, tmp_path: Path) -> None:
        batches = [[bar(f"S{number}{letter}", MONDAY, "1") for letter in "ABC"] for number in range(12)]
        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(lambda batch: write_bars(tmp_path, batch), batches)) == 36
        assert len(closes_in(tmp_path / "daily-2025-11.parquet")) == 36

    def test_a_lock_that_is_never_given_back_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("libs.market_data.daily_bars_parquet._PATIENCE_S", 0.1)
        handle = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with pytest.raises(BarsFileError, match="locked by another program"):
                write_bars(tmp_path, [bar("A", MONDAY, "1")])
        finally:
            os.close(handle)
        assert write_bars(tmp_path, [bar("A", MONDAY, "1")]) == 1

    def test_what_a_killed_writer_left_is_taken_away(self, tmp_path: Path) -> None:
        (tmp_path / ".daily-2025-11.parquet.4711.tmp").write_bytes(b"half")
        (tmp_path / ".daily-2025-10.parquet.4711.tmp").write_bytes(b"half")
        write_bars(tmp_path, [bar("A", MONDAY, "1")])
        assert {file.name for file in tmp_path.iterdir()} == {
            "daily-2025-11.parquet",
            ".daily-2025-10.parquet.4711.tmp",
        }


class TestReplacing:
    def test_every_row_of_the_pair_in_whichever_file(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "a.parquet", [("A", MONDAY, 1.0), ("A", MONDAY, 1.5), ("B", MONDAY, 7.0)])
        write_rows(tmp_path / "b.parquet", [("A", MONDAY, 2.0), ("A", FRIDAY, 3.0)])
        write_rows(tmp_path / "c.parquet", [("B", MONDAY, 7.0)])
        before = (tmp_path / "c.parquet").read_bytes()
        (tmp_path / "d.parquet").write_bytes(b"half a file")
        assert replace_bars(tmp_path, [bar("A", MONDAY, "9"), bar("C", MONDAY, "9")]) == 2
        assert read_closes(tmp_path / "a.parquet", 9).rows == (
            (("A", MONDAY), Decimal(9)),
            (("B", MONDAY), Decimal(7)),
        )
        assert closes_in(tmp_path / "b.parquet") == {("A", MONDAY): Decimal(9), ("A", FRIDAY): Decimal(3)}
        assert (tmp_path / "c.parquet").read_bytes() == before

    def test_stored_closes_shows_what_contradicts_itself(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "a.parquet", [("A", MONDAY, 1.0), ("B", MONDAY, 7.0)])
        write_rows(tmp_path / "b.parquet", [("A", MONDAY, 2.0), ("B", MONDAY, 7.0)])
        assert stored_closes(tmp_path, {MONDAY: BELL}) == {
            ("A", MONDAY): {Decimal(1), Decimal(2)},
            ("B", MONDAY): {Decimal(7)},
        }


class TestRowsFromBeforeTheBell:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A month's file that somebody wrote during Monday's session."""
        file = tmp_path / "daily-2025-11.parquet"
        write_rows(file, [("A", MONDAY, 1.0), ("B", MONDAY, 1.0), ("A", FRIDAY, 1.0)])
        os.utime(file, (BELL.timestamp() - 3600,) * 2)
        return file

    def test_are_not_held(self, file: Path) -> None:
        friday_bell = BELL - timedelta(days=3)
        assert stored_bars(file, {MONDAY: BELL, FRIDAY: friday_bell}) == {("A", FRIDAY)}
        assert stored_bars(file, {MONDAY: BELL}) == set()

    def test_give_way_to_the_official_ones_and_do_not_pass_for_them(self, file: Path) -> None:
        assert write_bars(file.parent, [bar("A", MONDAY, "2")], {MONDAY: BELL}) == 1
        assert closes_in(file) == {("A", MONDAY): Decimal(2), ("A", FRIDAY): Decimal(1)}

    def test_nor_those_of_a_session_that_nobody_asks_about(self, tmp_path: Path) -> None:
        """At noon another program wrote Monday's price so far; what is written for Friday must not make it a close."""
        file = tmp_path / "a.parquet"
        for change in (
            lambda: write_bars(file, [bar("B", FRIDAY, "2")]),
            lambda: replace_bars(file, [bar("A", FRIDAY, "9")]),
        ):
            write_rows(file, [("A", MONDAY, 140.0), ("A", FRIDAY, 150.0), ("C", None, 1.0)])
            noon = BELL - timedelta(hours=4)
            os.utime(file, (noon.timestamp(), noon.timestamp()))
            change()
            assert ("A", MONDAY) not in closes_in(file)
            assert ("A", FRIDAY) in closes_in(file)


class TestWhatIsStored:
    def test_only_usable_closes_count(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "a.parquet", [("A", MONDAY, 1.0), ("B", MONDAY, None), ("A", FRIDAY, 1.0)])
        (tmp_path / "bad.parquet").write_bytes(b"x")
        assert stored_bars(tmp_path, {MONDAY: BELL}) == {("A", MONDAY)}

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert stored_bars(tmp_path / "none", {MONDAY: BELL}) == set()


prices = st.decimals(min_value="0.0001", max_value="1000000", places=4)
keys = st.tuples(st.sampled_from(["A", "BRK.B", "SPY"]), st.dates(date(2025, 9, 1), date(2025, 11, 30)))


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.dictionaries(keys, prices, max_size=8), max_size=3))
def test_the_first_writing_of_a_bar_stands_to_the_last_digit(
    batches: list[dict[tuple[str, date], Decimal]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bars")
    expected: dict[tuple[str, date], Decimal] = {}
    for batch in batches:
        added = write_bars(folder, [bar(symbol, day, str(close)) for (symbol, day), close in batch.items()])
        assert added == len(batch.keys() - expected.keys())
        expected = batch | expected
    read: dict[tuple[str, date], Decimal] = {}
    for file in folder.iterdir():
        read |= closes_in(file, 1000)
    assert read == expected
