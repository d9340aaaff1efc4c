"""The data WebSocket on real sockets: the conversation, the limits, the pace, the misbehaviour on demand."""

import asyncio
import json
from dataclasses import replace

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from apps.alpaca_simulator.config import FASTEST
from apps.alpaca_simulator.market import MarketSetting
from apps.alpaca_simulator.points import Channel
from apps.alpaca_simulator.protocol import ErrorCode, error
from tests.support.simulator import running_simulator
from tests.support.stream_client import JSON, MSGPACK, authenticated, dialled
from tests.support.waiting import eventually

SUBSCRIBE_AAPL = {"action": "subscribe", "quotes": ["AAPL"]}
LIMIT_EXCEEDED = error(ErrorCode.CONNECTION_LIMIT_EXCEEDED)


@pytest.mark.parametrize("content_type", [MSGPACK, JSON])
@pytest.mark.parametrize("feed", ["iex", "sip", "delayed_sip", "test"])
async def test_a_session_from_welcome_to_quotes(feed, content_type):
    async with running_simulator(rate=500) as sim, authenticated(sim.stream_url(feed), content_type) as client:
        symbol = "FAKEPACA" if feed == "test" else "AAPL"
        ack = await client.ask({"action": "subscribe", "quotes": [symbol]})
        assert ack["quotes"] == [symbol]
        if feed == "test":
            sim.emit("FAKEPACA", 133.85, 135.77)
        points = await client.points(1 if feed == "test" else 30)
        assert list(points[0]) == ["T", "S", "bx", "bp", "bs", "ax", "ap", "as", "c", "z", "t"]
        assert {(point["T"], point["S"]) for point in points} == {("q", symbol)}
        exchanges = {point[side] for point in points for side in ("bx", "ax")}
        assert (exchanges == {"V"}) == (feed in {"iex", "test"})


async def test_every_answer_says_that_this_is_a_simulator():
    async with running_simulator() as sim, authenticated(sim.stream_url()) as client:
        assert client.websocket.response.headers["X-Markstream-Simulator"] == "simulated"


async def test_the_test_stream_speaks_by_itself():
    async with (
        running_simulator(test_quote_interval_s=0.05, bar_interval_s=0.2) as sim,
        authenticated(sim.stream_url("test"), JSON) as client,
    ):
        await client.ask({"action": "subscribe", "quotes": ["FAKEPACA", "SPY"], "bars": ["FAKEPACA"]})
        points = await client.points(8)
        assert {point["S"] for point in points} == {"FAKEPACA"}
        assert {point["T"] for point in points} == {"q", "b"}
        assert {(point["bp"], point["ap"]) for point in points if point["T"] == "q"} == {(133.85, 135.77)}


async def test_trades_and_bars_come_when_asked_for():
    async with running_simulator(rate=500, bar_interval_s=0.3) as sim, authenticated(sim.stream_url()) as client:
        await client.ask({"action": "subscribe", "trades": ["AAPL"], "bars": ["AAPL", "MSFT"]})
        points = await client.points(150)
        await eventually(lambda: sim.connections)
        assert {point["T"] for point in points} == {"t", "b"}
        assert {point["S"] for point in points if point["T"] == "t"} == {"AAPL"}
        bars = [point for point in points if point["T"] == "b"]
        assert all(bar["l"] <= bar["o"] <= bar["h"] and bar["n"] > 0 for bar in bars)


async def test_the_wildcard_brings_the_known_universe():
    async with running_simulator(rate=2_000) as sim, authenticated(sim.stream_url("sip")) as client:
        assert (await client.ask({"action": "subscribe", "quotes": ["*"]}))["quotes"] == ["*"]
        points = await client.points(1_000)
        assert {"AAPL", "KO", "SPY"} <= {point["S"] for point in points}


async def test_after_an_unsubscribe_the_symbol_falls_silent():
    async with running_simulator(rate=0) as sim, authenticated(sim.stream_url()) as client:
        await client.ask({"action": "subscribe", "quotes": ["AAPL", "MSFT"]})
        await client.ask({"action": "unsubscribe", "quotes": ["AAPL"]})
        assert sim.emit("AAPL", 1, 2) == 0
        assert sim.emit("MSFT", 1, 2) == 1
        assert [point["S"] for point in await client.points(1)] == ["MSFT"]


async def test_an_emitted_quote_is_sent_exactly():
    async with running_simulator(rate=0) as sim, authenticated(sim.stream_url(), JSON) as client:
        await client.ask(SUBSCRIBE_AAPL)
        sim.emit(
            "AAPL", 100.25, 0, bid_size=7, ask_size=0, bid_exchange="Q", ask_exchange=" ", conditions=("Y",), tape="C",
            time_ns=1_760_884_215_000_000_001,
        )  # fmt: skip
        assert await client.points(1) == [
            {
                "T": "q", "S": "AAPL", "bx": "Q", "bp": 100.25, "bs": 7, "ax": " ", "ap": 0.0, "as": 0, "c": ["Y"],
                "z": "C", "t": "2025-10-19T14:30:15.000000001Z",
            }
        ]  # fmt: skip


async def test_fragmented_messages_are_put_together():
    async with running_simulator() as sim, authenticated(sim.stream_url()) as client:
        data = msgpack.packb({"quotes": [f"S{n}" for n in range(3_000)], "action": "subscribe"})
        await client.websocket.send([data[:1], data[1:900], data[900:], b""])
        while (frame := await client.receive())[0]["T"] != "subscription":
            pass
        assert len(frame[0]["quotes"]) == 3_000


async def test_unreadable_messages_are_answered_and_survived():
    async with running_simulator(rate=0) as sim, authenticated(sim.stream_url()) as client:
        for rubbish in (b"\xc1", b"", '{"action":"subscribe"}', msgpack.packb([1])):
            await client.websocket.send(rubbish)
            assert await client.receive() == [error(ErrorCode.INVALID_SYNTAX)]
        assert (await client.ask(SUBSCRIBE_AAPL))["quotes"] == ["AAPL"]


async def test_pings_are_answered_and_compression_is_optional():
    async with running_simulator(rate=0) as sim:
        for compression in ("deflate", None):
            async with authenticated(sim.stream_url(), compression=compression) as client:
                await asyncio.wait_for(await client.websocket.ping(), 2)
                names = [type(extension).__name__ for extension in client.websocket.protocol.extensions]
                assert names == (["PerMessageDeflate"] if compression else [])


async def test_who_does_not_authenticate_in_time_is_sent_away():
    async with running_simulator(auth_timeout_s=1) as sim, dialled(sim.stream_url()) as client:
        assert await client.authenticate(key="") == error(ErrorCode.AUTH_FAILED)
        assert await client.receive() == [error(ErrorCode.AUTH_TIMEOUT)]
        with pytest.raises(ConnectionClosed) as closed:
            await client.receive()
        assert closed.value.rcvd.code == 1000


async def test_an_authenticated_client_may_be_silent():
    async with running_simulator(auth_timeout_s=0.1, rate=0) as sim, authenticated(sim.stream_url()) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.receive(), 0.3)
        assert (await client.ask(SUBSCRIBE_AAPL))["quotes"] == ["AAPL"]


async def test_keys_may_come_in_the_headers():
    headers = {"APCA-API-KEY-ID": "K", "APCA-API-SECRET-KEY": "S"}
    async with running_simulator() as sim:
        async with dialled(sim.stream_url(), headers=headers) as client:
            assert await client.receive() == [{"T": "success", "msg": "authenticated"}]
            assert await client.authenticate() == error(ErrorCode.ALREADY_AUTHENTICATED)
        async with dialled(sim.stream_url(), headers=headers | {"APCA-API-SECRET-KEY": ""}) as client:
            assert await client.receive() == [error(ErrorCode.AUTH_FAILED)]


async def test_only_the_given_key_pair_comes_in():
    async with running_simulator(key="K", secret="T") as sim, dialled(sim.stream_url()) as client:
        assert await client.authenticate() == error(ErrorCode.AUTH_FAILED)
        assert (await client.authenticate(secret="T"))["msg"] == "authenticated"


async def test_one_connection_per_key_and_path():
    async with running_simulator(slot_hold_s=90) as sim, dialled(sim.stream_url()) as second:
        async with authenticated(sim.stream_url()), authenticated(sim.stream_url("test")):
            assert await second.authenticate() == LIMIT_EXCEEDED
            assert (await second.authenticate(key="other"))["msg"] == "authenticated"
        async with dialled(sim.stream_url()) as third:
            assert (await third.authenticate())["msg"] == "authenticated"
        assert len(sim.dials) == 4


async def test_a_lost_client_keeps_its_slot():
    async with running_simulator(slot_hold_s=0.5) as sim, dialled(sim.stream_url()) as second:
        async with authenticated(sim.stream_url()) as first:
            first.websocket.transport.abort()
            await eventually(lambda: len(sim.connections) == 1)
        assert await second.authenticate() == LIMIT_EXCEEDED

        async def may_come_in():
            return (await second.authenticate())["msg"] == "authenticated"

        await eventually(may_come_in)


async def test_the_symbol_limit_is_kept():
    async with running_simulator(symbol_limit=2) as sim, authenticated(sim.stream_url()) as client:
        await client.ask({"action": "subscribe", "quotes": ["AAPL", "MSFT"]})
        assert await client.ask({"action": "subscribe", "quotes": ["KO"]}) == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
        assert sim.connections[0].session.symbols(Channel.QUOTES) == {"AAPL", "MSFT"}


async def test_silent_and_one_sided_symbols():
    async with (
        running_simulator(rate=500, silent_symbols=["KO"], one_sided_symbols=["F"]) as sim,
        authenticated(sim.stream_url()) as client,
    ):
        await client.ask({"action": "subscribe", "quotes": ["KO", "F", "AAPL"]})
        points = await client.points(200)
        assert {point["S"] for point in points} == {"F", "AAPL"}
        assert {(point["ap"], point["as"]) for point in points if point["S"] == "F"} == {(0.0, 0)}


async def test_a_closed_market_is_quiet_and_reopens():
    config = {"rate": 200, "market": MarketSetting.CLOSED}
    async with running_simulator(**config) as sim, authenticated(sim.stream_url()) as client:
        await client.ask(SUBSCRIBE_AAPL)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.receive(), 0.2)
        sim.market_setting = MarketSetting.OPEN
        assert await client.points(1)


async def test_the_rate_is_kept_within_reason():
    async with running_simulator(rate=200) as sim, authenticated(sim.stream_url()) as client:
        await client.ask({"action": "subscribe", "quotes": ["AAPL", "BRK.B"]})
        began = asyncio.get_running_loop().time()
        count = len(await client.points(200))
        took_s = asyncio.get_running_loop().time() - began
        assert 100 < count / took_s < 300


async def test_a_flood_fills_frames_and_starves_nobody():
    async with running_simulator(rate=FASTEST) as sim, authenticated(sim.stream_url()) as client:
        await client.ask({"action": "subscribe", "quotes": ["AAPL", "MSFT"]})
        frames = [await client.receive() for _ in range(50)]
        assert max(map(len, frames)) > 20
        async with authenticated(sim.stream_url("test")) as other:
            assert (await other.ask({"action": "subscribe", "quotes": ["FAKEPACA"]}))["quotes"] == ["FAKEPACA"]
        await asyncio.wait_for(client.ask({"action": "unsubscribe", "quotes": ["AAPL", "MSFT"]}), 5)


@pytest.mark.faults
async def test_a_client_that_does_not_read_does_not_slow_the_others():
    async with (
        running_simulator(rate=FASTEST, outbox_limit=500) as sim,
        authenticated(sim.stream_url("sip"), max_queue=1, compression=None) as asleep,
        authenticated(sim.stream_url(), compression=None) as client,
    ):
        await asleep.ask(SUBSCRIBE_AAPL)
        await client.ask(SUBSCRIBE_AAPL)
        reading = asyncio.create_task(_read_on(client))
        await eventually(lambda: len(sim.connections) == 1, within_s=20)
        assert not reading.done()
        reading.cancel()
        with pytest.raises((ConnectionClosed, asyncio.CancelledError)):
            await reading
        with pytest.raises(ConnectionClosed):
            await _read_on(asleep)


async def test_a_slow_client_is_told_so_when_it_can_be():
    async with running_simulator(rate=0, outbox_limit=50) as sim, authenticated(sim.stream_url()) as client:
        await client.ask(SUBSCRIBE_AAPL)
        for _ in range(60):
            sim.emit("AAPL", 1, 2)
        assert await client.receive() == [error(ErrorCode.SLOW_CLIENT)]
        with pytest.raises(ConnectionClosed):
            await client.receive()


async def test_raw_frames_go_to_everybody_untouched():
    async with running_simulator(rate=0) as sim, authenticated(sim.stream_url()) as client:
        assert sim.send_raw(b"\x91\xc1") == 1
        assert await client.websocket.recv() == b"\x91\xc1"
        sim.send_raw("text")
        assert await client.websocket.recv() == "text"


@pytest.mark.parametrize(("clean", "code"), [(True, 1001), (False, 1006)])
async def test_connections_are_dropped_on_demand(clean, code):
    async with running_simulator() as sim, authenticated(sim.stream_url()) as client:
        await sim.drop_all(clean=clean)
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.websocket.close_code == code
        await eventually(lambda: not sim.connections)


async def test_mute_still_answers_but_sends_nothing():
    async with running_simulator(rate=200) as sim, authenticated(sim.stream_url()) as client:
        sim.faults = replace(sim.faults, mute=True)
        await client.ask(SUBSCRIBE_AAPL)
        assert sim.emit("AAPL", 1, 2) == 0
        await asyncio.wait_for(await client.websocket.ping(), 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.receive(), 0.2)
        sim.faults = replace(sim.faults, mute=False)
        assert await client.points(1)


async def test_half_open_answers_nothing_and_closes_nothing():
    async with running_simulator(rate=200, slot_hold_s=30) as sim:
        async with authenticated(sim.stream_url(), ping_interval=None) as client:
            await client.ask(SUBSCRIBE_AAPL)
            sim.faults = replace(sim.faults, half_open=True)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(await client.websocket.ping(), 0.3)
            assert sim.connections
        await eventually(lambda: not sim.connections)
        sim.faults = replace(sim.faults, half_open=False)
        async with dialled(sim.stream_url()) as again:
            assert await again.authenticate() == LIMIT_EXCEEDED


async def test_malformed_frames_come_at_their_interval():
    async with running_simulator(rate=0, batch_limit=1) as sim:
        sim.faults = replace(sim.faults, malformed_every=2)
        async with authenticated(sim.stream_url(), JSON) as client:
            await client.ask(SUBSCRIBE_AAPL)
            for _ in range(4):
                sim.emit("AAPL", 1, 2)
            frames = [await client.websocket.recv() for _ in range(4)]
    assert [_is_json(frame) for frame in frames] == [True, False, True, False]


async def test_slow_frames_arrive_late_and_together():
    async with running_simulator(rate=0) as sim, authenticated(sim.stream_url()) as client:
        sim.faults = replace(sim.faults, frame_delay_s=0.1)
        await client.ask(SUBSCRIBE_AAPL)
        sim.emit("AAPL", 1, 2)
        assert len(await client.receive()) == 1
        for _ in range(5):
            sim.emit("AAPL", 1, 2)
        assert len(await client.points(5)) == 5


async def test_authentication_and_upgrade_can_be_refused():
    async with running_simulator() as sim:
        sim.faults = replace(sim.faults, auth_error=ErrorCode.INSUFFICIENT_SUBSCRIPTION)
        async with dialled(sim.stream_url()) as client:
            assert await client.authenticate() == error(ErrorCode.INSUFFICIENT_SUBSCRIPTION)
        sim.faults = replace(sim.faults, upgrade_status=429)
        with pytest.raises(InvalidStatus) as refused:
            async with dialled(sim.stream_url()):
                pass
        assert refused.value.response.status_code == 429
        assert len(sim.dials) == 2


async def test_a_wrong_path_is_not_found():
    async with running_simulator() as sim:
        with pytest.raises(InvalidStatus) as refused:
            async with dialled(sim.stream_url("boats")):
                pass
        assert refused.value.response.status_code == 404


@pytest.mark.parametrize("clean", [True, False])
async def test_it_can_be_stopped_and_started_again_on_its_port(clean):
    async with running_simulator(slot_hold_s=90) as sim:
        port = sim.port
        async with authenticated(sim.stream_url()) as client:
            await sim.stop(clean=clean)
            with pytest.raises(ConnectionClosed):
                await client.receive()
            with pytest.raises(ConnectionRefusedError):
                async with dialled(sim.stream_url()):
                    pass
            await sim.start()
            assert sim.port == port
            async with authenticated(sim.stream_url()) as again:
                await again.ask(SUBSCRIBE_AAPL)
                assert await again.points(1)


async def test_a_client_that_hangs_up_first_is_no_fault():
    async with running_simulator(rate=FASTEST) as sim:
        for _ in range(5):
            async with authenticated(sim.stream_url()) as client:
                await client.ask(SUBSCRIBE_AAPL)
                client.websocket.transport.abort()
        await eventually(lambda: not sim.connections)
        async with authenticated(sim.stream_url()) as client:
            await client.ask(SUBSCRIBE_AAPL)
            assert await client.points(1)


async def test_two_clients_with_the_same_view_get_the_same_quotes():
    async with (
        running_simulator(rate=0) as sim,
        authenticated(sim.stream_url()) as first,
        dialled(sim.stream_url()) as second,
        dialled(sim.stream_url(), JSON) as third,
    ):
        for number, client in enumerate((second, third)):
            await client.authenticate(key=f"K{number}")
        for client in (first, second, third):
            await client.ask(SUBSCRIBE_AAPL)
        assert sim.emit("AAPL", 1.5, 2.5) == 3
        prices = [(point["bp"], point["ap"]) for client in (first, second, third) for point in await client.points(1)]
        assert prices == [(1.5, 2.5)] * 3


async def test_a_flood_of_the_muted_does_not_spin():
    async with running_simulator(rate=FASTEST) as sim, authenticated(sim.stream_url()) as client:
        sim.faults = replace(sim.faults, mute=True)
        await client.ask(SUBSCRIBE_AAPL)
        sim.faults = replace(sim.faults, mute=False)
        assert await client.points(1)


async def _read_on(client):
    while True:
        await client.receive()


def _is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
