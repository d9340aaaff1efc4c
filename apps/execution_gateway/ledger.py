"""The ledger: fills recorded once and never changed, and the book of positions folded from them.

Every question goes to the database, a cheap one at least: while it cannot be read there is no book, never an empty one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from apps.execution_gateway.adjustment_ledger import AdjustmentLedger, RecordedAdjustment
from apps.execution_gateway.cash_store import CashStore
from apps.execution_gateway.column_room import has_room_for_fill_id
from apps.execution_gateway.database import CALL_TIMEOUT_S, DatabaseUnavailableError
from apps.execution_gateway.fill_batch import Comparison, compare_fills
from apps.execution_gateway.ledger_access import LOAD_ROWS, ROWS_AT_ONCE, LedgerAccess
from apps.execution_gateway.ledger_book import LedgerBook, fill_of
from apps.execution_gateway.mirror_state import MirrorStateStore
from apps.execution_gateway.page_cursor import decode_cursor, encode_cursor, older_than
from apps.execution_gateway.tables import FILL_VOIDS, FILLS, IS_VOID_OF_FILL
from libs.market_data.symbols import spellings
from libs.portfolio.adjustments import Adjustment
from libs.portfolio.book import Book
from libs.portfolio.entries import Entry
from libs.portfolio.fills import Fill

DEFAULT_ACCOUNT: Final = "default"


class Recorded(StrEnum):
    """Whether recording changed anything."""

    CREATED = "created"
    REPEATED = "repeated"


class FillConflictError(Exception):
    """The id is taken by a fill of other content. `fields` names what differs, `recorded` is what stands."""

    def __init__(self, recorded: Fill, differing: Sequence[str]) -> None:
        self.recorded = recorded
        self.fields = tuple(differing)
        super().__init__(f"fill {recorded.fill_id!r} is already recorded with another {', '.join(self.fields)}")


class FillNotFoundError(LookupError):
    """No fill has this id."""

    def __init__(self, fill_id: str) -> None:
        self.fill_id = fill_id
        super().__init__(f"no fill {fill_id!r} is recorded")


class MirroredAccountError(Exception):
    """Nobody but the account itself writes a mirrored ledger."""

    def __init__(self) -> None:
        super().__init__(
            "the positions mirror the Alpaca account (POSITION_SOURCE=alpaca): fills and adjustments come from there; "
            "to keep a ledger of your own, set POSITION_SOURCE=ledger"
        )


@dataclass(frozen=True, slots=True)
class RecordedFill:
    """A fill with its history: when we recorded it, and when and why it was voided (None while it counts)."""

    fill: Fill
    seq: int
    recorded_at: datetime
    voided_at: datetime | None
    void_reason: str | None


@dataclass(frozen=True, slots=True)
class FillPage:
    """Some fills, newest first, and the cursor of the next page; None on the last."""

    fills: tuple[RecordedFill, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is recorded together or not at all, and seen so.

    `void_fills` and `void_adjustments` are ids and reasons: what is void already, or was never recorded, is left out.
    `plain` are ids of adjustments that follow what the broker changes of them: see `AdjustmentLedger.follow`.
    """

    fills: Sequence[Fill] = ()
    void_fills: Mapping[str, str] = field(default_factory=dict)
    adjustments: Sequence[Adjustment] = ()
    void_adjustments: Mapping[str, str] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Novelties:
    """What of some changes was new, and is recorded now."""

    fills: tuple[Fill, ...]
    void_fills: tuple[RecordedFill, ...]
    adjustments: tuple[Adjustment, ...]
    void_adjustments: tuple[RecordedAdjustment, ...]

    @property
    def symbols(self) -> set[str]:
        """Every symbol that it touches."""
        entries: list[Entry] = [*self.fills, *self.adjustments]
        entries += [one.fill for one in self.void_fills]
        entries += [one.adjustment for one in self.void_adjustments]
        return {symbol for entry in entries for symbol in entry.symbols}


Explained = Callable[[Sequence[Fill], Sequence[Adjustment], Sequence[RecordedAdjustment]], Iterable[str]]

SECONDS_PER_FILL: Final = 0.003
"""What each fill of a list adds to the time that its recording may take: many times what it needs."""


def _now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """One account's fills in the database behind `engine`.

    Every method raises DatabaseUnavailableError when the database cannot be used within its time. Those that list or
    compare fills raise OverloadedError when too many wait for that.
    """

    def __init__(self, engine: AsyncEngine, account: str = DEFAULT_ACCOUNT, now: Callable[[], datetime] = _now) -> None:
        self._access = LedgerAccess(engine)
        self.mirror_state = MirrorStateStore(self._access, account)
        self.account = account
        self._now = now
        self.adjustments = AdjustmentLedger(self._access, account, now)
        self.cash = CashStore(self._access, account, now)
        self._book = LedgerBook(self._access, account, self.adjustments)

    @property
    def refused(self) -> int:
        """How many readers were turned away because too many were waiting."""
        return self._access.readers.refused

    async def record_fill(self, fill: Fill) -> Recorded:
        """Record `fill` once. The same id with the same content changes nothing, void or not.

        Raises FillConflictError when the id is taken by other content.
        """
        compared = await self.record_fills([fill])
        for conflict in compared.conflicts:
            raise FillConflictError(conflict.stands, conflict.fields)
        return Recorded.CREATED if compared.new else Recorded.REPEATED

    async def record_fills(self, fills: Sequence[Fill]) -> Comparison:
        """Record, in one transaction, all fills that are new; with any conflict, none. Return what was found.

        They arrive in the order of the list.
        """
        timeout_s = _time_for(fills)
        try:
            async with self._access.writing(timeout_s) as connection:
                compared = await self._compared(connection, fills)
                if not compared.conflicts:
                    await self._insert(connection, compared.new)
        except IntegrityError as error:
            # Nobody writes between our look and our writing: it cannot be a repeated id.
            raise DatabaseUnavailableError("the ledger's database refused a valid fill") from error
        return compared

    async def record_changes(self, changes: Changes, explained: Explained) -> Novelties:
        """Record in one transaction what is new of `changes`, and return that.

        Of an id that is taken the first stands, whatever it says: a broker's stream and its REST write times
        differently. `explained` names adjustments that are void from now on because of what is new: it is given the
        new fills and adjustments, and the adjustments that count and were recorded after the earliest of those.
        """
        async with self._access.writing(_time_for(changes.fills)) as connection:
            known = await self._recorded_among(connection, [fill.fill_id for fill in changes.fills])
            fills = {fill.fill_id: fill for fill in changes.fills if fill.fill_id not in known}
            await self._insert(connection, tuple(fills.values()))
            void_fills = await self._void_recorded(connection, changes.void_fills)
            adjustments = await self.adjustments.insert_unknown(connection, changes.adjustments)
            plain = [one for one in changes.adjustments if one.adjustment_id in changes.plain]
            followed, outdated = await self.adjustments.follow(connection, plain)
            adjustments += followed
            voids = await self.adjustments.with_versions(connection, changes.void_adjustments)
            counting = [fill for fill in fills.values() if fill.fill_id not in changes.void_fills]
            if counting or adjustments:
                since = min([fill.filled_at for fill in counting] + [one.effective_at for one in adjustments])
                standing = await self.adjustments.standing(connection, since)
                voids |= dict.fromkeys(explained(counting, adjustments, standing), "explained")
            void_adjustments = outdated + await self.adjustments.void_recorded(connection, voids)
        return Novelties(tuple(fills.values()), void_fills, adjustments, void_adjustments)

    async def _void_recorded(self, connection: AsyncConnection, voids: Mapping[str, str]) -> tuple[RecordedFill, ...]:
        found = await self._recorded_among(connection, list(voids))
        standing = [one for one in found.values() if one.voided_at is None]
        now = self._now()
        new = tuple(replace(one, voided_at=now, void_reason=voids[one.fill.fill_id]) for one in standing)
        rows = [
            {"account": self.account, "fill_id": one.fill.fill_id, "reason": one.void_reason, "voided_at": now}
            for one in new
        ]
        if rows:
            await connection.execute(FILL_VOIDS.insert(), rows)
        return new

    async def compare_fills(self, fills: Sequence[Fill]) -> Comparison:
        """Return what `record_fills` would find now. Changes nothing."""
        async with self._access.reading_in_line(_time_for(fills)) as connection:
            return await self._compared(connection, fills)

    async def void_fill(self, fill_id: str, reason: str) -> RecordedFill:
        """Let a fill count no longer and return it; voiding twice keeps the first reason.

        Raises FillNotFoundError.
        """
        if not has_room_for_fill_id(fill_id):
            raise FillNotFoundError(fill_id)
        async with self._access.writing() as connection:
            await self._void_recorded(connection, {fill_id: reason})
            found = await self._recorded_among(connection, [fill_id])
        if not found:
            raise FillNotFoundError(fill_id)
        return found[fill_id]

    async def list_fills(self, symbol: str | None = None, limit: int = 100, after: str | None = None) -> FillPage:
        """Return up to `limit` fills by `filled_at`, newest first, voided ones included, of one symbol or of all.

        `after` is the `next` of the page before. Raises MalformedCursorError.
        """
        query = self._recorded_fills()
        if symbol is not None:
            query = query.where(FILLS.c.symbol.in_(spellings(symbol)))
        if after is not None:
            query = query.where(older_than(decode_cursor(after), FILLS.c.filled_at, FILLS.c.seq))
        # One row more than asked for tells whether there is a next page.
        query = query.order_by(FILLS.c.filled_at.desc(), FILLS.c.seq.desc()).limit(limit + 1)
        async with self._access.reading_in_line() as connection:
            found = tuple(_recorded_fill(row) for row in await connection.execute(query))
        page = found[:limit]
        return FillPage(page, encode_cursor(page[-1].fill.filled_at, page[-1].seq) if len(found) > limit else None)

    async def fills_since(self, moment: datetime) -> list[RecordedFill]:
        """Return the fills of `moment` and after, and those recorded since then, oldest first, voided ones included."""
        found: list[RecordedFill] = []
        query = self._recorded_fills().order_by(FILLS.c.filled_at, FILLS.c.seq).limit(LOAD_ROWS)
        # A correction of an older one is recorded late.
        query = query.where(or_(FILLS.c.filled_at >= moment, FILLS.c.recorded_at >= moment))
        place: ColumnElement[bool] = FILLS.c.seq > 0
        while True:
            async with self._access.reading() as connection:
                rows = [_recorded_fill(row) for row in await connection.execute(query.where(place))]
            found += rows
            if len(rows) < LOAD_ROWS:
                return found
            place = _newer_than(rows[-1].fill.filled_at, rows[-1].seq)

    async def finish(self) -> None:
        """Wait for what is under way though nobody waits for it any more, so that the database may be closed."""
        await self._book.finish()

    async def book(self) -> Book:
        """Return every position as of now. Only what was recorded since the last call is read and folded."""
        return await self._book.now()

    async def voided_at(self, fill_id: str) -> datetime | None:
        """Return since when the fill of this id is void; None while it counts, and when there is none."""
        found = await self._find(fill_id)
        return None if found is None else found.voided_at

    async def _compared(self, connection: AsyncConnection, fills: Sequence[Fill]) -> Comparison:
        found = await self._recorded_among(connection, [fill.fill_id for fill in fills])
        voided = {fill_id: one.voided_at for fill_id, one in found.items() if one.voided_at is not None}
        recorded = {fill_id: one.fill for fill_id, one in found.items()}
        if len(fills) <= ROWS_AT_ONCE:
            return compare_fills(fills, recorded, voided)
        # Ten thousand take 50 ms, in which the event loop must serve others.
        return await asyncio.to_thread(compare_fills, fills, recorded, voided)

    async def _find(self, fill_id: str) -> RecordedFill | None:
        async with self._access.reading() as connection:
            row = (await connection.execute(self._recorded_fills().where(FILLS.c.fill_id == fill_id))).first()
            return None if row is None else _recorded_fill(row)

    async def _insert(self, connection: AsyncConnection, fills: Sequence[Fill]) -> None:
        now = self._now()
        for start in range(0, len(fills), ROWS_AT_ONCE):
            rows = [self._row(fill, now) for fill in fills[start : start + ROWS_AT_ONCE]]
            await connection.execute(FILLS.insert(), rows)

    async def _recorded_among(self, connection: AsyncConnection, fill_ids: Sequence[str]) -> dict[str, RecordedFill]:
        """Return what is recorded under these ids, voided ones included."""
        ids = list(dict.fromkeys(fill_ids))
        query = self._recorded_fills()
        found: dict[str, RecordedFill] = {}
        for start in range(0, len(ids), ROWS_AT_ONCE):
            rows = await connection.execute(query.where(FILLS.c.fill_id.in_(ids[start : start + ROWS_AT_ONCE])))
            found |= {row.fill_id: _recorded_fill(row) for row in rows}
        return found

    def _row(self, fill: Fill, recorded_at: datetime) -> dict[str, Any]:
        return {
            "account": self.account,
            "fill_id": fill.fill_id,
            "symbol": fill.symbol,
            "side": fill.side.value,
            "qty": fill.qty,
            "price": fill.price,
            "fee": fill.fee,
            "filled_at": fill.filled_at,
            "recorded_at": recorded_at,
        }

    def _recorded_fills(self) -> Select[Any]:
        columns = select(FILLS, FILL_VOIDS.c.voided_at, FILL_VOIDS.c.reason)
        return columns.outerjoin_from(FILLS, FILL_VOIDS, IS_VOID_OF_FILL).where(FILLS.c.account == self.account)


def _time_for(fills: Sequence[Fill]) -> float:
    return CALL_TIMEOUT_S + len(fills) * SECONDS_PER_FILL


def _recorded_fill(row: Row[Any]) -> RecordedFill:
    return RecordedFill(fill_of(row), row.seq, row.recorded_at, row.voided_at, row.reason)


def _newer_than(filled_at: datetime, seq: int) -> ColumnElement[bool]:
    return or_(FILLS.c.filled_at > filled_at, and_(FILLS.c.filled_at == filled_at, FILLS.c.seq > seq))
