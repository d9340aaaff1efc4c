"""The ledger's contract, on every database that the settings accept."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway import ledger as module
from apps.execution_gateway.database import DatabaseUnavailableError, create_engine
from apps.execution_gateway.ledger import (
    FillConflictError,
    FillNotFoundError,
    Ledger,
    Recorded,
)
from apps.execution_gateway.page_cursor import MalformedCursorError
from apps.execution_gateway.tables import FILLS
from libs.portfolio.book import Book, Revision
from libs.portfolio.fills import Fill
from libs.portfolio.positions import fold_fills
from tests.support.portfolio import OPENING, fill

NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)


@pytest.fixture
def ledger(engine: AsyncEngine) -> Ledger:
    return Ledger(engine, now=lambda: NOW)


def buy(fill_id: str, qty: object = 100, price: object = 150, minute: int = 0, symbol: str = "AAPL") -> Fill:
    return fill(qty, price, fill_id=fill_id, symbol=symbol, filled_at=OPENING + timedelta(minutes=minute))


async def test_an_empty_ledger_is_an_empty_book(ledger: Ledger) -> None:
    assert await ledger.book() == Book()
    assert (await ledger.list_fills()).fills == ()


async def test_a_fill_becomes_a_position_once(ledger: Ledger) -> None:
    assert await ledger.record_fill(buy("1")) is Recorded.CREATED
    assert await ledger.record_fill(buy("1")) is Recorded.REPEATED
    book = await ledger.book()
    assert book.positions == {"AAPL": fold_fills([buy("1")])}
    assert await ledger.book() is book


async def test_the_same_content_may_be_written_differently(ledger: Ledger) -> None:
    await ledger.record_fill(buy("1", "100", "150"))
    other = replace(buy("1", "100.000", "150.00"), filled_at=OPENING.astimezone(tz=None))
    assert await ledger.record_fill(other) is Recorded.REPEATED


async def test_other_content_under_the_same_id_is_refused_by_name(ledger: Ledger) -> None:
    await ledger.record_fill(buy("1"))
    with pytest.raises(FillConflictError, match="qty, price") as caught:
        await ledger.record_fill(buy("1", 101, 151))
    assert caught.value.fields == ("qty", "price")
    assert caught.value.recorded == buy("1")
    assert (await ledger.book()).positions["AAPL"].qty == 100


async def test_no_digit_is_lost_on_the_way_through(ledger: Ledger) -> None:
    exact = buy("1", "123456789012.123456789", "987654321.987654321")
    exact = replace(exact, fee=Decimal("0.000000001"), filled_at=OPENING + timedelta(microseconds=1))
    await ledger.record_fill(exact)
    (recorded,) = (await ledger.list_fills()).fills
    assert recorded.fill == exact
    assert recorded.recorded_at == NOW
    assert (recorded.voided_at, recorded.void_reason) == (None, None)
    assert (await ledger.book()).positions["AAPL"] == fold_fills([exact])


async def test_concurrent_repeats_record_one(ledger: Ledger) -> None:
    outcomes = await asyncio.gather(*(ledger.record_fill(buy("1")) for _ in range(8)))
    assert sorted(outcomes) == [Recorded.CREATED, *[Recorded.REPEATED] * 7]
    assert (await ledger.book()).positions["AAPL"].qty == 100


async def test_a_voided_fill_counts_no_longer_and_cannot_come_back(ledger: Ledger) -> None:
    await ledger.record_fill(buy("1"))
    await ledger.record_fill(buy("2", 10, 200, 1))
    await ledger.book()
    voided = await ledger.void_fill("2", "typed twice")
    assert (voided.fill.fill_id, voided.voided_at, voided.void_reason) == ("2", NOW, "typed twice")
    assert (await ledger.void_fill("2", "another reason")).void_reason == "typed twice"
    assert (await ledger.book()).positions["AAPL"] == fold_fills([buy("1")])
    assert await ledger.record_fill(buy("2", 10, 200, 1)) is Recorded.REPEATED
    assert (await ledger.book()).positions["AAPL"].qty == 100
    assert [one.void_reason for one in (await ledger.list_fills()).fills] == ["typed twice", None]


async def test_voiding_what_is_not_there_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(FillNotFoundError, match="'none'"):
        await ledger.void_fill("none", "why")
    assert (await ledger.book()).revision == Revision(0, 0)


async def test_fills_are_paged_newest_first_without_gap_or_repeat(ledger: Ledger) -> None:
    # Ties in time, and an order of arrival that is not the order of filling.
    minutes = [3, 1, 2, 2, 2, 0, 5]
    for number, minute in enumerate(minutes):
        await ledger.record_fill(buy(str(number), minute=minute, symbol="MSFT" if number == 6 else "AAPL"))
    seen: list[str] = []
    after = None
    for _ in range(4):
        page = await ledger.list_fills(limit=2, after=after)
        seen += [one.fill.fill_id for one in page.fills]
        after = page.next
    assert after is None
    assert seen == ["6", "0", "4", "3", "2", "1", "5"]
    assert [one.fill.fill_id for one in (await ledger.list_fills("MSFT")).fills] == ["6"]
    assert (await ledger.list_fills("aapl")).fills == ()


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "MjAyNQ", "bm90IGEgdGltZSA1", "MjAyNS0xMC0yMFQxMzozMDowMCAx", "A" * 5000]
)
async def test_a_cursor_that_is_not_ours_is_refused(ledger: Ledger, cursor: str) -> None:
    with pytest.raises(MalformedCursorError):
        await ledger.list_fills(after=cursor)


async def test_a_cursor_beyond_every_row_gives_an_empty_page(ledger: Ledger) -> None:
    await ledger.record_fill(buy("1", minute=1))
    await ledger.record_fill(buy("2", minute=2))
    page = await ledger.list_fills(limit=1)
    last = await ledger.list_fills(limit=1, after=page.next)
    assert ([one.fill.fill_id for one in last.fills], last.next) == (["1"], None)


async def test_accounts_do_not_see_each_other(engine: AsyncEngine, ledger: Ledger) -> None:
    other = Ledger(engine, account="other", now=lambda: NOW)
    await ledger.record_fill(buy("1"))
    await other.record_fill(buy("1", 7, 7))
    with pytest.raises(FillNotFoundError):
        await Ledger(engine, account="third").void_fill("1", "not mine")
    await other.void_fill("1", "mine")
    assert (await ledger.book()).positions["AAPL"].qty == 100
    assert (await other.book()).positions == {}
    assert [one.fill.qty for one in (await other.list_fills()).fills] == [7]


async def test_another_process_s_fills_are_seen(engine: AsyncEngine, ledger: Ledger) -> None:
    await ledger.book()
    await Ledger(engine).record_fill(buy("1"))
    assert (await ledger.book()).positions["AAPL"].qty == 100


async def test_large_ledgers_are_loaded_piece_by_piece(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOAD_ROWS", 3)
    for number in range(7):
        await ledger.record_fill(buy(str(number)))
    for number in range(4):
        await ledger.void_fill(str(number), "test")
    book = await ledger.book()
    assert book.revision.fills >= 7
    assert book.positions["AAPL"].qty == 300


async def test_readers_and_writers_together_end_at_the_truth(engine: AsyncEngine, ledger: Ledger) -> None:
    dice = random.Random(7)
    fills = [buy(str(number), dice.choice([-3, 5, 2]), dice.randint(1, 9), dice.randint(0, 5)) for number in range(30)]
    writers = [Ledger(engine, now=lambda: NOW) for _ in range(2)]
    readings: list[list[Revision]] = []

    async def write(number: int, one: Fill) -> None:
        await writers[number % 2].record_fill(one)
        if number % 5 == 0:
            await writers[number % 2].void_fill(one.fill_id, "test")

    async def read() -> None:
        readings.append([(await ledger.book()).revision for _ in range(10)])

    await asyncio.gather(read(), *(write(number, one) for number, one in enumerate(fills)), read())
    book = await ledger.book()
    assert len(book.steps["AAPL"]) == 24
    assert book == await Ledger(engine).book()
    # Each reader on its own only ever sees the ledger grow.
    assert len(readings) == 2
    assert all(revisions == sorted(revisions) for revisions in readings)


async def test_a_list_is_recorded_in_its_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    await ledger.record_fill(buy("3"))
    fills = [buy(str(number), number + 1) for number in (7, 2, 5, 1, 6, 4, 0)]
    compared = await ledger.record_fills([*fills, buy("3"), fills[0]])
    assert (compared.new, compared.repeated, compared.conflicts) == (tuple(fills), 2, ())
    # All were filled at the same moment: what tells them apart is the order of arrival.
    recorded = (await ledger.list_fills()).fills
    assert [one.fill.fill_id for one in reversed(recorded)] == ["3", "7", "2", "5", "1", "6", "4", "0"]
    assert (await ledger.book()).positions["AAPL"] == fold_fills([buy("3"), *fills])
    again = await ledger.record_fills(fills)
    assert (again.new, again.repeated) == ((), 7)


async def test_one_conflict_refuses_the_whole_list(ledger: Ledger) -> None:
    await ledger.record_fill(buy("1"))
    await ledger.void_fill("1", "typed twice")
    for attempt in (ledger.compare_fills, ledger.record_fills):
        compared = await attempt([buy("2"), buy("1", 7), buy("3"), buy("2", 8), buy("1")])
        assert [(conflict.place, conflict.fields) for conflict in compared.conflicts] == [(1, ("qty",)), (3, ("qty",))]
        assert [conflict.stands for conflict in compared.conflicts] == [buy("1"), buy("2")]
        assert (compared.repeated, [one.place for one in compared.void]) == (0, [4]), "recorded, but void"
    assert [one.fill.fill_id for one in (await ledger.list_fills()).fills] == ["1"]
    assert (await ledger.book()).positions == {}


async def test_comparing_records_nothing(ledger: Ledger) -> None:
    await ledger.record_fill(buy("1"))
    compared = await ledger.compare_fills([buy("1"), buy("2")])
    assert (compared.new, compared.repeated) == ((buy("2"),), 1)
    assert len((await ledger.list_fills()).fills) == 1
    assert (await ledger.compare_fills([])).new == ()


async def test_a_list_that_fails_midway_leaves_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    # No column holds a NaN: the third statement fails, after two that did not.
    unwritable = buy("5")
    object.__setattr__(unwritable, "fee", Decimal("NaN"))
    with pytest.raises(DatabaseUnavailableError):
        await ledger.record_fills([*(buy(str(number)) for number in range(5)), unwritable])
    assert (await ledger.list_fills()).fills == ()
    assert await ledger.book() == Book()
    assert await ledger.record_fill(buy("0")) is Recorded.CREATED


async def test_two_gateways_import_the_same_fills_once(database: str, engine: AsyncEngine, ledger: Ledger) -> None:
    other_engine = create_engine(database)
    ledgers = [Ledger(one, now=lambda: NOW) for one in (engine, other_engine, other_engine)]
    fills = [buy(str(number)) for number in range(40)]
    lists = (fills[:30], fills[10:], fills)
    found = await asyncio.gather(*(one.record_fills(some) for one, some in zip(ledgers, lists, strict=True)))
    await other_engine.dispose()
    assert sum(len(compared.new) for compared in found) == 40
    assert sum(compared.repeated for compared in found) == 60
    assert (await ledger.book()).positions["AAPL"].qty == 4000


async def test_what_is_committed_late_is_never_passed_over(engine: AsyncEngine, ledger: Ledger) -> None:
    """Readers ask for what came after the last number they saw: a lower one must not appear afterwards."""
    slow = Ledger(engine, now=lambda: NOW)
    async with slow._access.writing() as connection:
        await connection.execute(FILLS.insert(), [slow._row(buy("1"), NOW)])
        recording = asyncio.create_task(ledger.record_fill(buy("2")))
        await asyncio.wait({recording}, timeout=0.3)
        assert not recording.done(), "it waits for its turn"
        assert (await ledger.book()).positions == {}
    assert await recording is Recorded.CREATED
    assert (await ledger.book()).positions["AAPL"].qty == 200


async def test_accounts_import_the_same_ids(engine: AsyncEngine, ledger: Ledger) -> None:
    other = Ledger(engine, account="other", now=lambda: NOW)
    await ledger.record_fills([buy("1")])
    assert len((await other.record_fills([buy("1", 7)])).new) == 1
    assert (await other.book()).positions["AAPL"].qty == 7


async def test_what_was_recorded_under_another_spelling_is_one_position(engine: AsyncEngine, ledger: Ledger) -> None:
    """Ledgers of earlier versions hold symbols as they were written."""
    async with ledger._access.writing() as connection:
        rows = [ledger._row(buy(str(number)), NOW) for number in range(3)]
        for row, symbol in zip(rows, ("BRK/B", "BRK-B", "BRK.B"), strict=True):
            await connection.execute(FILLS.insert(), [row | {"symbol": symbol}])
    await ledger.void_fill("1", "mistyped")
    assert await ledger.record_fill(buy("0", symbol="BRK.B")) is Recorded.REPEATED
    assert {symbol: one.qty for symbol, one in (await ledger.book()).positions.items()} == {"BRK.B": 200}
    assert {symbol: one.qty for symbol, one in (await Ledger(engine).book()).positions.items()} == {"BRK.B": 200}
    assert [one.fill.symbol for one in (await ledger.list_fills("BRK.B")).fills] == ["BRK.B"] * 3


async def test_coins_recorded_without_the_slash_are_closed_by_a_sale_of_the_pair(
    engine: AsyncEngine, ledger: Ledger
) -> None:
    """Ledgers of earlier versions hold the pair as the account wrote it: bought at 20,000, sold at 30,000."""
    async with ledger._access.writing() as connection:
        row = ledger._row(buy("old", 1, "20000", symbol="BTCUSD"), NOW)
        await connection.execute(FILLS.insert(), [row | {"symbol": "BTCUSD"}])
        voided = ledger._row(buy("void", 5, "20000", symbol="BTCUSD"), NOW)
        await connection.execute(FILLS.insert(), [voided | {"symbol": "btc-usd"}])
    await ledger.void_fill("void", "busted")
    assert await ledger.record_fill(buy("old", 1, "20000", symbol="BTC/USD")) is Recorded.REPEATED
    await ledger.record_fill(buy("new", -1, "30000", minute=1, symbol="BTC/USD"))
    for book in (await ledger.book(), await Ledger(engine).book()):
        assert [*book.positions] == ["BTC/USD"]
        assert (book.positions["BTC/USD"].qty, book.positions["BTC/USD"].realized_pnl) == (0, 10_000)
    assert {one.fill.symbol for one in (await ledger.list_fills("BTC/USD")).fills} == {"BTC/USD"}
    assert {one.fill.symbol for one in await ledger.fills_since(OPENING)} == {"BTC/USD"}
