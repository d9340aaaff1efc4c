"""Daily bars in Parquet files: what a file must hold to be believed, and how bars are added to it.

The only importer of polars here, inside the functions: they block, so event loops call them in a thread.
"""

import fcntl
import glob
import os
import time as clock
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.symbols import normal_symbol
from libs.market_data.trading_sessions import NEW_YORK

if TYPE_CHECKING:
    import polars as pl

SUFFIX: Final = ".parquet"
_MOST_NAMES: Final = 99
_PATIENCE_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.05
_REGULAR_CLOSE: Final = time(16)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class BarsFileError(Exception):
    """A file of bars cannot be used. The text names it and why; asking again does not help until it changes."""

    def __init__(self, file: Path, reason: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(f"{file}: {reason}")


@dataclass(frozen=True, slots=True)
class FileCloses:
    """The closing prices in one file's latest sessions, row by row, and how many rows were no price."""

    rows: tuple[tuple[tuple[str, date], Decimal], ...]
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


def read_closes(file: Path, sessions: int, since: date | None = None) -> FileCloses:
    """Return the closes in `file` from the date `since` on, or of its latest `sessions` dates, by normal symbol.

    Raises BarsFileError.
    """
    import polars as pl

    with _faults_named(file):
        _check_columns(file, pl.read_parquet_schema(file))
        bars = pl.scan_parquet(file)
        if since is None:
            dates = bars.select(pl.col("date").drop_nulls().unique()).collect()["date"]
            since = min(dates.sort(descending=True).head(sessions).to_list(), default=date.max)
        found = bars.filter(pl.col("date") >= since).select("symbol", "date", "close").collect().rows()
    closes = [((normal_symbol(symbol or ""), session), _price(close)) for symbol, session, close in found]
    rows = tuple((key, price) for key, price in closes if key[0] and price is not None)
    return FileCloses(rows, len(closes) - len(rows))


def stored_bars(path: Path, closes_at: Mapping[date, datetime]) -> set[tuple[str, date]]:
    """Return which (symbol, session) pairs the readable files at `path` hold with a usable close.

    `closes_at` has the sessions that are looked for and when each was over (aware): what was written before is none.
    Raises BarsFileError when `path` is a single file that is there and cannot be read.
    """
    return {key for key, _ in _readable_rows(path, closes_at)}


def stored_closes(path: Path, closes_at: Mapping[date, datetime]) -> dict[tuple[str, date], frozenset[Decimal]]:
    """Return the same pairs with their closes, USD per share: more than one where rows contradict each other.

    Raises BarsFileError as `stored_bars` does.
    """
    found: defaultdict[tuple[str, date], set[Decimal]] = defaultdict(set)
    for key, close in _readable_rows(path, closes_at):
        found[key].add(close)
    return {key: frozenset(closes) for key, closes in found.items()}


def write_bars(path: Path, bars: Sequence[DailyBar], closes_at: Mapping[date, datetime] | None = None) -> int:
    """Add those of `bars` that `path` does not hold yet; return how many. Files change as a whole or not at all.

    A path ending in `.parquet` is one file; any other is a folder with one file per month. With `closes_at`, a stored
    row that was written before its session was over does not count, and gives way. Raises BarsFileError.
    """
    if not bars:
        return 0
    over = dict.fromkeys((bar.date for bar in bars), _LONG_AGO) | dict(closes_at or {})
    with _only_writer(path):
        held = stored_bars(path, {day: over[day] for day in {bar.date for bar in bars}})
        missing = {(bar.symbol, bar.date): bar for bar in bars if (bar.symbol, bar.date) not in held}
        if missing:
            for target, its_bars in _by_target(path, list(missing.values())).items():
                _put(target, its_bars, over)
    return len(missing)


def replace_bars(path: Path, bars: Sequence[DailyBar]) -> int:
    """Put each of `bars` in the place of every row of its symbol and date, in whichever file; return in how many files.

    A pair that no file holds is not added. Raises BarsFileError.
    """
    over = dict.fromkeys((bar.date for bar in bars), _LONG_AGO)
    changed = 0
    with _only_writer(path):
        for file in bar_files(path):
            try:
                held = {key for key, _ in _stored_rows(file, over)}
            except BarsFileError:
                continue
            its_bars = [bar for bar in bars if (bar.symbol, bar.date) in held]
            if its_bars:
                _put(file, its_bars, {})
                changed += 1
    return changed


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
            _stored_rows(target, {})
        except BarsFileError:
            continue
        return target
    raise BarsFileError(folder, f"holds too many unreadable files of {month}; move them away")


def _put(target: Path, bars: Sequence[DailyBar], closes_at: Mapping[date, datetime]) -> None:
    """Write `bars` into a file, in place of its rows of the same symbol and date, if any."""
    import polars as pl

    with _faults_named(target):
        frame = _frame(bars)
        if target.exists():
            there = pl.read_parquet(target)
            _check_columns(target, there.schema)
            # Writing makes the file younger: rows that came before their session was over must not seem official then.
            written_at = _written_at(target)
            days = there["date"].drop_nulls().unique()
            too_early = [day for day in days if closes_at.get(day, _usual_close(day)) > written_at]
            kept = there.filter(~pl.col("date").is_in(too_early) | pl.col("date").is_null()) if too_early else there
            # A file of decimals stays one; columns that only it has stay, empty for the new rows.
            kinds = _fitting(frame, there.schema)
            frame, kept = frame.cast(kinds), kept.cast(kinds)
            keys = frame.select("symbol", "date")
            frame = pl.concat([kept.join(keys, on=["symbol", "date"], how="anti"), frame], how="diagonal")
        _replace(target, frame.sort("date", "symbol"))


def _usual_close(day: date) -> datetime:
    """Return when a session of `day` is over at the latest, for those of which the caller knows nothing."""
    return datetime.combine(day, _REGULAR_CLOSE, NEW_YORK)


def _fitting(frame: "pl.DataFrame", there: "pl.Schema") -> "pl.Schema":
    """Return the file's kinds for the columns of `frame`; its decimals get nine places where it has too few of them."""
    import polars as pl

    kinds = pl.Schema({name: kind for name, kind in there.items() if name in frame.columns})
    if frame.cast(kinds).cast(frame.schema).equals(frame):
        return kinds
    wide = pl.Decimal(38, 9)
    return pl.Schema({name: wide if isinstance(kind, pl.Decimal) else kind for name, kind in kinds.items()})


def _replace(target: Path, frame: "pl.DataFrame") -> None:
    # What a killed writer left; nobody else is at work here.
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        leftover.unlink(missing_ok=True)
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


def _readable_rows(path: Path, closes_at: Mapping[date, datetime]) -> Iterator[tuple[tuple[str, date], Decimal]]:
    """Yield the stored rows of all files that can be read. Raises BarsFileError for a single file that cannot."""
    try:
        files = bar_files(path)
    except BarsFileError:
        return
    for file in files:
        try:
            yield from _stored_rows(file, closes_at)
        except BarsFileError:
            if file == path:
                raise


def _stored_rows(file: Path, closes_at: Mapping[date, datetime]) -> list[tuple[tuple[str, date], Decimal]]:
    """Return the usable rows of the sessions that were over when the file was written. Raises BarsFileError."""
    import polars as pl

    with _faults_named(file):
        _check_columns(file, pl.read_parquet_schema(file))
        written_at = _written_at(file)
        over = sorted(day for day, closes in closes_at.items() if closes <= written_at)
        if not over:
            return []
        # Only the range is looked up while scanning: with a list of dates polars takes thirty times as long.
        near = pl.scan_parquet(file).filter(pl.col("date").is_between(over[0], over[-1]))
        rows = near.select("symbol", "date", "close").collect().filter(pl.col("date").is_in(over)).rows()
    closes = [((symbol, session), _price(close)) for symbol, session, close in rows]
    return [(key, price) for key, price in closes if key[0] and price is not None]


def _written_at(file: Path) -> datetime:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except (OverflowError, ValueError):
        return datetime.max.replace(tzinfo=UTC)  # as where it is read: a time that is none proves nothing


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Let one writer at a time change the files at `path`, among all processes: each reads, adds and writes whole."""
    folder = path if path.suffix != SUFFIX or path.is_dir() else path.parent
    with _faults_named(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, path)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    """Wait for our turn. Raises BarsFileError when it does not come."""
    for _ in range(round(_PATIENCE_S / _LOOK_EVERY_S)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            clock.sleep(_LOOK_EVERY_S)
        except OSError:
            return  # some network disks cannot lock; what two writers lose there, the next run fetches again
        else:
            return
    raise BarsFileError(path, f"has been locked by another program for {_PATIENCE_S:g} s")


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
