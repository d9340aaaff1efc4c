"""Keeps the P&L history in the ledger's database and reads parts of it back, in memory bounded by what is answered.

Two gateways may keep one series: each slot of it is recorded once, by whichever comes first. While the two see
different prices (one is cut off from Redis) their points alternate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from apps.execution_gateway.database import database_call
from apps.execution_gateway.history_input import HistoryQuery
from apps.execution_gateway.ledger import DEFAULT_ACCOUNT
from apps.execution_gateway.pnl_history import (
    Append,
    Decision,
    Extend,
    Extent,
    Figures,
    Gap,
    HistoryPoint,
    HistorySample,
    Keep,
    Sampling,
    Sighting,
    decide,
    epoch_ms,
    gaps_in,
    sighting_of,
)
from apps.execution_gateway.tables import PNL_HISTORY
from libs.market_data.prices import Mode
from libs.service.overload import WaitingLine

ROWS_AT_ONCE: Final = 500
"""How many points one statement answers, and how many one deletion takes."""
READ_TIMEOUT_S: Final = 10.0
READ_TURN_S: Final = 5.0
MOST_WAITING: Final = 200
"""A range of months is looked through in a second or two; those before have their turn first."""

_TABLE: Final = PNL_HISTORY.c
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class HistorySeries:
    """A part of the series. `mode` is None when nothing was ever recorded and none was asked for."""

    mode: Mode | None
    points: Sequence[HistoryPoint]
    gaps: Sequence[Gap]


class HistoryStore:
    """One account's history in the database behind `engine`.

    Every method raises DatabaseUnavailableError when the database cannot be used within its time.
    """

    def __init__(self, engine: AsyncEngine, sampling: Sampling, account: str = DEFAULT_ACCOUNT) -> None:
        self._engine = engine
        self._account = account
        # One at a time: however many ask for years, there are connections left for fills.
        self._readers = WaitingLine("the P&L history", at_once=1, most_waiting=MOST_WAITING, wait_s=READ_TURN_S)
        self.sampling = sampling

    @property
    def refused(self) -> int:
        """How many readers were turned away because too many were waiting."""
        return self._readers.refused

    async def record(self, sample: HistorySample, seen: Sighting | None) -> Sighting | None:
        """Record what is new in `sample`; return that it stands, None when another gateway's differing one does.

        `seen` is what the caller's last call returned.
        """
        up_to_now = self._newest(sample.mode).where(_TABLE.slot_ms <= self.sampling.slot_ms(sample.at))
        async with database_call(), self._engine.begin() as connection:
            standing = await _first(connection, up_to_now)
            decision = decide(standing, seen, sample, self.sampling)
            await self._carry_out(connection, decision, standing, sample)
            if isinstance(decision, Append):
                standing = await _first(connection, up_to_now)
        return sighting_of(standing, sample)

    async def extend(self, seen: Sighting) -> None:
        """Let the point that was seen stand until then, if it does not stand longer already."""
        async with database_call(), self._engine.begin() as connection:
            await self._move_until(connection, seen.mode, seen.slot_ms, seen.at)

    async def forget_before(self, limit: datetime) -> int:
        """Delete some points that ended before `limit`, the oldest first; return how many, 0 when none are left."""
        for mode in Mode:
            ended = and_(self._of(mode), _TABLE.slot_ms < epoch_ms(limit), _TABLE.until < limit)
            oldest = select(_TABLE.slot_ms).where(ended).order_by(_TABLE.slot_ms).limit(ROWS_AT_ONCE)
            async with database_call(), self._engine.begin() as connection:
                deletion = PNL_HISTORY.delete().where(self._of(mode), _TABLE.slot_ms.in_(oldest))
                deleted = (await connection.execute(deletion)).rowcount
            if deleted:
                return deleted
        return 0

    async def series(self, query: HistoryQuery, now: datetime) -> HistorySeries:
        """Return the points asked for, the last of each bucket, and where nobody looked, up to `now`.

        The first point may have begun before the range, if it still stood in it. Raises OverloadedError.
        """
        asked = Gap(query.since, max(query.since, min(query.until, now)))
        # The time that the database may take does not begin before this reader's turn.
        async with self._readers.turn(), database_call(READ_TIMEOUT_S):
            mode = query.mode or await self._newest_mode()
            if mode is None:
                return HistorySeries(None, (), gaps_in(asked, (), None, self.sampling))
            points = await self._points(mode, query, asked.until)
            told = await self._gaps(mode, asked, query.step_ms)
            return HistorySeries(mode, points, gaps_in(asked, told, await self._extent(mode), self.sampling))

    async def _carry_out(
        self, connection: AsyncConnection, decision: Decision, standing: HistoryPoint | None, sample: HistorySample
    ) -> None:
        match decision:
            case Append():
                if standing is not None and decision.previous_until is not None:
                    await self._move_until(connection, sample.mode, standing.slot_ms, decision.previous_until)
                await self._insert(connection, sample, decision)
            case Extend() if standing is not None:
                await self._move_until(connection, sample.mode, standing.slot_ms, decision.until)
            case Extend() | Keep():
                pass

    async def _insert(self, connection: AsyncConnection, sample: HistorySample, decision: Append) -> None:
        figures = sample.figures
        row = {
            "account": self._account,
            "mode": sample.mode.value,
            "slot_ms": self.sampling.slot_ms(sample.at),
            "at": sample.at,
            "until": sample.at,
            "gap_us": None if decision.gap is None else decision.gap // _MICROSECOND,
            "unrealized": figures.unrealized,
            "realized": figures.realized,
            "fees": figures.fees,
            "day_pnl": figures.day_pnl,
            "market_value": figures.market_value,
            "complete": figures.complete,
            "unpriced": figures.unpriced,
            "stale": figures.stale,
        }
        # Another gateway's sample may have taken the slot between our look and now: one is enough.
        if connection.dialect.name == "postgresql":
            await connection.execute(postgresql.insert(PNL_HISTORY).values(row).on_conflict_do_nothing())
        else:
            await connection.execute(sqlite.insert(PNL_HISTORY).values(row).on_conflict_do_nothing())

    async def _move_until(self, connection: AsyncConnection, mode: Mode, slot_ms: int, until: datetime) -> None:
        standing = and_(self._of(mode), _TABLE.slot_ms == slot_ms, _TABLE.until < until)
        await connection.execute(PNL_HISTORY.update().where(standing).values(until=until))

    async def _newest_mode(self) -> Mode | None:
        newest: dict[Mode, datetime] = {}
        for mode in Mode:
            for point in await self._read(self._newest(mode)):
                newest[mode] = point.until
        return max(newest, key=newest.__getitem__, default=None)

    async def _extent(self, mode: Mode) -> Extent | None:
        oldest = select(PNL_HISTORY).where(self._of(mode)).order_by(_TABLE.slot_ms).limit(1)
        ends = [*await self._read(oldest), *await self._read(self._newest(mode))]
        return Extent(ends[0].at, ends[-1].until) if ends else None

    async def _points(self, mode: Mode, query: HistoryQuery, seen_from: datetime) -> list[HistoryPoint]:
        since_ms = epoch_ms(query.since)
        up_to = _TABLE.slot_ms.between(since_ms, epoch_ms(query.until))
        before = await self._read(self._newest(mode).where(_TABLE.slot_ms < since_ms))
        newest = await self._read(self._newest(mode).where(up_to, _TABLE.at <= query.until))
        points: list[HistoryPoint] = []
        for last in newest:
            # In pieces: a long statement would keep SQLite's writers waiting.
            piece_ms = query.step_ms * ROWS_AT_ONCE
            for begin_ms in range(since_ms // query.step_ms * query.step_ms, last.slot_ms + 1, piece_ms):
                end_ms = min(begin_ms + piece_ms - 1, last.slot_ms)
                points += await self._last_of_each_bucket(mode, max(begin_ms, since_ms), end_ms, query.step_ms)
        if before and not points and await self._stands_still(mode, before[0], seen_from):
            return before
        return [*(point for point in before if _counts(point, points, query)), *points]

    async def _stands_still(self, mode: Mode, point: HistoryPoint, seen_from: datetime) -> bool:
        """Say whether `point` is the newest and its series had not ended: its `until` is written now and then only."""
        newest = await self._read(self._newest(mode))
        return any(one.slot_ms == point.slot_ms and not self.sampling.has_ended(one.until, seen_from) for one in newest)

    async def _last_of_each_bucket(self, mode: Mode, begin_ms: int, end_ms: int, step_ms: int) -> list[HistoryPoint]:
        # The database picks them: of a million rows only those that are answered leave it.
        in_range = and_(self._of(mode), _TABLE.slot_ms.between(begin_ms, end_ms))
        last = select(func.max(_TABLE.slot_ms)).where(in_range).group_by(_TABLE.slot_ms // step_ms)
        chosen = select(PNL_HISTORY).where(self._of(mode), _TABLE.slot_ms.in_(last))
        return await self._read(chosen.order_by(_TABLE.slot_ms))

    async def _gaps(self, mode: Mode, asked: Gap, step_ms: int) -> list[Gap]:
        """Return the gaps that points begin with; one shorter than a step is not seen among points so far apart."""
        begins = _TABLE.slot_ms - _TABLE.gap_us // 1000
        within = and_(_TABLE.slot_ms >= epoch_ms(asked.since), begins < epoch_ms(asked.until))
        found = select(PNL_HISTORY).where(
            self._of(mode), _TABLE.gap_us.is_not(None), _TABLE.gap_us >= step_ms * 1000, within
        )
        points = await self._read(found.order_by(_TABLE.slot_ms))
        return [Gap(point.at - point.gap, point.at) for point in points if point.gap is not None]

    async def _read(self, query: Select[Any]) -> list[HistoryPoint]:
        async with database_call(), self._engine.connect() as connection:
            return [_point(row) for row in await connection.execute(query)]

    def _newest(self, mode: Mode) -> Select[Any]:
        return select(PNL_HISTORY).where(self._of(mode)).order_by(_TABLE.slot_ms.desc()).limit(1)

    def _of(self, mode: Mode) -> ColumnElement[bool]:
        return and_(_TABLE.account == self._account, _TABLE.mode == mode.value)


async def _first(connection: AsyncConnection, query: Select[Any]) -> HistoryPoint | None:
    row = (await connection.execute(query)).first()
    return None if row is None else _point(row)


def _counts(before: HistoryPoint, points: Sequence[HistoryPoint], query: HistoryQuery) -> bool:
    """Say whether the point before the range still stood in it, with no later one to represent its bucket."""
    is_represented = bool(points) and points[0].slot_ms // query.step_ms == before.slot_ms // query.step_ms
    return before.until >= query.since and not is_represented


def _point(row: Row[Any]) -> HistoryPoint:
    figures = Figures(
        unrealized=row.unrealized,
        realized=row.realized,
        fees=row.fees,
        day_pnl=row.day_pnl,
        market_value=row.market_value,
        complete=row.complete,
        unpriced=row.unpriced,
        stale=row.stale,
    )
    gap = None if row.gap_us is None else timedelta(microseconds=row.gap_us)
    return HistoryPoint(row.slot_ms, row.at, row.until, figures, gap)
