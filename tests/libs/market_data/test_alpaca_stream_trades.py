"""Trades over real sockets: to the trade handlers, in order, and never in the way of quotes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from apps.alpaca_simulator.simulator import Simulator
from libs.market_data.alpaca_stream import AlpacaMarketDataStream
from libs.market_data.channels import Refusal
from libs.market_data.quotes import QuoteOrigin
from libs.market_data.trades import Ineligible, Trade, TradeCancel, TradeCorrection, TradeEvent, TradesInterrupted
from tests.support.quotes import make_trade
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually


@asynccontextmanager
async def streaming(
    simulator: Simulator, *symbols: str, **settings: Any
) -> AsyncIterator[tuple[AlpacaMarketDataStream, list[TradeEvent]]]:
    settings = {"wants_trades": True, "dice": lambda: 0.0} | settings
    stream = AlpacaMarketDataStream("key", "secret", url=simulator.stream_url(), **settings)
    events: list[TradeEvent] = []
    stream.add_trade_handler(events.append)
    await stream.subscribe_symbols(symbols)
    task = asyncio.create_task(stream.start())
    try:
        yield stream, events
    finally:
        await stream.stop()
        await task


async def test_all_that_is_told_of_trades_reaches_the_handlers_in_order() -> None:
    async with running_simulator(rate=0) as simulator, streaming(simulator, "AAPL") as (stream, events):
        await eventually(lambda: stream.confirmed_trades == {"AAPL"})
        simulator.trade("AAPL", 150.01, trade_id=7)
        simulator.correct_trade("AAPL", 7, price=150.02)
        simulator.cancel_trade("AAPL")
        await eventually(lambda: len(events) == 4)
        assert [type(event) for event in events] == [TradesInterrupted, Trade, TradeCorrection, TradeCancel]
        assert stream.trade_counts == {"interruptions": 1, "trades": 1, "corrections": 1, "cancels": 1}
        assert stream.counts["quotes"] == 0


async def test_a_new_connection_interrupts_and_asks_rest() -> None:
    asked: list[Sequence[str]] = []

    async def fetch(symbols: Sequence[str]) -> Sequence[Trade]:
        asked.append(symbols)
        return [make_trade(9, symbol="KO"), make_trade(len(asked), origin=QuoteOrigin.REST)]

    # KO is wanted too, but not streamed: nobody would tell when its last trade is taken back.
    async with (
        running_simulator(rate=0) as simulator,
        streaming(simulator, "AAPL", "KO", symbol_limit=1, fetch_latest_trades=fetch) as (stream, events),
    ):
        await eventually(lambda: len(events) == 2)
        await simulator.drop_all(clean=False)
        await eventually(lambda: len(events) == 4)
        assert asked == [["AAPL"], ["AAPL"]]
        assert [getattr(event, "symbol", None) for event in events] == [None, "AAPL"] * 2
        assert stream.last_trade_snapshot_fault is None


async def test_a_rest_that_fails_is_told_and_nothing_else_suffers() -> None:
    async def fetch(_symbols: Sequence[str]) -> Sequence[Trade]:
        raise OSError("away")

    async with (
        running_simulator(rate=0) as simulator,
        streaming(simulator, "AAPL", fetch_latest_trades=fetch) as (stream, events),
    ):
        await eventually(lambda: stream.trade_snapshot_faults)
        assert stream.last_trade_snapshot_fault == "away"
        simulator.trade("AAPL", 150.01)
        await eventually(lambda: len(events) == 2)


async def test_trades_that_are_no_longer_streamed_are_interrupted() -> None:
    async with running_simulator(rate=0) as simulator, streaming(simulator, "AAPL", "KO") as (stream, events):
        await eventually(lambda: stream.confirmed_trades == {"AAPL", "KO"})
        await stream.unsubscribe_symbols(["KO"])
        await eventually(lambda: events[1:] == [TradesInterrupted(frozenset({"KO"}))])
        assert stream.confirmed_trades == {"AAPL"}


@pytest.mark.parametrize("limit", [2, 3])
async def test_without_room_for_trades_quotes_stream(limit: int) -> None:
    async with (
        running_simulator(rate=0, symbol_limit=limit) as simulator,
        streaming(simulator, "AAPL", "KO") as (stream, _),
    ):
        await eventually(lambda: stream.why_no_trades is Refusal.OVER_LIMIT)
        assert stream.confirmed == {"AAPL", "KO"}
        assert stream.confirmed_trades == frozenset()
        assert stream.not_streamed == {}
        assert stream.knows_halts


async def test_what_handlers_refuse_or_break_is_counted_and_what_nobody_wants_passed_over() -> None:
    stream = AlpacaMarketDataStream("key", "secret", wants_trades=True)
    seen: list[TradeEvent] = []

    def broken(_event: TradeEvent) -> None:
        raise ValueError("broken")

    stream.add_trade_handler(broken)
    stream.add_trade_handler(lambda _event: Ineligible.CONDITION)
    stream.add_trade_handler(seen.append)
    await stream.subscribe_symbols(["AAPL"])
    take = stream._intake.take_trade
    take(make_trade(received_at=datetime.now(UTC)))
    take(make_trade(symbol="KO"))
    take(TradeCancel("KO", 1, "V"))
    take(TradeCorrection(1, make_trade(symbol="KO")))
    assert len(seen) == 1
    assert stream.trade_counts == {"trades": 1, "condition": 1, "unwanted": 3}
    assert stream.counts == {"handler_errors": 1}


def test_a_handler_that_waits_is_refused() -> None:
    async def slow(_event: TradeEvent) -> None: ...

    with pytest.raises(TypeError, match="must not wait"):
        AlpacaMarketDataStream("key", "secret").add_trade_handler(slow)
