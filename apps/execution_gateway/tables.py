"""The ledger's tables, append-only but for the state of a mirror, and column types that lose nothing anywhere."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    text,
)
from sqlalchemy.types import BigInteger, TypeDecorator, TypeEngine


class ExactDecimal(TypeDecorator[Decimal]):
    """A finite Decimal with every digit kept: NUMERIC on PostgreSQL, text on SQLite, whose NUMERIC is a float.

    Do not compare or sum it in SQL: on SQLite that would compare letters.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Pick the column type of the database at hand."""
        return dialect.type_descriptor(Numeric() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Decimal | str | None:
        """Write the digits; raises ValueError for NaN and infinities."""
        if value is None:
            return None
        if not value.is_finite():
            raise ValueError(f"{value} is not an amount")
        return value if dialect.name == "postgresql" else format(value, "f")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        """Read the digits; raises ArithmeticError when they are none."""
        del dialect
        return None if value is None else Decimal(value)


class UtcDateTime(TypeDecorator[datetime]):
    """A zoned time, to the microsecond, read back in UTC; on SQLite as ISO text of one width, so that it sorts."""

    impl = String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Pick the column type of the database at hand."""
        return dialect.type_descriptor(DateTime(timezone=True) if dialect.name == "postgresql" else String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | str | None:
        """Write the instant; raises ValueError for a time without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone names no instant")
        instant = value.astimezone(UTC)
        return instant if dialect.name == "postgresql" else instant.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Read the instant back, in UTC."""
        del dialect
        if value is None:
            return None
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return instant.astimezone(UTC)


METADATA: Final = MetaData()

# SQLite counts up by itself only in a column that is INTEGER and nothing else.
_SEQ = BigInteger().with_variant(Integer, "sqlite")

FILLS: Final = Table(
    "fills",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False, server_default="default"),
    Column("fill_id", String(128), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("qty", ExactDecimal, nullable=False),
    Column("price", ExactDecimal, nullable=False),
    Column("fee", ExactDecimal, nullable=False),
    Column("filled_at", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    UniqueConstraint("account", "fill_id", name="uq_fills_account_fill_id"),
    Index("ix_fills_account_seq", "account", "seq"),
    Index("ix_fills_account_filled_at", "account", "filled_at", "seq"),
    Index("ix_fills_account_symbol_filled_at", "account", "symbol", "filled_at", "seq"),
    # Never hand out a sequence number twice: readers ask for what came after the last one they saw.
    sqlite_autoincrement=True,
)

FILL_VOIDS: Final = Table(
    "fill_voids",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False, server_default="default"),
    Column("fill_id", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("voided_at", UtcDateTime, nullable=False),
    UniqueConstraint("account", "fill_id", name="uq_fill_voids_account_fill_id"),
    ForeignKeyConstraint(["account", "fill_id"], ["fills.account", "fills.fill_id"], name="fk_fill_voids_fills"),
    Index("ix_fill_voids_account_seq", "account", "seq"),
    sqlite_autoincrement=True,
)

ADJUSTMENTS: Final = Table(
    "adjustments",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False, server_default="default"),
    Column("adjustment_id", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("effective_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ratio_new", ExactDecimal),
    Column("ratio_old", ExactDecimal),
    Column("new_symbol", String(32)),
    Column("qty", ExactDecimal),
    Column("amount", ExactDecimal),
    Column("recorded_at", UtcDateTime, nullable=False),
    UniqueConstraint("account", "adjustment_id", name="uq_adjustments_account_adjustment_id"),
    Index("ix_adjustments_account_seq", "account", "seq"),
    Index("ix_adjustments_account_effective_at", "account", "effective_at", "seq"),
    sqlite_autoincrement=True,
)

ADJUSTMENT_VOIDS: Final = Table(
    "adjustment_voids",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False, server_default="default"),
    Column("adjustment_id", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("voided_at", UtcDateTime, nullable=False),
    UniqueConstraint("account", "adjustment_id", name="uq_adjustment_voids_account_adjustment_id"),
    ForeignKeyConstraint(
        ["account", "adjustment_id"],
        ["adjustments.account", "adjustments.adjustment_id"],
        name="fk_adjustment_voids_adjustments",
    ),
    Index("ix_adjustment_voids_account_seq", "account", "seq"),
    sqlite_autoincrement=True,
)

MIRROR_STATE: Final = Table(
    "mirror_state",
    METADATA,
    Column("account", String(64), primary_key=True),
    Column("account_number", String(64), nullable=False),
    Column("caught_up_to", UtcDateTime),
    Column("confirmed_at", UtcDateTime),
    Column("is_cash_complete", Boolean),
    Column("opening_cash", ExactDecimal),
    Column("opening_source", String(32)),
    Column("opening_confirmed_at", UtcDateTime),
)
"""Of a mirrored account: whose it is, up to when its executions are known, when the account last said the same.

`is_cash_complete`: the journal of its cash reaches back to its beginning. `opening_cash` is what no activity names.
"""

CASH_JOURNAL: Final = Table(
    "cash_journal",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    Column("activity_id", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("symbol", String(32)),
    Column("booked_on", String(10), nullable=False),
    Column("amount", ExactDecimal, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Index("ix_cash_journal_account_seq", "account", "seq"),
    sqlite_autoincrement=True,
)
"""The cash of a mirrored account's activities as the broker names it; of one activity the newest row counts."""

PNL_HISTORY: Final = Table(
    "pnl_history",
    METADATA,
    Column("account", String(64), nullable=False, server_default="default"),
    Column("mode", String(16), nullable=False),
    Column("slot_ms", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("gap_us", BigInteger, nullable=True),
    Column("unrealized", ExactDecimal, nullable=True),
    Column("realized", ExactDecimal, nullable=False),
    Column("fees", ExactDecimal, nullable=False),
    Column("day_pnl", ExactDecimal, nullable=True),
    Column("market_value", ExactDecimal, nullable=True),
    Column("complete", Boolean, nullable=False),
    Column("unpriced", Integer, nullable=False),
    Column("stale", Integer, nullable=False),
    # A slot is recorded once, however many gateways sample it.
    PrimaryKeyConstraint("account", "mode", "slot_ms", name="pk_pnl_history"),
    # Gaps are few: they are found without looking through the points.
    Index(
        "ix_pnl_history_gaps",
        "account",
        "mode",
        "slot_ms",
        sqlite_where=text("gap_us IS NOT NULL"),
        postgresql_where=text("gap_us IS NOT NULL"),
    ),
)

IS_VOID_OF_FILL: Final = and_(FILL_VOIDS.c.account == FILLS.c.account, FILL_VOIDS.c.fill_id == FILLS.c.fill_id)
IS_VOID_OF_ADJUSTMENT: Final = and_(
    ADJUSTMENT_VOIDS.c.account == ADJUSTMENTS.c.account,
    ADJUSTMENT_VOIDS.c.adjustment_id == ADJUSTMENTS.c.adjustment_id,
)
