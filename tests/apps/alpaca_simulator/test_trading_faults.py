"""The faults of the trading side: each over a real socket, and over with when it is turned off."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.trade_update_faults import Oddity, UpdateFaults
from apps.alpaca_simulator.trade_updates import Update
from tests.apps.alpaca_simulator.trading_line import (
    AUTHENTICATE,
    AUTHORIZED,
    UNAUTHORIZED,
    dialled,
    listening,
    trading,
)
from tests.support.waiting import eventually

D = Decimal
APPLE = (HeldPosition("AAPL", D(100), D(150)),)


async def refusal(sim):
    with pytest.raises(InvalidStatus) as refused:
        async with dialled(sim):
            pass
    return refused.value.response


class TestStream:
    async def test_the_upgrade_is_refused(self):
        async with trading(faults=Faults(trading_upgrade_status=502, trading_retry_after_s=3)) as (sim, _):
            response = await refusal(sim)
            assert (response.status_code, response.headers["Retry-After"]) == (502, "3")
            sim.faults = NO_FAULTS
            async with listening(sim):
                pass

    async def test_the_place_stays_taken_after_an_unclean_drop(self):
        async with trading(faults=Faults(trading_slot_hold_s=60)) as (sim, broker):
            async with listening(sim):
                pass
            async with listening(sim) as line:
                await broker.act("drop-trading", how="tcp")
                with pytest.raises(ConnectionClosed):
                    await line.hear()
            await eventually(lambda: not sim.updates.connections)
            assert (await refusal(sim)).status_code == 429

    async def test_unauthorized(self):
        async with trading(faults=Faults(trading_unauthorized=True)) as (sim, _), dialled(sim) as line:
            assert await line.ask(AUTHENTICATE) == UNAUTHORIZED
            with pytest.raises(ConnectionClosed):
                await line.hear()

    async def test_no_answer_to_the_authentication(self):
        async with trading(faults=Faults(trading_no_auth_answer=True)) as (sim, _), dialled(sim) as line:
            await line.say(AUTHENTICATE)
            assert await (await line.websocket.ping()) >= 0
            sim.faults = NO_FAULTS
            assert await line.ask(AUTHENTICATE) == AUTHORIZED

    @pytest.mark.parametrize("fault", [Faults(trading_mute=True), Faults(trading_lose_every=1)])
    async def test_lost_on_the_stream_and_kept_by_rest(self, fault):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.faults = fault
            (lost,) = await broker.fill("AAPL", "buy", 1, 100)
            sim.faults = NO_FAULTS
            (heard,) = await broker.fill("AAPL", "buy", 1, 100)
            assert [one["execution_id"] for one in await line.executed()] == [heard]
            shown = {one["id"].split("::")[1] for one in await broker.get("account/activities/FILL")}
            assert shown == {lost, heard}

    async def test_every_nth_is_lost_or_doubled(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.faults = Faults(trading_lose_every=3, trading_duplicate_every=2)
            ids = await broker.fill("AAPL", "buy", 4, 100, pieces=4)
            heard = [one["execution_id"] for one in await line.executed(5)]
            assert heard == [ids[0], ids[1], ids[1], ids[3], ids[3]]

    async def test_others_overtake(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.faults = Faults(trading_reorder_every=2)
            ids = await broker.fill("AAPL", "buy", 3, 100, pieces=3)
            assert [one["execution_id"] for one in await line.executed(3)] == [ids[0], ids[2], ids[1]]

    async def test_a_delay(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.faults = Faults(trading_delay_s=0.2)
            loop = asyncio.get_running_loop()
            began = loop.time()
            await broker.fill("AAPL", "buy", 1, 100)
            await line.executed()
            assert loop.time() - began >= 0.2

    async def test_half_open(self):
        async with trading() as (sim, broker), listening(sim) as frozen:
            sim.faults = Faults(trading_half_open=True)
            await broker.fill("AAPL", "buy", 1, 100)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await (await frozen.websocket.ping())
            assert (await refusal(sim)).status_code == 429
            await broker.act("drop-trading")
            await eventually(lambda: not sim.updates.connections)
            async with listening(sim) as line:
                (one,) = await broker.fill("AAPL", "buy", 1, 100)
                assert [event["execution_id"] for event in await line.executed()] == [one]

    async def test_data_is_null(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.faults = Faults(trading_data_null=True)
            await broker.fill("AAPL", "buy", 1, 100)
            assert [await line.hear() for _ in range(2)] == [{"stream": "trade_updates", "data": None}] * 2

    async def test_heartbeats(self):
        async with trading(faults=Faults(trading_heartbeat_s=0.02)) as (sim, _), listening(sim) as line:
            assert await line.websocket.recv() == b"\x01"
            sim.faults = NO_FAULTS

    async def test_oddities(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.faults = Faults(trading_oddities=frozenset(Oddity))
            await broker.fill("AAPL", "buy", "1.5", 100)
            new, filled = await line.event(), await line.event()
            assert (new["event"], filled["event"]) == ("quantum_fill", "fill")
            assert (filled["order"]["status"], filled["order"]["asset_class"]) == ("entangled", "lunar_equity")
            assert (filled["qty"], filled["price"]) == (1.5, 100.0)
            assert filled["order"]["submitted_at"] is None
            assert filled["timestamp"][-6:] in {"-04:00", "-05:00"}
            assert {"new_thing"} <= filled.keys()


def test_losing_goes_before_doubling():
    faults, update = UpdateFaults(), Update({"event": "fill"}, "one")
    given = {"lose_every": 2, "duplicate_every": 2, "reorder_every": 0, "delay_s": 0.0}
    assert [len(faults.deliveries(update, **given)) for _ in range(4)] == [1, 0, 1, 0]
    assert faults.deliveries(Update({"event": "new"}), **given) == [0.0]


class TestRest:
    async def test_a_status_for_some_paths(self):
        faults = Faults(trading_rest_status=429, trading_rest_retry_after_s=2, trading_rest_path="/v2/positions")
        async with trading(faults=faults) as (sim, broker):
            answer = await broker.http.get("/v2/positions")
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
            assert "X-RateLimit-Limit" in answer.headers
            await broker.get("account")
            sim.faults = Faults(trading_rest_status=503)
            assert "<html>" in (await broker.http.get("/v2/account")).text
            assert (await broker.http.get("/v2/stocks/quotes/latest?symbols=AAPL")).status_code == 200

    async def test_garbage_of_several_kinds(self):
        async with trading(faults=Faults(trading_rest_garbage=True)) as (_, broker):
            answers = [await broker.http.get("/v2/positions") for _ in range(4)]
            assert {one.status_code for one in answers} == {200}
            assert len({one.text for one in answers}) == 4

    async def test_a_delay(self):
        async with trading(faults=Faults(trading_rest_delay_s=0.2)) as (_, broker):
            loop = asyncio.get_running_loop()
            began = loop.time()
            await broker.get("positions")
            assert loop.time() - began >= 0.2

    async def test_activities_lag(self):
        async with trading(positions=APPLE) as (sim, broker):
            sim.faults = Faults(activities_lag_s=1)
            await broker.fill("AAPL", "buy", 1, 100)
            assert len(await broker.get("account/activities/FILL")) == 1
            await eventually(lambda: self.shows(broker, 2))

    @staticmethod
    async def shows(broker, count):
        return len(await broker.get("account/activities/FILL")) == count

    async def test_positions_lag(self):
        async with trading(positions=APPLE) as (sim, broker):
            sim.faults = Faults(positions_lag_s=1)
            cash = (await broker.get("account"))["cash"]
            await broker.fill("AAPL", "buy", 1, 100)
            assert (await broker.get("positions/AAPL"))["qty"] == "100"
            assert (await broker.get("account"))["cash"] == cash
            assert (await broker.truth())["positions"]["AAPL"]["qty"] == "101"

            async def shown():
                return (await broker.get("positions/AAPL"))["qty"] == "101"

            await eventually(shown)

    async def test_a_split_as_one_entry(self):
        async with trading(positions=APPLE, faults=Faults(split_one_entry=True)) as (_, broker):
            await broker.act("split", symbol="AAPL", new=3, old=1)
            (one,) = await broker.get("account/activities/SPLIT")
            assert (one["qty"], one["date"]) == ("200", one["id"][:4] + "-" + one["id"][4:6] + "-" + one["id"][6:8])


async def test_somebody_else_trades():
    async with trading(positions=APPLE, trading_autofill=6_000, seed=3) as (sim, broker), listening(sim) as line:
        events = await line.executed(3)
        assert {one["order"]["symbol"] for one in events} == {"AAPL"}
        assert {one["event"] for one in events} == {"fill"}
        assert {int(one["qty"]) for one in events} <= set(range(1, 6))
        executions = (await broker.truth())["executions"]
        assert datetime.fromisoformat(executions[-1]["at"]) <= datetime.now(UTC)
