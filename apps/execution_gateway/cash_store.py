"""Keeps the journal of a mirrored account's cash: appended to, never changed; of an activity the newest row counts."""

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Row, select

from apps.execution_gateway.column_room import has_room_for_cash_entry
from apps.execution_gateway.ledger_access import LOAD_ROWS, ROWS_AT_ONCE, LedgerAccess
from apps.execution_gateway.tables import CASH_JOURNAL
from libs.broker.cash_journal import CashEntry

_COLUMNS: Final = CASH_JOURNAL.c


class CashStore:
    """One account's journal. Every method raises DatabaseUnavailableError."""

    def __init__(self, access: LedgerAccess, account: str, now: Callable[[], datetime]) -> None:
        self._access = access
        self._account = account
        self._now = now

    async def load(self) -> dict[str, CashEntry]:
        """Return the newest entry of each activity, by its id."""
        query = select(CASH_JOURNAL).where(_COLUMNS.account == self._account).order_by(_COLUMNS.seq).limit(LOAD_ROWS)
        found: dict[str, CashEntry] = {}
        seq = 0
        while True:
            async with self._access.reading() as connection:
                rows = (await connection.execute(query.where(_COLUMNS.seq > seq))).all()
            found |= {row.activity_id: _entry(row) for row in rows}
            if len(rows) < LOAD_ROWS:
                return found
            seq = rows[-1].seq

    async def append(self, entries: Iterable[CashEntry]) -> None:
        """Append entries; one whose texts do not fit is left out, and the account's cash will differ."""
        now = self._now()
        rows = [
            {
                "account": self._account,
                "activity_id": one.activity_id,
                "kind": one.kind,
                "symbol": one.symbol,
                "booked_on": one.booked_on.isoformat(),
                "amount": one.amount,
                "recorded_at": now,
            }
            for one in entries
            if has_room_for_cash_entry(one)
        ]
        if not rows:
            return
        async with self._access.writing() as connection:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                await connection.execute(CASH_JOURNAL.insert(), rows[start : start + ROWS_AT_ONCE])


def _entry(row: Row[Any]) -> CashEntry:
    return CashEntry(row.activity_id, row.kind, row.symbol, date.fromisoformat(row.booked_on), row.amount)
