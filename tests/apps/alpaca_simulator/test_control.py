"""The control endpoint over HTTP: every call as a person would make it, and every call made wrongly."""

import base64
import time
from contextlib import asynccontextmanager

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from apps.alpaca_simulator.acts import ACTS
from apps.alpaca_simulator.fault_switches import SWITCHES
from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.protocol import ErrorCode, error
from tests.apps.alpaca_simulator.test_acts import WRONG
from tests.support.simulator import running_simulator
from tests.support.stream_client import authenticated, dialled
from tests.support.waiting import eventually

SUBSCRIBE_AAPL = {"action": "subscribe", "quotes": ["AAPL"]}


class Controller:
    def __init__(self, http):
        self._http = http

    async def __call__(self, method, path, body=None, *, status=200, **content):
        given = content or ({} if body is None else {"json": body})
        answer = await self._http.request(method, f"/control/{path}", **given)
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"].startswith("application/json")
        return answer.json()


@asynccontextmanager
async def controlled(**config):
    config.setdefault("rate", 0)
    async with running_simulator(**config) as sim, httpx2.AsyncClient(base_url=sim.base_url, timeout=10) as http:
        yield sim, Controller(http)


class TestFaults:
    async def test_they_are_merged_replaced_and_cleared(self):
        async with controlled() as (sim, control):
            shown = await control("PATCH", "faults", {"mute": True, "dead_symbols": ["aapl"]})
            assert shown == {"faults": {"mute": True, "dead_symbols": ["AAPL"]}}
            await control("PATCH", "faults", {"auth_error": 402, "mute": None})
            assert sim.faults == Faults(dead_symbols=frozenset({"AAPL"}), auth_error=ErrorCode.AUTH_FAILED)
            assert (await control("GET", "faults"))["faults"] == {"dead_symbols": ["AAPL"], "auth_error": 402}
            await control("PUT", "faults", {"bad_quotes": ["nan"], "rest_delay_s": 1})
            assert await control("GET", "faults") == {"faults": {"bad_quotes": ["nan"], "rest_delay_s": 1.0}}
            assert await control("DELETE", "faults") == {"faults": {}}
            assert sim.faults == NO_FAULTS

    async def test_they_work_at_once(self):
        async with controlled() as (sim, control), authenticated(sim.stream_url()) as client:
            await client.ask(SUBSCRIBE_AAPL)
            await control("PATCH", "faults", {"half_open": True})
            assert sim.connections[0].is_half_open
            await control("PATCH", "faults", {"upgrade_status": 502})
            with pytest.raises(Exception, match="502"):
                async with dialled(sim.stream_url()):
                    pass

    @pytest.mark.parametrize("method", ["PATCH", "PUT"])
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"mte": True}, ["mte", *SWITCHES]),
            ({"mute": 1}, ["mute"]),
            ({"auth_error": 499}, ["auth_error"]),
            ({"dead_symbols": "AAPL"}, ["dead_symbols"]),
            ({"bad_frames": ["odd"]}, ["bad_frames", "odd"]),
            ({"rest_paths": "some"}, ["rest_paths"]),
            ({"frame_delay_s": -1}, ["frame_delay_s"]),
        ],
    )
    async def test_a_wrong_one_is_named_and_nothing_changes(self, method, changes, named):
        async with controlled() as (sim, control):
            sim.faults = Faults(no_ack=True)
            refused = await control(method, "faults", {"no_welcome": True} | changes, status=400)
            assert all(name in refused["message"] for name in named)
            assert sim.faults == Faults(no_ack=True)

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"null", b"\xff", b"[" * 5_000])
    async def test_what_is_no_object_is_refused(self, body):
        async with controlled() as (sim, control):
            for method, path in (("PATCH", "faults"), ("PUT", "faults"), ("POST", "scenario")):
                assert (await control(method, path, status=400, content=body))["message"]
            assert sim.faults == NO_FAULTS
            assert sim.scenario is None


class TestState:
    async def test_an_idle_simulator(self):
        async with controlled() as (_, control):
            state = await control("GET", "state")
            no_dials = {"count": 0, "last": [], "most_in_10_s": 0, "most_in_60_s": 0}
            assert abs(state.pop("time") - time.time()) < 5
            assert state == {
                "faults": {}, "market": "open", "connections": [], "slot_held_until": None, "halted": [],
                "dials": no_dials, "scenario": None, "trading": {"connections": [], "dials": no_dials},
            }  # fmt: skip

    async def test_clients_dials_and_all_that_is_wrong(self):
        async with (
            controlled(slot_hold_s=30) as (sim, control),
            authenticated(sim.stream_url("sip"), ping_interval=None) as client,
        ):
            await client.ask({"action": "subscribe", "quotes": ["AAPL", "KO"], "trades": ["KO", "F"]})
            await control("PATCH", "faults", {"half_open": True})
            sim.halt("KO")
            async with dialled(sim.stream_url()) as second:
                state = await control("GET", "state")
                first, other = state["connections"]
                assert (first["feed"], first["authenticated"], first["symbols"]) == ("sip", True, 3)
                assert (other["feed"], other["authenticated"], other["symbols"]) == ("iex", False, 0)
                assert [first["is_half_open"], other["is_half_open"]] == [True, False]
                assert first["number"] < other["number"]
                assert first["since"] <= other["since"] <= state["time"]
                assert state["halted"] == ["KO"]
                assert state["faults"] == {"half_open": True}
                assert state["dials"]["count"] == state["dials"]["most_in_10_s"] == len(state["dials"]["last"]) == 2
                second.websocket.transport.abort()
            client.websocket.transport.abort()
            await eventually(lambda: not sim.connections)
            held_until = (await control("GET", "state"))["slot_held_until"]
            assert 25 < held_until - time.time() <= 30

    async def test_the_dials_can_be_counted_anew(self):
        async with controlled() as (sim, control):
            async with dialled(sim.stream_url()):
                pass
            assert (await control("POST", "dials/reset"))["dials"]["count"] == 0
            assert (await control("GET", "state"))["dials"]["most_in_60_s"] == 0


class TestActs:
    async def test_drop_by_cutting_and_with_a_close_frame(self):
        async with controlled() as (sim, control):
            for body, code in ((None, 1006), ({"how": "tcp"}, 1006), ({"how": "close"}, 1001)):
                async with authenticated(sim.stream_url()) as client:
                    assert await control("POST", "drop", body) == {"dropped": 1}
                    with pytest.raises(ConnectionClosed):
                        await client.receive()
                    assert client.websocket.close_code == code
            async with authenticated(sim.stream_url()) as client:
                await control("POST", "drop", {"how": "close", "code": 1013, "reason": "later"})
                with pytest.raises(ConnectionClosed) as closed:
                    await client.receive()
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "later")

    async def test_slow_client(self):
        async with controlled() as (sim, control), authenticated(sim.stream_url()) as client:
            assert await control("POST", "slow-client", {"with_message": True}) == {"dropped": 1}
            assert await client.receive() == [error(ErrorCode.SLOW_CLIENT)]
            with pytest.raises(ConnectionClosed):
                await client.receive()

    async def test_quotes(self):
        async with controlled() as (sim, control), authenticated(sim.stream_url()) as client:
            await client.ask(SUBSCRIBE_AAPL)
            given = {
                "symbol": "AAPL", "bid": 2, "ask": 0, "conditions": ["Y"], "bid_size": 3, "ask_size": 0,
                "bid_exchange": "Q", "ask_exchange": " ", "tape": "A", "time_ns": 1_760_884_215_000_000_001,
            }  # fmt: skip
            quotes = [{"symbol": "aapl", "bid": 1, "ask": 1.05}, given]
            assert await control("POST", "quotes", {"quotes": quotes}) == {"queued": 2}
            plain, odd = await client.points(2)
            assert (plain["bp"], plain["ap"], plain["bs"], plain["c"]) == (1.0, 1.05, 100, ["R"])
            assert abs(plain["t"].to_unix() - time.time()) < 5
            assert [odd[key] for key in ("bp", "bs", "bx", "ap", "as", "ax", "c", "z")] == [
                2.0, 3, "Q", 0.0, 0, " ", ["Y"], "A",
            ]  # fmt: skip
            assert odd["t"].to_unix_nano() == 1_760_884_215_000_000_001

    async def test_raw(self):
        async with controlled() as (sim, control), authenticated(sim.stream_url()) as client:
            assert await control("POST", "raw", {"text": "täxt"}) == {"queued": 1}
            assert await client.websocket.recv() == "täxt"
            await control("POST", "raw", {"base64": base64.b64encode(b"\xc1\x00").decode()})
            assert await client.websocket.recv() == b"\xc1\x00"

    async def test_halt_and_resume(self):
        async with controlled() as (sim, control), authenticated(sim.stream_url()) as client:
            await client.ask({"action": "subscribe", "statuses": ["*"]})
            assert await control("POST", "halt", {"symbol": "F", "code": "2", "reason": "M"}) == {"told": 1}
            assert await control("POST", "resume", {"symbol": "F", "tape": "C", "code": "Q"}) == {"told": 1}
            assert [(point["sc"], point["rc"], point["z"]) for point in await client.points(2)] == [
                ("2", "M", "A"), ("Q", "T3", "C"),
            ]  # fmt: skip

    @pytest.mark.parametrize("setting", ["open", "closed", "auto"])
    async def test_market(self, setting):
        async with controlled() as (sim, control):
            assert await control("POST", "market", {"setting": setting}) == {"market": setting}
            assert (await control("GET", "state"))["market"] == setting
            assert sim._calendar.is_open() in ({"open": {True}, "closed": {False}}.get(setting, {True, False}))

    @pytest.mark.parametrize(("name", "fields", "field"), WRONG)
    async def test_what_is_wrong_is_named_and_nothing_happens(self, name, fields, field):
        async with controlled() as (sim, control), authenticated(sim.stream_url()) as client:
            await client.ask({"action": "subscribe", "quotes": ["*"], "statuses": ["*"]})
            refused = await control("POST", name.replace("_", "-"), fields, status=400)
            assert field in refused["message"]
            assert (await client.ask({"action": "unsubscribe", "quotes": ["KO"]}))["statuses"] == ["*"]
            assert sim.halted == frozenset()
            assert sim.market_setting == "open"

    @pytest.mark.parametrize("name", ACTS)
    async def test_what_is_no_object_is_refused(self, name):
        async with controlled() as (_, control):
            for body in (b"[]", b"{", b"7", b'"drop"'):
                assert (await control("POST", name.replace("_", "-"), status=400, content=body))["message"]


class TestSent:
    async def test_the_last_good_quotes_and_since_when(self):
        async with controlled() as (sim, control), authenticated(sim.stream_url()) as client:
            empty = {"symbols": {}, "mute_since": None, "half_open_since": None}
            assert (await control("GET", "sent")).items() >= empty.items()
            await client.ask(SUBSCRIBE_AAPL)
            before = time.time()
            for price in (1.0, 2.0, 2.0):
                sim.emit("AAPL", price, price, time_ns=1_000 + round(price))
                await client.points(1)
            sim.emit("AAPL", 3.0, 0.0)
            await client.points(1)
            told = await control("GET", "sent")
            quote = told["symbols"]["AAPL"]
            assert (quote["bid"], quote["ask"], quote["time_ns"]) == (2.0, 2.0, 1_002)
            assert before <= quote["first_sent_at"] < quote["sent_at"] <= told["time"]

    async def test_mute_and_half_open(self):
        async with controlled() as (sim, control), authenticated(sim.stream_url(), ping_interval=None):
            await control("PATCH", "faults", {"mute": True, "half_open": True})
            told = await control("GET", "sent")
            assert told["time"] - 5 < told["mute_since"] <= told["time"]
            assert told["time"] - 5 < told["half_open_since"] <= told["time"]
            await control("DELETE", "faults")
            told = await control("GET", "sent")
            assert told["mute_since"] is None
            assert told["half_open_since"] is not None, "the connection stays frozen"
            assert sim.connections


class TestScenario:
    async def test_it_is_started_shown_replaced_and_stopped(self):
        async with controlled() as (sim, control):
            steps = [{"at": 0, "faults": {"mute": True}, "for": 60}, {"at": 0.01, "act": "halt", "symbol": "KO"}]
            started = await control("POST", "scenario", {"begin": "start", "steps": steps})
            assert started == {"scenario": {"running": True, "step": 0}}
            await eventually(lambda: sim.scenario.step == 2)
            state = await control("GET", "state")
            assert (state["scenario"], state["faults"]) == ({"running": True, "step": 2}, {"mute": True})
            assert state["halted"] == ["KO"]
            again = {"begin": "start", "steps": [{"at": 0, "act": "resume", "symbol": "KO"}]}
            await control("POST", "scenario", again)
            await eventually(lambda: not sim.halted)
            await eventually(lambda: not sim.scenario.is_running)
            assert (await control("GET", "state"))["scenario"] == {"running": False, "step": 1}
            assert await control("DELETE", "scenario") == {"scenario": None}
            assert (await control("GET", "state"))["scenario"] is None

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            ({}, "steps"),
            ({"steps": []}, "steps"),
            ({"step": []}, "step"),
            ({"begin": "soon", "steps": [{"at": 1, "act": "drop"}]}, "begin"),
            ({"steps": [{"at": 1, "act": "drop"}, {"at": "2", "act": "drop"}]}, "step 2, at"),
            ({"steps": [{"at": 1, "faults": {"mute": "yes"}}]}, "step 1, faults.mute"),
            ({"steps": [{"at": 1, "act": "halt", "symbol": "$"}]}, "step 1, halt: symbol"),
        ],
    )
    async def test_a_wrong_one_is_named_and_leaves_the_running_one(self, body, named):
        async with controlled() as (sim, control):
            await control("POST", "scenario", {"steps": [{"at": 600, "act": "drop"}]})
            running = sim.scenario
            assert named in (await control("POST", "scenario", body, status=400))["message"]
            assert sim.scenario is running
            assert running.is_running


async def test_the_faults_of_rest_do_not_reach_the_control_endpoint():
    async with controlled() as (_, control):
        await control("PATCH", "faults", {"rest_status": 500, "rest_delay_s": 60, "rest_html": True})
        await control("DELETE", "faults")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "nothing"), ("POST", "state"), ("GET", "drop"), ("DELETE", "sent"), ("POST", "faults")],
)
async def test_an_unknown_call_is_said_to_be_unknown(method, path):
    async with controlled() as (_, control):
        assert f"{method} /control/{path}" in (await control(method, path, status=404))["message"]
