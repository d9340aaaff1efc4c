"""How long quotes stay away after a connection was cut, and after a server was gone for a while.

Many streams with keys of their own run beside one simulator in this process. What counts is from the cut, or from the
server's return, to the first quote of the new connection in a handler's hands.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from apps.alpaca_simulator.config import SimulatorConfig
from apps.alpaca_simulator.simulator import Simulator
from benchmarks.figures import Figure, at_most, percentile
from benchmarks.programs import BenchmarkError
from libs.market_data.alpaca_stream import AlpacaMarketDataStream
from libs.market_data.quotes import Quote

DROP_TARGET_S: Final = 2.0
OUTAGE_TARGET_S: Final = 30.0
STREAMS: Final = 20
_SYMBOLS: Final = ("AAPL", "MSFT", "SPY", "TSLA", "NVDA")
_RATE: Final = 50.0
_PATIENCE_S: Final = 60.0


class _Client:
    """One stream, and when it last began to bring quotes again, by the monotonic clock."""

    def __init__(self, key: str, url: str) -> None:
        self.key = key
        self.stream = AlpacaMarketDataStream(key, "secret", url=url)
        self.stream.add_handler(self._take)
        self._seen_on = 0
        self._first_at_s = 0.0
        self._has_come = asyncio.Event()

    def _take(self, _quote: Quote) -> None:
        # What was under way when the connection was cut belongs to the old one.
        if self.stream.link.connections > self._seen_on:
            self._seen_on = self.stream.link.connections
            self._first_at_s = time.monotonic()
            self._has_come.set()

    def cut(self, simulator: Simulator) -> float:
        """Cut this client's TCP connection; return when."""
        self._has_come.clear()
        for connection in simulator.connections:
            if connection.session.key == self.key:
                connection.drop()
        return time.monotonic()

    def expect(self) -> None:
        """Wait, from now on, for the first quote of the next connection."""
        self._has_come.clear()

    async def first_quote(self) -> float:
        """Return when the first quote of the new connection came. Raises BenchmarkError when none does."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._has_come.wait()
        except TimeoutError:
            raise BenchmarkError(f"no quote came back within {_PATIENCE_S:.0f} s") from None
        return self._first_at_s


def measure_recovery(
    _folder: Path, *, drops: int, lasting_s: float, outages_s: Sequence[float], streams: int = STREAMS
) -> list[Figure]:
    """Cut each stream `drops` times, each connection `lasting_s` old, then take the server away for `outages_s` each.

    The reconnect policy forgets past failures only after a connection has lasted 10 s.
    """
    _be_quiet()
    cut_s, returned_s = asyncio.run(_measure(drops, lasting_s, outages_s, streams))
    return [
        Figure(f"recovery: cut → next quote, p50 of {len(cut_s)} cuts", percentile(cut_s, 50), "s"),
        Figure("recovery: cut → next quote, p99", percentile(cut_s, 99), "s", at_most(DROP_TARGET_S)),
        *(
            Figure(
                f"recovery: server back after {outage_s:g} s → next quote, slowest of {streams}",
                took_s,
                "s",
                at_most(OUTAGE_TARGET_S),
            )
            for outage_s, took_s in zip(outages_s, returned_s, strict=True)
        ),
    ]


async def _measure(
    drops: int, lasting_s: float, outages_s: Sequence[float], streams: int
) -> tuple[list[float], list[float]]:
    async with _running(streams) as (simulator, clients):
        # One after another: the server is not to be busy with all of them at once.
        starts_s = [lasting_s * number / streams for number in range(streams)]
        each = await asyncio.gather(
            *(
                _cut_again_and_again(client, simulator, drops, lasting_s, start_s)
                for client, start_s in zip(clients, starts_s, strict=True)
            )
        )
        returned_s = []
        for outage_s in outages_s:
            await asyncio.sleep(lasting_s)
            returned_s.append(await _outage(clients, simulator, outage_s))
    return [took_s for of_one in each for took_s in of_one], returned_s


async def _cut_again_and_again(
    client: _Client, simulator: Simulator, drops: int, lasting_s: float, start_s: float
) -> list[float]:
    took_s = []
    await asyncio.sleep(start_s)
    for _ in range(drops):
        await asyncio.sleep(lasting_s)
        cut_at_s = client.cut(simulator)
        took_s.append(await client.first_quote() - cut_at_s)
    return took_s


async def _outage(clients: Sequence[_Client], simulator: Simulator, outage_s: float) -> float:
    """Take the server away as a power failure does; return how long after its return the last stream had a quote."""
    await simulator.stop(clean=False)
    for client in clients:
        client.expect()
    await asyncio.sleep(outage_s)
    await simulator.start()
    back_at_s = time.monotonic()
    return max(0.0, max(await asyncio.gather(*(client.first_quote() for client in clients))) - back_at_s)


@asynccontextmanager
async def _running(streams: int) -> AsyncIterator[tuple[Simulator, list[_Client]]]:
    """Run a simulator and the streams, each with its first quote."""
    simulator = Simulator(SimulatorConfig(rate=_RATE, slot_hold_s=0.0))
    await simulator.start()
    clients = [_Client(f"key-{number}", simulator.stream_url()) for number in range(streams)]
    tasks = []
    try:
        for client in clients:
            await client.stream.subscribe_symbols(_SYMBOLS)
            tasks.append(asyncio.create_task(client.stream.start(), name=client.key))
            client.stream.take_over()
        await asyncio.gather(*(client.first_quote() for client in clients))
        yield simulator, clients
    finally:
        await asyncio.gather(*(client.stream.stop() for client in clients))
        await asyncio.gather(*tasks)
        await simulator.stop()


def _be_quiet() -> None:
    """Have nothing logged here: the streams and the simulator tell every connection's life."""
    logging.getLogger("alpaca").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
