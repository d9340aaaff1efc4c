"""The P&L history: its totals as they were sampled, per account and mode."""

import sqlalchemy as sa
from alembic import op

from apps.execution_gateway.tables import ExactDecimal, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pnl_history",
        sa.Column("account", sa.String(64), nullable=False, server_default="default"),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("slot_ms", sa.BigInteger, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("until", UtcDateTime, nullable=False),
        sa.Column("gap_us", sa.BigInteger, nullable=True),
        sa.Column("unrealized", ExactDecimal, nullable=True),
        sa.Column("realized", ExactDecimal, nullable=False),
        sa.Column("fees", ExactDecimal, nullable=False),
        sa.Column("day_pnl", ExactDecimal, nullable=True),
        sa.Column("market_value", ExactDecimal, nullable=True),
        sa.Column("complete", sa.Boolean, nullable=False),
        sa.Column("unpriced", sa.Integer, nullable=False),
        sa.Column("stale", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("account", "mode", "slot_ms", name="pk_pnl_history"),
    )
    op.create_index(
        "ix_pnl_history_gaps",
        "pnl_history",
        ["account", "mode", "slot_ms"],
        sqlite_where=sa.text("gap_us IS NOT NULL"),
        postgresql_where=sa.text("gap_us IS NOT NULL"),
    )
