import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest
from structlog.testing import capture_logs

from apps.alpaca_simulator.simulator import Simulator
from apps.alpaca_simulator.trade_update_faults import Oddity
from apps.alpaca_simulator.trading_desk import Announce
from libs.broker.executions import Unreadable
from libs.broker.trade_updates import (
    Authorized,
    Busted,
    Corrected,
    Disconnected,
    Executed,
    Ignored,
    Listening,
    OrderEvent,
    StreamEvent,
)
from libs.broker.trade_updates_connection import stream_url
from libs.broker.trading_stream import TradingStream
from libs.market_data.prices import LinkState
from libs.market_data.reconnect import Ending
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually

KEY, SECRET = "PKTEST", "hush-hush"
TEN = Decimal(10)


@dataclass
class Client:
    """A stream that runs, and what it has handed over."""

    stream: TradingStream
    events: list[StreamEvent]
    running: asyncio.Task[None]

    def of(self, *kinds: type) -> list[StreamEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    async def listens(self, times: int = 1, within_s: float = 5) -> None:
        await eventually(lambda: len(self.of(Listening)) == times and self.stream.is_listening, within_s)

    async def hears(self, kind: type, number: int = 1) -> list[StreamEvent]:
        await eventually(lambda: len(self.of(kind)) >= number)
        return self.of(kind)

    async def is_in(self, state: LinkState) -> None:
        await eventually(lambda: self.stream.link.state is state)

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    @property
    def execution_ids(self) -> list[str]:
        return [event.execution.execution_id for event in self.events if isinstance(event, Executed)]


@asynccontextmanager
async def connected(simulator: Simulator | str, *, dice: float = 0.0, **options: object) -> AsyncIterator[Client]:
    """Run a stream for the length of a test, and check that it left as often as it came."""
    url = simulator if isinstance(simulator, str) else simulator.trading_stream_url
    events: list[StreamEvent] = []
    stream = TradingStream(url, KEY, SECRET, events.append, dice=lambda: dice, **options)
    client = Client(stream, events, asyncio.create_task(stream.run()))
    try:
        yield client
    finally:
        await client.stop()
    ups_and_downs = [type(event) for event in client.of(Listening, Disconnected)]
    assert ups_and_downs == [Listening, Disconnected] * (len(ups_and_downs) // 2), "each once, in turn"


@pytest.fixture(autouse=True)
def slow_track(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait half a second for the account's one place, instead of ten."""
    monkeypatch.setattr("libs.market_data.reconnect._SLOW_TRACK_S", (0.5, 0.6))


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with running_simulator(rate=0, key=KEY, secret=SECRET) as one:
        yield one


def let(simulator: Simulator, **faults: object) -> None:
    simulator.faults = replace(simulator.faults, **faults)


async def buy(simulator: Simulator, qty: Decimal = TEN, **options: object) -> list[str]:
    return await simulator.desk.fill("AAPL", "buy", qty, Decimal("230.01"), **options)


@pytest.mark.parametrize(
    ("trading_url", "expected"),
    [
        ("https://paper-api.alpaca.markets", "wss://paper-api.alpaca.markets/stream"),
        ("HTTPS://api.alpaca.markets/", "wss://api.alpaca.markets/stream"),
        ("http://127.0.0.1:8765", "ws://127.0.0.1:8765/stream"),
    ],
)
def test_the_address(trading_url, expected) -> None:
    assert stream_url(trading_url) == expected


class TestListening:
    async def test_what_happens_is_handed_over_in_order(self, simulator: Simulator) -> None:
        async with connected(simulator) as client:
            await client.listens()
            ids = await buy(simulator, Decimal(300), pieces=300)
            await simulator.desk.bust(ids[0])
            await simulator.desk.correct(ids[1], price=Decimal(231))
            await client.hears(Corrected)
            assert [type(event) for event in client.events[:3]] == [Authorized, Listening, OrderEvent]
            assert client.execution_ids == ids
            assert [type(event) for event in client.events[-2:]] == [Busted, Corrected]
            assert [event.execution_id for event in client.events[-2:]] == ids[:2]
            assert client.stream.counts["executed"] == 300
            link = client.stream.link
            assert (link.state, link.connections, link.reconnects, link.last_fault) == (LinkState.STREAMING, 1, 0, None)
            assert client.stream.last_frame_age_s is not None
            assert client.stream.last_frame_age_s < 5

    async def test_before_it_listens_it_does_not_say_so(self, simulator: Simulator) -> None:
        stream = TradingStream(simulator.trading_stream_url, KEY, SECRET, print)
        assert (stream.is_listening, stream.last_frame_age_s) == (False, None)
        assert stream.link.state is LinkState.STANDBY

    @pytest.mark.parametrize("is_text", [False, True])
    async def test_binary_frames_and_text(self, simulator: Simulator, is_text: bool) -> None:
        let(simulator, trading_text_frames=is_text)
        async with connected(simulator) as client:
            await client.listens()
            ids = await buy(simulator)
            await client.hears(Executed)
            assert client.execution_ids == ids

    async def test_heartbeats_are_no_news_but_a_sign_of_life(self, simulator: Simulator) -> None:
        async with connected(simulator) as client:
            await client.listens()
            let(simulator, trading_heartbeat_s=0.02)
            assert set(await client.hears(Ignored, 3)) == {Ignored("heartbeat")}
            assert client.stream.last_frame_age_s is not None
            assert client.stream.last_frame_age_s < 1
            assert client.of(Disconnected) == []

    async def test_an_update_without_data_may_have_been_an_execution(self, simulator: Simulator) -> None:
        async with connected(simulator) as client:
            await client.listens()
            let(simulator, trading_data_null=True)
            with capture_logs() as logs:
                await buy(simulator)
                unreadable = await client.hears(Unreadable, 2)
            assert all(isinstance(one, Unreadable) and one.may_be_execution for one in unreadable)
            assert "trading_stream_message_unreadable" in [line["event"] for line in logs]
            let(simulator, trading_data_null=False)
            await buy(simulator)
            await client.hears(Executed)
            assert client.of(Disconnected) == []

    async def test_oddities_cost_nothing(self, simulator: Simulator) -> None:
        let(simulator, trading_oddities=frozenset(Oddity))
        async with connected(simulator) as client:
            await client.listens()
            ids = await buy(simulator, pieces=2)
            await client.hears(Executed, 2)
            assert client.execution_ids == ids
            (order_event,) = client.of(OrderEvent)
            assert isinstance(order_event, OrderEvent)
            assert order_event.event != "new"

    async def test_what_comes_twice_or_never_is_handed_over_as_it_came(self, simulator: Simulator) -> None:
        async with connected(simulator) as client:
            await client.listens()
            await buy(simulator, announce=Announce.NEVER)
            (twice,) = await buy(simulator, announce=Announce.TWICE)
            await client.hears(Executed, 2)
            assert client.execution_ids == [twice, twice]


class TestReconnecting:
    @pytest.mark.parametrize("how", ["tcp", "close", "error"])
    async def test_after_the_server_let_go(self, simulator: Simulator, how: str) -> None:
        async with connected(simulator, dice=0.2) as client:
            await client.listens()
            before = await buy(simulator)
            await client.hears(Executed)
            await simulator.updates.drop_all(how)
            await client.hears(Disconnected)
            assert not client.stream.is_listening
            await buy(simulator)  # told to nobody
            await client.listens(2)
            after = await buy(simulator)
            await client.hears(Executed, 2)
            assert client.execution_ids == [*before, *after]
            link = client.stream.link
            assert (link.connections, link.reconnects, link.attempts_ended) == (2, 1, 1)
            assert link.last_fault is not None
            assert link.last_fault.ending is Ending.LOST
            (gone,) = client.of(Disconnected)
            assert gone == Disconnected(link.last_fault.message)
            assert how != "error" or link.last_fault.message.startswith("the server failed:")

    async def test_after_nobody_was_there(self, free_port: int) -> None:
        async with connected(f"ws://127.0.0.1:{free_port}/stream") as client:
            await client.is_in(LinkState.BACKING_OFF)
            assert client.stream.link.last_fault is not None
            assert "cannot reach" in client.stream.link.last_fault.message
            async with running_simulator(rate=0, port=free_port):
                await client.listens()

    @pytest.mark.parametrize("status", [500, 502, 503])
    async def test_after_the_upgrade_was_refused_for_now(self, simulator: Simulator, status: int) -> None:
        let(simulator, trading_upgrade_status=status)
        async with connected(simulator, dice=0.2) as client:
            await client.is_in(LinkState.BACKING_OFF)
            fault = client.stream.link.last_fault
            assert fault is not None
            assert (fault.code, fault.ending) == (status, Ending.LOST)
            let(simulator, trading_upgrade_status=None)
            await client.listens()
        assert len(client.of(Disconnected)) == 1, "an attempt that never listened is not said to have ended"

    async def test_an_attempt_that_fails_after_one_that_listened_is_not_said_to_have_ended(
        self, simulator: Simulator
    ) -> None:
        async with connected(simulator, dice=0.2) as client:
            await client.listens()
            let(simulator, trading_upgrade_status=502)
            await simulator.updates.drop_all("tcp")
            await eventually(lambda: client.stream.link.attempts_ended == 2)
            assert len(client.of(Disconnected)) == 1
            let(simulator, trading_upgrade_status=None)
            await client.listens(2)

    async def test_the_servers_wish_to_wait_is_kept(self, simulator: Simulator) -> None:
        let(simulator, trading_upgrade_status=503, trading_retry_after_s=1)
        async with connected(simulator) as client:
            await client.is_in(LinkState.BACKING_OFF)
            refused_at = client.stream.link.since
            let(simulator, trading_upgrade_status=None)
            await client.listens()
            assert client.stream.link.since - refused_at > timedelta(seconds=0.9)
            assert simulator.updates.dials.count == 2

    async def test_no_stream_at_the_address_is_asked_for_again_at_leisure(self, simulator: Simulator) -> None:
        let(simulator, trading_upgrade_status=404)
        async with connected(simulator) as client:
            await client.is_in(LinkState.BACKING_OFF)
            fault = client.stream.link.last_fault
            assert fault is not None
            assert (fault.ending, "ALPACA_TRADING_URL" in fault.message) == (Ending.WRONG_PLACE, True)

    async def test_a_server_that_does_not_answer_is_left(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.broker.trading_stream._ANSWER_TIMEOUT_S", 0.2)
        let(simulator, trading_no_auth_answer=True)
        async with connected(simulator, dice=0.2) as client:
            await eventually(lambda: client.stream.link.last_fault is not None)
            assert client.stream.link.last_fault is not None
            assert client.stream.link.last_fault.message.startswith("no answer to the authorized request")
            assert client.of(Disconnected) == []
            let(simulator, trading_no_auth_answer=False)
            await client.listens()

    async def test_when_a_person_asks_for_it(self, simulator: Simulator) -> None:
        async with connected(simulator) as client:
            await client.listens()
            client.stream.reconnect()
            await client.listens(2)
            assert client.stream.link.last_fault is None, "no fault of anybody"

    async def test_it_gives_up_when_told_to(self, simulator: Simulator) -> None:
        let(simulator, trading_upgrade_status=502)
        async with connected(simulator, max_attempts=2) as client:
            await client.is_in(LinkState.STOPPED)
            assert client.stream.link.attempts_ended == 2
            let(simulator, trading_upgrade_status=None)
            client.stream.reconnect()
            await client.listens()

    async def test_nothing_that_was_told_is_lost_by_random_drops(self, simulator: Simulator) -> None:
        dice = Random(7)
        told: list[str] = []
        async with connected(simulator, dice=0.05) as client:
            for number in range(1, 4):  # one dial less than the budget gives at once
                await client.listens(number)
                for _ in range(dice.randint(1, 20)):
                    told += await buy(simulator)
                await client.hears(Executed, len(told))
                await simulator.updates.drop_all(dice.choice(("tcp", "close", "error")))
                client.stream.reconnect()  # no back-off: each was a person's wish
            await client.listens(4)
        assert client.execution_ids == told

    @pytest.mark.faults
    async def test_a_connection_that_is_only_half_there_is_noticed(self, simulator: Simulator) -> None:
        async with connected(simulator, dice=0.5) as client:
            await client.listens()
            let(simulator, trading_half_open=True)
            began_s = time.monotonic()
            await eventually(lambda: not client.stream.is_listening, within_s=15)
            assert time.monotonic() - began_s < 12.5
            await client.listens(2, within_s=10)
            ids = await buy(simulator)
            await client.hears(Executed)
            assert client.execution_ids == ids


class TestTheOnePlace:
    async def test_taken_by_another_program_is_waited_for(self, simulator: Simulator) -> None:
        async with connected(simulator) as first:
            await first.listens()
            async with connected(simulator) as second:
                await second.is_in(LinkState.BACKING_OFF)
                fault = second.stream.link.last_fault
                assert fault is not None
                assert (fault.code, fault.ending) == (429, Ending.SLOT_TAKEN)
                assert first.stream.is_listening, "the first keeps it"
                refused_at = second.stream.link.since
                await first.stop()
                await second.listens()
                waited = second.stream.link.since - refused_at
                assert waited > timedelta(seconds=0.3), "not at once: that is what the slow track is for"

    async def test_leaving_frees_it_at_once(self, simulator: Simulator) -> None:
        let(simulator, trading_slot_hold_s=60)  # after an unclean end
        async with connected(simulator) as first:
            await first.listens()
        async with connected(simulator) as second:
            await second.listens()
            assert second.stream.link.attempts_ended == 0


class TestRefusals:
    async def test_a_refused_key_stops_it_until_a_person_acts(self, simulator: Simulator) -> None:
        let(simulator, trading_unauthorized=True)
        with capture_logs() as logs:
            async with connected(simulator) as client:
                await client.is_in(LinkState.REFUSED)
                let(simulator, trading_unauthorized=False)
                with pytest.raises(AssertionError, match="did not come true"):
                    await eventually(lambda: simulator.updates.dials.count > 1, within_s=0.3)
                assert client.stream.link.state is LinkState.REFUSED
                client.stream.reconnect()
                await client.listens()
        fault = client.stream.link.last_fault
        assert fault is not None
        assert (fault.ending, "ALPACA_API_KEY" in fault.message) == (Ending.REFUSED, True)
        told = f"{logs} {fault} {client.stream!r} {client.stream.link.history} {client.events}"
        assert KEY not in told
        assert SECRET not in told

    async def test_a_wrong_secret_is_refused(self, simulator: Simulator) -> None:
        stream = TradingStream(simulator.trading_stream_url, KEY, "another", lambda _event: None)
        running = asyncio.create_task(stream.run())
        await eventually(lambda: stream.link.state is LinkState.REFUSED)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    @pytest.mark.parametrize("status", [401, 403])
    async def test_at_the_upgrade(self, simulator: Simulator, status: int) -> None:
        let(simulator, trading_upgrade_status=status)
        async with connected(simulator) as client:
            await client.is_in(LinkState.REFUSED)

    async def test_what_is_no_address(self) -> None:
        async with connected("nonsense") as client:
            await client.is_in(LinkState.REFUSED)


class TestStopping:
    async def test_cancelling_closes_with_a_close_frame(self, simulator: Simulator) -> None:
        async with connected(simulator) as client:
            await client.listens()
            with capture_logs() as logs:
                await client.stop()
                await eventually(lambda: not simulator.updates.connections)
            assert client.running.cancelled()
            assert client.stream.link.state is LinkState.STOPPED
            assert [line["clean"] for line in logs if line["event"] == "trading_client_left"] == [True]
            assert client.events[-1] == Disconnected("stopped")

    async def test_cancelling_while_it_waits_or_dials(self, simulator: Simulator) -> None:
        let(simulator, trading_upgrade_status=404)
        async with connected(simulator) as waiting:
            await waiting.is_in(LinkState.BACKING_OFF)
        assert waiting.stream.link.state is LinkState.STOPPED
        let(simulator, trading_upgrade_status=None, trading_no_auth_answer=True)
        async with connected(simulator) as dialing:
            await dialing.is_in(LinkState.AUTHENTICATING)
        assert dialing.events == []
        await eventually(lambda: not simulator.updates.connections)

    async def test_what_the_taker_raises_ends_it(self, simulator: Simulator) -> None:
        def take(event: StreamEvent) -> None:
            if isinstance(event, Executed):
                raise LookupError("the taker failed")  # noqa: TRY004 - any error will do

        stream = TradingStream(simulator.trading_stream_url, KEY, SECRET, take)
        running = asyncio.create_task(stream.run())
        await eventually(lambda: stream.is_listening)
        await buy(simulator)
        with pytest.raises(LookupError, match="the taker failed"):
            async with asyncio.timeout(5):
                await running
        await eventually(lambda: not simulator.updates.connections)


async def test_others_run_while_a_full_queue_is_read(simulator: Simulator) -> None:
    taken = 0

    def take_slowly(event: StreamEvent) -> None:
        nonlocal taken
        if isinstance(event, Executed):
            taken += 1
            time.sleep(0.003)

    stream = TradingStream(simulator.trading_stream_url, KEY, SECRET, take_slowly)
    running = asyncio.create_task(stream.run())
    await eventually(lambda: stream.is_listening)
    await buy(simulator, Decimal(200), pieces=200)
    longest = last = 0
    while taken < 200:
        await asyncio.sleep(0)
        longest, last = max(longest, taken - last), taken
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert longest <= 3, "one event at a time, when each takes longer than the reader's turn"
