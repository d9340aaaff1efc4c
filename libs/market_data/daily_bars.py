"""The official closing prices we have: read from the daily bars on disk, kept in memory, read again when they change.

Decides what survives a broken file (everything but that file, and what it held before it broke). Which session's
close is the right one is the calendar's business (`market_hours.py`), which rows are believed that of
`usable_closes.py`, the file format that of `daily_bars_parquet.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final, Self

import structlog

from libs.market_data.daily_bars_parquet import BarsFileError, FileCloses, bar_files, read_closes
from libs.market_data.freshness import ClosingPrice
from libs.market_data.market_hours import MarketHours
from libs.market_data.trading_sessions import NEW_YORK
from libs.market_data.usable_closes import KnownSessions, WrittenCloses, usable_closes

SESSIONS_IN_MEMORY: Final = 10
"""P&L asks for the last completed session and the one before; the rest is for days without a fetch."""

LOOK_EVERY_S: Final = 5.0

_AHEAD: Final = timedelta(days=14)
"""How far a file may be ahead with rows of sessions to come before its dates are called wrong."""

log = structlog.get_logger(__name__)

Fingerprint = tuple[int, int, int]
"""What changes when a file does: its inode, its modification time in ns, its size."""


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """What one file held when it was last readable, and what it looked like when last tried.

    `since` is the oldest date that was asked of it, None when its latest were; `written_at` is when what is held was
    written, None when unknown.
    """

    fingerprint: Fingerprint | None
    held: FileCloses
    since: date | None = None
    written_at: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ClosingPrices:
    """An immutable snapshot of the closes on disk. `problems` says, one line each, what could not be used."""

    problems: tuple[str, ...] = ()
    closes: Mapping[tuple[str, date], Decimal] = field(default_factory=dict, repr=False)
    files: Mapping[Path, LoadedFile] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path, before: "ClosingPrices | None" = None, sessions: KnownSessions | None = None) -> Self:
        """Read what is at `path`; of `before`, keep unchanged files, and what a now unreadable one held.

        `sessions` are those whose closes are wanted; without them the latest dates in the files are, whatever they
        are. Blocks; never raises for what is on disk: a fault is a line in `problems`.
        """
        known = before.files if before is not None else {}
        try:
            paths = bar_files(path)
        except BarsFileError as error:
            # Nothing there any more: an unmounted disk or a folder being moved. The closes stay true.
            return cls._of(known, sessions, (str(error),))
        since = min(sessions.completed) if sessions is not None else None
        return cls._of({file: _load_file(file, known.get(file), since) for file in paths}, sessions)

    @classmethod
    def _of(
        cls, files: Mapping[Path, LoadedFile], sessions: KnownSessions | None, problems: tuple[str, ...] = ()
    ) -> Self:
        dates = {session for file in files.values() for (_, session), _ in file.held.rows}
        latest = dates if sessions is not None else set(sorted(dates, reverse=True)[:SESSIONS_IN_MEMORY])
        written = (
            WrittenCloses(path, [row for row in file.held.rows if row[0][1] in latest], file.written_at)
            for path, file in files.items()
        )
        usable = usable_closes(written, sessions)
        said = (*problems, *(file.problem for file in files.values() if file.problem is not None), *usable.problems)
        return cls(said, usable.closes, files)

    def close(self, symbol: str, session: date) -> ClosingPrice | None:
        """Return the close of `symbol` in `session`; None when it is not on disk, or not to be believed."""
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

    Until the first refresh nothing is known and nothing is a problem. With the calendar's `hours`, closes are those of
    sessions that are over at `now()`; without, those of the latest dates in the files, whatever they are.
    """

    def __init__(
        self,
        path: Path | str,
        hours: MarketHours | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = Path(path)
        self._hours = hours
        self._now = now
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
            self._prices = await asyncio.to_thread(self._load, before)
        if self._prices.problems != before.problems:
            log.warning("daily_bars_problems", path=str(self._path), problems=list(self._prices.problems))
        return self._prices

    async def keep_current(self, every_s: float = LOOK_EVERY_S) -> None:
        """Refresh every `every_s` seconds until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(every_s)

    def _load(self, before: ClosingPrices) -> ClosingPrices:
        sessions = None if self._hours is None else known_sessions(self._hours, self._now())
        return ClosingPrices.load(self._path, before, sessions)


def known_sessions(hours: MarketHours, now: datetime) -> KnownSessions:
    """Return the sessions whose closes matter at `now` (aware), and those that follow. May load the calendar."""
    completed = hours.last_completed(now, SESSIONS_IN_MEMORY)
    ahead = now.astimezone(NEW_YORK).date() + _AHEAD
    coming = hours.sessions_between(completed[-1].date + timedelta(days=1), ahead)
    return KnownSessions({session.date: session.closes_at for session in completed}, frozenset(coming))


_NOTHING: Final = FileCloses((), 0)


def _load_file(file: Path, known: LoadedFile | None, since: date | None) -> LoadedFile:
    """Read `file` unless it is as `known`. An unreadable file keeps what it held before."""
    fingerprint = _fingerprint(file)
    if known is not None and known.fingerprint == fingerprint and _reaches(known, since):
        return known
    try:
        held = read_closes(file, SESSIONS_IN_MEMORY, since)
    except BarsFileError as error:
        before, written_at = (known.held, known.written_at) if known is not None else (_NOTHING, None)
        return LoadedFile(fingerprint, before, since, written_at, f"skipped {error}")
    problem = f"{file}: {held.rejected} rows have no symbol or no positive close" if held.rejected else None
    return LoadedFile(fingerprint, held, since, _written_at(fingerprint), problem)


def _reaches(known: LoadedFile, since: date | None) -> bool:
    """Say whether what is held of a file begins early enough."""
    if since is None or known.since is None:
        return known.since is since
    return known.since <= since


def _written_at(fingerprint: Fingerprint | None) -> datetime | None:
    try:
        return None if fingerprint is None else datetime.fromtimestamp(fingerprint[1] / 1e9, UTC)
    except (OverflowError, ValueError, OSError):  # a disk's idea of time that is none
        return None


def _fingerprint(file: Path) -> Fingerprint | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
