"""What must outlive a restart of an account's mirror: whose it is, how far it was read, when the account agreed."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, select

from apps.execution_gateway.ledger_access import LedgerAccess
from apps.execution_gateway.tables import MIRROR_STATE


@dataclass(frozen=True, slots=True)
class MirrorState:
    """`caught_up_to`: time of the last execution that a complete catch-up had named; None: no catch-up was complete.

    `confirmed_at`: when the account's positions were last read and taken over; None: never. `is_cash_complete`: every
    activity since the account's beginning is in the journal of its cash. `opening_cash` is what it had that no activity
    names, in USD: None until fixed, and `opening_source` says by what; `opening_confirmed_at`: when it was confirmed.
    """

    account_number: str
    caught_up_to: datetime | None = None
    confirmed_at: datetime | None = None
    is_cash_complete: bool = False
    opening_cash: Decimal | None = None
    opening_source: str | None = None
    opening_confirmed_at: datetime | None = None


class MirrorStateStore:
    """One account's row. Every method raises DatabaseUnavailableError.

    The opening balance has writers of its own: another gateway on this database must not undo it with what it knew.
    """

    def __init__(self, access: LedgerAccess, account: str) -> None:
        self._access = access
        self._account = account

    async def load(self) -> MirrorState | None:
        """Return what was kept; None when this account was never mirrored here."""
        async with self._access.reading() as connection:
            row = (await connection.execute(select(MIRROR_STATE).where(self._is_ours))).first()
        if row is None:
            return None
        return MirrorState(
            row.account_number,
            row.caught_up_to,
            row.confirmed_at,
            bool(row.is_cash_complete),
            row.opening_cash,
            row.opening_source,
            row.opening_confirmed_at,
        )

    async def save(self, state: MirrorState) -> None:
        """Keep `state` in place of what was kept; of an account that is known already, all but its opening balance."""
        values = {
            "account_number": state.account_number,
            "caught_up_to": state.caught_up_to,
            "confirmed_at": state.confirmed_at,
            "is_cash_complete": state.is_cash_complete,
        }
        async with self._access.writing() as connection:
            changed = await connection.execute(MIRROR_STATE.update().where(self._is_ours).values(values))
            if not changed.rowcount:
                opening = _opening(state.opening_cash, state.opening_source, state.opening_confirmed_at)
                await connection.execute(MIRROR_STATE.insert().values(account=self._account, **values, **opening))

    async def fix_opening(self, amount: Decimal, source: str) -> None:
        """Keep the opening balance, in USD, unless one is kept already."""
        is_open = MIRROR_STATE.c.opening_cash.is_(None)
        async with self._access.writing() as connection:
            fixed = MIRROR_STATE.update().where(self._is_ours, is_open).values(_opening(amount, source, None))
            await connection.execute(fixed)

    async def confirm_opening(self, amount: Decimal, source: str, at: datetime) -> None:
        """Keep the opening balance, in USD, that somebody has confirmed, in place of any other."""
        async with self._access.writing() as connection:
            confirmed = MIRROR_STATE.update().where(self._is_ours).values(_opening(amount, source, at))
            await connection.execute(confirmed)

    @property
    def _is_ours(self) -> ColumnElement[bool]:
        return MIRROR_STATE.c.account == self._account


def _opening(amount: Decimal | None, source: str | None, confirmed_at: datetime | None) -> dict[str, Any]:
    return {"opening_cash": amount, "opening_source": source, "opening_confirmed_at": confirmed_at}
