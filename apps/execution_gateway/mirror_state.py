"""What must outlive a restart of an account's mirror: whose it is, how far it was read, when the account agreed."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select

from apps.execution_gateway.ledger_access import LedgerAccess
from apps.execution_gateway.tables import MIRROR_STATE


@dataclass(frozen=True, slots=True)
class MirrorState:
    """`caught_up_to`: time of the last execution that a complete catch-up had named; None: no catch-up was complete.

    `confirmed_at`: when the account's positions were last read and taken over; None: never.
    """

    account_number: str
    caught_up_to: datetime | None = None
    confirmed_at: datetime | None = None


class MirrorStateStore:
    """One account's row. Both methods raise DatabaseUnavailableError."""

    def __init__(self, access: LedgerAccess, account: str) -> None:
        self._access = access
        self._account = account

    async def load(self) -> MirrorState | None:
        """Return what was kept; None when this account was never mirrored here."""
        async with self._access.reading() as connection:
            row = (await connection.execute(select(MIRROR_STATE).where(self._is_ours))).first()
        return None if row is None else MirrorState(row.account_number, row.caught_up_to, row.confirmed_at)

    async def save(self, state: MirrorState) -> None:
        """Keep `state` in place of what was kept."""
        values = {
            "account_number": state.account_number,
            "caught_up_to": state.caught_up_to,
            "confirmed_at": state.confirmed_at,
        }
        async with self._access.writing() as connection:
            changed = await connection.execute(MIRROR_STATE.update().where(self._is_ours).values(values))
            if not changed.rowcount:
                await connection.execute(MIRROR_STATE.insert().values(account=self._account, **values))

    @property
    def _is_ours(self) -> ColumnElement[bool]:
        return MIRROR_STATE.c.account == self._account
