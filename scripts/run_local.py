"""`make run`: the whole system on one machine, with one command, until Ctrl-C.

Without keys: an embedded Redis, the Alpaca simulator, both services and a demo account, all of it under `./var/demo`.
With `ALPACA_API_KEY` and `ALPACA_SECRET_KEY` (or an `ALPACA_STREAM_URL`): the same against that source, with the
person's own ledger and nothing of the demo.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import httpx2
from pydantic import Field

from libs.redis_client.embedded import EmbeddedRedis, RedisServerError
from libs.service.settings import AlpacaSettings, Port, RedisSettings, load_settings
from libs.service.version import VERSION
from scripts.demo_account import (
    ONE_SIDED_SYMBOLS,
    SILENT_SYMBOLS,
    DemoError,
    demo_fills,
    demo_positions,
    post_fills,
    replay_fills,
)
from scripts.live_screen import Screen, tell
from scripts.local_bars import BarsKeeper
from scripts.local_part import LocalPart, child_environment
from scripts.local_services import LocalServicesSettings, ask, client

_DEMO: Final = Path("var/demo")
_OWN: Final = Path("var")
_READY_WITHIN_S: Final = 60.0
_STOP_WITHIN_S: Final = 6.0
_REDIS_LOOK_S: Final = 1.0
_DEMO_KEY: Final = "demo"


class RunSettings(AlpacaSettings, RedisSettings, LocalServicesSettings):
    """What `make run` itself reads from the environment; the parts read the rest."""

    simulator_port: Port = 8765
    position_source: Literal["ledger", "alpaca"] = Field("ledger", description="ledger or alpaca")

    @property
    def gateway_url(self) -> str:
        """The gateway that is started here, never another one: the demo's fills must not reach a real ledger."""
        return self.local_gateway_url

    @property
    def has_own_source(self) -> bool:
        """Whether the person named a source of prices."""
        return self.has_credentials or self.alpaca_stream_url is not None

    @property
    def has_own_redis(self) -> bool:
        """Whether the person named a Redis server."""
        return bool(self.model_fields_set & {"redis_host", "redis_port", "redis_url"})


class StartError(Exception):
    """The stack cannot be started. The text is one line for a person."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to run: `folder` keeps its files, `simulator` is the simulator's command, None without one."""

    mode: str
    folder: Path
    simulator: tuple[str, ...] | None
    fills: tuple[dict[str, Any], ...]
    environment: dict[str, str]


def make_plan(settings: RunSettings, arguments: argparse.Namespace, now: datetime) -> Plan:
    """Decide from keys and arguments what runs. Raises StartError for a recording that cannot be read."""
    if arguments.replay is not None:
        return _replay_plan(settings, arguments, now)
    if arguments.mirror and settings.has_own_source:
        raise StartError("--mirror invents an account; with keys of your own set POSITION_SOURCE=alpaca instead")
    if arguments.mirror:
        return _mirror_plan(settings, now)
    if settings.has_own_source:
        # The services read the person's own settings, ledger included, by themselves.
        return Plan(settings.mode.value, _OWN, None, (), {})
    simulator = ("--silent", ",".join(SILENT_SYMBOLS), "--one-sided", ",".join(ONE_SIDED_SYMBOLS))
    return Plan("simulated", _DEMO, simulator, tuple(demo_fills(now)), _demo_environment(settings, _DEMO))


def _mirror_plan(settings: RunSettings, now: datetime) -> Plan:
    """Invent an account at the simulator, which trades now and then, and mirror it."""
    folder = _DEMO / "mirror"
    folder.mkdir(parents=True, exist_ok=True)
    # The simulated account begins anew with every start: what was mirrored of the one before is of another account.
    for old in folder.glob("ledger.db*"):
        old.unlink()
    positions = folder / "positions.json"
    positions.write_bytes(json.dumps(demo_positions(now)).encode())
    simulator = ("--positions", str(positions), "--trading-autofill", "12")
    environment = _demo_environment(settings, folder) | {"POSITION_SOURCE": "alpaca"}
    return Plan("simulated", folder, simulator, (), environment)


def _replay_plan(settings: RunSettings, arguments: argparse.Namespace, now: datetime) -> Plan:
    from apps.alpaca_simulator.recording import RecordingError, read_recording  # brings polars: only for a replay

    recording: Path = arguments.replay.resolve()
    try:
        first_prices = read_recording(recording).first_prices
    except RecordingError as error:
        raise StartError(str(error)) from error
    # A folder of its own: one recording's positions say nothing about another's.
    digest = hashlib.sha256(str(recording).encode()).hexdigest()[:8]
    folder = _DEMO / f"replay-{recording.stem}-{digest}"
    simulator = ("--replay", str(recording), "--speed", arguments.speed, *(["--loop"] if arguments.loop else []))
    if arguments.keep_timestamps:
        simulator = (*simulator, "--keep-timestamps")
    fills = tuple(replay_fills(first_prices, now))
    return Plan("replay", folder, simulator, fills, _demo_environment(settings, folder))


def _demo_environment(settings: RunSettings, folder: Path) -> dict[str, str]:
    """Return what keeps the demo apart from everything real, whatever `.env` says."""
    base = f"http://127.0.0.1:{settings.simulator_port}"
    return {
        "ALPACA_API_KEY": _DEMO_KEY,
        "ALPACA_SECRET_KEY": _DEMO_KEY,
        "ALPACA_PAPER": "true",
        "ALPACA_FEED": "iex",
        "ALPACA_STREAM_MODE": "",
        "ALPACA_STREAM_URL": f"ws://127.0.0.1:{settings.simulator_port}/v2/iex",
        "ALPACA_DATA_URL": base,
        "ALPACA_TRADING_URL": base,
        "POSITION_SOURCE": "ledger",
        "DATABASE_URL": f"sqlite:///{folder.absolute()}/ledger.db",
        "DAILY_BARS_PATH": str(folder / "daily_bars"),
    }


class LocalStack:
    """All parts of one run, started in order and stopped in the reverse."""

    def __init__(self, settings: RunSettings, plan: Plan, screen: Screen, http: httpx2.AsyncClient) -> None:
        self._settings = settings
        self._plan = plan
        self._screen = screen
        self._http = http
        self._parts: list[LocalPart] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._redis: EmbeddedRedis | None = None
        self._environment: dict[str, str] = {}

    async def start(self) -> None:
        """Start everything and return when both services answer. Raises StartError."""
        self._start_redis()
        self._environment = child_environment(self._services_environment())
        if self._plan.simulator is not None:
            port = str(self._settings.simulator_port)
            self._launch("simulator", "apps.alpaca_simulator.main", "--port", port, *self._plan.simulator)
        self._launch("execution-gateway", "apps.execution_gateway.main")
        self._launch("market-data", "apps.market_data_service.main")
        await self._until_answering()
        await self._post_demo()
        bars = BarsKeeper(self._settings, self._http, self._environment, self._screen.say)
        self._spawn("daily-bars", bars.run())
        if self._redis is not None:
            self._spawn("redis-watch", self._watch_redis(self._redis))

    def _start_redis(self) -> None:
        if self._plan.simulator is None and self._settings.has_own_redis:
            return
        self._redis = EmbeddedRedis(self._plan.folder / "redis")
        try:
            self._redis.start()
        except RedisServerError as error:
            raise StartError(str(error)) from error
        self._screen.addresses.append(f"Redis: redis-cli -p {self._redis.port}")

    def _services_environment(self) -> dict[str, str]:
        own = {**self._plan.environment, "EXECUTION_GATEWAY_URL": self._settings.gateway_url}
        if self._redis is not None:
            own["REDIS_URL"] = self._redis.url
        return own

    def _launch(self, name: str, *command: str) -> None:
        log = self._plan.folder / "log" / f"{name}.log"
        part = LocalPart(name, command, self._environment, log, self._told_of_death)
        self._parts.append(part)
        self._spawn(name, part.run())

    def _spawn(self, name: str, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _told_of_death(self, part: LocalPart, code: int) -> None:
        self._screen.say(f"{part.name} ended with {code}; it is started again. Its log is {part.log}, and ends:")
        for line in list(part.last_lines)[-3:]:
            self._screen.say(f"  {line[:300]}")

    async def _until_answering(self) -> None:
        """Wait for both services. A part that cannot start at all is an error, not something to retry for ever."""
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN_S
        waiting = {"execution-gateway": self._settings.gateway_url, "market-data": self._settings.market_data_url}
        while waiting:
            for part in self._parts:
                if part.deaths >= 2:  # noqa: PLR2004 - once may be a passing trouble
                    raise StartError(f"{part.name} does not start: {' | '.join(part.last_lines) or 'no output'}")
            for name, url in list(waiting.items()):
                if (await ask(self._http, f"{url}/health/live", None)).error is None:
                    del waiting[name]
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(f"no answer within {_READY_WITHIN_S:.0f} s from: {', '.join(waiting)}")
            await asyncio.sleep(0.1)

    async def _post_demo(self) -> None:
        if self._plan.fills:
            try:
                added = await post_fills(
                    self._http, self._settings.gateway_url, list(self._plan.fills), self._settings.token
                )
            except DemoError as error:
                raise StartError(str(error)) from error
            self._screen.say(f"demo account: {added} new fills" if added else "demo account: as it was left")

    async def _watch_redis(self, redis: EmbeddedRedis) -> None:
        while True:
            await asyncio.sleep(_REDIS_LOOK_S)
            if not redis.is_running:
                self._screen.say("the embedded Redis ended; it is started again on the same port")
                try:
                    redis.start()
                except RedisServerError as error:
                    self._screen.say(str(error))

    async def stop(self) -> None:
        """Stop everything, the services before what they need."""
        others = [task for task in self._tasks if task.get_name() not in {part.name for part in self._parts}]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        services = [part for part in self._parts if part.name != "simulator"]
        await asyncio.gather(*(part.stop(_STOP_WITHIN_S) for part in services))
        await asyncio.gather(*(part.stop(2.0) for part in self._parts))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._redis is not None:
            self._redis.stop()


def check_ports(settings: RunSettings, *, with_simulator: bool) -> None:
    """Raise StartError, naming port and variable, when a port that we need is taken."""
    wanted = {
        "MARKET_DATA_PORT": settings.market_data_port,
        "EXECUTION_GATEWAY_PORT": settings.execution_gateway_port,
    }
    if with_simulator:
        wanted["SIMULATOR_PORT"] = settings.simulator_port
    for variable, port in wanted.items():
        with socket.socket(socket.AF_INET6 if ":" in settings.bind_host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.bind_host.strip("[]"), port))
            except OSError as error:
                raise StartError(
                    f"port {port} cannot be had ({error.strerror}); is another `make run` on? Else set {variable}"
                ) from error


async def run(settings: RunSettings, plan: Plan) -> int:
    """Run the stack until SIGINT or SIGTERM; return the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with client() as http:
        screen = Screen(settings, http, plan.mode, _addresses(settings, plan), _empty_book_hint(settings, plan))
        stack = LocalStack(settings, plan, screen, http)
        code = 0
        try:
            await _unless(stop, stack.start())
            if not stop.is_set():
                await _unless(stop, screen.show())
        except StartError as error:
            print(f"make run: {error}", file=sys.stderr)
            code = 1
        finally:
            tell("Stopping…")
            await stack.stop()
            tell("Stopped.")
    return code


async def _unless(stop: asyncio.Event, work: Any) -> None:
    """Do `work` until it is done, or until `stop`. Raises what it raises."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    else:
        task.result()


def _addresses(settings: RunSettings, plan: Plan) -> list[str]:
    return [
        f"P&L: {settings.gateway_url}/api/v1/positions/pnl/realtime (live: …/pnl/stream)",
        f"Market data: {settings.market_data_url}/health and /api/v1/market-data/subscriptions",
        f"Logs: {plan.folder}/log",
    ]


def _empty_book_hint(settings: RunSettings, plan: Plan) -> list[str]:
    if plan.environment.get("POSITION_SOURCE", settings.position_source) == "alpaca":
        return ["The Alpaca account holds nothing."]
    fill = (
        '{"fill_id":"my-1","symbol":"AAPL","side":"buy","qty":"10","price":"232.10",'
        f'"filled_at":"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}}'
    )
    return [
        "The ledger is empty. Post what you hold, one fill at a time:",
        f"  curl -X POST {settings.gateway_url}/api/v1/fills -H 'Content-Type: application/json' -d '{fill}'",
    ]


def _speed(text: str) -> str:
    """Check a replay's speed here, so that a wrong one ends with the usage and not in a part's log."""
    if text != "max" and not float(text) > 0:
        raise ValueError(text)
    return text


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments; a wrong one ends the process with 2 and the usage."""
    parser = argparse.ArgumentParser(prog="make run", description="Run everything on this machine.")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="replay a quote recording, .csv or .parquet")
    parser.add_argument("--speed", type=_speed, default="1", help="speed of the replay: a factor, or max")
    parser.add_argument("--loop", action="store_true", help="begin the replay again at its end")
    parser.add_argument("--keep-timestamps", action="store_true", help="replay with the recorded times")
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="mirror a made-up account that trades now and then (POSITION_SOURCE=alpaca)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = read_arguments(arguments)
    settings = load_settings(RunSettings)
    try:
        plan = make_plan(settings, given, datetime.now(UTC))
        check_ports(settings, with_simulator=plan.simulator is not None)
    except StartError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    tell(f"Markstream {VERSION}: {plan.mode}. Starting…")
    if plan.simulator is not None and settings.has_own_source:
        tell("A replay was asked for: the Alpaca keys that are set are not used.")
    return asyncio.run(run(settings, plan))


if __name__ == "__main__":
    sys.exit(main())
