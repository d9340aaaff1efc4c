"""The whole path on real sockets for a test: the parts as processes of their own, or `make run` with all of them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2

from apps.alpaca_simulator.simulator import Simulator
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.parent_death import die_with_parent
from tests.support.ports import service_port
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
MARKET_DATA = "apps.market_data_service.main"
GATEWAY = "apps.execution_gateway.main"
PNL = "/api/v1/positions/pnl/realtime"
STREAM = "/api/v1/positions/pnl/stream"

READY_WITHIN_S = 30.0
STOPS_WITHIN_S = 10.0


def clean_environment(**variables: str) -> dict[str, str]:
    """Return `variables` and what any program needs: nothing of the settings that this machine may have."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"} or name.startswith("COV")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **variables}


def decoded(content: bytes | str) -> Any:
    """Read JSON as a careful client does: no number passes through a float, and NaN is no number."""
    return json.loads(content, parse_float=Decimal, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class Program:
    """A child process `python -m module`, its output in a file."""

    def __init__(self, folder: Path, module: str, *arguments: str, **environment: str) -> None:
        self.module = module
        self.environment = environment
        self.log = folder / f"{module}.log"
        # Its own working directory: no `.env` of the repository is read, nothing is written there.
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=folder,
                env=clean_environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    async def end(self, within_s: float = STOPS_WITHIN_S) -> int:
        """Wait for the end and return the exit code."""
        await eventually(lambda: self.has_ended, within_s=within_s)
        return self.process.returncode

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop; it must end within 10 s, with 0, and without a trace in its log."""
        if not self.has_ended:
            self.process.send_signal(number)
        code = await self.end()
        assert code == 0, f"{self.module} ended with {code}:\n{self.output[-3000:]}"
        assert "Traceback" not in self.output, self.output[-5000:]

    def kill(self) -> None:
        """End it without warning. Idempotent."""
        self.process.kill()
        self.process.wait()


class Service(Program):
    """One of our services, with a client of its HTTP interface."""

    def __init__(self, folder: Path, module: str, port_variable: str, **environment: str) -> None:
        self.port = int(environment.setdefault(port_variable, str(service_port())))
        self.base_url = f"http://127.0.0.1:{self.port}"
        token = environment.get("API_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx2.AsyncClient(base_url=self.base_url, headers=headers, timeout=10, trust_env=False)
        super().__init__(folder, module, **environment)

    async def until_ready(self) -> None:
        await eventually(self._is_ready, within_s=READY_WITHIN_S, every_s=0.05)

    async def _is_ready(self) -> bool:
        if self.has_ended:
            raise RuntimeError(f"{self.module} ended with {self.process.returncode}:\n{self.output}")
        with contextlib.suppress(httpx2.TransportError):
            return (await self.http.get("/health/ready")).status_code == httpx2.codes.OK
        return False

    async def get(self, path: str) -> Any:
        """Return the body of a 200."""
        answer = await self.http.get(path)
        assert answer.status_code == httpx2.codes.OK, answer.text
        return decoded(answer.content)

    async def health(self) -> Any:
        return await self.get("/health")

    async def reasons(self) -> set[str]:
        """Return the codes of all that its health complains of."""
        return {reason["code"] for reason in (await self.health())["reasons"]}


@dataclass
class Stack:
    """What runs. A part that was not asked for is None; `gateway` and `market_data` then refuse to be used."""

    folder: Path
    redis: EmbeddedRedis
    simulator: Simulator
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def gateway(self) -> Service:
        return self.services[GATEWAY]

    @property
    def market_data(self) -> Service:
        return self.services[MARKET_DATA]

    async def fill(self, symbol: str, signed_qty: object, price: object, **fields: object) -> Any:
        """Record a fill, bought when the quantity is positive, now."""
        answer = await self.gateway.http.post("/api/v1/fills", json=fill_body(symbol, signed_qty, price, **fields))
        assert answer.status_code == httpx2.codes.CREATED, answer.text
        return decoded(answer.content)

    async def pnl(self) -> Any:
        return await self.gateway.get(PNL)

    async def row(self, symbol: str) -> Any:
        """Return the symbol's row of the P&L, None when no position is open."""
        return next((row for row in (await self.pnl())["positions"] if row["symbol"] == symbol), None)

    async def until_row(self, symbol: str, within_s: float = 5.0, **wanted: object) -> Any:
        """Return the symbol's row once these of its fields have these values."""

        async def is_so() -> Any:
            row = await self.row(symbol)
            assert row is not None, f"no position in {symbol}"
            seen = {name: row[name] for name in wanted}
            assert seen == wanted, str(seen)
            return row

        return await eventually(is_so, within_s, every_s=0.05)

    async def subscribe(self, symbol: str) -> None:
        answer = await self.market_data.http.post("/api/v1/market-data/subscribe", json={"symbol": symbol})
        assert answer.status_code == httpx2.codes.OK, answer.text
        await self.until_confirmed(symbol)

    async def subscriptions(self) -> Any:
        """Return what is known of each wanted symbol."""
        return (await self.market_data.get("/api/v1/market-data/subscriptions"))["details"]

    async def until_confirmed(self, symbol: str, within_s: float = 5.0) -> None:
        async def is_confirmed() -> bool:
            return bool((await self.subscriptions()).get(symbol, {}).get("confirmed"))

        await eventually(is_confirmed, within_s, every_s=0.05)

    async def until_streaming(self, within_s: float = 15.0) -> None:
        """Wait until the gateway has heard that the link streams."""

        async def streams() -> bool:
            return bool((await self.pnl())["feed"]["state"] == "streaming")

        await eventually(streams, within_s, every_s=0.05)


def fill_body(symbol: str, signed_qty: object, price: object, **fields: object) -> dict[str, object]:
    """Return the body of a fill, as of now, with an id of its own."""
    qty = Decimal(str(signed_qty))
    return {
        "fill_id": f"{symbol}-{time.monotonic_ns()}",
        "symbol": symbol,
        "side": "buy" if qty > 0 else "sell",
        "qty": str(abs(qty)),
        "price": str(price),
        "filled_at": datetime.now(UTC).isoformat(),
        **fields,
    }


@contextlib.asynccontextmanager
async def running_stack(
    folder: Path,
    *parts: str,
    simulator: Mapping[str, Any] | None = None,
    **environment: str,
) -> AsyncIterator[Stack]:
    """Start the named services (both when none is named), a simulator and a Redis of their own, until the block ends.

    `simulator` are fields of its config; unless told otherwise it quotes only what the test emits. `environment` goes
    to the services. At the end they are stopped by SIGTERM and must end well, but for those that the test has stopped.
    """
    with EmbeddedRedis() as redis:
        async with running_simulator(**{"rate": 0, **(simulator or {})}) as source:
            stack = Stack(folder, redis, source)
            ports = {"EXECUTION_GATEWAY_PORT": str(service_port()), "MARKET_DATA_PORT": str(service_port())}
            known = {
                **ports,
                "REDIS_URL": redis.url,
                "DATABASE_URL": f"sqlite:///{folder}/ledger.db",
                "DAILY_BARS_PATH": f"{folder}/bars",
                "EXECUTION_GATEWAY_URL": f"http://127.0.0.1:{ports['EXECUTION_GATEWAY_PORT']}",
                "ALPACA_STREAM_URL": source.stream_url(),
                "ALPACA_DATA_URL": source.base_url,
                "ALPACA_TRADING_URL": source.base_url,
                **environment,
            }
            await _wake_clock(source)
            try:
                for module in parts or (GATEWAY, MARKET_DATA):
                    variable = "EXECUTION_GATEWAY_PORT" if module == GATEWAY else "MARKET_DATA_PORT"
                    stack.services[module] = Service(folder, module, variable, **known)
                await asyncio.gather(*(service.until_ready() for service in stack.services.values()))
                if len(stack.services) > 1:
                    await stack.until_streaming()
                yield stack
                await asyncio.gather(*(service.stop() for service in stack.services.values() if not service.has_ended))
            except BaseException:
                for service in stack.services.values():
                    print(f"--- {service.module} said:\n{service.output[-6000:]}")  # pytest shows it
                raise
            finally:
                for service in stack.services.values():
                    service.kill()
                    await service.http.aclose()


async def _wake_clock(simulator: Simulator) -> None:
    """Have the simulator load its calendar: it lives in this process, which has more to do than a simulator has."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        await http.get(f"{simulator.base_url}/v2/clock")


class Run(Program):
    """`make run` in a folder of its own, in a session of its own, by which everything it starts can be found."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.ports = {name: service_port() for name in ("MARKET_DATA_PORT", "EXECUTION_GATEWAY_PORT", "SIMULATOR_PORT")}
        settings = {name: str(port) for name, port in self.ports.items()} | environment
        super().__init__(folder, "scripts.run_local", *arguments, **settings)

    async def says(self, *texts: str, within_s: float = 40.0) -> None:
        """Wait until it has said all of `texts`."""

        def has_said() -> bool:
            said = self.output
            missing = [text for text in texts if text not in said]
            assert not missing, f"not said: {missing} in:\n{said[-3000:]}"
            assert self.process.poll() is None or not missing
            return True

        await eventually(has_said, within_s, every_s=0.1)

    async def get(self, variable: str, path: str) -> Any:
        """Return a service's answer; None while it does not answer."""
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as http:
            try:
                answer = await http.get(f"http://127.0.0.1:{self.ports[variable]}{path}")
            except httpx2.TransportError:
                return None
        return decoded(answer.content) if answer.status_code == httpx2.codes.OK else None

    async def pnl(self) -> Any:
        return await self.get("EXECUTION_GATEWAY_PORT", PNL)

    def family(self) -> dict[int, str]:
        """Return the living processes of this session, by id, with their command lines."""
        return session_of(self.process.pid)


def session_of(leader: int) -> dict[int, str]:
    """Return the living processes of a session. A process that has ended but was not waited for is not living."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _parent, _group, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue
        if int(session) == leader and state not in "ZX":
            found[int(entry.name)] = command
    return found


@contextlib.asynccontextmanager
async def run_local(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Run]:
    """Run it until the block ends, which must have stopped it; whatever is left then is an error, and ended."""
    run = Run(folder, *arguments, **environment)
    try:
        yield run
        assert run.has_ended
        await eventually(lambda: not run.family(), within_s=3)
    except BaseException:
        print(run.output[-6000:])
        for log in folder.glob("var/**/*.log"):
            print(f"--- {log}:\n{log.read_text()[-3000:]}")
        raise
    finally:
        run.kill()
        for pid in run.family():
            os.kill(pid, signal.SIGKILL)
