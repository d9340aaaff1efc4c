"""Adjustments and their voids, and the state of a mirrored account. No way down: it would throw adjustments away."""

import sqlalchemy as sa
from alembic import op

from apps.execution_gateway.tables import ExactDecimal, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "adjustments",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False, server_default="default"),
        sa.Column("adjustment_id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("symbol", sa.String(32), nullable=False),
        sa.Column("effective_at", UtcDateTime, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("ratio_new", ExactDecimal),
        sa.Column("ratio_old", ExactDecimal),
        sa.Column("new_symbol", sa.String(32)),
        sa.Column("qty", ExactDecimal),
        sa.Column("amount", ExactDecimal),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint("account", "adjustment_id", name="uq_adjustments_account_adjustment_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_adjustments_account_seq", "adjustments", ["account", "seq"])
    op.create_index("ix_adjustments_account_effective_at", "adjustments", ["account", "effective_at", "seq"])
    op.create_table(
        "adjustment_voids",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False, server_default="default"),
        sa.Column("adjustment_id", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("voided_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint("account", "adjustment_id", name="uq_adjustment_voids_account_adjustment_id"),
        sa.ForeignKeyConstraint(
            ["account", "adjustment_id"],
            ["adjustments.account", "adjustments.adjustment_id"],
            name="fk_adjustment_voids_adjustments",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_adjustment_voids_account_seq", "adjustment_voids", ["account", "seq"])
    op.create_table(
        "mirror_state",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("account_number", sa.String(64), nullable=False),
        sa.Column("caught_up_to", UtcDateTime),
        sa.Column("confirmed_at", UtcDateTime),
    )
