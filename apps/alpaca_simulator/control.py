"""The control endpoint, `/control/...`: the faults, the acts and the ground truth of a running simulator over HTTP.

Unguarded: this is a simulator, and whoever reaches its port may steer it. It decides nothing; what is asked for is
read strictly, and a wrong request changes nothing and is answered with 400 and the field.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from apps.alpaca_simulator.account_acts import ACCOUNT_ACTS, AccountAct, SteeredAccount
from apps.alpaca_simulator.account_entries import AccountError
from apps.alpaca_simulator.account_truth import account_truth
from apps.alpaca_simulator.acts import ACTS, Act
from apps.alpaca_simulator.dials import DialLog
from apps.alpaca_simulator.fault_switches import WrongSwitchError, merged, turned_on
from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.points import Channel
from apps.alpaca_simulator.scenario import Playground, Scenario, ScenarioError, ScenarioRun, read_scenario
from apps.alpaca_simulator.sent_record import SentQuote, SentRecord
from apps.alpaca_simulator.stream_connection import StreamConnection
from apps.alpaca_simulator.trade_updates_stream import TradeUpdatesStream

_LAST_DIALS: Final = 200
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""Room for a raw frame of any size that is worth sending."""

_WRONG: Final = (
    msgspec.MsgspecError,
    WrongSwitchError,
    ScenarioError,
    UnicodeDecodeError,
    RecursionError,
    AccountError,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Controlled(Playground, SteeredAccount, Protocol):
    """What the endpoint shows and steers, beside the acts."""

    sent: SentRecord
    mute_since_unix_s: float | None
    scenario: ScenarioRun | None

    @property
    def dial_log(self) -> DialLog:
        """The dials."""

    @property
    def halted(self) -> frozenset[str]:
        """The halted symbols."""

    @property
    def half_open_since_unix_s(self) -> float | None:
        """Since when all that is connected is half-open."""

    @property
    def slot_held_until_unix_s(self) -> float | None:
        """When the last held slot will be free."""

    def start_scenario(self, scenario: Scenario) -> None:
        """Begin a scenario in place of a running one."""

    def stop_scenario(self) -> None:
        """End and forget the scenario."""


class Control:
    """The handlers of one simulator's control endpoint."""

    def __init__(self, simulator: Controlled) -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        """Return every route."""
        kinds: dict[str, type[Act | AccountAct]] = {**ACTS, **ACCOUNT_ACTS}
        acts = [
            web.post(f"/control/{name.replace('_', '-')}", _answered(self._act(kind))) for name, kind in kinds.items()
        ]
        return [
            web.get("/control/state", _answered(self._state)),
            web.get("/control/sent", _answered(self._sent)),
            web.get("/control/account", _answered(self._account)),
            web.patch("/control/faults", _answered(self._merge_faults)),
            web.put("/control/faults", _answered(self._replace_faults)),
            web.delete("/control/faults", _answered(self._clear_faults)),
            web.get("/control/faults", _answered(self._shown_faults)),
            web.post("/control/dials/reset", _answered(self._reset_dials)),
            web.post("/control/scenario", _answered(self._start_scenario)),
            web.delete("/control/scenario", _answered(self._stop_scenario)),
            *acts,
            web.route("*", "/control{rest:.*}", _unknown),
        ]

    async def _state(self, _request: web.Request) -> object:
        simulator = self._simulator
        return {
            "time": time.time(),
            "faults": turned_on(simulator.faults),
            "market": simulator.market_setting.value,
            "connections": [_connection_body(connection) for connection in simulator.connections],
            "dials": _dials_body(simulator.dial_log),
            "slot_held_until": simulator.slot_held_until_unix_s,
            "halted": sorted(simulator.halted),
            "scenario": _scenario_body(simulator.scenario),
            "trading": _trading_body(simulator.updates),
        }

    async def _sent(self, _request: web.Request) -> object:
        simulator = self._simulator
        return {
            "time": time.time(),
            "symbols": {symbol: _sent_body(sent) for symbol, sent in simulator.sent.by_symbol.items()},
            "mute_since": simulator.mute_since_unix_s,
            "half_open_since": simulator.half_open_since_unix_s,
        }

    async def _account(self, _request: web.Request) -> object:
        simulator = self._simulator
        return account_truth(simulator.desk.account, simulator.updates.announced, simulator.desk.now())

    async def _shown_faults(self, _request: web.Request) -> object:
        return {"faults": turned_on(self._simulator.faults)}

    async def _merge_faults(self, request: web.Request) -> object:
        return await self._set_faults(request, self._simulator.faults)

    async def _replace_faults(self, request: web.Request) -> object:
        return await self._set_faults(request, NO_FAULTS)

    async def _clear_faults(self, request: web.Request) -> object:
        self._simulator.faults = NO_FAULTS
        return await self._shown_faults(request)

    async def _set_faults(self, request: web.Request, present: Faults) -> object:
        changes = msgspec.json.decode(await request.read(), type=dict[str, Any])
        self._simulator.faults = merged(present, changes)
        return await self._shown_faults(request)

    async def _reset_dials(self, _request: web.Request) -> object:
        self._simulator.dial_log.reset()
        return {"dials": _dials_body(self._simulator.dial_log)}

    async def _start_scenario(self, request: web.Request) -> object:
        self._simulator.start_scenario(read_scenario(msgspec.json.decode(await request.read())))
        return {"scenario": _scenario_body(self._simulator.scenario)}

    async def _stop_scenario(self, _request: web.Request) -> object:
        self._simulator.stop_scenario()
        return {"scenario": None}

    def _act(self, kind: type[Act | AccountAct]) -> Callable[[web.Request], Awaitable[object]]:
        async def carry_out(request: web.Request) -> object:
            # An act without anything to say may come without a body.
            act = msgspec.json.decode(await request.read() or b"{}", type=kind)
            return await act.carry_out(self._simulator)

        return carry_out


async def _unknown(request: web.Request) -> web.Response:
    """Answer a call that is none of the above; known are those of the docs."""
    return web.json_response({"message": f"no such call: {request.method} {request.path[:100]}"}, status=404)


def _answered(handler: Callable[[web.Request], Awaitable[object]]) -> Handler:
    """Return a handler that answers JSON: what `handler` returns, or 400 and why the request is wrong."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await handler(request))
        except _WRONG as fault:
            return web.json_response({"message": str(fault)}, status=400)

    return answer


def _connection_body(connection: StreamConnection) -> dict[str, object]:
    symbols = {symbol for channel in Channel for symbol in connection.session.symbols(channel)}
    return {
        "number": connection.number,
        "feed": connection.feed.value,
        "authenticated": connection.session.is_authenticated,
        "symbols": len(symbols),
        "is_half_open": connection.is_half_open,
        "since": connection.since_unix_s,
    }


def _trading_body(updates: TradeUpdatesStream) -> dict[str, object]:
    clients = [
        {
            "number": connection.number,
            "authorized": connection.session.is_authorized,
            "listening": connection.session.is_listening,
            "is_half_open": connection.is_half_open,
        }
        for connection in updates.connections
    ]
    return {"connections": clients, "dials": _dials_body(updates.dials)}


def _dials_body(dials: DialLog) -> dict[str, object]:
    most = {f"most_in_{window_s:g}_s": count for window_s, count in dials.most_in.items()}
    return {"count": dials.count, "last": dials.last_unix_s(_LAST_DIALS), **most}


def _scenario_body(scenario: ScenarioRun | None) -> dict[str, object] | None:
    return None if scenario is None else {"running": scenario.is_running, "step": scenario.step}


def _sent_body(sent: SentQuote) -> dict[str, object]:
    return {
        "bid": sent.quote.bid_price,
        "ask": sent.quote.ask_price,
        "time_ns": sent.quote.time_ns,
        "sent_at": sent.sent_unix_s,
        "first_sent_at": sent.first_sent_unix_s,
    }
