"""Fills the gateway's ledger file at once: a thousand posts, each safely on disk, would take most of a benchmark."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from apps.execution_gateway.database import create_engine
from apps.execution_gateway.tables import FILLS

FILL: Final = {"side": "buy", "qty": Decimal("100.5"), "price": Decimal("150.123"), "fee": Decimal("0.35")}
"""What is bought of every symbol, three days ago."""


def filled_at() -> datetime:
    """Return when it was bought."""
    return datetime.now(UTC) - timedelta(days=3)


def seed(database_url: str, symbols: Sequence[str]) -> None:
    """Record one fill of each symbol. A running gateway sees them at its next look; nobody is told."""
    asyncio.run(_insert(database_url, symbols))


async def _insert(database_url: str, symbols: Sequence[str]) -> None:
    engine = create_engine(database_url)
    when = filled_at()
    rows = [
        {"account": "default", "fill_id": symbol, "symbol": symbol, **FILL, "filled_at": when, "recorded_at": when}
        for symbol in symbols
    ]
    try:
        async with engine.begin() as connection:
            await connection.execute(FILLS.insert(), rows)
    finally:
        await engine.dispose()
