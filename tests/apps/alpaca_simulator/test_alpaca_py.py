"""The real, unmodified SDK cannot tell: its stream, its data client, its trading client."""

import asyncio
import threading
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.requests import StockBarsRequest, StockLatestQuoteRequest, StockSnapshotRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import GetCalendarRequest

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.points import Channel
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually


@asynccontextmanager
async def streaming(stream):
    running = asyncio.create_task(stream._run_forever())
    try:
        yield
    finally:
        await stream.stop_ws()
        running.cancel()
        await asyncio.wait([running])
        await stream.close()


async def test_stock_data_stream():
    points = {"quotes": [], "trades": [], "bars": []}

    async def on_quote(quote):
        points["quotes"].append(quote)

    async def on_trade(trade):
        points["trades"].append(trade)

    async def on_bar(bar):
        points["bars"].append(bar)

    async with running_simulator(rate=200, bar_interval_s=0.2) as sim:
        stream = StockDataStream("K", "S", url_override=sim.stream_url("sip"))
        stream.subscribe_quotes(on_quote, "BRK.B", "KO")
        stream.subscribe_trades(on_trade, "AAPL")
        stream.subscribe_bars(on_bar, "AAPL", "BRK.B")
        async with streaming(stream):
            await eventually(lambda: all(points.values()) and len({quote.symbol for quote in points["quotes"]}) == 2)
        await eventually(lambda: not sim.connections)
    assert {quote.symbol for quote in points["quotes"]} == {"BRK.B", "KO"}
    assert all(0 < quote.bid_price < quote.ask_price for quote in points["quotes"])
    assert abs((points["quotes"][-1].timestamp - datetime.now(UTC)).total_seconds()) < 10
    assert {trade.symbol for trade in points["trades"]} == {"AAPL"}
    assert points["bars"][0].volume > 0


async def test_trading_statuses():
    statuses = []

    async def on_status(status):
        statuses.append(status)

    async with running_simulator(rate=0) as sim:
        stream = StockDataStream("K", "S", url_override=sim.stream_url())
        stream.subscribe_trading_statuses(on_status, "AAPL", "F")
        async with streaming(stream):
            await eventually(lambda: sim.connections and sim.connections[0].session.symbols(Channel.STATUSES))
            sim.halt("AAPL", reason="T12")
            sim.halt("F")
            sim.halt("KO")
            sim.resume("AAPL")
            await eventually(lambda: len(statuses) == 3)
    told = [(status.symbol, status.status_code, status.reason_code, status.tape) for status in statuses]
    assert told == [("AAPL", "H", "T12", "C"), ("F", "2", "P", "A"), ("AAPL", "T", "T3", "C")]
    assert statuses[0].status_message == "Trading Halt"
    assert statuses[0].reason_message == "Trading Halted; For information requested by NASDAQ"
    assert abs((statuses[0].timestamp - datetime.now(UTC)).total_seconds()) < 10


async def test_stock_data_stream_on_the_test_path():
    quotes = []

    async def on_quote(quote):
        quotes.append(quote)

    async with running_simulator(test_quote_interval_s=0.05) as sim:
        stream = StockDataStream("K", "S", url_override=sim.stream_url("test"))
        stream.subscribe_quotes(on_quote, "FAKEPACA")
        async with streaming(stream):
            await eventually(lambda: len(quotes) > 2)
    assert (quotes[0].bid_price, quotes[0].ask_price, quotes[0].bid_exchange) == (133.85, 135.77, "O")


async def test_subscriptions_change_while_it_runs_in_a_thread_of_its_own():
    seen = set()

    async def on_quote(quote):
        seen.add(quote.symbol)

    async with running_simulator(rate=100) as sim:
        stream = StockDataStream("K", "S", url_override=sim.stream_url())
        stream.subscribe_quotes(on_quote, *(f"S{n}" for n in range(8_000)))  # more than one 32 KiB fragment
        thread = threading.Thread(target=stream.run, daemon=True)
        thread.start()
        await eventually(lambda: seen and stream._running)
        seen.clear()
        await asyncio.to_thread(stream.unsubscribe_quotes, *(f"S{n}" for n in range(8_000)))
        await asyncio.to_thread(stream.subscribe_quotes, on_quote, "AAPL")
        await eventually(lambda: "AAPL" in seen)
        await asyncio.to_thread(stream.stop)
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_a_wrong_key_is_refused():
    async with running_simulator(key="other") as sim:
        stream = StockDataStream("K", "S", url_override=sim.stream_url())
        try:
            await stream._connect()
            with pytest.raises(ValueError, match="auth failed"):
                await stream._auth()
        finally:
            await stream.close()


async def test_historical_data_client():
    async with running_simulator(rate=0) as sim:
        client = StockHistoricalDataClient("K", "S", url_override=sim.base_url)
        sim.emit("AAPL", 151.99, 152.01)
        request = StockLatestQuoteRequest(symbol_or_symbols=["AAPL", "MSFT"])
        quotes = await asyncio.to_thread(client.get_stock_latest_quote, request)
        assert (quotes["AAPL"].bid_price, quotes["AAPL"].ask_price) == (151.99, 152.01)
        assert quotes["MSFT"].ask_price > 100

        request = StockBarsRequest(
            symbol_or_symbols=["AAPL", "KO"], timeframe=TimeFrame.Day, start=datetime(2025, 1, 1, tzinfo=UTC),
            end=datetime(2025, 3, 31, tzinfo=UTC),
        )  # fmt: skip
        bars = (await asyncio.to_thread(client.get_stock_bars, request)).data
        assert len(bars["AAPL"]) == len(bars["KO"]) == 59
        assert bars["AAPL"][0].timestamp == datetime(2025, 1, 2, 5, tzinfo=UTC)

        request = StockSnapshotRequest(symbol_or_symbols="AAPL")
        snapshot = (await asyncio.to_thread(client.get_stock_snapshot, request))["AAPL"]
        assert snapshot.latest_quote.bid_price == 151.99
        assert snapshot.previous_daily_bar.close > 0


async def test_trading_client():
    held = (HeldPosition("AAPL", Decimal(-5), Decimal("100.5")),)
    async with running_simulator(rate=0, positions=held) as sim:
        client = TradingClient("K", "S", url_override=sim.base_url)
        clock = await asyncio.to_thread(client.get_clock)
        assert clock.is_open
        assert clock.next_close > clock.timestamp
        (position,) = await asyncio.to_thread(client.get_all_positions)
        assert (position.symbol, position.qty, position.side) == ("AAPL", "-5", "short")
        one = await asyncio.to_thread(client.get_open_position, "AAPL")
        assert one.asset_id == position.asset_id
        account = await asyncio.to_thread(client.get_account)
        assert account.status == "ACTIVE"
        request = GetCalendarRequest(start=date(2024, 11, 29), end=date(2024, 11, 29))
        (day,) = await asyncio.to_thread(client.get_calendar, request)
        assert (day.date, day.close.hour) == (date(2024, 11, 29), 13)
        with pytest.raises(APIError) as refused:
            await asyncio.to_thread(client.get_open_position, "MSFT")
        assert refused.value.status_code == 404
