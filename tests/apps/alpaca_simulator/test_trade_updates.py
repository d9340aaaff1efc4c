"""The trading stream: what is said, to whom, and in which frames."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgpack
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.protocol import Credentials
from apps.alpaca_simulator.trade_updates import EventIds, TradeUpdatesSession
from apps.alpaca_simulator.trading_desk import Announce
from tests.apps.alpaca_simulator.trading_line import (
    AUTHENTICATE,
    AUTHORIZED,
    LISTEN,
    LISTENING,
    UNAUTHORIZED,
    dialled,
    listening,
    trading,
)
from tests.support.waiting import eventually

D = Decimal


class TestConversation:
    @pytest.mark.parametrize("message", [AUTHENTICATE, {"action": "auth", "key": "K", "secret": "S"}])
    def test_both_forms_of_authentication(self, message):
        session = TradeUpdatesSession(Credentials("K", "S"))
        assert session.receive(message).message == AUTHORIZED
        assert session.is_authorized

    @pytest.mark.parametrize(
        "message",
        [
            {"action": "authenticate", "data": {"key_id": "K", "secret_key": "wrong"}},
            {"action": "authenticate", "data": None},
            {"action": "auth", "key": 1, "secret": []},
        ],
    )
    def test_a_wrong_key_closes(self, message):
        reply = TradeUpdatesSession(Credentials("K", "S")).receive(message)
        assert (reply.message, reply.closes) == (UNAUTHORIZED, True)

    def test_listening_needs_authorization(self):
        session = TradeUpdatesSession(Credentials(None, None))
        assert session.receive(LISTEN).message["data"] == {"status": "unauthorized", "action": "listen"}
        assert not session.is_listening

    def test_listen_is_absolute(self):
        session = TradeUpdatesSession(Credentials(None, None))
        session.receive(AUTHENTICATE)
        both = {"action": "listen", "data": {"streams": ["trade_updates", "account_updates"]}}
        assert session.receive(both).message == LISTENING
        assert session.receive({"action": "listen", "data": {"streams": []}}).message["data"] == {"streams": []}
        assert not session.is_listening

    @pytest.mark.parametrize("message", [None, 7, [AUTHENTICATE], {"action": "dance"}, {}])
    def test_nonsense_is_an_error_and_the_end(self, message):
        reply = TradeUpdatesSession(Credentials(None, None)).receive(message)
        assert reply.message == {"action": "error", "data": {"error_message": "internal server error"}}
        assert reply.closes


def test_event_ids_sort_as_they_were_made():
    ids, now = EventIds(), datetime(2026, 1, 1, tzinfo=UTC)
    made = [ids.next(now + timedelta(seconds=late)) for late in (0, 0, 1, -5, 2)]
    assert made == sorted(made)
    assert len(set(made)) == 5
    assert {len(one) for one in made} == {26}


async def test_an_execution_in_pieces():
    async with trading() as (sim, broker), listening(sim) as line:
        ids = await broker.fill("AAPL", "buy", 10, "105.89", pieces=3)
        new = await line.event()
        assert (new["event"], new["order"]["status"]) == ("new", "new")
        assert "execution_id" not in new
        events = await line.executed(3)
        assert [one["execution_id"] for one in events] == ids
        assert [(one["event"], one["qty"], one["position_qty"], one["order"]["filled_qty"]) for one in events] == [
            ("partial_fill", "3", "3", "3"),
            ("partial_fill", "3", "6", "6"),
            ("fill", "4", "10", "10"),
        ]
        assert {one["price"] for one in events} == {"105.89"}
        assert [one["order"]["status"] for one in events] == ["partially_filled"] * 2 + ["filled"]
        assert events[-1]["order"]["order_class"] == ""
        assert [one["event_id"] for one in events] == sorted(one["event_id"] for one in events)


async def test_frames_are_binary_and_text_when_the_faults_want_it():
    async with trading() as (sim, _), dialled(sim) as line:
        await line.say(AUTHENTICATE)
        assert isinstance(await line.websocket.recv(), bytes)
        sim.faults = Faults(trading_text_frames=True)
        await line.say(LISTEN)
        assert isinstance(await line.websocket.recv(), str)


async def test_messagepack_for_who_asks_for_it():
    headers = {"Content-Type": "application/msgpack"}
    async with trading() as (sim, _), connect(sim.trading_stream_url, additional_headers=headers) as websocket:
        await websocket.send(msgpack.packb(AUTHENTICATE))
        assert msgpack.unpackb(await websocket.recv()) == AUTHORIZED


async def test_a_wrong_key_is_told_and_closed():
    async with trading(key="right", secret="secret") as (sim, _), dialled(sim) as line:
        assert await line.ask(AUTHENTICATE) == UNAUTHORIZED
        with pytest.raises(ConnectionClosed):
            await line.hear()
    assert sim.updates.connections == []


async def test_a_second_connection_is_refused_while_one_is_open():
    async with trading() as (sim, _):
        async with listening(sim):
            with pytest.raises(InvalidStatus) as refused:
                async with dialled(sim):
                    pass
            assert refused.value.response.status_code == 429
        await eventually(lambda: not sim.updates.connections)
        async with listening(sim):
            pass
        assert sim.updates.dials.count == 3


async def test_who_does_not_listen_hears_nothing():
    async with trading() as (sim, broker), dialled(sim) as line:
        await line.ask(AUTHENTICATE)
        ids = await broker.fill("AAPL", "buy", 1, 100)
        await line.ask(LISTEN)
        (later,) = await broker.fill("AAPL", "buy", 1, 100)
        (event,) = await line.executed()
        assert event["execution_id"] == later
        told = {one["execution_id"]: one["announced"] for one in (await broker.truth())["executions"]}
        assert (told[ids[0]], told[later]) == (0, 1)


async def test_an_execution_may_be_told_twice_never_or_late():
    async with trading() as (sim, broker), listening(sim) as line:
        (late,) = await broker.fill("AAPL", "buy", 1, 100, announce="late", delay_s=1)
        (never,) = await broker.fill("AAPL", "buy", 1, 100, announce="never")
        (twice,) = await broker.fill("AAPL", "buy", 1, 100, announce="twice")
        assert [one["execution_id"] for one in await line.executed(3)] == [twice, twice, late]
        told = {one["execution_id"]: one["announced"] for one in (await broker.truth())["executions"]}
        assert told == {late: 1, never: 0, twice: 2}


async def test_busts_and_corrections():
    async with trading() as (sim, broker), listening(sim) as line:
        (one,) = await broker.fill("AAPL", "sell", 5, 100)
        await line.executed()
        await broker.act("correct", execution_id=one, price="101.5")
        await broker.act("bust", execution_id=one)
        corrected, busted = await line.executed(2)
        assert (corrected["event"], corrected["price"], corrected["qty"]) == ("trade_correct", "101.5", "5")
        assert (busted["event"], busted["qty"], busted["position_qty"]) == ("trade_bust", "-5", "0")
        assert corrected["previous_execution_id"] == busted["previous_execution_id"] == one
        assert len({one, corrected["execution_id"], busted["execution_id"]}) == 3
        (told,) = (await broker.truth())["executions"]
        assert (told["announced"], told["booking"]) == (1, "busted")


async def test_the_other_form_of_a_bust():
    async with trading() as (sim, broker), listening(sim) as line:
        sim.faults = Faults(trading_single_ids=True)
        (one,) = await broker.fill("AAPL", "sell", 5, 100)
        await broker.act("bust", execution_id=one)
        _, busted = await line.executed(2)
        assert (busted["execution_id"], busted["qty"]) == (one, "5")
        assert "previous_execution_id" not in busted


@pytest.mark.parametrize("how", ["tcp", "close", "error"])
async def test_a_drop(how):
    async with trading() as (sim, broker), listening(sim) as line:
        assert await broker.act("drop-trading", how=how) == {"dropped": 1}
        if how == "error":
            assert (await line.hear())["action"] == "error"
        with pytest.raises(ConnectionClosed) as ended:
            await line.hear()
        assert (ended.value.rcvd is None) == (how == "tcp")
        await eventually(lambda: not sim.updates.connections)
        async with listening(sim):
            pass


async def test_the_account_outlives_a_restart_and_its_listeners_do_not():
    async with trading() as (sim, broker), listening(sim) as line:
        (one,) = await broker.fill("AAPL", "buy", 5, 100)
        await line.executed()
        await sim.stop()
        with pytest.raises(ConnectionClosed):
            await line.hear()
        await sim.start()
        assert [told["execution_id"] for told in (await broker.truth())["executions"]] == [one]


@pytest.mark.parametrize("clean", [True, False])
async def test_a_stop_leaves_nothing_behind(clean):
    async with trading(faults=Faults(trading_heartbeat_s=60)) as (sim, broker), listening(sim) as line:
        await broker.fill("AAPL", "buy", 1, 100, announce="late", delay_s=1)
        await sim.stop(clean=clean)
        with pytest.raises(ConnectionClosed) as ended:
            await line.hear()
        assert (ended.value.rcvd is not None) == clean
        assert "trading-heartbeat" not in {task.get_name() for task in asyncio.all_tasks()}
        await sim.start()
        async with listening(sim) as again:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.2):
                    await again.hear()


async def test_from_python():
    async with trading() as (sim, _), listening(sim) as line:
        (one,) = await sim.fill("AAPL", "buy", D(5), D(100), announce=Announce.TWICE)
        assert [event["execution_id"] for event in await line.executed(2)] == [one, one]
        assert sim.account.execution(one).qty == 5
        assert sim.updates.announced[one] == 2


async def test_the_state_shows_who_is_there():
    async with trading() as (sim, broker), listening(sim):
        trading_side = (await broker.http.get("/control/state")).json()["trading"]
        (client,) = trading_side["connections"]
        assert (client["authorized"], client["listening"], client["is_half_open"]) == (True, True, False)
        assert trading_side["dials"]["count"] == 1


async def test_pings_are_answered():
    async with trading() as (sim, _), listening(sim) as line:
        assert await (await line.websocket.ping()) >= 0
        await line.websocket.send(json.dumps(LISTEN).encode())
        assert await line.hear() == LISTENING
