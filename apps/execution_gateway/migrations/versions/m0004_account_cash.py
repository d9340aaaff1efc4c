"""The cash of a mirrored account: its journal, and what it had before any activity names."""

import sqlalchemy as sa
from alembic import op

from apps.execution_gateway.tables import ExactDecimal, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cash_journal",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("activity_id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("symbol", sa.String(32)),
        sa.Column("booked_on", sa.String(10), nullable=False),
        sa.Column("amount", ExactDecimal, nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_cash_journal_account_seq", "cash_journal", ["account", "seq"])
    op.add_column("mirror_state", sa.Column("is_cash_complete", sa.Boolean))
    op.add_column("mirror_state", sa.Column("opening_cash", ExactDecimal))
    op.add_column("mirror_state", sa.Column("opening_source", sa.String(32)))
    op.add_column("mirror_state", sa.Column("opening_confirmed_at", UtcDateTime))
