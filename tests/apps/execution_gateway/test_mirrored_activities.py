"""What the account's activities come to in a real ledger, round by round."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.mirrored_ledger import MirroredLedger
from libs.broker.commands import RecordActivity
from libs.broker.executions import Activity
from libs.portfolio.positions import Position
from tests.support.portfolio import fill

D = Decimal
NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)
MONDAY = date(2025, 10, 20)
FRIDAY_NOON = datetime(2025, 10, 17, 16, tzinfo=UTC)


@pytest.fixture
def ledger(engine: AsyncEngine) -> Ledger:
    return Ledger(engine, now=lambda: NOW)


async def take(mirrored: MirroredLedger, *activities: Activity) -> None:
    """Let one round tell these activities."""
    await mirrored.carry_out([RecordActivity(one) for one in activities])
    await mirrored.apply_activities()


async def apple(ledger: Ledger) -> Position:
    return (await ledger.book()).positions["AAPL"]


async def test_a_dividend_counts_once_paid_and_no_longer_once_taken_back(ledger: Ledger) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON))
    mirrored = MirroredLedger(ledger)
    pending = Activity("d1", "DIV", MONDAY, "AAPL", net_amount=D(5), status="pending")
    expected = {"pending": 0, "executed": 5, "canceled": 0}
    for status, income in expected.items():
        await take(mirrored, replace(pending, status=status))
        assert (await apple(ledger)).income == income
