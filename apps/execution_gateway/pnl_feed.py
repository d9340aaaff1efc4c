"""Pushes the P&L to any number of readers: whole at first, then what has changed, each reader at its own pace.

It decides what counts as a change and how often to look; the figures are the reporter's. A reader that is slow finds
the newest row of each symbol waiting, never a queue.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

import structlog

from apps.execution_gateway.bodies import encode, pnl_body, pnl_update_body
from apps.execution_gateway.database import BookUnavailableError
from apps.execution_gateway.pnl_report import RealtimePnl
from libs.portfolio.pnl import PositionPnl

MIN_INTERVAL_S: Final = 0.050
LOOK_AGAIN_S: Final = 0.400
"""Growing older is a change that no message announces: without news the book is valued again this often."""
READ_EVERY_S: Final = 2.0
"""Messages are at most once, and other programs may write a price without one: read the cache now and then."""
COMMENT_EVERY_S: Final = 3.0
"""A page that hears nothing for longer knows that its line is dead, and can say so."""
STALLED_AFTER_S: Final = 30.0
"""A reader that takes nothing for this long is let go."""
MAX_READERS: Final = 100

COMMENT: Final = b": still here\n\n"

_AGE: Final = PositionPnl._fields.index("price_age_seconds")

log = structlog.get_logger(__name__)


class TooManyReadersError(Exception):
    """As many streams are open as this process will serve. Trying later may help."""


class Reporter(Protocol):
    """Where the figures come from."""

    async def report(self) -> RealtimePnl:
        """Return the P&L as of now, ledger and cache read. Raises BookUnavailableError."""
        ...

    async def report_from_memory(self) -> RealtimePnl:
        """Return the P&L as of now from memory as far as possible. Raises BookUnavailableError."""
        ...

    def is_outdated(self, pnl: RealtimePnl) -> bool:
        """Say whether `pnl` is too old to be sent."""
        ...


@dataclass(frozen=True)
class PnlUpdate:
    """What has changed since a reader was last told, and the totals as of now."""

    pnl: RealtimePnl
    changed: Mapping[str, PositionPnl]
    removed: frozenset[str]

    def after(self, earlier: "PnlUpdate | None") -> "PnlUpdate":
        """Return one update that says what `earlier` and this one say together."""
        if earlier is None:
            return self
        kept = {symbol: row for symbol, row in earlier.changed.items() if symbol not in self.removed}
        return PnlUpdate(self.pnl, {**kept, **self.changed}, (earlier.removed - self.changed.keys()) | self.removed)

    @cached_property
    def event(self) -> bytes:
        """The event as it goes over the wire; readers that keep up share it."""
        return server_sent_event("update", pnl_update_body(self.pnl, self.changed.values(), self.removed))


def server_sent_event(name: str, body: bytes) -> bytes:
    """Return one server-sent event; `body` is JSON on one line."""
    return b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"


async def _at_once() -> None:
    """Wait for nothing."""


class PnlReader:
    """One open stream: what it still has to be told, newest per symbol.

    `catch_up` is awaited before each event: it returns when what there is to tell is of now.
    """

    def __init__(self, first: RealtimePnl, catch_up: Callable[[], Awaitable[None]] = _at_once) -> None:
        self._first = first
        self._catch_up = catch_up
        self._update: PnlUpdate | None = None
        self._problem: bytes | None = None
        self._has_news = asyncio.Event()
        self._is_closed = False
        self._send_limit: asyncio.Timeout | None = None

    def tell(self, update: PnlUpdate) -> None:
        """Add to what waits for this reader; a problem not yet told is over."""
        self._update = update.after(self._update)
        self._problem = None
        self._has_news.set()

    def tell_problem(self, event: bytes) -> None:
        """Say that figures cannot be had for now."""
        self._problem = event
        self._has_news.set()

    def close(self) -> None:
        """End the stream, also while its reader takes nothing."""
        self._is_closed = True
        self._has_news.set()
        if self._send_limit is not None:
            self._send_limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Bound one write. Raises TimeoutError when the reader takes nothing for too long, or on `close`."""
        async with asyncio.timeout(STALLED_AFTER_S) as limit:
            self._send_limit = limit
            try:
                yield
            finally:
                self._send_limit = None

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the stream's bytes until `close`: a snapshot, updates as they come, comments."""
        clock = asyncio.get_running_loop().time
        yield server_sent_event("snapshot", pnl_body(self._first))
        sent_at = clock()
        comment_at = sent_at + COMMENT_EVERY_S
        while not self._is_closed:
            if clock() >= comment_at:
                yield COMMENT
                comment_at = clock() + COMMENT_EVERY_S
            if not await self._news_before(comment_at):
                continue
            if (pause_s := sent_at + MIN_INTERVAL_S - clock()) > 0:
                await asyncio.sleep(pause_s)
            await self._catch_up()
            if (event := self._take()) is not None:
                yield event
                sent_at = clock()

    async def _news_before(self, deadline_s: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._has_news.wait()
        except TimeoutError:
            return False
        return not self._is_closed

    def _take(self) -> bytes | None:
        self._has_news.clear()
        update, self._update = self._update, None
        if update is None:
            event, self._problem = self._problem, None
            return event
        if self._problem is not None:
            self._has_news.set()  # it came after the update, and goes after it
        return update.event


@dataclass(slots=True)
class _Told:
    """What all readers have been told or will be: the base of the next comparison."""

    figures: dict[str, tuple[object, ...]] = field(default_factory=dict)
    rest: tuple[object, ...] | None = None
    pnl: RealtimePnl | None = None
    at_s: float = 0.0


class PnlFeed:
    """Value the book when something changes, and tell every reader. Idle while nobody reads.

    `run` does the work until cancelled; `close` ends all streams, and no new one is opened.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._readers: set[PnlReader] = set()
        self._told = _Told()
        self._lock = asyncio.Lock()
        self._has_news = asyncio.Event()
        self._has_readers = asyncio.Event()
        self._read_at_s = 0.0
        self._wants_reads = False
        self._has_problem = False
        self._is_closed = False
        self._has_looked = asyncio.Event()
        self.updates = 0

    @property
    def readers(self) -> int:
        """How many streams are open."""
        return len(self._readers)

    def price_changed(self, symbol: str) -> None:
        """Look again if `symbol` is among the positions."""
        if symbol in self._told.figures:
            self._has_news.set()

    def feed_changed(self) -> None:
        """Look again: the feed's state or many prices are new."""
        self._has_news.set()

    def positions_changed(self) -> None:
        """Look again, into the cache as well: a symbol may be new to us."""
        self._wants_reads = True
        self._has_news.set()

    @contextmanager
    def reading(self, reader: PnlReader) -> Iterator[None]:
        """Forget `reader` at the end, however its stream ends."""
        try:
            yield
        finally:
            self._readers.discard(reader)
            if not self._readers:
                self._has_readers.clear()

    async def join(self) -> PnlReader:
        """Open a stream. Its snapshot and the updates that follow leave no gap.

        Raises TooManyReadersError, and BookUnavailableError.
        """
        self._check_room()
        async with self._lock:
            pnl = self._told.pnl
            # Readers who come together share a snapshot: one just told is as good as a new one.
            if pnl is None or not self._readers or self._now_s() - self._told.at_s > MIN_INTERVAL_S:
                pnl = await self._look(reads=True)
            self._check_room()  # the wait may have been long
            reader = PnlReader(pnl, self._catch_up)
            self._readers.add(reader)
            self._has_readers.set()
        return reader

    def close(self) -> None:
        """End every stream now: the server waits for them before it stops."""
        self._is_closed = True
        self._has_looked.set()
        for reader in self._readers:
            reader.close()

    async def run(self) -> None:
        """Look whenever there is news, and often enough to see rows turn stale; for ever."""
        while True:
            await self._has_readers.wait()
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._has_news.wait()
            except TimeoutError:
                pass
            self._has_news.clear()
            began_s = self._now_s()
            async with self._lock:
                await self._look_and_tell()
            # At most half of the time is spent on figures, however many positions there are.
            spent_s = self._now_s() - began_s
            await asyncio.sleep(max(MIN_INTERVAL_S - spent_s, spent_s))

    def _check_room(self) -> None:
        if self._is_closed or len(self._readers) >= MAX_READERS:
            raise TooManyReadersError

    async def _look_and_tell(self) -> None:
        reads = self._wants_reads or self._now_s() - self._read_at_s >= READ_EVERY_S
        try:
            await self._look(reads=reads)
        except BookUnavailableError as error:
            if not self._has_problem:
                log.warning("pnl_stream_interrupted", reason=str(error), readers=self.readers)
                self._tell_problem()
            self._has_problem = True
        self._has_looked.set()

    async def _catch_up(self) -> None:
        """Return at once; but when this process has slept since the last look, after the next one."""
        told = self._told.pnl
        if told is not None and self._reporter.is_outdated(told) and not self._is_closed:
            self._has_looked.clear()
            await self._has_looked.wait()

    async def _look(self, *, reads: bool) -> RealtimePnl:
        """Value the book and tell the readers what is new. The lock is held: comparisons must not cross."""
        if reads:
            self._wants_reads = False
        pnl = await (self._reporter.report() if reads else self._reporter.report_from_memory())
        if reads:
            self._read_at_s = self._now_s()
        told = self._told
        # A row grows older all the time: that alone is no change.
        figures: dict[str, tuple[object, ...]] = {row.symbol: (row[:_AGE], row[_AGE + 1 :]) for row in pnl.report.rows}
        changed = {row.symbol: row for row in pnl.report.rows if told.figures.get(row.symbol) != figures[row.symbol]}
        removed = frozenset(told.figures.keys() - figures.keys())
        account = None if pnl.account is None else (pnl.account.health, len(pnl.account.unexplained))
        rest = (pnl.report.totals, pnl.mode, pnl.feed, pnl.market.phase, pnl.market.session, account)
        if changed or removed or rest != told.rest or self._has_problem:
            self.updates += 1
            update = PnlUpdate(pnl, changed, removed)
            for reader in self._readers:
                reader.tell(update)
        self._has_problem = False
        self._told = _Told(figures, rest, pnl, self._now_s())
        return pnl

    def _tell_problem(self) -> None:
        body = {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "The ledger is unreadable.",
        }
        for reader in self._readers:
            reader.tell_problem(server_sent_event("problem", encode(body)))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
