"""The ledger's tables, both append-only, and column types that lose nothing on SQLite nor on PostgreSQL."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
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
