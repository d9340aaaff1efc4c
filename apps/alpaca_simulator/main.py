"""The command line of the simulator and its wiring: `python -m apps.alpaca_simulator.main --help`."""

import argparse
import asyncio
import errno
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Final

import msgspec

from apps.alpaca_simulator.config import HeldPosition, SimulatorConfig
from apps.alpaca_simulator.fault_switches import WrongSwitchError, merged, option_forms, read_option
from apps.alpaca_simulator.faults import NO_FAULTS
from apps.alpaca_simulator.market import MarketSetting
from apps.alpaca_simulator.recording import RecordingError
from apps.alpaca_simulator.scenario import ScenarioError, read_scenario_file
from apps.alpaca_simulator.settings import SimulatorSettings
from apps.alpaca_simulator.simulator import Simulator
from libs.market_data.symbols import MalformedSymbolError, parse_symbol
from libs.service.logging import configure_logging
from libs.service.settings import load_settings

DEFAULT_PORT: Final = 8765
_HIGHEST_PORT: Final = 65_535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulator until SIGINT or SIGTERM; return 0 after a requested stop, 1 after a failure."""
    settings = load_settings(SimulatorSettings)
    config = read_arguments(arguments, settings.simulator_port)
    configure_logging(settings.log_level, settings.log_format)
    return asyncio.run(_run(config))


def read_arguments(arguments: Sequence[str] | None = None, default_port: int = DEFAULT_PORT) -> SimulatorConfig:
    """Return the config that a command line describes; a wrong one ends the process with 2 and its usage."""
    parser = _parser(default_port)
    given = parser.parse_args(arguments)
    try:
        faults = merged(NO_FAULTS, dict(given.fault))
        scenario = None if given.scenario is None else read_scenario_file(given.scenario.read_bytes())
    except OSError as fault:
        parser.exit(2, f"simulator: cannot read {given.scenario}: {fault.strerror or fault}\n")
    except ScenarioError as fault:
        parser.exit(2, f"simulator: {given.scenario}: {fault}\n")
    return SimulatorConfig(
        host=given.host,
        port=given.port,
        seed=given.seed,
        rate=given.rate,
        market=given.market,
        silent_symbols=given.silent,
        one_sided_symbols=given.one_sided,
        replay=given.replay,
        speed=given.speed,
        keep_timestamps=given.keep_timestamps,
        loop=given.loop,
        symbol_limit=given.symbol_limit,
        key=given.key,
        secret=given.secret,
        positions=given.positions,
        trading_rate_limit=given.trading_rate_limit,
        trading_autofill=given.trading_autofill,
        slot_hold_s=given.slot_hold_seconds,
        compress=not given.no_compression,
        faults=faults,
        scenario=scenario,
    )


async def _run(config: SimulatorConfig) -> int:
    simulator = Simulator(config)
    stop_requested = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
    try:
        await simulator.start()
    except RecordingError as fault:
        return _fail(str(fault))
    except OSError as fault:
        if fault.errno == errno.EADDRINUSE:
            return _fail(f"port {config.port} is in use: choose another with --port or SIMULATOR_PORT")
        return _fail(f"cannot listen on {config.host}:{config.port}: {fault.strerror or fault}")
    return await _until_stopped(simulator, stop_requested)


async def _until_stopped(simulator: Simulator, stop_requested: asyncio.Event) -> int:
    stopping = asyncio.create_task(stop_requested.wait(), name="stop-requested")
    failing = asyncio.create_task(simulator.wait_failed(), name="market-failed")
    await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
    has_failed = failing.done()
    for task in (stopping, failing):
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
    await simulator.stop()
    return 1 if has_failed else 0


def _fail(message: str) -> int:
    print(f"simulator: {message}", file=sys.stderr)  # noqa: T201 - the last line before the end, for a person
    return 1


def _parser(default_port: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m apps.alpaca_simulator.main",
        description="Plays Alpaca on one port: market data stream, market data REST, trading REST.",
        epilog="faults:\n  " + "\n  ".join(option_forms()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=default_port, help=f"default: SIMULATOR_PORT or {DEFAULT_PORT}")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same prices")
    parser.add_argument(
        "--rate", type=_rate, help="quotes per second in total, or max; without it each symbol keeps its usual pace"
    )
    parser.add_argument(
        "--market", type=MarketSetting, choices=list(MarketSetting), default=MarketSetting.OPEN,
        help="what the clock says: the real calendar (auto), or always the same",
    )  # fmt: skip
    parser.add_argument("--silent", type=_symbols, default=frozenset(), help="symbols that never quote: A,B")
    parser.add_argument("--one-sided", type=_symbols, default=frozenset(), help="symbols that only have a bid: A,B")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="replay a recording, .csv or .parquet")
    parser.add_argument("--speed", type=_speed, default=1.0, help="speed of the replay: a factor, or max")
    parser.add_argument("--keep-timestamps", action="store_true", help="replay with the recorded times")
    parser.add_argument("--loop", action="store_true", help="begin the replay again at its end")
    parser.add_argument("--symbol-limit", type=_count, help="how many quotes and trades may be subscribed together")
    parser.add_argument("--key", help="the only key accepted; without it any")
    parser.add_argument("--secret", help="the only secret accepted; without it any")
    parser.add_argument(
        "--positions", type=_positions, default=(), metavar="FILE",
        help='the account\'s positions: [{"symbol":"AAPL","qty":"100","avg_entry_price":"150.00"}]',
    )  # fmt: skip
    parser.add_argument("--trading-rate-limit", type=_count, metavar="N", help="trading REST calls a minute")
    parser.add_argument(
        "--trading-autofill", type=_number, default=0.0, metavar="RATE",
        help="orders a minute that somebody else places in the held symbols",
    )  # fmt: skip
    parser.add_argument(
        "--slot-hold-seconds", type=_number, default=90.0, help="how long a lost client's connection slot stays taken"
    )
    parser.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="NAME[=VALUE]",
        help="misbehave from the start, repeatable; the faults are listed below",
    )  # fmt: skip
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="misbehave on a timeline, a .toml file")
    parser.add_argument("--no-compression", action="store_true", help="refuse permessage-deflate")
    return parser


def _number(text: str) -> float:
    with suppress(ValueError):
        number = float(text)
        if isfinite(number) and number >= 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")


def _rate(text: str) -> float:
    return inf if text == "max" else _number(text)


def _speed(text: str) -> float:
    speed = _rate(text)
    if speed == 0:
        raise argparse.ArgumentTypeError("a replay needs a speed above 0")
    return speed


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a count from 0 up")
    return int(text)


def _port(text: str) -> int:
    port = _count(text)
    if port > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return port


def _symbols(text: str) -> frozenset[str]:
    try:
        return frozenset(parse_symbol(symbol) for symbol in text.split(",") if symbol)
    except MalformedSymbolError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from fault


def _fault(text: str) -> tuple[str, object]:
    try:
        return read_option(text)
    except WrongSwitchError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from fault


class _WirePosition(msgspec.Struct, forbid_unknown_fields=True):
    symbol: str
    qty: Decimal
    avg_entry_price: Decimal
    opened_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def __post_init__(self) -> None:
        if not (self.qty.is_finite() and self.qty):
            raise ValueError(f"{self.symbol[:40]}: qty must be a number other than 0")

    def held(self) -> HeldPosition:
        return HeldPosition(parse_symbol(self.symbol), self.qty, self.avg_entry_price, self.opened_at)


def _positions(name: str) -> tuple[HeldPosition, ...]:
    try:
        held = msgspec.json.decode(Path(name).read_bytes(), type=list[_WirePosition])
        return tuple(one.held() for one in held)
    except (OSError, msgspec.MsgspecError, MalformedSymbolError) as fault:
        raise argparse.ArgumentTypeError(f"cannot read positions from {name}: {fault}") from fault


if __name__ == "__main__":
    sys.exit(main())
