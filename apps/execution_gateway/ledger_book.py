"""The book of positions as of what the ledger's tables hold, read and folded as far as it is new."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.execution_gateway.adjustment_ledger import AdjustmentLedger
from apps.execution_gateway.database import DatabaseUnavailableError
from apps.execution_gateway.ledger_access import LOAD_ROWS, LedgerAccess
from apps.execution_gateway.tables import ADJUSTMENT_VOIDS, ADJUSTMENTS, FILL_VOIDS, FILLS, IS_VOID_OF_FILL
from libs.market_data.symbols import normal_symbol
from libs.portfolio.book import Book, Revision
from libs.portfolio.entries import Arrival
from libs.portfolio.fills import Fill, Side
from libs.portfolio.folding import News, Voiding, advance, most_to_fold
from libs.service.shared_answers import SharedAnswers

_MUCH_TO_FOLD: Final = 1_000
"""More entries than this are folded in a thread: they would hold the event loop up for some 20 ms and more."""


class LedgerBook:
    """One account's book. What one transaction has recorded is in it as a whole or not at all."""

    def __init__(self, access: LedgerAccess, account: str, adjustments: AdjustmentLedger) -> None:
        self._access = access
        self._account = account
        self._adjustments = adjustments
        self._book = Book()
        self._shared = SharedAnswers(self._read)

    async def now(self) -> Book:
        """Return every position as of now. Only what was recorded since the last call is read and folded.

        However many ask at once, the database is asked once for all of them, and never twice at the same time.
        """
        return await self._shared.get()

    async def finish(self) -> None:
        """Wait for the reading that is under way, so that the database may be closed."""
        await self._shared.finish()

    async def _read(self) -> Callable[[], Book]:
        async with self._access.reading() as connection:
            revision = await self._revision(connection)
        if revision != self._book.revision:
            await self._fold_news()
        book = self._book
        return lambda: book

    async def _fold_news(self) -> None:
        known = self._book
        async with self._access.reading() as connection:
            revision = await self._revision(connection)
        # A revision that went back: another database stands in its place. Begin anew.
        is_behind = any(now < before for now, before in zip(revision, known.revision, strict=True))
        base = Book() if is_behind else known
        # One statement has told the revision, and nothing is changed once it is recorded: what is read up to there is
        # the ledger as it was at that moment, however long the reading takes.
        seen = base.revision
        news = News(
            await self._fills(seen.fills, revision.fills),
            await self._voids(seen.voids, revision.voids),
            await self._adjustments.after(seen.adjustments, revision.adjustments),
            await self._adjustments.voids_after(seen.adjustment_voids, revision.adjustment_voids),
        )
        try:
            # A ledger of years takes seconds to fold: the event loop must serve others meanwhile.
            is_much = most_to_fold(base, news) > _MUCH_TO_FOLD
            self._book = await asyncio.to_thread(advance, base, news) if is_much else advance(base, news)
        except ArithmeticError as error:
            raise DatabaseUnavailableError(
                f"the ledger holds an entry that cannot be applied ({error}): find it in GET /api/v1/adjustments, "
                "and void it"
            ) from error

    async def _revision(self, connection: AsyncConnection) -> Revision:
        newest = [
            select(table.c.seq).where(table.c.account == self._account).order_by(table.c.seq.desc()).limit(1)
            for table in (FILLS, FILL_VOIDS, ADJUSTMENTS, ADJUSTMENT_VOIDS)
        ]
        row = (await connection.execute(select(*(query.scalar_subquery() for query in newest)))).one()
        return Revision(*(seq or 0 for seq in row))

    async def _fills(self, seq: int, until: int) -> list[Arrival]:
        query = select(FILLS).where(FILLS.c.account == self._account, FILLS.c.seq <= until)
        query = query.order_by(FILLS.c.seq).limit(LOAD_ROWS)
        arrivals: list[Arrival] = []
        while True:
            async with self._access.reading() as connection:
                rows = (await connection.execute(query.where(FILLS.c.seq > seq))).all()
                arrivals += [Arrival(row.seq, fill_of(row)) for row in rows]
            if len(rows) < LOAD_ROWS:
                return arrivals
            seq = arrivals[-1].seq

    async def _voids(self, seq: int, until: int) -> list[Voiding]:
        columns = select(FILL_VOIDS.c.seq, FILL_VOIDS.c.fill_id, FILLS.c.symbol)
        query = columns.join_from(FILL_VOIDS, FILLS, IS_VOID_OF_FILL).where(FILL_VOIDS.c.account == self._account)
        query = query.where(FILL_VOIDS.c.seq <= until).order_by(FILL_VOIDS.c.seq).limit(LOAD_ROWS)
        voids: list[Voiding] = []
        while True:
            async with self._access.reading() as connection:
                rows = (await connection.execute(query.where(FILL_VOIDS.c.seq > seq))).all()
            voids += [Voiding(row.seq, row.fill_id, normal_symbol(row.symbol)) for row in rows]
            if len(rows) < LOAD_ROWS:
                return voids
            seq = voids[-1].seq


def fill_of(row: Row[Any]) -> Fill:
    """Return the fill that a row holds, under the normal form of its symbol: older rows have it as it was written."""
    return Fill(row.fill_id, normal_symbol(row.symbol), Side(row.side), row.qty, row.price, row.fee, row.filled_at)
