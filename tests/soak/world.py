"""Everything that runs during a soak, as processes of their own, and the levers that the faults pull.

Decides nothing: what to pull and when is `kinds.py` and `injector.py`.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from libs.redis_client.embedded import EmbeddedRedis
from tests.soak.samples import NS_PER_S
from tests.support.stack import GATEWAY, MARKET_DATA, Program, Service, fill_body, service_port
from tests.support.waiting import eventually

SIMULATOR: Final = "apps.alpaca_simulator.main"
WALKING: Final = (
    "AAPL", "MSFT", "NVDA", "AMZN", "GOOGL", "META", "TSLA", "AMD", "JPM", "SPY", "QQQ", "IWM", "PLTR", "INTC",
)  # fmt: skip
"""Held symbols that quote all the time."""
CANARIES: Final = ("CANA", "CANB", "CANC")
"""Held symbols that quote only when told to, each time what they never quoted before: no last value passes by luck."""
SYMBOLS: Final = (*WALKING, *CANARIES)
_SIMULATOR_STARTS_WITHIN_S: Final = 15.0
_SERVICE_STARTS_WITHIN_S: Final = 30.0
_CANARY_FROM: Final = 100.0
_CENT: Final = 0.01


class World:
    """The running parts. `starts_s` is when each process of the market data service was started.

    `expected_gone` are the modules whose process a fault has taken away: their absence is nobody's failure.
    """

    def __init__(self, folder: Path, server: EmbeddedRedis, *, seed: int, rate: float, **environment: str) -> None:
        self.folder = folder
        self.server = server
        self.programs: dict[str, Program] = {}
        self.starts_s: list[float] = []
        self.started_s: dict[str, float] = {}
        """When each part last answered for the first time."""
        self.expected_gone: set[str] = set()
        self.frozen: set[int] = set()
        self.quoted: dict[str, tuple[float, float]] = {}
        """What each canary quoted last."""
        self.halted: set[str] = set()
        self.dead_since_s: dict[str, float] = {}
        self.market_open_since_s: float | None = time.time()
        self._given = environment
        self._rate = rate
        self._seed = seed
        self._canary_quotes = 0
        self._ports = {name: service_port() for name in (SIMULATOR, MARKET_DATA, GATEWAY)}
        self.http = httpx2.AsyncClient(timeout=3, trust_env=False)

    # --- where things are -----------------------------------------------------------------------------------------

    def url(self, module: str) -> str:
        """Return the address of a part's HTTP interface."""
        return f"http://127.0.0.1:{self._ports[module]}"

    def pid(self, module: str) -> int:
        """Return the present process of a part."""
        return self.programs[module].process.pid

    def pids(self) -> dict[str, int]:
        """Return every process that runs now, Redis included."""
        running = {module: self.pid(module) for module, program in self.programs.items() if not program.has_ended}
        return running | ({"redis": self.server.pid} if self.server.is_running else {})

    def ended(self) -> dict[str, str]:
        """Return what has ended though nobody ended it, with its last words."""
        gone = {
            module: f"exit code {program.process.returncode}; {program.output[-1500:]}"
            for module, program in self.programs.items()
            if program.has_ended and module not in self.expected_gone
        }
        if not self.server.is_running and "redis" not in self.expected_gone:
            gone["redis"] = "the server has ended"
        return gone

    # --- processes ------------------------------------------------------------------------------------------------

    async def start(self, module: str) -> None:
        """Start a part, in place of one that has ended; return once it answers."""
        if module == SIMULATOR:
            await self._start_simulator()
        else:
            await self._start_service(module)
        self.started_s[module] = time.time()
        self.expected_gone.discard(module)

    async def _start_simulator(self) -> None:
        self.programs[SIMULATOR] = Program(
            self.folder, SIMULATOR, "--port", str(self._ports[SIMULATOR]), "--rate", f"{self._rate:g}",
            "--market", "open", "--silent", ",".join(CANARIES), "--slot-hold-seconds", "0", "--seed", str(self._seed),
        )  # fmt: skip
        await eventually(self._simulator_answers, within_s=_SIMULATOR_STARTS_WITHIN_S)
        # It loads its calendar at the first question, which takes a second.
        await self.http.get(f"{self.url(SIMULATOR)}/v2/clock", timeout=10)

    async def _simulator_answers(self) -> bool:
        with suppress(httpx2.TransportError):
            return (await self.http.get(f"{self.url(SIMULATOR)}/control/state")).is_success
        return False

    async def _start_service(self, module: str) -> None:
        if module == MARKET_DATA:
            self.starts_s.append(time.time())
        variable = "EXECUTION_GATEWAY_PORT" if module == GATEWAY else "MARKET_DATA_PORT"
        service = Service(self.folder, module, variable, **self._environment())
        self.programs[module] = service
        await service.http.aclose()  # asked through our own client, with its own patience
        await eventually(lambda: self._service_answers(module), within_s=_SERVICE_STARTS_WITHIN_S)

    async def _service_answers(self, module: str) -> bool:
        if self.programs[module].has_ended:
            raise RuntimeError(f"{module} ended at its start:\n{self.programs[module].output[-3000:]}")
        with suppress(httpx2.TransportError):
            return (await self.http.get(f"{self.url(module)}/health/live")).is_success
        return False

    def _environment(self) -> dict[str, str]:
        venue = self.url(SIMULATOR)
        return {
            "EXECUTION_GATEWAY_PORT": str(self._ports[GATEWAY]),
            "MARKET_DATA_PORT": str(self._ports[MARKET_DATA]),
            "EXECUTION_GATEWAY_URL": self.url(GATEWAY),
            "REDIS_URL": self.server.url,
            "DATABASE_URL": f"sqlite:///{self.folder}/ledger.db",
            "DAILY_BARS_PATH": f"{self.folder}/bars",
            "ALPACA_API_KEY": "soak",
            "ALPACA_SECRET_KEY": "soak",
            "ALPACA_STREAM_URL": f"{venue.replace('http', 'ws', 1)}/v2/iex",
            "ALPACA_DATA_URL": venue,
            "ALPACA_TRADING_URL": venue,
            "LOG_FORMAT": "json",
            **self._given,
        }

    def kill(self, module: str) -> None:
        """End a part without warning."""
        self.expected_gone.add(module)
        self.programs[module].kill()

    async def terminate(self, module: str) -> None:
        """Ask a part to stop. Raises AssertionError when it does not end well within 10 s."""
        self.expected_gone.add(module)
        await self.programs[module].stop()

    def freeze(self, pid: int) -> None:
        """Stop a process as a suspended machine would."""
        os.kill(pid, signal.SIGSTOP)
        self.frozen.add(pid)

    def thaw(self, pid: int) -> None:
        """Let it go on. Idempotent."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        self.frozen.discard(pid)

    # --- the simulator's levers -----------------------------------------------------------------------------------

    async def faults(self, **changes: object) -> None:
        """Turn switches of the simulator; None turns one off."""
        await self._control("PATCH", "faults", changes)

    async def act(self, what: str, **fields: object) -> None:
        """Have the simulator do something once."""
        await self._control("POST", what, fields)

    async def _control(self, method: str, what: str, content: Mapping[str, object]) -> None:
        answer = await self.http.request(method, f"{self.url(SIMULATOR)}/control/{what}", json=dict(content))
        if not answer.is_success:
            raise RuntimeError(f"the simulator does not know {what} {dict(content)}: {answer.text}")

    async def quote_canaries(self) -> float:
        """Have every canary quote what it never quoted before; return from when on that is so."""
        self._canary_quotes += 1
        quotes, now_s = {}, time.time()
        for number, symbol in enumerate(CANARIES):
            bid = round(_CANARY_FROM * (number + 1) + self._canary_quotes * _CENT, 2)
            quotes[symbol] = bid, round(bid + _CENT, 2)
        now_ns = int(now_s * NS_PER_S)
        await self.act(
            "quotes",
            quotes=[{"symbol": s, "bid": bid, "ask": ask, "time_ns": now_ns} for s, (bid, ask) in quotes.items()],
        )
        self.quoted = quotes
        return now_s

    # --- the services' levers -------------------------------------------------------------------------------------

    async def operator_reconnects(self) -> None:
        """Do what a person does after a refusal. A service that is just starting is given time."""

        async def is_taken() -> bool:
            with suppress(httpx2.TransportError):
                answer = await self.http.post(f"{self.url(MARKET_DATA)}/api/v1/market-data/reconnect")
                return answer.is_success
            return False

        await eventually(is_taken, within_s=10, every_s=0.2)

    async def hold_positions(self) -> None:
        """Buy something of every symbol: the canaries least, so that a smaller plan drops them first."""
        for number, symbol in enumerate(SYMBOLS):
            qty = 1 if symbol in CANARIES else 100 - number
            answer = await self.http.post(f"{self.url(GATEWAY)}/api/v1/fills", json=fill_body(symbol, qty, 50))
            answer.raise_for_status()

    # --- Redis ----------------------------------------------------------------------------------------------------

    def client(self, password: str | None = None) -> Redis:
        """Return a client of the present server, for one use."""
        return Redis(port=self.server.port, password=password, socket_timeout=2, socket_connect_timeout=2)

    async def redis_command(self, *words: str, password: str | None = None) -> None:
        """Send one command over a connection of its own."""
        async with self.client(password) as client:
            await client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def cached(self, symbol: str) -> Any:
        """Return the text of the cached price; None without one, or when Redis does not answer."""
        with suppress(RedisError, OSError, TimeoutError):
            async with self.client() as client:
                return await client.get(f"price:{symbol}")
        return None

    async def stop(self) -> list[str]:
        """Ask the services to stop; return what was not as it should be."""
        for pid in list(self.frozen):
            self.thaw(pid)
        faults = []
        for module in (MARKET_DATA, GATEWAY, SIMULATOR):
            program = self.programs.get(module)
            if program is not None and not program.has_ended:
                try:
                    await program.stop()
                except AssertionError as error:
                    faults.append(str(error)[-2000:])
        return faults


@asynccontextmanager
async def running_world(folder: Path, *, seed: int, rate: float, **environment: str) -> AsyncIterator[World]:
    """Run everything, positions held, until the block ends. `environment` goes to the services."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis())
        world = World(folder, server, seed=seed, rate=rate, **environment)
        stack.push_async_callback(world.http.aclose)
        stack.callback(_end_all, world)
        await world.start(SIMULATOR)
        await asyncio.gather(world.start(GATEWAY), world.start(MARKET_DATA))
        await world.hold_positions()
        yield world


def _end_all(world: World) -> None:
    for pid in list(world.frozen):
        world.thaw(pid)
    for program in world.programs.values():
        program.kill()
