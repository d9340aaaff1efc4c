"""Silence, halts, gaps and symbols that the plan leaves out: the stream against a simulator that misbehaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.simulator import Simulator
from libs.market_data import silence, silence_watch
from libs.market_data.alpaca_rest import AlpacaRest
from libs.market_data.alpaca_stream import AlpacaMarketDataStream
from libs.market_data.channels import Refusal
from libs.market_data.prices import LinkState
from libs.market_data.quotes import Quote, QuoteOrigin
from libs.market_data.silence import Silence
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually


@asynccontextmanager
async def running_stream(
    simulator: Simulator, **settings: Any
) -> AsyncIterator[tuple[AlpacaMarketDataStream, list[Quote]]]:
    """Run a stream that asks the simulator over REST too."""
    quotes: list[Quote] = []
    async with AlpacaRest(simulator.base_url, simulator.base_url, "key", "secret") as rest:
        stream = AlpacaMarketDataStream(
            "key",
            "secret",
            url=simulator.stream_url(),
            dice=lambda: 0.0,
            **{"fetch_latest_quotes": lambda symbols: rest.latest_quotes(symbols, "iex"), **settings},
        )
        stream.add_handler(quotes.append)
        task = asyncio.create_task(stream.start())
        try:
            yield stream, quotes
        finally:
            await stream.stop()
            await task


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have silence judged in tenths of the usual time."""
    monkeypatch.setattr(silence_watch, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(silence, "_LINK_LIMIT_S", (0.5, 1.5))
    monkeypatch.setattr(silence, "_SYMBOL_LIMIT_S", (1.0, 6.0))
    monkeypatch.setattr(silence, "_DOUBT_AFTER_S", 2.0)
    monkeypatch.setattr(silence, "_MUTE_AFTER_S", 3.0)
    monkeypatch.setattr(silence, "_STREAM_LAGS_S", 0.2)
    monkeypatch.setattr(silence, "_PROBE_PAUSE_S", 0.5)


def status(symbol: str, code: str) -> bytes:
    message = {"T": "s", "S": symbol, "sc": code, "sm": "", "rc": "", "rm": "News", "z": "C"}
    return bytes(msgpack.packb([message | {"t": msgpack.Timestamp.from_datetime(datetime.now(UTC))}]))


@pytest.mark.usefixtures("impatient")
async def test_a_mute_connection_is_made_again_and_doubted_until_it_speaks() -> None:
    async with running_simulator(rate=100.0) as simulator, running_stream(simulator) as (stream, quotes):
        await stream.subscribe_symbols(["AAPL", "MSFT"])
        await eventually(lambda: stream.record("AAPL").streamed > 20)
        assert stream.doubted == frozenset()
        simulator.faults = Faults(mute=True)
        await eventually(lambda: stream.watch.mute_connections and stream.link.last_fault, within_s=5)
        assert stream.link.last_fault is not None
        assert "mute" in stream.link.last_fault.message
        assert stream.doubted == {"AAPL", "MSFT"}
        await eventually(lambda: stream.link.reconnects and stream.link.state is LinkState.STREAMING)
        assert stream.doubted == {"AAPL", "MSFT"}, "connected again is no proof"
        simulator.faults = Faults()
        await eventually(lambda: not stream.doubted)
        assert stream.watch.silence is Silence.NONE
        gap = stream.gaps.history[-1]
        assert gap.symbols == {"AAPL", "MSFT"}
        assert gap.ended_at is not None
        assert gap.ended_at > gap.began_at
        assert "mute" in gap.reason
        assert [q for q in quotes if q.origin is QuoteOrigin.REST], "REST's newer quotes were taken in meanwhile"


@pytest.mark.usefixtures("impatient")
async def test_mute_in_a_closed_market_is_nothing() -> None:
    is_open = True
    async with (
        running_simulator(rate=100.0) as simulator,
        running_stream(simulator, is_market_open=lambda: is_open) as (stream, _),
    ):
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: stream.record("AAPL").streamed > 20)
        is_open = False
        simulator.faults = Faults(mute=True)
        await asyncio.sleep(3)
        assert stream.watch.mute_connections == 0
        assert stream.doubted == frozenset()
        assert stream.link.reconnects == 0
        is_open = True
        await eventually(lambda: stream.watch.mute_connections, within_s=5)


@pytest.mark.usefixtures("impatient")
async def test_a_silence_that_nothing_proves_is_doubted_and_kept() -> None:
    async def no_answer(_symbols: Any) -> list[Quote]:
        raise OSError("REST is away")

    async with (
        running_simulator(rate=0.0) as simulator,
        running_stream(simulator, fetch_latest_quotes=no_answer) as (stream, _),
    ):
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: stream.confirmed)
        simulator.emit("AAPL", 150.0, 150.02)
        await eventually(lambda: stream.doubted == {"AAPL"} and stream.watch.probe_faults, within_s=5)
        simulator.emit("AAPL", 150.0, 150.02)
        await eventually(lambda: not stream.doubted)
        assert stream.link.reconnects == 0


@pytest.mark.usefixtures("impatient")
async def test_a_quiet_market_is_vouched_for_by_rest() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, _):
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: stream.confirmed)
        simulator.emit("AAPL", 150.0, 150.02)
        await eventually(lambda: stream.watch.probes >= 2, within_s=8)
        assert stream.doubted == frozenset()
        assert stream.link.reconnects == 0


async def test_symbols_over_the_limit_are_polled_and_belong_to_no_connection() -> None:
    async with (
        running_simulator(rate=50.0, symbol_limit=1) as simulator,
        running_stream(simulator) as (stream, quotes),
    ):
        stream.want_positions({"AAPL": Decimal(100), "MSFT": Decimal(50)})
        await eventually(lambda: stream.not_streamed == {"MSFT": Refusal.OVER_LIMIT})
        await eventually(lambda: any(quote.symbol == "MSFT" for quote in quotes))
        assert stream.poller.last_fault is None
        assert stream.epoch_of("MSFT") is None
        assert stream.epoch_of("AAPL") == stream.link.epoch
        assert {quote.origin for quote in quotes if quote.symbol == "MSFT"} == {QuoteOrigin.REST}


async def test_a_halt_lasts_until_the_venue_resumes() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, quotes):
        await stream.subscribe_symbols(["AAPL", "MSFT"])
        # Streaming: that is announced too, a moment after both are confirmed.
        await eventually(lambda: stream.link.state is LinkState.STREAMING and stream.confirmed == {"AAPL", "MSFT"})
        told: list[frozenset[str]] = []
        stream.link.add_listener(lambda: told.append(stream.halted))
        simulator.send_raw(status("AAPL", "H"))
        await eventually(lambda: stream.halted == {"AAPL"})
        halt = stream.halt_of("AAPL")
        assert halt is not None
        assert halt.reason == "News"
        assert told == [{"AAPL"}]
        simulator.emit("AAPL", 150.0, 150.02)
        await eventually(lambda: any(quote.bid == 150.0 for quote in quotes))
        assert stream.halted == {"AAPL"}, "an indication is no trading"
        await simulator.drop_all(clean=True)
        await eventually(lambda: stream.link.reconnects == 1 and stream.confirmed)
        assert stream.halted == {"AAPL"}, "until something says otherwise"
        simulator.emit("AAPL", 151.0, 151.02)
        await eventually(lambda: not stream.halted)
        simulator.send_raw(status("MSFT", "H"))
        await eventually(lambda: stream.halted == {"MSFT"})
        simulator.send_raw(status("MSFT", "T"))
        await eventually(lambda: not stream.halted)
        assert stream.counts["trading_statuses"] == 3


async def test_a_process_that_slept_trusts_nothing_that_piled_up() -> None:
    async with running_simulator(rate=100.0) as simulator, running_stream(simulator) as (stream, _):
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: stream.record("AAPL").streamed > 5)
        epoch = stream.link.epoch
        epochs: list[str | None] = []
        stream.add_handler(lambda _quote: epochs.append(stream.link.epoch))
        # As if no beat had come for a minute.
        stream.watch.awake.beat(datetime.now(UTC) - timedelta(minutes=1))
        assert not stream.is_connected()
        await eventually(lambda: stream.link.epoch != epoch)
        assert stream.link.last_fault is not None
        assert "stopped for a while" in stream.link.last_fault.message
        await eventually(lambda: len(epochs) > 5)
        assert epoch not in epochs
        assert stream.watch.sleeps == 1


async def test_a_standby_does_not_dial_until_it_takes_over() -> None:
    async with running_simulator(rate=0.0) as simulator:
        stream = AlpacaMarketDataStream("key", "secret", url=simulator.stream_url())
        stream.stand_by("another instance has the feed")
        task = asyncio.create_task(stream.start())
        await stream.subscribe_symbols(["AAPL"])
        await asyncio.sleep(0.3)
        assert simulator.connections == []
        assert stream.link.state is LinkState.STANDBY
        assert not stream.first_attempt_ended
        assert stream.is_standing_by
        stream.take_over()
        assert not stream.is_standing_by
        await eventually(lambda: stream.link.state is LinkState.STREAMING and stream.confirmed)
        stream.take_over()
        stream.stand_by("lost it")
        await eventually(lambda: stream.link.state is LinkState.STANDBY)
        await eventually(lambda: not simulator.connections)
        assert stream.confirmed == frozenset()
        stream.reconnect()
        await asyncio.sleep(0.2)
        assert stream.link.state is LinkState.STANDBY, "nobody makes a standby dial but its lease"
        await stream.stop()
        await task
        assert stream.link.state is LinkState.STOPPED


async def test_a_lost_connection_is_a_gap_until_all_streams_again() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, _):
        await stream.subscribe_symbols(["AAPL", "MSFT"])
        await eventually(lambda: stream.link.state is LinkState.STREAMING and len(stream.confirmed) == 2)
        before = datetime.now(UTC)
        await simulator.drop_all(clean=False)
        await eventually(lambda: stream.gaps.history)
        (gap,) = stream.gaps.history
        assert gap.symbols == {"AAPL", "MSFT"}
        assert gap.began_at <= before + timedelta(seconds=1)
        assert gap.ended_at is not None
        assert "without a close frame" in gap.reason
        assert stream.gaps.open == []
        await stream.unsubscribe_symbols(["AAPL"])
        await simulator.drop_all(clean=False)
        await eventually(lambda: stream.gaps.closed == 2)
        assert stream.gaps.history[-1].symbols == {"MSFT"}
