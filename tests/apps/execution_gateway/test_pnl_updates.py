"""What a slow reader is told: one update that says what all the missed ones say together."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway import pnl_feed
from apps.execution_gateway.pnl_feed import PnlFeed, PnlReader, PnlUpdate
from apps.execution_gateway.pnl_report import FeedView, MarketSaidBy, MarketView, RealtimePnl
from libs.market_data.freshness import Mark, PriceSource
from libs.market_data.prices import LinkState, MarketPhase, Mode
from libs.market_data.trading_sessions import TradingPhase
from libs.portfolio.pnl import ClosedPnl, PnlReport, PositionPnl
from libs.portfolio.positions import fold_fills
from libs.portfolio.valuation import total_pnl
from libs.service.supervise import Supervisor
from tests.support.gateway import decode
from tests.support.portfolio import fill, held, valued
from tests.support.waiting import eventually


def row(symbol: str, mid: int) -> PositionPnl:
    position = fold_fills([fill(100, 150, symbol=symbol)])
    mark = Mark(PriceSource.REAL_TIME, Decimal(mid), last_updated=datetime(2025, 10, 20, tzinfo=UTC))
    return valued(position, held(100), mark, None)


def pnl(number: int) -> RealtimePnl:
    return RealtimePnl(
        PnlReport((), total_pnl((), ClosedPnl())),
        Mode.SIMULATED,
        FeedView(connected=True, state=LinkState.STREAMING, since=None),
        MarketView(MarketPhase.OPEN, TradingPhase.REGULAR, None, MarketSaidBy.FEED),
        datetime(2025, 10, 20, tzinfo=UTC),
        str(number),
    )


SYMBOLS = st.sampled_from(["A", "B", "C"])
# What each look finds: per symbol a price, or None when the position is gone.
LOOKS = st.lists(st.dictionaries(SYMBOLS, st.integers(1, 5) | st.none()), min_size=1, max_size=8)


def apply(held: dict[str, PositionPnl], update: PnlUpdate) -> dict[str, PositionPnl]:
    kept = {symbol: row for symbol, row in held.items() if symbol not in update.removed}
    return {**kept, **update.changed}


@given(LOOKS)
def test_together_they_say_the_same(looks: list[dict[str, int | None]]):
    updates = [
        PnlUpdate(
            pnl(number),
            {symbol: row(symbol, mid) for symbol, mid in look.items() if mid is not None},
            frozenset(symbol for symbol, mid in look.items() if mid is None),
        )
        for number, look in enumerate(looks)
    ]
    one_by_one: dict[str, PositionPnl] = {"A": row("A", 9)}
    merged = None
    for update in updates:
        one_by_one = apply(one_by_one, update)
        merged = update.after(merged)
    assert merged is not None
    assert apply({"A": row("A", 9)}, merged) == one_by_one
    assert merged.pnl.calculation_id == str(len(updates) - 1)


def test_an_event_is_one_line_of_json():
    update = PnlUpdate(pnl(1), {"A": row("A", 152)}, frozenset({"B"}))
    head, data, *rest = update.event.split(b"\n")
    assert (head, rest) == (b"event: update", [b"", b""])
    body = decode(data.removeprefix(b"data: "))
    assert (body["positions"][0]["symbol"], body["removed"], body["market"]) == ("A", ["B"], "open")
    assert body["positions"][0]["last_updated"] == "2025-10-20T00:00:00+00:00"


def test_a_close_is_a_date():
    closing = valued(
        fold_fills([fill(1, 150)]),
        held(1),
        Mark(PriceSource.CLOSING, Decimal(151), closing_date=date(2025, 10, 17)),
        Decimal(150),
    )
    body = decode(PnlUpdate(pnl(1), {"AAPL": closing}, frozenset()).event.split(b"data: ")[1])
    assert body["positions"][0]["closing_date"] == "2025-10-17"


async def test_closing_frees_a_reader_that_takes_nothing():
    reader = PnlReader(pnl(1))
    asyncio.get_running_loop().call_later(0.01, reader.close)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with reader.sending():
                await asyncio.Event().wait()


async def test_a_reader_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pnl_feed, "STALLED_AFTER_S", 0.01)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with PnlReader(pnl(1)).sending():
                await asyncio.Event().wait()


async def test_a_problem_follows_the_update_before_it_and_is_dropped_by_the_one_after():
    reader = PnlReader(pnl(0))
    events = reader.events()
    await anext(events)
    reader.tell(PnlUpdate(pnl(1), {}, frozenset()))
    reader.tell_problem(b"problem")
    assert (await anext(events)).startswith(b"event: update")
    assert await anext(events) == b"problem"
    reader.tell_problem(b"problem")
    reader.tell(PnlUpdate(pnl(2), {}, frozenset()))
    assert b'"calculation_id":"2"' in await anext(events)
    reader.close()
    assert [event async for event in events] == []


class Sleeper:
    """Reports of a process that sleeps when it is told to: what it reported before is then outdated."""

    def __init__(self) -> None:
        self.reports = 0
        self.is_of_before = 0

    async def report(self) -> RealtimePnl:
        self.reports += 1
        rows = (row("A", self.reports),)
        return replace(pnl(self.reports), report=PnlReport(rows, total_pnl(rows, ClosedPnl())))

    async def report_from_memory(self) -> RealtimePnl:
        return await self.report()

    def is_outdated(self, pnl: RealtimePnl) -> bool:
        return int(pnl.calculation_id) <= self.is_of_before


async def test_what_was_to_be_told_before_a_sleep_waits_for_the_first_look_after_it():
    reporter = Sleeper()
    feed = PnlFeed(reporter)
    reader = await feed.join()
    events = reader.events()
    assert b'"current_price":1.00' in await anext(events)
    reader.tell(PnlUpdate(await reporter.report(), {"A": row("A", 2)}, frozenset()))
    reporter.is_of_before = reporter.reports
    told = asyncio.create_task(anext(events))
    looking = Supervisor(lambda *_death: None)
    with feed.reading(reader):
        # The pace is kept by 50 ms between two events: by then it would have been told.
        await asyncio.wait({told}, timeout=0.2)
        assert not told.done()
        looking.spawn("looking", feed.run)
        await eventually(told.done)
        body = decode((await told).split(b"data: ")[1])
    assert body["positions"][0]["current_price"] == 3
    assert body["calculation_id"] == "3"
    await looking.stop()


async def test_closing_frees_a_reader_that_waits_for_a_look():
    reporter = Sleeper()
    feed = PnlFeed(reporter)
    reader = await feed.join()
    events = reader.events()
    await anext(events)
    reader.tell(PnlUpdate(pnl(1), {}, frozenset()))
    reporter.is_of_before = 1
    told = asyncio.create_task(anext(events, None))
    await asyncio.wait({told}, timeout=0.1)
    feed.close()
    await eventually(told.done)
