"""The kinds of faults, as data: what each does, for how long, how it is undone, and from when its recovery counts.

Decides neither which comes next (`plan.py`) nor what must be true afterwards (`judge.py`, `injector.py`).
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from apps.alpaca_simulator.frame_faults import FrameFault
from apps.alpaca_simulator.quote_faults import QuoteFault
from tests.soak.world import SIMULATOR, WALKING, World
from tests.support.stack import GATEWAY, MARKET_DATA

Undo = Callable[[], Awaitable[float]]
"""Ends the fault; returns the moment from which its recovery counts, in seconds since 1970."""
Begin = Callable[[World, Random], Awaitable[Undo]]

LINK, DATA, REST, MARKET = (frozenset({part}) for part in ("link", "data", "rest", "market"))
REDIS, SERVICE, PNL = (frozenset({part}) for part in ("redis", "service", "gateway"))
_CLOSE_CODES: Final = (1000, 1001, 1008, 1011, 1012, 1013, 4000)
_NOBODY: Final = "127.0.0.1", "1"
_PASSWORD: Final = "not-what-the-services-know"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `begin` starts it and returns how to end it; `hold_s` is how long it lasts, at least and most.

    `dials`: it makes the market data service dial, so it waits until the link has proven itself and there is budget.
    `loses_quotes`: what is quoted while it lasts may never be known, to anybody.
    """

    name: str
    touches: frozenset[str]
    hold_s: tuple[float, float]
    begin: Begin
    dials: bool = False
    may_overlap: bool = True
    loses_quotes: bool = False
    measured_from: str = "its end"


def _switch(*, drop: bool = False, **switches: object) -> Begin:
    """Return how to turn switches of the simulator on, and cut the connection so that they bite at once."""

    async def begin(world: World, _dice: Random) -> Undo:
        await world.faults(**switches)
        if drop:
            await world.act("drop", how="tcp")
        return lambda: _off(world, *switches)

    return begin


async def _off(world: World, *names: str) -> float:
    await world.faults(**dict.fromkeys(names))
    return time.time()


def _act(what: str, **fields: object) -> Begin:
    """Return how to have something happen once: it is over when it has happened."""

    async def begin(world: World, _dice: Random) -> Undo:
        await world.act(what, **fields)
        happened_s = time.time()

        async def undo() -> float:
            return happened_s

        return undo

    return begin


async def _close_frame(world: World, dice: Random) -> Undo:
    return await _act("drop", how="close", code=dice.choice(_CLOSE_CODES), reason="soak")(world, dice)


def _refused(code: int) -> Begin:
    """Return how to have the key refused until a person acts."""

    async def begin(world: World, _dice: Random) -> Undo:
        await world.faults(auth_error=code)
        await world.act("drop", how="close")

        async def undo() -> float:
            await world.faults(auth_error=None)
            await world.operator_reconnects()
            return time.time()

        return undo

    return begin


async def _slot_taken(world: World, dice: Random) -> Undo:
    """Lose the connection uncleanly: the server keeps its slot, and answers 406 until it is free."""
    held_s = dice.uniform(6.0, 12.0)
    await world.faults(slot_hold_s=held_s)
    free_at_s = time.time() + held_s
    await world.act("drop", how="tcp")

    async def undo() -> float:
        await world.faults(slot_hold_s=None)
        return max(free_at_s, time.time())

    return undo


async def _statuses_refused(world: World, _dice: Random) -> Undo:
    await world.faults(refuse_statuses=410)
    await world.act("drop", how="close")

    async def undo() -> float:
        await world.faults(refuse_statuses=None)
        # Not asked for again on a connection that has refused them, and the next halt is to be seen.
        await world.act("drop", how="close")
        return time.time()

    return undo


async def _error_before_welcome(world: World, dice: Random) -> Undo:
    return await _switch(drop=True, error_before_welcome=dice.choice((406, 500)))(world, dice)


async def _refused_symbols(world: World, dice: Random) -> Undo:
    return await _switch(drop=True, refused_symbols=dice.sample(WALKING, 2))(world, dice)


async def _dead_symbols(world: World, dice: Random) -> Undo:
    symbols = dice.sample(WALKING, dice.choice((1, 1, 2)))
    await world.faults(dead_symbols=symbols)
    world.dead_since_s = dict.fromkeys(symbols, time.time())

    async def undo() -> float:
        world.dead_since_s = {}
        return await _off(world, "dead_symbols")

    return undo


async def _halt(world: World, dice: Random) -> Undo:
    symbols = dice.sample(WALKING, dice.choice((1, 2)))
    for symbol in symbols:
        await world.act("halt", symbol=symbol)
    world.halted |= set(symbols)

    async def undo() -> float:
        for symbol in symbols:
            await world.act("resume", symbol=symbol)
        world.halted -= set(symbols)
        return time.time()

    return undo


async def _market_closed(world: World, _dice: Random) -> Undo:
    """Close the market, and start the service anew, which then asks the clock at once and finds it closed."""
    await _set_market(world, "closed")
    await world.terminate(MARKET_DATA)
    await world.start(MARKET_DATA)

    async def undo() -> float:
        await _set_market(world, "open")
        await world.terminate(MARKET_DATA)
        began_s = time.time()
        await world.start(MARKET_DATA)
        return began_s

    return undo


async def _market_closed_briefly(world: World, _dice: Random) -> Undo:
    await _set_market(world, "closed")

    async def undo() -> float:
        await _set_market(world, "open")
        return time.time()

    return undo


async def _set_market(world: World, setting: str) -> None:
    await world.act("market", setting=setting)
    world.market_open_since_s = time.time() if setting == "open" else None


async def _redis_killed(world: World, _dice: Random) -> Undo:
    world.expected_gone.add("redis")
    world.server.kill()

    async def undo() -> float:
        world.server.start()
        world.expected_gone.discard("redis")
        return time.time()

    return undo


def _redis_set(on: tuple[str, ...], off: tuple[str, ...], *, password: str | None = None) -> Begin:
    """Return how to make Redis unusable by a command, and usable again by another."""

    async def begin(world: World, _dice: Random) -> Undo:
        await world.redis_command(*on)
        if password is not None:
            # Who is logged in stays so: everybody has to come again.
            await world.redis_command("CLIENT", "KILL", "SKIPME", "yes", password=password)

        async def undo() -> float:
            await world.redis_command(*off, password=password)
            return time.time()

        return undo

    return begin


def _killed(module: str) -> Begin:
    async def begin(world: World, _dice: Random) -> Undo:
        world.kill(module)

        async def undo() -> float:
            began_s = time.time()
            await world.start(module)
            return began_s

        return undo

    return begin


def _terminated(module: str) -> Begin:
    async def begin(world: World, _dice: Random) -> Undo:
        await world.terminate(module)

        async def undo() -> float:
            began_s = time.time()
            await world.start(module)
            return began_s

        return undo

    return begin


def _frozen(*parts: str) -> Begin:
    async def begin(world: World, _dice: Random) -> Undo:
        pids = [world.pids()[part] for part in parts]
        for pid in pids:
            world.freeze(pid)

        async def undo() -> float:
            for pid in pids:
                world.thaw(pid)
            return time.time()

        return undo

    return begin


_START = "the start of its process"

KINDS: Final = (
    # The link
    Kind("tcp_drop", LINK, (0.0, 0.5), _act("drop", how="tcp"), dials=True, measured_from="the drop"),
    Kind("close_frame", LINK, (0.0, 0.5), _close_frame, dials=True, measured_from="the close"),
    Kind("slow_client_told", LINK, (0.0, 0.5), _act("slow-client", with_message=True), dials=True,
         measured_from="the message"),
    Kind("slow_client_cut", LINK, (0.0, 0.5), _act("slow-client", with_message=False), dials=True,
         measured_from="the drop"),
    Kind("half_open", LINK, (0.5, 1.0), _switch(half_open=True), dials=True,
         measured_from="when new connections work"),
    Kind("mute", LINK | DATA, (4.0, 12.0), _switch(mute=True), dials=True, loses_quotes=True),
    Kind("mute_long", LINK | DATA, (33.0, 36.0), _switch(mute=True), dials=True, loses_quotes=True),
    Kind("upgrade_429", LINK, (3.0, 5.0), _switch(drop=True, upgrade_status=429, retry_after_s=2), dials=True),
    Kind("upgrade_502", LINK, (3.0, 6.0), _switch(drop=True, upgrade_status=502), dials=True),
    Kind("upgrade_404", LINK, (1.0, 2.0), _switch(drop=True, upgrade_status=404), dials=True),
    Kind("error_before_welcome", LINK, (1.0, 3.0), _error_before_welcome, dials=True),
    Kind("no_welcome", LINK, (1.0, 2.0), _switch(drop=True, no_welcome=True), dials=True),
    Kind("no_auth_answer", LINK, (1.0, 2.0), _switch(drop=True, no_auth_answer=True), dials=True),
    Kind("auth_406", LINK, (0.5, 1.0), _slot_taken, dials=True, measured_from="when the slot is free"),
    *(
        Kind(f"auth_{code}", LINK, (2.0, 4.0), _refused(code), dials=True, measured_from="the operator's reconnect")
        for code in (402, 409, 411)
    ),
    Kind("subscribe_405", LINK, (2.0, 4.0), _switch(drop=True, subscribe_error=405), dials=True),
    Kind("subscribe_400", LINK, (2.0, 4.0), _switch(drop=True, subscribe_error=400), dials=True),
    Kind("refused_symbols", LINK, (2.0, 4.0), _refused_symbols, dials=True),
    Kind("symbol_limit_shrinks", LINK, (3.0, 6.0), _switch(drop=True, symbol_limit=5), dials=True),
    Kind("no_ack", LINK, (1.0, 2.0), _switch(drop=True, no_ack=True), dials=True),
    Kind("statuses_refused", LINK, (1.0, 2.0), _statuses_refused, dials=True, measured_from="the drop at its end"),
    # What the link brings
    Kind("dead_symbols", LINK | DATA, (8.0, 33.0), _dead_symbols, dials=True),
    Kind("halt_resume", DATA, (4.0, 7.0), _halt),
    Kind("burst_backlog", DATA, (3.0, 7.0), _switch(hold_data=True)),
    Kind("slow_frames", DATA, (3.0, 5.0), _switch(frame_delay_s=0.3)),
    Kind("cut_frames", DATA, (2.0, 3.0), _switch(malformed_every=3), loses_quotes=True),
    *(
        Kind(f"quote_{fault.value}", DATA, (1.5, 2.5), _switch(bad_quotes=[fault.value], bad_quote_share=0.3))
        for fault in QuoteFault
    ),
    *(
        Kind(f"frame_{fault.value}", DATA, (1.5, 2.5), _switch(bad_frames=[fault.value], bad_frame_every=3))
        for fault in FrameFault
    ),
    # REST, whose answers are wanted after every drop
    Kind("rest_slow", REST | LINK, (3.0, 6.0), _switch(drop=True, rest_delay_s=8), dials=True),
    Kind("rest_500", REST | LINK, (2.0, 5.0), _switch(drop=True, rest_status=500), dials=True),
    Kind("rest_html", REST | LINK, (2.0, 5.0), _switch(drop=True, rest_html=True), dials=True),
    Kind("rest_429", REST | LINK, (2.0, 5.0), _switch(drop=True, rest_status=429, rest_retry_after_s=3), dials=True),
    Kind("rest_garbage", REST | LINK, (2.0, 5.0), _switch(drop=True, rest_garbage=True), dials=True),
    # The market
    Kind("market_closed", MARKET | SERVICE | LINK | DATA, (17.0, 20.0), _market_closed, dials=True, may_overlap=False,
         measured_from="the service's start in an open market"),
    Kind("market_closed_briefly", MARKET | DATA, (4.0, 8.0), _market_closed_briefly),
    # Redis
    Kind("redis_killed", REDIS, (1.0, 8.0), _redis_killed, measured_from="its return, empty"),
    Kind("redis_frozen", REDIS, (2.0, 9.0), _frozen("redis")),
    Kind("redis_readonly", REDIS, (2.0, 5.0), _redis_set(("REPLICAOF", *_NOBODY), ("REPLICAOF", "NO", "ONE"))),
    Kind("redis_oom", REDIS, (2.0, 5.0),
         _redis_set(("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"))),
    Kind("redis_password", REDIS, (2.0, 5.0),
         _redis_set(("CONFIG", "SET", "requirepass", _PASSWORD), ("CONFIG", "SET", "requirepass", ""),
                    password=_PASSWORD)),
    # Our processes, and the simulator's
    Kind("simulator_killed", LINK | DATA | REST | MARKET, (1.0, 5.0), _killed(SIMULATOR), dials=True,
         loses_quotes=True, measured_from="its return"),
    Kind("service_frozen", SERVICE | LINK, (3.0, 12.0), _frozen(MARKET_DATA), dials=True),
    Kind("service_killed", SERVICE | LINK, (0.5, 2.0), _killed(MARKET_DATA), dials=True, measured_from=_START),
    Kind("service_terminated", SERVICE | LINK, (0.2, 1.0), _terminated(MARKET_DATA), dials=True, measured_from=_START),
    Kind("gateway_frozen", PNL, (2.0, 9.0), _frozen(GATEWAY)),
    Kind("gateway_killed", PNL, (0.5, 2.0), _killed(GATEWAY), measured_from=_START),
    Kind("gateway_terminated", PNL, (0.2, 1.0), _terminated(GATEWAY), measured_from=_START),
    Kind("host_sleeps", SERVICE | LINK | PNL | REDIS, (5.0, 20.0), _frozen(MARKET_DATA, GATEWAY, "redis"), dials=True,
         may_overlap=False),
)  # fmt: skip
