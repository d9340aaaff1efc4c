"""The fills ledger: fills and their voids, per account. There is no way down: it would throw the fills away."""

import sqlalchemy as sa
from alembic import op

from apps.execution_gateway.tables import ExactDecimal, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "fills",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False, server_default="default"),
        sa.Column("fill_id", sa.String(128), nullable=False),
        sa.Column("symbol", sa.String(32), nullable=False),
        sa.Column("side", sa.String(4), nullable=False),
        sa.Column("qty", ExactDecimal, nullable=False),
        sa.Column("price", ExactDecimal, nullable=False),
        sa.Column("fee", ExactDecimal, nullable=False),
        sa.Column("filled_at", UtcDateTime, nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint("account", "fill_id", name="uq_fills_account_fill_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fills_account_seq", "fills", ["account", "seq"])
    op.create_index("ix_fills_account_filled_at", "fills", ["account", "filled_at", "seq"])
    op.create_index("ix_fills_account_symbol_filled_at", "fills", ["account", "symbol", "filled_at", "seq"])
    op.create_table(
        "fill_voids",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False, server_default="default"),
        sa.Column("fill_id", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("voided_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint("account", "fill_id", name="uq_fill_voids_account_fill_id"),
        sa.ForeignKeyConstraint(["account", "fill_id"], ["fills.account", "fills.fill_id"], name="fk_fill_voids_fills"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fill_voids_account_seq", "fill_voids", ["account", "seq"])
