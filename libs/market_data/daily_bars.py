"""The official closing prices we have: read from the daily bars on disk, kept in memory, read again when they change.

Decides what survives a broken file (everything but that file, and what it held before it broke). Which session's
close is the right one is the calendar's business (`market_hours.py`), the file format that of `daily_bars_parquet.py`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final, Self

import structlog

from libs.market_data.daily_bars_parquet import BarsFileError, FileCloses, bar_files, read_closes
from libs.market_data.freshness import ClosingPrice

SESSIONS_IN_MEMORY: Final = 10
"""P&L asks for the last completed session and the one before; the rest is for days without a fetch."""

LOOK_EVERY_S: Final = 5.0

log = structlog.get_logger(__name__)

Fingerprint = tuple[int, int, int]
"""What changes when a file does: its inode, its modification time in ns, its size."""


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """What one file held when it was last readable, and what it looked like when last tried."""

    fingerprint: Fingerprint | None
    held: FileCloses
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ClosingPrices:
    """An immutable snapshot of the closes on disk. `problems` says, one line each, what could not be used."""

    problems: tuple[str, ...] = ()
    closes: Mapping[tuple[str, date], Decimal] = field(default_factory=dict, repr=False)
    files: Mapping[Path, LoadedFile] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path, before: "ClosingPrices | None" = None) -> Self:
        """Read what is at `path`; of `before`, keep unchanged files, and what a now unreadable one held.

        Blocks; never raises for what is on disk: a fault is a line in `problems`.
        """
        known = before.files if before is not None else {}
        try:
            paths = bar_files(path)
        except BarsFileError as error:
            # Nothing there any more: an unmounted disk or a folder being moved. The closes stay true.
            return cls._of(known, (str(error),))
        return cls._of({file: _load_file(file, known.get(file)) for file in paths})

    @classmethod
    def _of(cls, files: Mapping[Path, LoadedFile], problems: tuple[str, ...] = ()) -> Self:
        dates = {session for file in files.values() for _, session in file.held.closes}
        latest = set(sorted(dates, reverse=True)[:SESSIONS_IN_MEMORY])
        closes = {key: close for file in files.values() for key, close in file.held.closes.items() if key[1] in latest}
        said = (*problems, *(file.problem for file in files.values() if file.problem is not None))
        return cls(said, closes, files)

    def close(self, symbol: str, session: date) -> ClosingPrice | None:
        """Return the close of `symbol` in `session`, None when it is not on disk."""
        price = self.closes.get((symbol, session))
        return None if price is None else ClosingPrice(price, session)

    @property
    def sessions(self) -> tuple[date, ...]:
        """The sessions in memory, oldest first."""
        return tuple(sorted({session for _, session in self.closes}))

    def __len__(self) -> int:
        return len(self.closes)


class DailyBarsStore:
    """Keeps a ClosingPrices current. `prices` is at hand at once; reading happens in a thread, in `refresh`.

    Until the first refresh nothing is known and nothing is a problem.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._prices = ClosingPrices()
        self._refreshing = asyncio.Lock()

    @property
    def prices(self) -> ClosingPrices:
        """The newest snapshot."""
        return self._prices

    @property
    def problems(self) -> tuple[str, ...]:
        """What cannot be used, one line each."""
        return self._prices.problems

    def close(self, symbol: str, session: date) -> ClosingPrice | None:
        """Return the close of `symbol` in `session` from memory, None when it is not there."""
        return self._prices.close(symbol, session)

    async def refresh(self) -> ClosingPrices:
        """Look at the files, read those that changed, return the snapshot."""
        async with self._refreshing:
            before = self._prices
            self._prices = await asyncio.to_thread(ClosingPrices.load, self._path, before)
        if self._prices.problems != before.problems:
            log.warning("daily_bars_problems", path=str(self._path), problems=list(self._prices.problems))
        return self._prices

    async def keep_current(self, every_s: float = LOOK_EVERY_S) -> None:
        """Refresh every `every_s` seconds until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(every_s)


_NOTHING: Final = FileCloses({}, 0)


def _load_file(file: Path, known: LoadedFile | None) -> LoadedFile:
    """Read `file` unless it is as `known`. An unreadable file keeps what it held before."""
    fingerprint = _fingerprint(file)
    if known is not None and known.fingerprint == fingerprint:
        return known
    try:
        held = read_closes(file, SESSIONS_IN_MEMORY)
    except BarsFileError as error:
        before = known.held if known is not None else _NOTHING
        return LoadedFile(fingerprint, before, f"skipped {error}")
    problem = f"{file}: {held.rejected} rows have no symbol or no positive close" if held.rejected else None
    return LoadedFile(fingerprint, held, problem)


def _fingerprint(file: Path) -> Fingerprint | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
