"""Changes that belong together: recorded and seen as a whole, on every database that the settings accept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.adjustment_ledger import AdjustmentLedger, RecordedAdjustment
from apps.execution_gateway.database import DatabaseUnavailableError, create_engine
from apps.execution_gateway.ledger import Changes, Ledger
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.fills import Fill
from tests.support.portfolio import OPENING, adjustment, fill

NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)


@pytest.fixture
def ledger(engine: AsyncEngine) -> Ledger:
    return Ledger(engine, now=lambda: NOW)


@pytest_asyncio.fixture
async def other(database: str) -> AsyncIterator[Ledger]:
    """The same ledger in another gateway."""
    engine = create_engine(database)
    yield Ledger(engine, now=lambda: NOW)
    await engine.dispose()


def transfer(adjustment_id: str, qty: int = 10) -> Adjustment:
    return adjustment(AdjustmentKind.TRANSFER, adjustment_id=adjustment_id, qty=qty, amount=qty)


def explain_nothing(*_told: object) -> tuple[str, ...]:
    return ()


def explain_all(
    _fills: Sequence[Fill], _adjustments: Sequence[Adjustment], standing: Sequence[RecordedAdjustment]
) -> list[str]:
    return [one.adjustment.adjustment_id for one in standing]


async def test_what_is_new_is_recorded_and_returned_and_what_is_known_stands(ledger: Ledger) -> None:
    changes = Changes([fill(1, 100, fill_id="1"), fill(2, 100, fill_id="2")], {"1": "busted", "never": "busted"})
    new = await ledger.record_changes(changes, explain_nothing)
    assert [one.fill_id for one in new.fills] == ["1", "2"]
    ((voided),) = new.void_fills
    assert (voided.fill.fill_id, voided.voided_at, voided.void_reason) == ("1", NOW, "busted")
    assert new.symbols == {"AAPL"}

    again = Changes([fill(9, 9, fill_id="1", symbol="KO"), *changes.fills], {"1": "otherwise"})
    assert (await ledger.record_changes(again, explain_nothing)).symbols == set()
    newest, voided = (await ledger.list_fills()).fills
    assert (newest.fill.qty, newest.voided_at) == (2, None)
    assert (voided.fill.qty, voided.void_reason) == (1, "busted")
    assert (await ledger.book()).positions["AAPL"].qty == 2


async def test_adjustments_are_taken_back_with_what_explains_them(ledger: Ledger) -> None:
    await ledger.record_changes(Changes(adjustments=[transfer("a"), transfer("b")]), explain_nothing)
    # Voided at once, it explains nothing; nor does what comes after the adjustments were recorded.
    await ledger.record_changes(Changes([fill(10, 1, fill_id="1")], {"1": "busted"}), explain_all)
    later = fill(10, 1, fill_id="2", filled_at=NOW + timedelta(seconds=1))
    await ledger.record_changes(Changes([later]), explain_all)
    assert (await ledger.book()).positions["AAPL"].qty == 30

    new = await ledger.record_changes(Changes([fill(10, 1, fill_id="3")], void_adjustments={"b": "x"}), explain_all)
    assert {one.adjustment.adjustment_id: one.void_reason for one in new.void_adjustments} == {
        "a": "explained",
        "b": "explained",
    }
    assert (await ledger.book()).positions["AAPL"].qty == 20


async def test_what_fails_midway_leaves_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError("the line is cut")

    changes = Changes([fill(1, 100, fill_id="1")], {"1": "busted"}, [transfer("a")], {"a": "x"})
    with monkeypatch.context() as patched:
        patched.setattr(AdjustmentLedger, "void_recorded", fail)
        with pytest.raises(DatabaseUnavailableError, match="the line is cut"):
            await ledger.record_changes(changes, explain_nothing)
    assert (await ledger.book()).revision == (0, 0, 0, 0)
    assert (await ledger.record_changes(changes, explain_nothing)).fills


@asynccontextmanager
async def watching(*ledgers: Ledger) -> AsyncIterator[set[Decimal]]:
    """Yield the sums of all shares that readers see, who look as often as they can until the block ends."""
    seen: set[Decimal] = set()
    is_over = asyncio.Event()

    async def look(ledger: Ledger) -> None:
        while not is_over.is_set():
            seen.add(sum((one.qty for one in (await ledger.book()).positions.values()), Decimal(0)))

    async with asyncio.TaskGroup() as readers:
        for ledger in ledgers:
            readers.create_task(look(ledger))
        try:
            yield seen
        finally:
            is_over.set()


async def test_nobody_sees_half_of_a_change(ledger: Ledger, other: Ledger) -> None:
    await ledger.record_changes(Changes([fill(10, 100, fill_id="0")]), explain_nothing)
    async with watching(ledger, other) as seen:
        for turn in range(1, 30, 2):
            # An execution is corrected, then told to have been missing all along: it comes as an adjustment, and goes.
            corrected = Changes([fill(10, 100, fill_id=f"{turn}")], {f"{turn - 1}": "corrected"})
            await ledger.record_changes(corrected, explain_nothing)
            believed = Changes((), {f"{turn}": "absent"}, [transfer(f"{turn}")])
            await ledger.record_changes(believed, explain_nothing)
            await ledger.record_changes(Changes([fill(10, 100, fill_id=f"{turn + 1}")]), explain_all)
    assert seen == {10}
    assert len((await ledger.list_fills()).fills) == 31


async def test_sums_of_the_book_are_those_of_one_moment(ledger: Ledger, other: Ledger) -> None:
    """Two symbols change together: whoever looks sees both, or neither."""
    async with watching(ledger, other) as seen:
        for turn in range(30):
            at = OPENING + timedelta(minutes=turn)
            bought, sold = (fill(qty, 100, fill_id=f"{qty}:{turn}", symbol=f"S{qty}", filled_at=at) for qty in (5, -5))
            await ledger.record_changes(Changes([bought, sold]), explain_nothing)
    assert seen == {0}
