"""Daily bars in Parquet files: what a file must hold to be believed, and how bars are added to it.

The only importer of polars here, inside the functions: they block, so event loops call them in a thread.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from libs.market_data.daily_bars_rest import DailyBar

if TYPE_CHECKING:
    import polars as pl

SUFFIX: Final = ".parquet"
_MOST_NAMES: Final = 99


class BarsFileError(Exception):
    """A file of bars cannot be used. The text names it and why; asking again does not help until it changes."""

    def __init__(self, file: Path, reason: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(f"{file}: {reason}")


@dataclass(frozen=True, slots=True)
class FileCloses:
    """The closing prices of one file's latest sessions, and how many rows were no price."""

    closes: dict[tuple[str, date], Decimal]
    rejected: int


def bar_files(path: Path) -> list[Path]:
    """Return the Parquet files that `path` stands for: itself, or those directly in the folder, by name.

    Raises BarsFileError when there is nothing there.
    """
    try:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix == SUFFIX and not file.name.startswith("."))
        else:
            files = [path] if path.exists() else []
    except OSError as error:
        raise BarsFileError(path, f"cannot be read: {error.strerror}") from error
    if not files:
        reason = f"the folder holds no *{SUFFIX} file" if path.is_dir() else "does not exist"
        raise BarsFileError(path, f"{reason}; python -m scripts.fetch_daily_bars fills it")
    return files


def read_closes(file: Path, sessions: int) -> FileCloses:
    """Return the closes of the latest `sessions` dates in `file`. Raises BarsFileError."""
    import polars as pl

    with _faults_named(file):
        _check_columns(file, pl.read_parquet_schema(file))
        bars = pl.scan_parquet(file)
        latest = (
            bars.select(pl.col("date").drop_nulls().unique()).collect()["date"].sort(descending=True).head(sessions)
        )
        rows = bars.filter(pl.col("date").is_in(latest.implode())).select("symbol", "date", "close").collect().rows()
    closes: dict[tuple[str, date], Decimal] = {}
    rejected = 0
    for symbol, session, close in rows:
        price = _price(close)
        if symbol and price is not None:
            closes[symbol, session] = price
        else:
            rejected += 1
    return FileCloses(closes, rejected)


def stored_bars(path: Path, sessions: Iterable[date]) -> set[tuple[str, date]]:
    """Return which (symbol, session) pairs of `sessions` the readable files at `path` hold with a usable close.

    Raises BarsFileError when `path` is a single file that is there and cannot be read.
    """
    wanted = set(sessions)
    try:
        files = bar_files(path)
    except BarsFileError:
        return set()
    held: set[tuple[str, date]] = set()
    for file in files:
        try:
            held |= _usable_keys(file, wanted)
        except BarsFileError:
            if file == path:
                raise
    return held


def write_bars(path: Path, bars: Sequence[DailyBar]) -> int:
    """Add those of `bars` that `path` does not hold yet; return how many. Files change as a whole or not at all.

    A path ending in `.parquet` is one file; any other is a folder with one file per month. Raises BarsFileError.
    """
    held = stored_bars(path, {bar.date for bar in bars})
    missing = {(bar.symbol, bar.date): bar for bar in bars if (bar.symbol, bar.date) not in held}
    if not missing:
        return 0
    for target, its_bars in _by_target(path, list(missing.values())).items():
        _append(target, its_bars)
    return len(missing)


def _by_target(path: Path, bars: Sequence[DailyBar]) -> dict[Path, list[DailyBar]]:
    """Say which file each bar goes to."""
    if path.suffix == SUFFIX and not path.is_dir():
        return {path: list(bars)}
    by_month: defaultdict[str, list[DailyBar]] = defaultdict(list)
    for bar in bars:
        by_month[f"{bar.date:%Y-%m}"].append(bar)
    return {_usable_target(path, month): its_bars for month, its_bars in by_month.items()}


def _usable_target(folder: Path, month: str) -> Path:
    """Return the month's file; when somebody's unreadable file has its name, the next name: nothing is overwritten."""
    for number in range(1, _MOST_NAMES + 1):
        target = folder / (f"daily-{month}{SUFFIX}" if number == 1 else f"daily-{month}-{number}{SUFFIX}")
        if not target.exists():
            return target
        try:
            _usable_keys(target, set())
        except BarsFileError:
            continue
        return target
    raise BarsFileError(folder, f"holds too many unreadable files of {month}; move them away")


def _append(target: Path, bars: Sequence[DailyBar]) -> None:
    import polars as pl

    with _faults_named(target):
        frame = _frame(bars)
        if target.exists():
            there = pl.read_parquet(target)
            _check_columns(target, there.schema)
            # A file of decimals stays one; columns that only it has stay, empty for the new rows.
            frame = frame.cast({name: kind for name, kind in there.schema.items() if name in frame.columns})
            keys = frame.select("symbol", "date")
            frame = pl.concat([there.join(keys, on=["symbol", "date"], how="anti"), frame], how="diagonal")
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, frame.sort("date", "symbol"))


def _replace(target: Path, frame: "pl.DataFrame") -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            frame.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _frame(bars: Sequence[DailyBar]) -> "pl.DataFrame":
    import polars as pl

    columns = {
        "symbol": [bar.symbol for bar in bars],
        "date": [bar.date for bar in bars],
        "open": [float(bar.open) for bar in bars],
        "high": [float(bar.high) for bar in bars],
        "low": [float(bar.low) for bar in bars],
        "close": [float(bar.close) for bar in bars],
        "volume": [bar.volume for bar in bars],
    }
    prices = dict.fromkeys(("open", "high", "low", "close"), pl.Float64)
    return pl.DataFrame(columns, schema={"symbol": pl.String, "date": pl.Date, **prices, "volume": pl.Int64})


def _usable_keys(file: Path, sessions: set[date]) -> set[tuple[str, date]]:
    import polars as pl

    with _faults_named(file):
        _check_columns(file, pl.read_parquet_schema(file))
        bars = pl.scan_parquet(file).filter(pl.col("date").is_in(sorted(sessions)))
        rows = bars.select("symbol", "date", "close").collect().rows()
    return {(symbol, session) for symbol, session, close in rows if _price(close) is not None}


def _check_columns(file: Path, schema: Mapping[str, "pl.DataType"]) -> None:
    import polars as pl

    expected = {"symbol": (pl.String,), "date": (pl.Date,), "close": (pl.Float64, pl.Decimal)}
    for name, kinds in expected.items():
        if name not in schema:
            raise BarsFileError(file, f"has no column {name!r}")
        if not isinstance(schema[name], kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise BarsFileError(file, f"column {name!r} is {schema[name]}, expected {wanted}")


def _price(close: float | Decimal | None) -> Decimal | None:
    """Return a close as it was written (a float stands for its shortest text), None when it is none."""
    if close is None:
        return None
    price = Decimal(repr(close)) if isinstance(close, float) else close
    return price if price.is_finite() and price > 0 else None


@contextmanager
def _faults_named(file: Path) -> Iterator[None]:
    """Turn what polars and the disk say into a BarsFileError that names the file."""
    import polars as pl

    try:
        yield
    except OSError as error:
        raise BarsFileError(file, f"cannot be read or written: {error.strerror or error}") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise BarsFileError(file, f"is no usable Parquet file ({first_line})") from error
