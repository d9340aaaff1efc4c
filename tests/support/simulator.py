"""A simulator in the test's own process, on a free port, steered through its methods."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from apps.alpaca_simulator.config import SimulatorConfig
from apps.alpaca_simulator.simulator import Simulator

_SETS = ("silent_symbols", "one_sided_symbols")


@asynccontextmanager
async def running_simulator(**config: Any) -> AsyncIterator[Simulator]:
    """Run a simulator for the length of a test.

    `config` are fields of SimulatorConfig. Unlike the real server, and unless told otherwise, an unclean drop frees
    the connection slot at once: most tests are about something else. `rate=0` leaves all quotes to `emit`.
    """
    config.setdefault("slot_hold_s", 0.0)
    for name in _SETS:
        value: Iterable[str] = config.get(name, ())
        config[name] = frozenset(value)
    simulator = Simulator(SimulatorConfig(**config))
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()
