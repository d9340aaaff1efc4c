"""The contract of the ledger's adjustments, on every database that the settings accept."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway import adjustment_ledger as module
from apps.execution_gateway.adjustment_ledger import AdjustmentConflictError, AdjustmentNotFoundError
from apps.execution_gateway.database import create_engine
from apps.execution_gateway.ledger import Changes, Ledger, Novelties
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.days import day_start
from libs.portfolio.folding import advance
from tests.support.portfolio import OPENING, adjustment, arrive, fill

NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVER = 1 << 60
SPLIT = adjustment(AdjustmentKind.SPLIT, adjustment_id="split", ratio_new=10, ratio_old=1)
EXACT = "999999999999.999999999"
EVERY_KIND = (
    SPLIT,
    adjustment(AdjustmentKind.SPLIT, adjustment_id="3:2", ratio_new=EXACT, ratio_old="0.000000001", amount=EXACT),
    adjustment(AdjustmentKind.SYMBOL_CHANGE, adjustment_id="a/b c é", new_symbol="BTC/USD"),
    adjustment(AdjustmentKind.DIVIDEND, adjustment_id="dividend", amount="-0.000000001"),
    adjustment(AdjustmentKind.FEE, adjustment_id="fee", amount="24.00", reason="é" * 500),
    adjustment(AdjustmentKind.CASH_IN_LIEU, adjustment_id="cash", amount=EXACT),
    adjustment(AdjustmentKind.TRANSFER, adjustment_id="transfer", qty=f"-{EXACT}", amount="0.000000000001"),
    adjustment(AdjustmentKind.FEE, OPENING + timedelta(microseconds=1), "S" * 32, adjustment_id="i" * 128, amount=1),
)


def nothing(*_told: object) -> tuple[str, ...]:
    """Explain nothing."""
    return ()


@pytest.fixture
def ledger(engine: AsyncEngine) -> Ledger:
    return Ledger(engine, now=lambda: NOW)


def fee(adjustment_id: str, after: timedelta = HOUR, **fields: object) -> Adjustment:
    return adjustment(AdjustmentKind.FEE, OPENING + after, adjustment_id=adjustment_id, **({"amount": 1} | fields))


async def test_no_digit_and_no_letter_is_lost_on_the_way_through(ledger: Ledger) -> None:
    for one in EVERY_KIND:
        assert await ledger.adjustments.record(one)
    found = (await ledger.adjustments.page(100)).adjustments
    assert {one.adjustment.adjustment_id: one.adjustment for one in found} == {
        one.adjustment_id: one for one in EVERY_KIND
    }
    assert {(one.recorded_at, one.voided_at, one.void_reason) for one in found} == {(NOW, None, None)}
    assert [one.entry for one in await ledger.adjustments.after(0, EVER)] == list(EVERY_KIND)


async def test_it_counts_once(ledger: Ledger) -> None:
    assert await ledger.adjustments.record(SPLIT)
    assert not await ledger.adjustments.record(SPLIT)
    # The same in other words.
    again = replace(SPLIT, ratio_new=Decimal("10.00"), effective_at=OPENING.astimezone(tz=None))
    assert not await ledger.adjustments.record(again)
    assert len((await ledger.adjustments.page(10)).adjustments) == 1


async def test_other_content_under_the_same_id_is_refused_by_name(ledger: Ledger) -> None:
    await ledger.adjustments.record(SPLIT)
    for changes in (
        {"symbol": "MSFT"}, {"reason": "other"}, {"ratio_new": Decimal(20)}, {"ratio_old": Decimal(2)},
        {"amount": Decimal(0)}, {"effective_at": OPENING + HOUR}, {"symbol": "MSFT", "ratio_new": Decimal(20)},
    ):  # fmt: skip
        with pytest.raises(AdjustmentConflictError, match=", ".join(changes)) as caught:
            await ledger.adjustments.record(replace(SPLIT, **changes))  # type: ignore[arg-type]
        assert (caught.value.fields, caught.value.recorded) == (tuple(changes), SPLIT)
    assert [one.entry for one in await ledger.adjustments.after(0, EVER)] == [SPLIT]


async def test_a_void_one_stays_void(ledger: Ledger) -> None:
    await ledger.record_fill(fill(1, 1200, filled_at=OPENING - HOUR))
    await ledger.adjustments.record(SPLIT)
    assert (await ledger.book()).positions["AAPL"].qty == 10
    for reason in ("mistyped", "another"):
        voided = await ledger.adjustments.void("split", reason)
        assert (voided.adjustment, voided.void_reason, voided.voided_at) == (SPLIT, "mistyped", NOW)
    assert not await ledger.adjustments.record(SPLIT)
    assert (await ledger.book()).positions["AAPL"].qty == 1
    (listed,) = (await ledger.adjustments.page(10)).adjustments
    assert listed.void_reason == "mistyped"
    assert len(await ledger.adjustments.voids_after(0, EVER)) == 1


async def test_voiding_what_is_not_there_is_an_error(ledger: Ledger) -> None:
    await ledger.record_fill(fill(1, 1200, fill_id="a fill"))
    for adjustment_id in ("nobody", "a fill"):
        with pytest.raises(AdjustmentNotFoundError, match=adjustment_id):
            await ledger.adjustments.void(adjustment_id, "x")
    assert await ledger.adjustments.voids_after(0, EVER) == []


async def test_the_list_is_by_effective_time_then_as_recorded(ledger: Ledger) -> None:
    for one in (fee("2", 2 * HOUR), fee("1"), fee("3", 3 * HOUR), fee("2 too", 2 * HOUR, symbol="KO")):
        await ledger.adjustments.record(one)
    rename = adjustment(AdjustmentKind.SYMBOL_CHANGE, OPENING, "KO", adjustment_id="0", new_symbol="AAPL")
    await ledger.adjustments.record(rename)

    async def ids(limit: int, symbol: str | None = None) -> list[str]:
        return [one.adjustment.adjustment_id for one in (await ledger.adjustments.page(limit, symbol)).adjustments]

    assert await ids(10) == ["3", "2 too", "2", "1", "0"]
    assert await ids(2) == ["3", "2 too"]
    assert await ids(10, "AAPL") == ["3", "2", "1", "0"]
    assert await ids(10, "KO") == ["2 too", "0"]


async def test_of_a_list_those_not_known_are_recorded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    await ledger.adjustments.record(fee("2"))
    await ledger.adjustments.void("2", "x")
    told = [fee(str(number), number * HOUR) for number in range(5)]
    changes = Changes(adjustments=told)
    assert (await ledger.record_changes(changes, nothing)).adjustments == (told[0], told[1], told[3], told[4])
    assert (await ledger.record_changes(changes, nothing)) == Novelties((), (), (), ())
    standing = {one.adjustment.adjustment_id: one.adjustment for one in (await ledger.adjustments.page(10)).adjustments}
    assert standing["2"] == fee("2"), "the first stands, void or not"


async def test_accounts_do_not_see_each_other(engine: AsyncEngine, ledger: Ledger) -> None:
    other = Ledger(engine, "other", lambda: NOW)
    assert await ledger.adjustments.record(fee("a"))
    assert await other.adjustments.record(fee("a", amount=2))
    await other.adjustments.void("a", "x")
    assert (await ledger.book()).positions["AAPL"].fees == 1
    assert (await other.book()).positions == {}
    (ours,) = (await ledger.adjustments.page(10)).adjustments
    assert (ours.adjustment.amount, ours.voided_at) == (1, None)
    assert [one.entry for one in await other.adjustments.after(0, EVER)] == [fee("a", amount=2)]


async def test_concurrent_repeats_record_one(database: str, ledger: Ledger) -> None:
    second = create_engine(database)
    ledgers = [ledger, Ledger(second)]
    recorded = await asyncio.gather(*(ledgers[turn % 2].adjustments.record(SPLIT) for turn in range(8)))
    assert sorted(recorded) == [*[False] * 7, True]
    await asyncio.gather(*(ledgers[turn % 2].adjustments.void("split", str(turn)) for turn in range(8)))
    assert [len(await one.adjustments.voids_after(0, EVER)) for one in ledgers] == [1, 1]
    assert [len((await one.adjustments.page(10)).adjustments) for one in ledgers] == [1, 1]
    await second.dispose()


async def test_the_book_is_that_of_everything_whenever_it_is_asked(
    ledger: Ledger, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOAD_ROWS", 2)
    dice = Random(7)
    entries = [
        fill(dice.choice((-3, 2, 5)), 100 + number, fill_id=str(number), filled_at=OPENING + number * HOUR)
        for number in range(8)
    ]
    entries += [
        adjustment(AdjustmentKind.SPLIT, OPENING + 2 * HOUR, adjustment_id="s", ratio_new=3, ratio_old=2),
        adjustment(AdjustmentKind.DIVIDEND, OPENING + 3 * HOUR, adjustment_id="d", amount=24),
        adjustment(AdjustmentKind.SYMBOL_CHANGE, OPENING + 4 * HOUR, adjustment_id="r", new_symbol="PEAR"),
        adjustment(AdjustmentKind.TRANSFER, OPENING + 5 * HOUR, "PEAR", adjustment_id="t", qty=1, amount=100),
        adjustment(AdjustmentKind.CASH_IN_LIEU, OPENING + 6 * HOUR, "PEAR", adjustment_id="c", amount="0.5"),
    ]
    dice.shuffle(entries)
    for entry in entries:
        await (ledger.adjustments.record(entry) if isinstance(entry, Adjustment) else ledger.record_fill(entry))
        if dice.random() < 0.5:  # another process may ask at any time
            await ledger.book()
    await ledger.adjustments.record(fee("mistyped"))
    await ledger.adjustments.void("mistyped", "x")
    left_alone = Ledger(engine)
    assert (await ledger.book()).positions == (await left_alone.book()).positions
    assert (await ledger.book()).positions == advance(Book(), arrive(entries)).positions
    assert (await ledger.book()).positions["PEAR"].is_open


async def test_a_date_is_an_instant_on_the_way_back(ledger: Ledger) -> None:
    midnight = day_start(OPENING.date())
    await ledger.adjustments.record(replace(SPLIT, effective_at=midnight))
    assert not await ledger.adjustments.record(replace(SPLIT, effective_at=midnight.astimezone(UTC)))
    (arrival,) = await ledger.adjustments.after(0, EVER)
    assert arrival.entry.at == midnight
    assert arrival.entry.at.tzinfo is UTC


async def test_a_change_between_two_spellings_of_one_symbol_moves_nothing(ledger: Ledger) -> None:
    """Before both were one, it was the remedy; a ledger that holds one is still read, and what it moved is moved."""
    await ledger.record_fill(fill(10, 400, fill_id="b", symbol="BRK.B"))
    spelt = adjustment(AdjustmentKind.SYMBOL_CHANGE, OPENING + HOUR, "BRK/B", adjustment_id="s", new_symbol="BRK.B")
    await ledger.adjustments.record(spelt)
    await ledger.record_fill(fill(5, 410, fill_id="c", symbol="BRK.B", filled_at=OPENING + 2 * HOUR))
    book = await ledger.book()
    assert book.positions["BRK.B"].qty == 15
    assert not book.positions["BRK/B"].is_open
    assert await ledger.adjustments.void("s", "superfluous")
    assert (await ledger.book()).positions["BRK.B"].qty == 15
    assert [one.adjustment for one in (await ledger.adjustments.page(10, "BRK.B")).adjustments] == [spelt]
