"""CPU per quote in a flood: the record's handler and our service in turn, on the same simulator and the same Redis."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, at_least
from benchmarks.process_usage import cpu_seconds, resident_mb
from benchmarks.programs import HOST, Program, ask, market_data_service, running, simulator, subscribe, symbols
from libs.redis_client.embedded import EmbeddedRedis

SYMBOLS: Final = 100
RATIO_TARGET: Final = 20.0
_WARM_UP_S: Final = 1.0
_MICROSECONDS: Final = 1e6


@dataclass(slots=True)
class Usage:
    """What one side used, added up over its turns."""

    quotes: float = 0.0
    cpu_s: float = 0.0
    redis_cpu_s: float = 0.0
    wall_s: float = 0.0
    resident_mb: float = 0.0

    @property
    def cpu_us_per_quote(self) -> float:
        """CPU microseconds of the process per quote."""
        return self.cpu_s / self.quotes * _MICROSECONDS

    @property
    def redis_us_per_quote(self) -> float:
        """CPU microseconds of the Redis server per quote."""
        return self.redis_cpu_s / self.quotes * _MICROSECONDS

    @property
    def quotes_per_s(self) -> float:
        """Quotes taken in per second."""
        return self.quotes / self.wall_s


def measure_flood(folder: Path, *, turns: int, turn_s: float, simulator_options: tuple[str, ...] = ()) -> list[Figure]:
    """Let both sides take a flood in turn (record, ours, record, ours …), so that noise hits both alike."""
    record, ours = Usage(), Usage()
    with simulator(folder, "max", *simulator_options) as venue:
        for turn in range(turns):
            _turn_of_record(folder, venue, f"record-{turn}", record, turn_s)
            _turn_of_ours(folder, venue, f"ours-{turn}", ours, turn_s)
    ratio = record.cpu_us_per_quote / ours.cpu_us_per_quote
    return [
        Figure("flood: record's handler, CPU per quote", record.cpu_us_per_quote, "µs"),
        Figure("flood: our service, CPU per quote", ours.cpu_us_per_quote, "µs"),
        Figure(f"flood: ours is cheaper by, {SYMBOLS} symbols", ratio, "times", at_least(RATIO_TARGET)),
        Figure("flood: record's handler, quotes per second", record.quotes_per_s, "/s"),
        Figure("flood: our service, quotes per second", ours.quotes_per_s, "/s"),
        Figure("flood: record's handler, Redis CPU per quote", record.redis_us_per_quote, "µs"),
        Figure("flood: our service, Redis CPU per quote", ours.redis_us_per_quote, "µs"),
        Figure("flood: our service, memory", ours.resident_mb, "MB"),
    ]


def _turn_of_record(folder: Path, venue: Program, key: str, usage: Usage, turn_s: float) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        command = [
            *("benchmarks.record_handler", "--url", f"ws://{HOST}:{venue.port}/v2/iex", "--key", key),
            *("--redis", redis.url, "--symbols", ",".join(symbols(SYMBOLS))),
        ]
        program = stack.enter_context(running(folder, "record", command, {}))
        program.wait(lambda: bool(ask(program)["quotes"]), "quotes")
        _watch(program, redis.pid, lambda: float(ask(program)["quotes"]), usage, turn_s)
        if errors := ask(program)["errors"]:
            raise program.fault(f"{errors} quotes failed")


def _turn_of_ours(folder: Path, venue: Program, key: str, usage: Usage, turn_s: float) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        program = stack.enter_context(market_data_service(folder, venue, redis.url, key))
        subscribe(program, symbols(SYMBOLS))
        _watch(program, redis.pid, lambda: program.metric("markstream_quotes_received_total"), usage, turn_s)
        if program.metric("markstream_prices_published_total") < SYMBOLS:
            raise program.fault("it published next to nothing")


def _watch(program: Program, redis_pid: int, count: Callable[[], float], usage: Usage, turn_s: float) -> None:
    time.sleep(_WARM_UP_S)
    began = time.monotonic(), cpu_seconds(program.pid), cpu_seconds(redis_pid), count()
    time.sleep(turn_s)
    ended = time.monotonic(), cpu_seconds(program.pid), cpu_seconds(redis_pid), count()
    wall_s, cpu_s, redis_cpu_s, quotes = (after - before for before, after in zip(began, ended, strict=True))
    if quotes <= 0:
        raise program.fault("no quotes came")
    usage.wall_s += wall_s
    usage.cpu_s += cpu_s
    usage.redis_cpu_s += redis_cpu_s
    usage.quotes += quotes
    usage.resident_mb = max(usage.resident_mb, resident_mb(program.pid))
