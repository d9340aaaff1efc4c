import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.protocol import ErrorCode
from apps.alpaca_simulator.simulator import Simulator
from libs.market_data.alpaca_stream import AlpacaMarketDataStream
from libs.market_data.channels import Refusal
from libs.market_data.prices import LinkState
from libs.market_data.quotes import Quote, QuoteOrigin, Unmarkable, as_standing_quote
from tests.support.quotes import NOON, make_quote
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually


@asynccontextmanager
async def running_stream(
    simulator: Simulator, **settings: Any
) -> AsyncIterator[tuple[AlpacaMarketDataStream, list[Quote]]]:
    settings.setdefault("dice", lambda: 0.0)
    stream = AlpacaMarketDataStream("key", "secret", url=simulator.stream_url(), **settings)
    quotes: list[Quote] = []
    stream.add_handler(quotes.append)
    task = asyncio.create_task(stream.start())
    try:
        yield stream, quotes
    finally:
        await stream.stop()
        await task
    assert stream.link.state is LinkState.STOPPED
    assert not stream.is_connected()


async def test_quotes_of_a_subscribed_symbol_reach_the_handlers() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, quotes):
        await eventually(stream.is_connected)
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: stream.confirmed == {"AAPL"})
        simulator.emit("AAPL", 150.25, 150.27)
        await eventually(lambda: quotes)
        assert (quotes[0].symbol, quotes[0].bid, quotes[0].ask) == ("AAPL", 150.25, 150.27)
        assert stream.link.state is LinkState.STREAMING
        assert stream.record("AAPL").quotes == 1


async def test_with_nothing_wanted_the_link_still_streams() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, _):
        await eventually(lambda: stream.link.state is LinkState.STREAMING)
        assert stream.diverged_for_s == pytest.approx(0, abs=0.5)


async def test_unsubscribing_by_hand_keeps_what_a_position_holds() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, quotes):
        await stream.subscribe_symbols(["AAPL", "MSFT"])
        stream.want_positions({"AAPL": Decimal(-100)})
        await eventually(lambda: stream.confirmed == {"AAPL", "MSFT"})
        await stream.unsubscribe_symbols(["AAPL", "MSFT"])
        await eventually(lambda: stream.confirmed == {"AAPL"})
        await stream._handle_quote(make_quote("MSFT"))
        assert quotes == []
        assert stream.counts["quotes_unwanted"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"bid": 0.0}, "one_sided"), ({"bid": 151.0}, "crossed"), ({"conditions": ("N",)}, "not_firm")],
)
async def test_a_quote_that_may_not_mark_is_counted_by_reason(changes: dict[str, Any], reason: str) -> None:
    stream = AlpacaMarketDataStream("key", "secret")
    quotes: list[Quote] = []
    stream.add_handler(quotes.append)
    await stream.subscribe_symbols(["AAPL"])
    await stream._handle_quote(make_quote(**changes))
    assert quotes == []
    assert stream.record("AAPL").rejected == stream.rejected == {reason: 1}


async def test_what_a_handler_refuses_or_breaks_is_counted() -> None:
    stream = AlpacaMarketDataStream("key", "secret")
    seen: list[Quote] = []

    def broken(_quote: Quote) -> None:
        raise ValueError("broken")

    stream.add_handler(broken)
    stream.add_handler(lambda _quote: Unmarkable.OUT_OF_ORDER)
    stream.add_handler(seen.append)
    await stream.subscribe_symbols(["AAPL"])
    await stream._handle_quote(make_quote())
    assert seen
    assert stream.rejected == {"out_of_order": 1}
    assert stream.counts["handler_errors"] == 1


def test_a_handler_that_waits_is_refused() -> None:
    async def slow(_quote: Quote) -> None: ...

    with pytest.raises(TypeError, match="must not wait"):
        AlpacaMarketDataStream("key", "secret").add_handler(slow)


@pytest.mark.parametrize("clean", [True, False])
async def test_a_dropped_connection_is_made_again_with_all_subscriptions(*, clean: bool) -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, quotes):
        await stream.subscribe_symbols(["AAPL", "MSFT"])
        await eventually(lambda: len(stream.confirmed) == 2)
        epoch = stream.link.epoch
        await simulator.drop_all(clean=clean)
        await eventually(lambda: stream.link.reconnects == 1 and len(stream.confirmed) == 2)
        assert stream.link.epoch != epoch
        assert stream.link.last_fault is not None
        simulator.emit("MSFT", 1.0, 1.01)
        await eventually(lambda: quotes)


async def test_a_wrong_key_stops_the_dialling_until_a_person_acts() -> None:
    async with running_simulator(rate=0.0) as simulator:
        simulator.faults = Faults(auth_error=ErrorCode.AUTH_FAILED)
        async with running_stream(simulator) as (stream, _):
            await eventually(lambda: stream.link.state is LinkState.REFUSED)
            assert len(simulator.dials) == 1
            assert stream.link.last_fault is not None
            assert "ALPACA_API_KEY" in stream.link.last_fault.message
            simulator.faults = Faults()
            stream.reconnect()
            await eventually(lambda: stream.link.state is LinkState.STREAMING)
            assert len(simulator.dials) == 2


async def test_giving_up_after_the_allowed_attempts() -> None:
    async with running_simulator(rate=0.0) as simulator:
        simulator.faults = Faults(upgrade_status=502)
        async with running_stream(simulator, max_reconnect_attempts=2) as (stream, _):
            await eventually(lambda: stream.link.state is LinkState.STOPPED)
            assert len(simulator.dials) == 2
            simulator.faults = Faults()
            stream.reconnect()
            await eventually(stream.is_connected)


async def test_reconnecting_by_hand_stays_within_the_dial_budget() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, _):
        for _ in range(20):
            stream.reconnect()
            await asyncio.sleep(0.02)

        def has_run_out() -> bool:
            stream.reconnect()
            return stream.link.state is LinkState.BACKING_OFF

        await eventually(has_run_out)
        assert len(simulator.dials) <= 5


async def test_a_symbol_limit_leaves_the_least_important_out() -> None:
    async with running_simulator(rate=0.0, symbol_limit=2) as simulator, running_stream(simulator) as (stream, _):
        await stream.subscribe_symbols(["AAPL", "MSFT"])
        await eventually(lambda: len(stream.confirmed) == 2)
        stream.want_positions({"TSLA": Decimal(500)})
        await eventually(lambda: stream.confirmed == {"TSLA", "AAPL"})
        assert stream.why_not_streamed("MSFT") is Refusal.OVER_LIMIT


async def test_odd_frames_cost_only_themselves() -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, quotes):
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: stream.confirmed)
        for frame in (
            b"\xc1",
            "not json",
            msgpack.packb([{"T": "q", "S": "AAPL", "bp": "text"}, {"T": "??", "S": "AAPL"}, 5]),
            msgpack.packb([{"T": "error", "code": 999, "msg": "unheard of"}]),
            msgpack.packb([{"T": "error", "code": code, "msg": "unheard of"} for code in (-1, 0, 1 << 40, 500)]),
            '[{"T":"q","S":"AAPL","bp":1.0,"ap":1.01,"t":"2026-01-01T00:00:00Z"}]',
        ):
            simulator.send_raw(frame)
        await eventually(lambda: quotes)
        assert stream.counts["unreadable_frames"] == 2
        assert stream.counts["unreadable_messages"] == 3
        assert stream.counts["stream_error_other"] == 4
        assert {name for name in stream.counts if name.startswith("stream_error")} == {
            "stream_error_other",
            "stream_error_500",
        }
        assert stream.record("AAPL").rejected == {"malformed": 2}
        assert stream.link.reconnects == 0


async def test_no_frame_ends_the_stream_or_costs_the_quotes_beside_it() -> None:
    good = {"T": "q", "S": "MSFT", "bp": 400.0, "ap": 400.1, "t": "2026-01-01T00:00:00Z"}
    nested = b"\x83\xa1T\xa1q\xa1S\xa4AAPL\xa1x" + b"\x91" * 1_000 + b"\xc0"
    absurd = [
        {"T": kind, "S": "AAPL", "bp": 1.0, "ap": 1.01, "p": 1.0, "i": 1, "t": time}
        for time in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
        for kind in ("q", "t")
    ]
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator) as (stream, quotes):
        await stream.subscribe_symbols(["AAPL", "MSFT"])
        await eventually(lambda: len(stream.confirmed) == 2)
        simulator.send_raw(b"\x92" + nested + msgpack.packb(good))
        simulator.send_raw(msgpack.packb([*absurd, good]))
        simulator.send_raw(msgpack.packb([good]))
        await eventually(lambda: len(quotes) == 3)
        assert {quote.symbol for quote in quotes} == {"MSFT"}
        assert stream.record("AAPL").rejected == {"malformed": 1, "untimed": 2}
        assert stream.trade_counts["trades"] == 2
        assert (stream.is_connected(), stream.link.reconnects) == (True, 0)


@pytest.mark.parametrize(("code", "state"), [(402, LinkState.REFUSED), (407, LinkState.BACKING_OFF)])
async def test_some_errors_in_the_stream_end_it(code: int, state: LinkState) -> None:
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator, dice=lambda: 0.9) as (stream, _):
        await eventually(stream.is_connected)
        simulator.send_raw(msgpack.packb([{"T": "error", "code": code, "msg": "told in the stream"}]))
        await eventually(lambda: stream.link.state is state)


async def test_a_quiet_symbol_gets_its_price_by_rest() -> None:
    asked: list[list[str]] = []

    async def fetch(symbols: Any) -> list[Quote]:
        asked.append(list(symbols))
        if len(asked) == 1:
            raise OSError("not yet")
        return [make_quote(symbol, origin=QuoteOrigin.REST) for symbol in symbols]

    async with (
        running_simulator(rate=0.0) as simulator,
        running_stream(simulator, fetch_latest_quotes=fetch) as (stream, quotes),
    ):
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: quotes)
        assert asked == [["AAPL"], ["AAPL"]]
        assert stream.snapshot_faults == 1
        assert stream.last_snapshot_fault is None


def test_fetching_an_old_quote_does_not_make_it_young() -> None:
    fetched_at = NOON + timedelta(hours=2)
    assert as_standing_quote(make_quote(received_at=fetched_at)).received_at == NOON
    ahead = make_quote(timestamp=fetched_at + timedelta(seconds=1), received_at=fetched_at)
    assert as_standing_quote(ahead) is ahead
    untimed = make_quote(timestamp=None)
    assert as_standing_quote(untimed) is untimed


async def test_no_acknowledgement_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.market_data.conversation._ACK_TIMEOUT_S", 0.2)
    async with running_simulator(rate=0.0) as simulator, running_stream(simulator, dice=lambda: 0.9) as (stream, _):
        await eventually(stream.is_connected)
        simulator.faults = Faults(half_open=True)
        await stream.subscribe_symbols(["AAPL"])
        await eventually(lambda: stream.link.last_fault is not None)
        assert "acknowledgement" in stream.link.last_fault.message  # type: ignore[union-attr]


async def test_the_links_changes_are_told_and_remembered() -> None:
    async with running_simulator(rate=0.0) as simulator:
        stream = AlpacaMarketDataStream("key", "secret", url=simulator.stream_url())
        told: list[LinkState] = []
        stream.link.add_listener(lambda: told.append(stream.link.state))
        before = datetime.now(UTC)
        task = asyncio.create_task(stream.start())
        await eventually(lambda: stream.link.state is LinkState.STREAMING)
        await stream.stop()
        await task
        states = [change.state for change in stream.link.history]
        assert [state.value for state in states] == [
            "connecting", "authenticating", "subscribing", "streaming", "stopped",
        ]  # fmt: skip
        assert set(states) <= set(told)
        assert stream.link.since >= before


async def test_a_cancelled_stream_closes_its_connection_cleanly() -> None:
    async with running_simulator(rate=0.0) as simulator:
        stream = AlpacaMarketDataStream("key", "secret", url=simulator.stream_url())
        task = asyncio.create_task(stream.start())
        await eventually(stream.is_connected)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not simulator.connections)
