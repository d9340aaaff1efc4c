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
from libs.market_data.freshness import UNAVAILABLE
from libs.portfolio.pnl import ClosedPnl
from libs.portfolio.positions import Position
from libs.portfolio.valuation import Valuable, value_positions
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


@pytest.mark.parametrize("kind", ["FEE", "CFEE", "REG", "TAF", "CAT", "PTC"])
async def test_a_regulatory_fee_of_no_symbol_is_in_the_total_of_the_fees(ledger: Ledger, kind: str) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON, fee=D(1)))
    await take(MirroredLedger(ledger), Activity("f1", kind, MONDAY, net_amount=D("-0.02")))
    book = await ledger.book()
    day = {"AAPL": book.day(MONDAY)["AAPL"]}
    rows = [Valuable(book.positions["AAPL"], day["AAPL"], UNAVAILABLE, None, None)]
    closed = ClosedPnl(book.closed.realized, book.closed.fees, book.closed.income)
    totals = value_positions(rows, closed).totals
    assert (totals.total_fees, totals.closed.fees) == (D("1.02"), D("0.02"))


async def test_half_of_a_split_waits_a_round_and_the_split_is_recorded_once(ledger: Ledger) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON))
    new, old = Activity("s2", "SPLIT", MONDAY, "AAPL", D(20)), Activity("s1", "SPLIT", MONDAY, "AAPL", D(-10))
    mirrored = MirroredLedger(ledger)
    await take(mirrored, new)
    assert ((await apple(ledger)).qty, mirrored.applied.waiting) == (10, (new,))
    await take(mirrored, old)
    assert ((await apple(ledger)).qty, mirrored.applied.waiting) == (20, ())
    await take(MirroredLedger(ledger), old, new)
    assert (await apple(ledger)).qty == 20


async def test_an_entry_that_stays_alone_is_the_whole_split(ledger: Ledger) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON))
    new, old = Activity("s2", "SPLIT", MONDAY, "AAPL", D(20)), Activity("s1", "SPLIT", MONDAY, "AAPL", D(-10))
    mirrored = MirroredLedger(ledger)
    await take(mirrored, new)
    await take(mirrored)
    assert (await apple(ledger)).qty == 30
    await take(MirroredLedger(ledger), old, new)
    assert (await apple(ledger)).qty == 30, "wrong, if its other half comes so late, but not split a second time"


@pytest.mark.parametrize("is_cash_late", [False, True])
async def test_a_fraction_paid_in_cash_is_taken_out_once(ledger: Ledger, is_cash_late: bool) -> None:
    await ledger.record_fill(fill(15, 100, filled_at=FRIDAY_NOON))
    pair = (Activity("s1", "SPLIT", MONDAY, "AAPL", D(-15)), Activity("s2", "SPLIT", MONDAY, "AAPL", D(1)))
    paid = Activity("c1", "CIL", MONDAY, "AAPL", net_amount=D(700))
    mirrored = MirroredLedger(ledger)
    await take(mirrored, *pair, *(() if is_cash_late else (paid,)))
    await take(mirrored, *((paid,) if is_cash_late else ()))
    position = await apple(ledger)
    # Without the cash the ratio must be 1:15, and nothing of a fraction is known.
    assert (position.qty, position.cost_basis, position.realized_pnl) == (
        (1, 1500, 700) if is_cash_late else (1, 1000, 200)
    )
    await take(MirroredLedger(ledger), *pair, paid)
    assert await apple(ledger) == position
