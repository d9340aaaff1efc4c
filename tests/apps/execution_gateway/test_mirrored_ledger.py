"""What the account's mirror decides, carried out in a real ledger on every database that the settings accept."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.column_room import has_room_for_adjustment_id, has_room_for_fill_id
from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.mirrored_ledger import RECONCILED, MirroredLedger
from libs.broker.commands import RecordActivity, RecordExecution, VoidExecution
from libs.broker.executions import Activity
from libs.broker.known_executions import LONGEST_ID
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from tests.libs.broker.samples import NOON, execution

DAY = date(2025, 10, 20)


@pytest.fixture
def ledger(engine: AsyncEngine) -> MirroredLedger:
    return MirroredLedger(Ledger(engine, now=lambda: NOON))


def dividend(activity_id: str, symbol: str = "AAPL", **fields: str) -> RecordActivity:
    return RecordActivity(Activity(activity_id, "DIV", DAY, symbol, net_amount=Decimal(1), **fields))


async def test_a_name_that_does_not_fit_costs_itself_alone(ledger: MirroredLedger) -> None:
    odd_executions = [
        execution("x" * 129),
        execution("s", symbol="S" * 33),
        execution("z\0"),
        execution("Z", symbol="\0"),
    ]
    changed = await ledger.carry_out(
        [
            *(RecordExecution(one) for one in odd_executions),
            RecordExecution(execution("x" * 128, symbol="S" * 32)),
            *(VoidExecution(one.execution_id, "busted") for one in odd_executions),
            *(dividend(name) for name in ("d" * 120, "d\0", "fits")),
            dividend("long", "S" * 33),
            dividend("said", description="\0"),
            *(dividend(name, status="canceled") for name in ("c" * 120, "c\0")),
            RecordExecution(execution("x2")),
        ]
    )
    assert changed == {"S" * 32, "AAPL"}
    assert await ledger.apply_activities() == {"AAPL"}
    assert (ledger.executions, ledger.voids, ledger.adjustments) == (2, 0, 1)


async def test_a_renaming_to_what_does_not_fit_is_left_out(ledger: MirroredLedger) -> None:
    await ledger.carry_out([RecordExecution(execution("x1", at=NOON - timedelta(days=2)))])
    halves = [
        Activity("out", "NC", DAY, "AAPL", qty=Decimal(-10)),
        Activity("in", "NC", DAY, "A" * 33, qty=Decimal(10)),
    ]
    await ledger.carry_out([RecordActivity(one) for one in halves])
    assert await ledger.apply_activities() == set()
    assert [position.symbol for position in (await ledger.book()).open_positions] == ["AAPL"]


def test_the_mirror_makes_no_ids_that_do_not_fit() -> None:
    assert [has_room_for_fill_id("x" * length) for length in (LONGEST_ID, LONGEST_ID + 1)] == [True, False]
    assert has_room_for_adjustment_id("x" * LONGEST_ID)


@pytest.mark.parametrize("symbol", ["AAPL260320C00150000", "AAPL1260320C00150000"])
async def test_an_option_costs_the_same_whoever_tells_of_it(ledger: MirroredLedger, symbol: str) -> None:
    told = execution("stream", qty=1, price="2.5", symbol=symbol)
    ways = [replace(told, execution_id=str(word), asset_class=word) for word in ("us_option", "us_equity", None)]
    await ledger.carry_out([RecordExecution(one) for one in ways])
    assert (await ledger.book()).open_positions[0].cost_basis == 750
    seeds = await ledger.executions_since(NOON)
    assert [seed.execution.price for seed in seeds] == [Decimal("2.5")] * 3
    assert all(seed.execution.is_alike(told) for seed in seeds)


def believed(number: int, qty: int, symbol: str = "AAPL") -> Adjustment:
    """Return what was adjusted because the broker said so, as of NOON."""
    return Adjustment(
        f"{RECONCILED}{symbol}:{number}",
        AdjustmentKind.TRANSFER,
        symbol,
        NOON,
        "why",
        qty=Decimal(qty),
        amount=Decimal(1),
    )


@pytest.mark.parametrize(
    ("adjusted", "told", "held"),
    [
        ((5,), (5,), 5),
        ((5,), (2, 3), 5),
        ((2, 3), (3,), 5),
        ((2, 3), (5,), 5),
        # Whatever this was for, it was not for these: should the account agree, the comparison says so.
        ((7,), (5,), 12),
    ],
)
async def test_what_was_adjusted_for_want_of_executions_gives_way_to_them(
    ledger: MirroredLedger, adjusted: tuple[int, ...], told: tuple[int, ...], held: int
) -> None:
    await ledger.carry_out((), [believed(number, qty) for number, qty in enumerate(adjusted)])
    late = [execution(f"x{number}", qty=qty, at=NOON - timedelta(minutes=9)) for number, qty in enumerate(told)]
    assert await ledger.carry_out([RecordExecution(one) for one in late]) == {"AAPL"}
    assert [position.qty for position in (await ledger.book()).open_positions] == [held]


async def test_a_correction_of_long_ago_and_what_happened_since_leave_adjustments_alone(ledger: MirroredLedger) -> None:
    await ledger.carry_out((), [believed(1, 10)])
    after = execution("after", qty=10, at=NOON + timedelta(seconds=1))
    corrected = execution("x1:c1", qty=10, at=NOON - timedelta(days=5))
    await ledger.carry_out([RecordExecution(after), RecordExecution(corrected)])
    assert [position.qty for position in (await ledger.book()).open_positions] == [30]


async def test_a_renaming_told_after_the_positions_had_it_moves_no_shares_twice(ledger: MirroredLedger) -> None:
    await ledger.carry_out([RecordExecution(execution("x1", symbol="FB", at=NOON - timedelta(days=2)))])
    await ledger.carry_out((), [believed(1, -10, "FB"), believed(2, 10, "META")])
    halves = [
        Activity("out", "NC", DAY, "FB", qty=Decimal(-10)),
        Activity("in", "NC", DAY, "META", qty=Decimal(10)),
    ]
    await ledger.carry_out([RecordActivity(one) for one in halves])
    assert await ledger.apply_activities() == {"FB", "META"}
    assert {one.symbol: one.qty for one in (await ledger.book()).open_positions} == {"META": 10}
