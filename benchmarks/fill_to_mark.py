"""From a fill at the broker to the first real-time mark of its symbol in the gateway's P&L stream.

The whole chain, nobody helps: trading stream, ledger, announcement, subscription, first quote, mark, push. Each symbol
is new, so nothing of it was subscribed before.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import cycle
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import Figure, at_most, percentile
from benchmarks.programs import (
    HOST,
    Program,
    free_port,
    ledger_url,
    market_data_service,
    running,
    simulator,
    symbols,
    wait_ready,
    wait_streaming,
)
from libs.redis_client.embedded import EmbeddedRedis

MARK_TARGET_S: Final = 2.0
_RATE: Final = "1000"
_PATIENCE_S: Final = 20.0
_PAUSES_S: Final = (0.05, 0.13, 0.21, 0.29, 0.37)
"""Between two fills: of different lengths, so that they do not fall into step with what is sent at intervals."""
_STREAM: Final = "/api/v1/positions/pnl/stream"


class _Row(msgspec.Struct):
    """What is read of a row of the P&L."""

    symbol: str
    price_source: str


class _Body(msgspec.Struct):
    positions: list[_Row]


class _Account(msgspec.Struct):
    """The part of `/health` that tells of the account: `{"account":{"state":"in_step",...}}`."""

    state: str


class _Health(msgspec.Struct):
    account: _Account


_decode = msgspec.json.Decoder(_Body).decode
_decode_health = msgspec.json.Decoder(_Health).decode


def measure_fill_to_mark(folder: Path, *, fills: int) -> list[Figure]:
    """Let `fills` new symbols be bought one after another, each when the one before has its mark."""
    with _chain(folder) as (venue, gateway), _pushes(gateway) as lines:
        took_s = []
        for symbol, pause_s in zip(symbols(fills), cycle(_PAUSES_S), strict=False):
            time.sleep(pause_s)
            took_s.append(_fill_and_wait(venue, gateway, lines, symbol))
    return [
        Figure(f"fill at the broker → live mark pushed, p50 of {len(took_s)} new symbols", percentile(took_s, 50), "s"),
        Figure("fill at the broker → live mark pushed, p99", percentile(took_s, 99), "s", at_most(MARK_TARGET_S)),
        Figure("fill at the broker → live mark pushed, slowest", max(took_s), "s"),
    ]


def live_symbols(line: bytes) -> set[str]:
    """Return the symbols that one line of the stream shows at a real-time mark; none for a line without data."""
    if not line.startswith(b"data: "):
        return set()
    return {row.symbol for row in _decode(line[6:]).positions if row.price_source == "real-time"}


@contextmanager
def _chain(folder: Path) -> Iterator[tuple[Program, Program]]:
    """Run everything around an account that holds nothing; yield the simulator and the gateway that mirrors it."""
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        venue = stack.enter_context(simulator(folder, _RATE))
        gateway = stack.enter_context(_mirroring_gateway(folder, venue, redis.url))
        service = stack.enter_context(market_data_service(folder, venue, redis.url, "account", gateway.port))
        wait_ready(gateway)
        gateway.wait(lambda: _decode_health(gateway.get("/health")).account.state == "in_step", "in step")
        wait_streaming(service)
        yield venue, gateway


@contextmanager
def _mirroring_gateway(folder: Path, venue: Program, redis_url: str) -> Iterator[Program]:
    port, base = free_port(), f"{HOST}:{venue.port}"
    settings = {
        "EXECUTION_GATEWAY_PORT": str(port),
        "POSITION_SOURCE": "alpaca",
        "ALPACA_STREAM_URL": f"ws://{base}/v2/iex",
        "ALPACA_TRADING_URL": f"http://{base}",
        "REDIS_URL": redis_url,
        "DATABASE_URL": ledger_url(folder),
        "DAILY_BARS_PATH": str(folder / "bars"),
    }
    with running(folder, "gateway", ["apps.execution_gateway.main"], settings, port) as program:
        yield program


@contextmanager
def _pushes(gateway: Program) -> Iterator[HTTPResponse]:
    """Open the P&L stream; what it sends is read by line."""
    connection = HTTPConnection(HOST, gateway.port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", _STREAM)
        yield connection.getresponse()
    finally:
        connection.close()


def _fill_and_wait(venue: Program, gateway: Program, lines: HTTPResponse, symbol: str) -> float:
    """Let a share of `symbol` be bought; return the seconds until it is pushed at a real-time mark."""
    began_s = time.monotonic()
    venue.post("/control/fill", {"symbol": symbol, "side": "buy", "qty": 1})
    try:
        while time.monotonic() - began_s < _PATIENCE_S and (line := lines.readline()):
            if symbol in live_symbols(line):
                return time.monotonic() - began_s
    except (OSError, HTTPException) as error:
        raise gateway.fault(f"it pushed nothing more while {symbol} waited for its mark") from error
    raise gateway.fault(f"no live mark of {symbol} within {_PATIENCE_S:.0f} s")
