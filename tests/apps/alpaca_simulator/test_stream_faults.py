"""Every fault of the stream on real sockets: what a client sees while it is on, and that it sees good data again."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import msgpack
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from apps.alpaca_simulator.config import FASTEST
from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.frame_faults import FrameFault
from apps.alpaca_simulator.protocol import ErrorCode, error
from apps.alpaca_simulator.quote_faults import QuoteFault
from tests.support.simulator import running_simulator
from tests.support.stream_client import JSON, MSGPACK, StreamClient, authenticated, dialled
from tests.support.waiting import eventually

SUBSCRIBE_AAPL = {"action": "subscribe", "quotes": ["AAPL"]}
CONTENT_TYPES = pytest.mark.parametrize("content_type", [MSGPACK, JSON])


@asynccontextmanager
async def subscribed(sim, *symbols, **options):
    async with authenticated(sim.stream_url(), **options) as client:
        await client.ask({"action": "subscribe", "quotes": list(symbols or ("AAPL",))})
        yield client


async def hears_nothing(client, for_s=0.2):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.websocket.recv(), for_s)


async def answers_pings(client):
    await asyncio.wait_for(await client.websocket.ping(), 2)


class TestSilence:
    async def test_mute_holds_for_clients_that_come_later_and_loses_what_was_made(self):
        async with running_simulator(rate=0) as sim:
            sim.faults = Faults(mute=True)
            async with subscribed(sim) as client:
                assert sim.emit("AAPL", 1, 2) == 0
                await hears_nothing(client)
                await answers_pings(client)
                sim.faults = NO_FAULTS
                assert sim.emit("AAPL", 3, 3.1) == 1
                assert [point["bp"] for point in await client.points(1)] == [3]

    async def test_what_waits_in_an_outbox_is_not_sent_either(self):
        async with running_simulator(rate=0) as sim, subscribed(sim) as client:
            sim.faults = Faults(frame_delay_s=0.2)
            sim.emit("AAPL", 1, 1.01)
            sim.faults = Faults(mute=True)
            await hears_nothing(client, 0.5)
            assert sim.sent.by_symbol == {}

    async def test_the_moment_of_muting_is_remembered(self):
        async with running_simulator(rate=0) as sim:
            assert sim.mute_since_unix_s is None
            sim.faults = Faults(mute=True)
            since = sim.mute_since_unix_s
            sim.faults = replace(sim.faults, no_ack=True)
            assert sim.mute_since_unix_s == since
            sim.faults = NO_FAULTS
            assert sim.mute_since_unix_s is None

    async def test_a_dead_symbol_is_silent_on_the_stream_alone(self):
        async with running_simulator(rate=300) as sim, subscribed(sim, "AAPL", "MSFT") as client:
            sim.faults = Faults(dead_symbols=frozenset({"AAPL"}))
            await client.ask({"action": "subscribe", "trades": ["AAPL", "MSFT"]})
            await eventually(lambda: sim.emit("AAPL", 5, 5.1) == 0)
            while "AAPL" in {point["S"] for point in await client.points(20)}:
                pass
            assert {point["S"] for point in await client.points(100)} == {"MSFT"}
            assert "AAPL" in sim._broadcaster.wanted, "its walk goes on, REST shows it"
            sim.faults = NO_FAULTS
            while "AAPL" not in {point["S"] for point in await client.points(20)}:
                pass

    async def test_held_data_comes_in_one_burst(self):
        async with running_simulator(rate=0) as sim, subscribed(sim) as client:
            sim.faults = Faults(hold_data=True)
            for number in range(1, 251):
                assert sim.emit("AAPL", number, number) == 1
            await hears_nothing(client)
            assert (await client.ask({"action": "subscribe", "quotes": ["KO"]}))["quotes"] == ["AAPL", "KO"]
            assert sim.sent.by_symbol == {}
            sim.faults = NO_FAULTS
            frames = [await client.receive() for _ in range(3)]
            assert [len(frame) for frame in frames] == [100, 100, 50]
            assert [point["bp"] for frame in frames for point in frame] == list(range(1, 251))

    async def test_a_hold_that_is_too_long_makes_a_slow_client(self):
        async with running_simulator(rate=0, outbox_limit=50) as sim:
            sim.faults = Faults(hold_data=True)
            async with subscribed(sim) as client:
                for _ in range(51):
                    sim.emit("AAPL", 1, 1)
                assert await client.receive() == [error(ErrorCode.SLOW_CLIENT)]
                sim.faults = NO_FAULTS
                with pytest.raises(ConnectionClosed):
                    await client.receive()

    async def test_a_flood_that_is_held_waits(self):
        async with running_simulator(rate=FASTEST, outbox_limit=2_000) as sim:
            sim.faults = Faults(hold_data=True)
            async with subscribed(sim) as client:
                await hears_nothing(client, 0.5)
                sim.faults = NO_FAULTS
                assert len(await client.points(500)) >= 500


class TestHalfOpen:
    async def test_only_what_is_connected_freezes_and_for_good(self):
        async with running_simulator(rate=300) as sim, subscribed(sim, ping_interval=None) as frozen:
            sim.faults = Faults(half_open=True)
            async with subscribed_with_another_key(sim) as fresh:
                assert [connection.is_half_open for connection in sim.connections] == [True, False]
                await drained(frozen)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(await frozen.websocket.ping(), 0.2)
                assert await fresh.points(5)
                sim.faults = NO_FAULTS
                await frozen.send(SUBSCRIBE_AAPL)
                await hears_nothing(frozen)
                assert await fresh.points(5)

    async def test_it_ends_when_either_side_drops_it(self):
        async with running_simulator(rate=0) as sim:
            async with subscribed(sim, ping_interval=None) as client:
                sim.faults = Faults(half_open=True)
                client.websocket.transport.abort()
                await eventually(lambda: not sim.connections)
            sim.faults = NO_FAULTS
            for clean in (True, False):
                async with subscribed(sim, ping_interval=None) as client:
                    sim.faults = Faults(half_open=True)
                    await sim.drop_all(clean=clean)
                    with pytest.raises(ConnectionClosed):
                        await client.receive()
                    assert client.websocket.close_code == 1006, "a frozen server says no goodbye"
                    sim.faults = NO_FAULTS

    async def test_a_client_that_dials_again_recovers_while_it_is_on(self):
        async with running_simulator(rate=100) as sim:
            async with subscribed(sim, ping_interval=None) as client:
                sim.faults = Faults(half_open=True)
                client.websocket.transport.abort()
            await eventually(lambda: not sim.connections)
            async with subscribed(sim) as again:
                assert await again.points(3)

    async def test_who_has_not_authenticated_is_not_even_timed_out(self):
        async with (
            running_simulator(auth_timeout_s=0.2) as sim,
            dialled(sim.stream_url(), ping_interval=None) as client,
        ):
            sim.faults = Faults(half_open=True)
            await hears_nothing(client, 0.6)
            assert sim.connections

    async def test_a_flood_for_the_frozen_alone_neither_spins_nor_fills_the_memory(self):
        async with running_simulator(rate=FASTEST) as sim, subscribed(sim, ping_interval=None) as client:
            sim.faults = Faults(half_open=True)
            (connection,) = sim.connections
            await drained(client)
            assert len(connection._outbox) == 0
            assert sim.emit("AAPL", 1, 2) == 0

    async def test_since_when_nobody_but_the_frozen_is_there(self):
        async with running_simulator(rate=0) as sim:
            assert sim.half_open_since_unix_s is None
            async with subscribed(sim, ping_interval=None):
                assert sim.half_open_since_unix_s is None
                sim.faults = Faults(half_open=True)
                since = sim.half_open_since_unix_s
                assert since is not None
                async with dialled(sim.stream_url()):
                    assert sim.half_open_since_unix_s == since, "it has not authenticated yet"
                async with subscribed_with_another_key(sim):
                    assert sim.half_open_since_unix_s is None
                await eventually(lambda: sim.half_open_since_unix_s is not None)
                assert sim.half_open_since_unix_s > since
            await eventually(lambda: not sim.connections)
            assert sim.half_open_since_unix_s is None

    async def test_the_test_stream_does_not_count(self):
        async with running_simulator() as sim, authenticated(sim.stream_url("test"), ping_interval=None):
            sim.faults = Faults(half_open=True)
            assert sim.half_open_since_unix_s is None


class TestUpgradeAndAuthentication:
    @pytest.mark.parametrize(("status", "wait_s", "header"), [(429, 7.0, "7"), (502, 1.5, "1.5"), (404, None, None)])
    async def test_a_refused_upgrade_may_ask_to_wait(self, status, wait_s, header):
        async with running_simulator() as sim:
            sim.faults = Faults(upgrade_status=status, retry_after_s=wait_s)
            with pytest.raises(InvalidStatus) as refused:
                async with dialled(sim.stream_url()):
                    pass
            assert refused.value.response.status_code == status
            assert refused.value.response.headers.get("Retry-After") == header
            assert len(sim.dials) == 1

    @CONTENT_TYPES
    async def test_an_error_instead_of_the_welcome(self, content_type):
        async with running_simulator() as sim:
            sim.faults = Faults(error_before_welcome=ErrorCode.CONNECTION_LIMIT_EXCEEDED)
            async with bare(sim, content_type) as client:
                assert await client.receive() == [error(ErrorCode.CONNECTION_LIMIT_EXCEEDED)]
                with pytest.raises(ConnectionClosed):
                    await client.receive()
            await eventually(lambda: not sim.connections)

    async def test_no_welcome_and_no_time_out(self):
        async with running_simulator(auth_timeout_s=0.1) as sim:
            sim.faults = Faults(no_welcome=True)
            async with bare(sim) as client:
                await hears_nothing(client, 0.4)
                assert (await client.authenticate())["msg"] == "authenticated"

    async def test_no_answer_to_an_authentication(self):
        async with running_simulator(auth_timeout_s=0.1) as sim:
            sim.faults = Faults(no_auth_answer=True)
            async with dialled(sim.stream_url()) as client:
                await client.send({"action": "auth", "key": "K", "secret": "S"})
                await hears_nothing(client, 0.4)
                assert not sim.connections[0].session.is_authenticated
                sim.faults = NO_FAULTS
                assert (await client.authenticate())["msg"] == "authenticated"

    @pytest.mark.parametrize("code", [402, 406, 409, 411, 500])
    async def test_a_refused_authentication_leaves_the_connection(self, code):
        async with running_simulator() as sim, dialled(sim.stream_url()) as client:
            sim.faults = Faults(auth_error=ErrorCode(code))
            assert await client.authenticate() == error(ErrorCode(code))
            sim.faults = NO_FAULTS
            assert (await client.authenticate())["msg"] == "authenticated"

    async def test_after_an_authentication_time_out_the_server_hangs_up(self):
        async with running_simulator() as sim, dialled(sim.stream_url()) as client:
            sim.faults = Faults(auth_error=ErrorCode.AUTH_TIMEOUT)
            assert await client.authenticate() == error(ErrorCode.AUTH_TIMEOUT)
            with pytest.raises(ConnectionClosed):
                await client.receive()


class TestSubscribing:
    @pytest.mark.parametrize("code", [400, 405, 410])
    async def test_every_request_is_refused_whole(self, code):
        async with running_simulator(rate=0) as sim, subscribed(sim) as client:
            sim.faults = Faults(subscribe_error=ErrorCode(code))
            assert await client.ask({"action": "subscribe", "quotes": ["KO"]}) == error(ErrorCode(code))
            assert sim.emit("KO", 1, 2) == 0
            assert sim.emit("AAPL", 1, 2) == 1

    async def test_refused_symbols_a_shrunk_limit_and_refused_statuses(self):
        async with running_simulator(rate=0, symbol_limit=30) as sim, authenticated(sim.stream_url()) as client:
            sim.faults = Faults(refused_symbols=frozenset({"KO"}))
            request = {"action": "subscribe", "quotes": ["AAPL", "KO"]}
            assert await client.ask(request) == error(ErrorCode.INVALID_SYNTAX)
            sim.faults = Faults(symbol_limit=1)
            assert await client.ask(request) == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
            sim.faults = Faults(refuse_statuses=ErrorCode.INVALID_SUBSCRIBE_ACTION)
            assert await client.ask(request | {"statuses": ["*"]}) == error(ErrorCode.INVALID_SUBSCRIBE_ACTION)
            assert (await client.ask(request))["quotes"] == ["AAPL", "KO"]

    async def test_a_request_that_is_ignored(self):
        async with running_simulator(rate=0) as sim, authenticated(sim.stream_url()) as client:
            sim.faults = Faults(no_ack=True)
            await client.send(SUBSCRIBE_AAPL)
            await hears_nothing(client)
            assert sim.emit("AAPL", 1, 2) == 0
            assert (await client.ask({"action": "unsubscribe", "quotes": ["KO"]}))["quotes"] == []


class TestDrops:
    async def test_the_code_and_the_reason_of_a_close(self):
        async with running_simulator() as sim, authenticated(sim.stream_url()) as client:
            await sim.drop_all(clean=True, code=4321, reason="so long")
            with pytest.raises(ConnectionClosed) as closed:
                await client.receive()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "so long")

    async def test_a_slow_client_is_told_and_dropped(self):
        async with running_simulator(rate=0) as sim, subscribed(sim) as client:
            assert sim.drop_slow(with_message=True) == 1
            assert await client.receive() == [error(ErrorCode.SLOW_CLIENT)]
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(client.receive(), 3)
            assert client.websocket.close_code == 1006

    async def test_or_only_dropped(self):
        async with running_simulator(rate=0) as sim, subscribed(sim) as client:
            assert sim.drop_slow(with_message=False) == 1
            with pytest.raises(ConnectionClosed):
                await client.receive()

    async def test_how_long_a_lost_slot_is_held_can_be_changed(self):
        async with running_simulator(rate=0, slot_hold_s=90) as sim, dialled(sim.stream_url()) as second:
            sim.faults = Faults(slot_hold_s=0.4)
            async with authenticated(sim.stream_url()):
                sim.connections[-1].drop()
                await eventually(lambda: len(sim.connections) == 1)
            assert sim.slot_held_until_unix_s is not None
            assert await second.authenticate() == error(ErrorCode.CONNECTION_LIMIT_EXCEEDED)

            async def may_come_in():
                return (await second.authenticate())["msg"] == "authenticated"

            await eventually(may_come_in, within_s=3)
            assert sim.slot_held_until_unix_s is None


class TestSpoiledQuotes:
    @CONTENT_TYPES
    @pytest.mark.parametrize("fault", QuoteFault)
    async def test_each_kind_follows_a_good_quote(self, fault, content_type):
        async with running_simulator(rate=400) as sim:
            sim.faults = Faults(bad_quotes=frozenset({fault}), bad_quote_share=1.0)
            async with subscribed(sim, content_type=content_type) as client:
                points = await client.points(20)
                good, bad = points[0:20:2], points[1:20:2]
                assert all(0 < point["bp"] < point["ap"] for point in good)
                assert len({*map(repr, good)}) == 10
                assert all(point["T"] == "q" for point in bad)
                if fault is QuoteFault.DUPLICATE:
                    assert good == bad
                else:
                    assert all(one != other for one, other in zip(good, bad, strict=True))

    async def test_neither_rest_nor_the_record_knows_them(self):
        async with running_simulator(rate=400) as sim:
            sim.faults = Faults(bad_quotes=frozenset({QuoteFault.NON_FIRM, QuoteFault.WIDE}), bad_quote_share=1.0)
            async with subscribed(sim) as client:
                points = await client.points(40)
                sim.faults = Faults(mute=True)
                latest = sim._market.latest_quote("AAPL", client_feed(sim), 0)
                assert latest.conditions == ("R",)
                sent = sim.sent.by_symbol["AAPL"].quote
                assert (sent.ask_price - sent.bid_price) / sent.bid_price < 0.01
                assert sent.conditions == ("R",)
                assert any(point["c"] == ["N"] for point in points)

    async def test_the_share_is_kept(self):
        async with running_simulator(rate=2_000) as sim:
            sim.faults = Faults(bad_quotes=frozenset({QuoteFault.NON_FIRM}), bad_quote_share=0.25)
            async with subscribed(sim) as client:
                points = await client.points(1_000)
                assert 0.12 < sum(point["c"] == ["N"] for point in points) / len(points) < 0.28

    async def test_emitted_quotes_are_never_spoiled(self):
        async with running_simulator(rate=0) as sim, subscribed(sim) as client:
            sim.faults = Faults(bad_quotes=frozenset({QuoteFault.WIDE}), bad_quote_share=1.0)
            sim.emit("AAPL", 1, 1.01)
            assert len(await client.points(1)) == 1
            await hears_nothing(client)


class TestBadFrames:
    @CONTENT_TYPES
    @pytest.mark.parametrize("fault", FrameFault)
    async def test_each_kind_comes_between_good_ones(self, fault, content_type):
        async with running_simulator(rate=0, batch_limit=1) as sim:
            sim.faults = Faults(bad_frames=frozenset({fault}), bad_frame_every=2)
            async with subscribed(sim, content_type=content_type, max_size=2**24) as client:
                for number in range(1, 5):
                    sim.emit("AAPL", number, number)
                frames = [await client.websocket.recv() for _ in range(6)]
                readable = [frame for number, frame in enumerate(frames) if number % 3 != 2]
                if content_type == MSGPACK:
                    assert [msgpack.unpackb(frame)[0]["bp"] for frame in readable] == [1, 2, 3, 4]
                assert frames[2] not in readable
                is_text = (content_type == JSON) != (fault is FrameFault.TEXT_FRAME)
                assert isinstance(frames[2], str) == (is_text and fault is not FrameFault.BINARY_GARBAGE)
                assert sim.sent.by_symbol["AAPL"].quote.bid_price == 4

    async def test_a_frame_cut_short_was_not_sent(self):
        async with running_simulator(rate=0, batch_limit=1) as sim:
            sim.faults = Faults(malformed_every=2)
            async with subscribed(sim) as client:
                sim.emit("AAPL", 1, 1)
                sim.emit("AAPL", 2, 2)
                for _ in range(2):
                    await client.websocket.recv()
                assert sim.sent.by_symbol["AAPL"].quote.bid_price == 1


class TestHalts:
    @CONTENT_TYPES
    async def test_who_subscribes_the_status_is_told_and_the_quotes_stop(self, content_type):
        async with running_simulator(rate=300) as sim, authenticated(sim.stream_url(), content_type) as client:
            ack = await client.ask({"action": "subscribe", "quotes": ["AAPL", "KO"], "statuses": ["AAPL"]})
            assert ack["statuses"] == ["AAPL"]
            assert sim.halt("AAPL", reason="T12") == 1
            status = await status_message(client)
            assert (status["S"], status["sc"], status["rc"], status["z"]) == ("AAPL", "H", "T12", "C")
            assert {point["S"] for point in (await client.points(150))[20:]} == {"KO"}
            assert sim.halt("KO") == 0, "nobody subscribed its status"
            await drained(client)
            await hears_nothing(client)
            assert sim.resume("AAPL") == 1
            assert (await status_message(client))["sc"] == "T"
            assert {point["S"] for point in await client.points(50)} == {"AAPL"}

    async def test_the_wildcard_hears_every_status(self):
        async with running_simulator(rate=0) as sim, authenticated(sim.stream_url()) as client:
            await client.ask({"action": "subscribe", "statuses": ["*"]})
            assert sim.halt("F") == 1
            assert (await status_message(client))["sc"] == "2"

    async def test_a_muted_client_hears_no_status(self):
        async with running_simulator(rate=0) as sim, authenticated(sim.stream_url()) as client:
            await client.ask({"action": "subscribe", "statuses": ["*"]})
            sim.faults = Faults(mute=True)
            assert sim.halt("AAPL") == 0
            assert sim.halted == {"AAPL"}

    async def test_emitted_quotes_of_a_halted_symbol_are_sent(self):
        async with running_simulator(rate=0) as sim, subscribed(sim) as client:
            sim.halt("AAPL")
            assert sim.emit("AAPL", 1, 2) == 1
            assert await client.points(1)

    async def test_a_replay_leaves_out_the_halted(self, tmp_path):
        recording = tmp_path / "quotes.csv"
        lines = [f"{1_000_000_000 + n},{symbol},1,1,V,2,1,V" for n in range(50) for symbol in ("AAPL", "KO")]
        names = "timestamp,symbol,bid_price,bid_size,bid_exchange,ask_price,ask_size,ask_exchange"
        recording.write_text("\n".join([names, *lines]))
        async with running_simulator(replay=recording, loop=True) as sim:
            sim.halt("AAPL")
            async with subscribed(sim, "AAPL", "KO") as client:
                assert {point["S"] for point in await client.points(100)} == {"KO"}


class TestWhatWasSent:
    async def test_it_is_what_the_client_got_last(self):
        async with running_simulator(rate=500) as sim, subscribed(sim, "AAPL", "KO") as client:
            last = {}
            for point in await client.points(200):
                last[point["S"]] = point
            sim.faults = Faults(mute=True)
            for frame in await drained(client):
                last |= {point["S"]: point for point in msgpack.unpackb(frame)}
            for symbol, point in last.items():
                sent = sim.sent.by_symbol[symbol]
                assert (sent.quote.bid_price, sent.quote.ask_price) == (point["bp"], point["ap"])
                assert sent.quote.time_ns == round(point["t"].seconds * 10**9 + point["t"].nanoseconds)
                assert sent.first_sent_unix_s <= sent.sent_unix_s

    async def test_what_is_made_for_nobody_was_not_sent(self):
        async with running_simulator(rate=0) as sim:
            sim.emit("AAPL", 1, 1)
            async with authenticated(sim.stream_url(), ping_interval=None) as client:
                sim.emit("AAPL", 2, 2)
                await client.ask(SUBSCRIBE_AAPL)
                assert sim.sent.by_symbol == {}
                sim.faults = Faults(half_open=True)
                sim.emit("AAPL", 3, 3)
            await eventually(lambda: not sim.connections)
            assert sim.sent.by_symbol == {}


@asynccontextmanager
async def bare(sim, content_type=MSGPACK):
    """Dial, and take nothing for granted."""
    async with connect(
        sim.stream_url(), additional_headers={"Content-Type": content_type}, close_timeout=1
    ) as websocket:
        yield StreamClient(websocket, content_type)


@asynccontextmanager
async def subscribed_with_another_key(sim):
    async with dialled(sim.stream_url()) as client:
        assert (await client.authenticate(key="another"))["msg"] == "authenticated"
        await client.ask(SUBSCRIBE_AAPL)
        yield client


async def drained(client):
    """Return the frames that are still on their way."""
    frames = []
    with suppress(TimeoutError):
        while True:
            frames.append(await asyncio.wait_for(client.websocket.recv(), 0.2))
    return frames


async def status_message(client):
    while True:
        for point in await client.receive():
            if point["T"] == "s":
                return point


def client_feed(sim):
    return sim.connections[0].feed
