"""The P&L of a whole account on the real chain, from the simulator to the gateway: its endpoint and its push stream."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import Figure, at_most, percentile
from benchmarks.ledger_seed import FILL, filled_at, seed
from benchmarks.process_usage import cpu_seconds, resident_mb
from benchmarks.programs import (
    HOST,
    Program,
    execution_gateway,
    ledger_url,
    market_data_service,
    simulator,
    symbols,
    wait_confirmed,
    wait_ready,
    wait_streaming,
)
from libs.redis_client.embedded import EmbeddedRedis

SIZES: Final = (10, 100, 1_000)
PNL_TARGET_MS: Final = 50.0
MEMORY_TARGET_MB: Final = 200.0
_PUSH_SIZE: Final = 100
_PNL: Final = "/api/v1/positions/pnl"
_RATE: Final = "1000"
_PAUSE_S: Final = 0.01
_LIVE_SHARE: Final = 0.9


class _Row(msgspec.Struct):
    """What is read of a row of the P&L."""

    symbol: str
    price_source: str
    last_updated: datetime | None


class _Body(msgspec.Struct):
    positions: list[_Row]


_decode = msgspec.json.Decoder(_Body).decode


@contextmanager
def chain(folder: Path, rate: str) -> Iterator[tuple[Program, Program]]:
    """Run everything; yield the market data service and the gateway, with an empty ledger."""
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        venue = stack.enter_context(simulator(folder, rate))
        gateway = stack.enter_context(execution_gateway(folder, venue, redis.url))
        service = stack.enter_context(market_data_service(folder, venue, redis.url, "account", gateway.port))
        # They start together: half of a quick run is waiting for programs.
        wait_ready(gateway)
        wait_streaming(service)
        yield service, gateway


def buy(folder: Path, gateway: Program, names: Sequence[str]) -> None:
    """Hold a position in each symbol: most straight into the ledger, the last by a fill, which is announced."""
    *most, last = names
    if most:
        seed(ledger_url(folder), most)
    fill = {key: str(value) for key, value in FILL.items()}
    gateway.post("/api/v1/fills", {"fill_id": last, "symbol": last, **fill, "filled_at": filled_at().isoformat()})


def measure_account(folder: Path, *, requests: int, within_s: float, push_s: float) -> list[Figure]:
    """Let an account grow to 1,000 live positions and measure its P&L on the way."""
    figures = []
    with chain(folder, _RATE) as (service, gateway):
        held = 0
        for size in SIZES:
            buy(folder, gateway, symbols(size)[held:])
            held = size
            wait_confirmed(service, size)
            wait_live(gateway, size)
            cpu_before_s = cpu_seconds(gateway.pid)
            taken_ms = _time_requests(gateway, requests, within_s)
            cpu_ms = (cpu_seconds(gateway.pid) - cpu_before_s) * 1e3 / len(taken_ms)
            target = at_most(PNL_TARGET_MS) if size == SIZES[-1] else None
            figures.append(Figure(f"P&L endpoint, {size:,} positions, p50", percentile(taken_ms, 50), "ms"))
            figures.append(Figure(f"P&L endpoint, {size:,} positions, p99", percentile(taken_ms, 99), "ms", target))
            # All the gateway's CPU meanwhile, its price subscription included: a busy machine does not distort it.
            figures.append(Figure(f"P&L endpoint, {size:,} positions, CPU per request", cpu_ms, "ms"))
            if size == _PUSH_SIZE:
                pushed_ms = _follow_pushes(gateway, push_s)
                figures.append(
                    Figure(f"quote sent → P&L pushed, {size} positions, p50", percentile(pushed_ms, 50), "ms")
                )
                figures.append(
                    Figure(f"quote sent → P&L pushed, {size} positions, p99", percentile(pushed_ms, 99), "ms")
                )
        for program, what in ((service, "market data service"), (gateway, "gateway")):
            used_mb = resident_mb(program.pid)
            figures.append(Figure(f"{what}: memory at {held:,} symbols", used_mb, "MB", at_most(MEMORY_TARGET_MB)))
    return figures


def wait_live(gateway: Program, size: int) -> None:
    """Return when nearly all positions are valued at a live price; a few symbols are slow to quote."""

    def is_live() -> bool:
        rows = _decode(gateway.get(f"{_PNL}/realtime")).positions
        return sum(row.price_source == "real-time" for row in rows) >= size * _LIVE_SHARE

    gateway.wait(is_live, f"{size} positions at live prices")


def _time_requests(gateway: Program, requests: int, within_s: float) -> list[float]:
    """Return the milliseconds of each request, from sending it to having its whole body; fewer when time is up."""
    taken_ms: list[float] = []
    until_s = time.monotonic() + within_s
    connection = HTTPConnection(HOST, gateway.port, timeout=10)
    try:
        while len(taken_ms) < requests and (not taken_ms or time.monotonic() < until_s):
            began_s = time.perf_counter()
            connection.request("GET", f"{_PNL}/realtime")
            connection.getresponse().read()
            taken_ms.append((time.perf_counter() - began_s) * 1e3)
            time.sleep(_PAUSE_S)
    finally:
        connection.close()
    return taken_ms


def _follow_pushes(gateway: Program, seconds: float) -> list[float]:
    """Return for every row pushed the milliseconds since its quote was sent."""
    latencies_ms: list[float] = []
    connection = HTTPConnection(HOST, gateway.port, timeout=10)
    try:
        connection.request("GET", f"{_PNL}/stream")
        answer = connection.getresponse()
        seen: dict[str, datetime | None] = {}
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and (line := answer.readline()):
            arrived_s = time.time_ns() / 1e9
            if not line.startswith(b"data: "):
                continue
            is_snapshot = not seen
            for row in _decode(line[6:]).positions:
                if not is_snapshot and row.last_updated is not None and seen.get(row.symbol) != row.last_updated:
                    latencies_ms.append((arrived_s - row.last_updated.timestamp()) * 1e3)
                seen[row.symbol] = row.last_updated
    finally:
        connection.close()
    if not latencies_ms:
        raise gateway.fault("it pushed no price")
    return latencies_ms
