"""The part of the ledger that is no fill: adjustments recorded once and never changed, and their voids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Row, Select, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.execution_gateway.column_room import has_room_for_adjustment_id
from apps.execution_gateway.ledger_access import LOAD_ROWS, ROWS_AT_ONCE, LedgerAccess
from apps.execution_gateway.page_cursor import decode_cursor, encode_cursor, older_than
from apps.execution_gateway.tables import ADJUSTMENT_VOIDS, ADJUSTMENTS, IS_VOID_OF_ADJUSTMENT
from libs.market_data.symbols import normal_symbol, spellings
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.cash import booked_cash, reclassified
from libs.portfolio.entries import Arrival
from libs.portfolio.folding import Voiding

_ACTIVITY: Final = "activity:"
_VERSION: Final = ":~"
"""What stands between the id of an adjustment and the number of a later version of it."""
_COLUMNS: Final = tuple(one.name for one in fields(Adjustment))


class AdjustmentConflictError(Exception):
    """The id is taken by an adjustment of other content. `fields` names what differs, `recorded` is what stands."""

    def __init__(self, recorded: Adjustment, differing: Sequence[str]) -> None:
        self.recorded = recorded
        self.fields = tuple(differing)
        differs = ", ".join(self.fields)
        super().__init__(f"adjustment {recorded.adjustment_id!r} is already recorded with another {differs}")


class AdjustmentNotFoundError(LookupError):
    """No adjustment has this id."""

    def __init__(self, adjustment_id: str) -> None:
        self.adjustment_id = adjustment_id
        super().__init__(f"no adjustment {adjustment_id!r} is recorded")


@dataclass(frozen=True, slots=True)
class RecordedAdjustment:
    """An adjustment with its history: when we recorded it, and when and why it was voided (None while it counts)."""

    adjustment: Adjustment
    seq: int
    recorded_at: datetime
    voided_at: datetime | None
    void_reason: str | None


@dataclass(frozen=True, slots=True)
class AdjustmentPage:
    """Some adjustments, newest first, and the cursor of the next page; None on the last."""

    adjustments: tuple[RecordedAdjustment, ...]
    next: str | None


class AdjustmentLedger:
    """One account's adjustments. Every method raises DatabaseUnavailableError."""

    def __init__(self, access: LedgerAccess, account: str, now: Callable[[], datetime]) -> None:
        self._access = access
        self._account = account
        self._now = now

    async def record(self, adjustment: Adjustment) -> bool:
        """Record `adjustment` once; return whether it is new. The same again changes nothing, void or not.

        Raises AdjustmentConflictError when the id is taken by other content.
        """
        async with self._access.writing() as connection:
            if await self.insert_unknown(connection, [adjustment]):
                return True
            recorded = await self._recorded_among(connection, [adjustment.adjustment_id])
        stands = recorded[adjustment.adjustment_id].adjustment
        differing = [name for name in _COLUMNS if getattr(stands, name) != getattr(adjustment, name)]
        if differing:
            raise AdjustmentConflictError(stands, differing)
        return False

    async def insert_unknown(
        self, connection: AsyncConnection, adjustments: Sequence[Adjustment]
    ) -> tuple[Adjustment, ...]:
        """Record, in the writing of `connection`, those whose ids are not taken, and return them."""
        known = await self._recorded_among(connection, [one.adjustment_id for one in adjustments])
        new = {one.adjustment_id: one for one in adjustments if one.adjustment_id not in known}
        if new:
            await connection.execute(ADJUSTMENTS.insert(), [self._row(one) for one in new.values()])
        return tuple(new.values())

    async def void_recorded(
        self, connection: AsyncConnection, voids: Mapping[str, str]
    ) -> tuple[RecordedAdjustment, ...]:
        """Void, in the writing of `connection`, those that count, and return them; `voids` are ids and reasons."""
        found = await self._recorded_among(connection, list(voids))
        standing = [one for one in found.values() if one.voided_at is None]
        now = self._now()
        new = tuple(replace(one, voided_at=now, void_reason=voids[one.adjustment.adjustment_id]) for one in standing)
        rows = [
            {
                "account": self._account,
                "adjustment_id": one.adjustment.adjustment_id,
                "reason": one.void_reason,
                "voided_at": now,
            }
            for one in new
        ]
        if rows:
            await connection.execute(ADJUSTMENT_VOIDS.insert(), rows)
        return new

    async def follow(
        self, connection: AsyncConnection, plain: Sequence[Adjustment]
    ) -> tuple[tuple[Adjustment, ...], tuple[RecordedAdjustment, ...]]:
        """Record anew, in the writing of `connection`, what the broker has changed of cash or shares.

        Under the id of a version: of one activity the newest version counts. What somebody has classified keeps its
        kind. Returns what is new, and what counts no longer.
        """
        known = await self._recorded_among(connection, [one.adjustment_id for one in plain])
        new: list[Adjustment] = []
        outdated: tuple[RecordedAdjustment, ...] = ()
        for told in plain:
            wanted, first = told, known[told.adjustment_id]
            if first.voided_at is None and _booked(first.adjustment) == _booked(wanted):
                continue
            versions = await self._versions(connection, wanted.adjustment_id)
            stands = next((one for one in versions if one.voided_at is None), None)
            is_alike = stands is not None and _booked(stands.adjustment) == _booked(wanted)
            if is_alike or not has_room_for_adjustment_id(f"{wanted.adjustment_id}{_VERSION}{len(versions)}"):
                continue
            if stands is not None:
                outdated += await self.void_recorded(connection, {stands.adjustment.adjustment_id: "changed"})
                if wanted.kind is AdjustmentKind.UNCLASSIFIED:
                    wanted = reclassified(wanted, stands.adjustment.kind)
            new.append(await self._insert_version(connection, wanted, len(versions)))
        return tuple(new), outdated

    async def with_versions(self, connection: AsyncConnection, voids: Mapping[str, str]) -> dict[str, str]:
        """Return ids and reasons of `voids`, and of every later version of the same."""
        found = dict(voids)
        for adjustment_id, reason in voids.items():
            versions = await self._versions(connection, adjustment_id)
            found |= {one.adjustment.adjustment_id: reason for one in versions}
        return found

    async def classify(self, activity: str, kind: AdjustmentKind) -> Adjustment:
        """Book cash that is unclassified as `kind`, and return it; the same again changes nothing.

        `activity` is the broker's id of the activity, or the adjustment's. Raises AdjustmentNotFoundError for what is
        not recorded, or is no cash that was ever unclassified.
        """
        root = activity.removeprefix(_ACTIVITY).partition(_VERSION)[0]
        if not has_room_for_adjustment_id(f"{_ACTIVITY}{root}"):
            raise AdjustmentNotFoundError(activity)
        async with self._access.writing() as connection:
            versions = await self._versions(connection, f"{_ACTIVITY}{root}")
            stands = next((one.adjustment for one in versions if one.voided_at is None), None)
            if stands is None or not any(one.adjustment.kind is AdjustmentKind.UNCLASSIFIED for one in versions):
                raise AdjustmentNotFoundError(activity)
            if stands.kind is kind:
                return stands
            await self.void_recorded(connection, {stands.adjustment_id: f"classified as {kind}"})
            return await self._insert_version(
                connection, replace(reclassified(stands, kind), adjustment_id=f"{_ACTIVITY}{root}"), len(versions)
            )

    async def _versions(self, connection: AsyncConnection, root: str) -> list[RecordedAdjustment]:
        """Return what is recorded under an id and its versions, oldest first."""
        named = ADJUSTMENTS.c.adjustment_id
        query = self._recorded().where(or_(named == root, named.startswith(root + _VERSION, autoescape=True)))
        rows = await connection.execute(query.order_by(ADJUSTMENTS.c.seq))
        return [_recorded_adjustment(row) for row in rows]

    async def _insert_version(self, connection: AsyncConnection, adjustment: Adjustment, number: int) -> Adjustment:
        version = replace(adjustment, adjustment_id=f"{adjustment.adjustment_id}{_VERSION}{number}")
        await connection.execute(ADJUSTMENTS.insert(), [self._row(version)])
        return version

    async def standing(self, connection: AsyncConnection, since: datetime) -> tuple[RecordedAdjustment, ...]:
        """Return the adjustments that count and were recorded `since` then, by effective time, newest first."""
        query = self._recorded().where(ADJUSTMENT_VOIDS.c.seq.is_(None), ADJUSTMENTS.c.recorded_at >= since)
        query = query.order_by(ADJUSTMENTS.c.effective_at.desc(), ADJUSTMENTS.c.seq.desc()).limit(LOAD_ROWS)
        return tuple(_recorded_adjustment(row) for row in await connection.execute(query))

    async def look_up(
        self, adjustments: Sequence[Adjustment]
    ) -> tuple[tuple[Adjustment, ...], tuple[RecordedAdjustment, ...]]:
        """Return which of `adjustments` were never recorded, and what counts that was recorded since they applied."""
        if not adjustments:
            return (), ()
        async with self._access.reading() as connection:
            known = await self._recorded_among(connection, [one.adjustment_id for one in adjustments])
            new = tuple(one for one in adjustments if one.adjustment_id not in known)
            if not new:
                return (), ()
            return new, await self.standing(connection, min(one.effective_at for one in new))

    async def void(self, adjustment_id: str, reason: str) -> RecordedAdjustment:
        """Let an adjustment count no longer and return it; voiding twice keeps the first reason.

        Raises AdjustmentNotFoundError.
        """
        if not has_room_for_adjustment_id(adjustment_id):
            raise AdjustmentNotFoundError(adjustment_id)
        async with self._access.writing() as connection:
            await self.void_recorded(connection, {adjustment_id: reason})
            found = await self._recorded_among(connection, [adjustment_id])
        if not found:
            raise AdjustmentNotFoundError(adjustment_id)
        return found[adjustment_id]

    async def page(self, limit: int, symbol: str | None = None, after: str | None = None) -> AdjustmentPage:
        """Return up to `limit` adjustments by effective time, newest first, voided ones included.

        `after` is the `next` of the page before. Raises MalformedCursorError.
        """
        query = self._recorded()
        if symbol is not None:
            names = spellings(symbol)
            query = query.where(ADJUSTMENTS.c.symbol.in_(names) | ADJUSTMENTS.c.new_symbol.in_(names))
        if after is not None:
            query = query.where(older_than(decode_cursor(after), ADJUSTMENTS.c.effective_at, ADJUSTMENTS.c.seq))
        # One row more than asked for tells whether there is a next page.
        query = query.order_by(ADJUSTMENTS.c.effective_at.desc(), ADJUSTMENTS.c.seq.desc()).limit(limit + 1)
        async with self._access.reading_in_line() as connection:
            found = tuple(_recorded_adjustment(row) for row in await connection.execute(query))
        page = found[:limit]
        if len(found) <= limit:
            return AdjustmentPage(page, None)
        return AdjustmentPage(page, encode_cursor(page[-1].adjustment.effective_at, page[-1].seq))

    async def after(self, seq: int, until: int) -> list[Arrival]:
        """Return what was recorded after sequence number `seq`, up to `until`."""
        query = select(ADJUSTMENTS).where(ADJUSTMENTS.c.account == self._account, ADJUSTMENTS.c.seq <= until)
        query = query.order_by(ADJUSTMENTS.c.seq).limit(LOAD_ROWS)
        arrivals: list[Arrival] = []
        while True:
            async with self._access.reading() as connection:
                rows = (await connection.execute(query.where(ADJUSTMENTS.c.seq > seq))).all()
                arrivals += [Arrival(row.seq, _adjustment(row)) for row in rows]
            if len(rows) < LOAD_ROWS:
                return arrivals
            seq = arrivals[-1].seq

    async def voids_after(self, seq: int, until: int) -> list[Voiding]:
        """Return the voids recorded after sequence number `seq`, up to `until`."""
        columns = select(
            ADJUSTMENT_VOIDS.c.seq, ADJUSTMENT_VOIDS.c.adjustment_id, ADJUSTMENTS.c.symbol, ADJUSTMENTS.c.new_symbol
        )
        query = columns.join_from(ADJUSTMENT_VOIDS, ADJUSTMENTS, IS_VOID_OF_ADJUSTMENT)
        query = query.where(ADJUSTMENT_VOIDS.c.account == self._account, ADJUSTMENT_VOIDS.c.seq <= until)
        query = query.order_by(ADJUSTMENT_VOIDS.c.seq)
        async with self._access.reading() as connection:
            rows = (await connection.execute(query.where(ADJUSTMENT_VOIDS.c.seq > seq))).all()
        return [Voiding(row.seq, row.adjustment_id, _symbols(row.symbol, row.new_symbol)[0]) for row in rows]

    async def _recorded_among(self, connection: AsyncConnection, ids: Sequence[str]) -> dict[str, RecordedAdjustment]:
        """Return what is recorded under these ids, voided ones included."""
        found: dict[str, RecordedAdjustment] = {}
        for start in range(0, len(ids), ROWS_AT_ONCE):
            chosen = self._recorded().where(ADJUSTMENTS.c.adjustment_id.in_(ids[start : start + ROWS_AT_ONCE]))
            found |= {row.adjustment_id: _recorded_adjustment(row) for row in await connection.execute(chosen)}
        return found

    def _row(self, adjustment: Adjustment) -> dict[str, Any]:
        row = {name: getattr(adjustment, name) for name in _COLUMNS}
        return row | {"kind": adjustment.kind.value, "account": self._account, "recorded_at": self._now()}

    def _recorded(self) -> Select[Any]:
        columns = select(ADJUSTMENTS, ADJUSTMENT_VOIDS.c.voided_at, ADJUSTMENT_VOIDS.c.reason.label("void_reason"))
        joined = columns.outerjoin_from(ADJUSTMENTS, ADJUSTMENT_VOIDS, IS_VOID_OF_ADJUSTMENT)
        return joined.where(ADJUSTMENTS.c.account == self._account)


def _adjustment(row: Row[Any]) -> Adjustment:
    named = row._mapping  # noqa: SLF001 - SQLAlchemy's public way to read a row by name
    symbol, new_symbol = _symbols(named["symbol"], named["new_symbol"])
    read = {"kind": AdjustmentKind(named["kind"]), "symbol": symbol, "new_symbol": new_symbol}
    return Adjustment(**{name: named[name] for name in _COLUMNS} | read)


def _symbols(symbol: str, new_symbol: str | None) -> tuple[str, str | None]:
    """Return the normal forms of what a row names: older rows have them as they were written.

    A change from one spelling to another of the same symbol keeps the old one: then it moves what nobody holds.
    """
    normal, new_normal = normal_symbol(symbol), None if new_symbol is None else normal_symbol(new_symbol)
    return (symbol if normal == new_normal else normal), new_normal


def _recorded_adjustment(row: Row[Any]) -> RecordedAdjustment:
    return RecordedAdjustment(_adjustment(row), row.seq, row.recorded_at, row.voided_at, row.void_reason)


def _booked(adjustment: Adjustment) -> tuple[Decimal, Decimal | None]:
    """Return the cash that an adjustment stands for, and the shares of one that moves some."""
    return booked_cash(adjustment), adjustment.qty if adjustment.kind is AdjustmentKind.MOVE else None
