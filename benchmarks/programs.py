"""The programs under measurement, each a process of its own on free ports: started, waited for, and stopped again.

They see none of the person's settings: a clean environment, and a temporary folder in place of `.env`'s.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from libs.redis_client.parent_death import ParentWatch, die_with_parent

HOST: Final = "127.0.0.1"
_ROOT: Final = Path(__file__).resolve().parent.parent
_KEPT: Final = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_START_S: Final = 30.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05
_LAST_LINES: Final = 12
_HTTP_OK: Final = 200
_HTTP_CREATED: Final = 201
_HTTP_NOT_NOW: Final = 503


class BenchmarkError(Exception):
    """Something did not work, so there is nothing to measure. The message says what, and what the program wrote."""


class _NotNowError(BenchmarkError):
    """The program answers, but is not ready."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program. `port` is where it answers HTTP, 0 when it does not."""

    name: str
    process: "subprocess.Popen[str]"
    log: Path
    port: int = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def fault(self, what: str) -> BenchmarkError:
        """Return the error to raise when the program did not do what it should."""
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            what = "\n  ".join([f"{self.name}: {what}. Its last lines:", *lines])
        return BenchmarkError(what)

    def get(self, path: str) -> bytes:
        """Return the body of one answer. Raises BenchmarkError for anything but 200."""
        status, body = self._request("GET", path)
        if status == _HTTP_NOT_NOW:
            raise _NotNowError(f"GET {path} answered {status}")
        if status != _HTTP_OK:
            raise self.fault(f"GET {path} answered {status}: {body[:200].decode(errors='replace')}")
        return body

    def post(self, path: str, content: Mapping[str, object]) -> None:
        """Send one JSON body. Raises BenchmarkError when it is not taken."""
        status, body = self._request("POST", path, json.dumps(content))
        if status not in {_HTTP_OK, _HTTP_CREATED}:
            raise self.fault(f"POST {path} answered {status}: {body[:200].decode(errors='replace')}")

    def metric(self, name: str) -> float:
        """Return one number of `/metrics`."""
        for line in self.get("/metrics").decode().splitlines():
            found, _, value = line.rpartition(" ")
            if found == name:
                return float(value)
        raise self.fault(f"no metric {name}")

    def wait(self, condition: Callable[[], bool], what: str, within_s: float = _START_S) -> None:
        """Return when `condition` holds. Raises BenchmarkError when that takes too long or the program has ended."""
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise self.fault(f"ended with code {self.process.returncode} instead of: {what}")
            with suppress(OSError, HTTPException, _NotNowError):
                if condition():
                    return
            time.sleep(_POLL_S)
        raise self.fault(f"not within {within_s:.0f} s: {what}")

    def _request(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def running(
    folder: Path, name: str, command: Sequence[str], settings: Mapping[str, str], port: int = 0
) -> Iterator[Program]:
    """Run `python -m command…` with these settings for the length of the block; it ends with this process."""
    log = folder / f"{name}-{time.monotonic_ns()}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={name: os.environ[name] for name in _KEPT if name in os.environ}
            | {"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1", "LOG_FORMAT": "json"}
            | dict(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if not port else output,
            stderr=output,
            text=True,
            # Ctrl-C is ours: the programs end in order, when the block does.
            process_group=0,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one prctl call, no lock taken
        )
    watch = ParentWatch(process.pid)
    try:
        yield Program(name, process, log, port)
    finally:
        _end(process)
        watch.close()


@contextmanager
def simulator(folder: Path, rate: str, *options: str) -> Iterator[Program]:
    """Run the Alpaca simulator at `rate` quotes per second, or `max`."""
    port = free_port()
    command = ["apps.alpaca_simulator.main", "--port", str(port), "--rate", rate, *options]
    with running(folder, "simulator", command, {}, port) as program:
        program.wait(lambda: b"simulator_started" in program.log.read_bytes(), "listening")
        yield program


@contextmanager
def market_data_service(
    folder: Path, venue: Program, redis_url: str, key: str, gateway_port: int | None = None
) -> Iterator[Program]:
    """Run our market data service on the simulator `venue`; it has only just been started."""
    port = free_port()
    base = f"{HOST}:{venue.port}"
    settings = {
        "MARKET_DATA_PORT": str(port),
        "REDIS_URL": redis_url,
        "ALPACA_API_KEY": key,
        "ALPACA_SECRET_KEY": "secret",
        "ALPACA_STREAM_URL": f"ws://{base}/v2/iex",
        "ALPACA_DATA_URL": f"http://{base}",
        "ALPACA_TRADING_URL": f"http://{base}",
        "EXECUTION_GATEWAY_URL": f"http://{HOST}:{gateway_port or free_port()}",
    }
    with running(folder, "market-data", ["apps.market_data_service.main"], settings, port) as program:
        yield program


@contextmanager
def execution_gateway(folder: Path, venue: Program, redis_url: str) -> Iterator[Program]:
    """Run our execution gateway with an empty SQLite ledger in `folder`; it has only just been started.

    It is a simulated account, as its stream is the simulator `venue`: no other may be marked at made-up prices.
    """
    port = free_port()
    settings = {
        "EXECUTION_GATEWAY_PORT": str(port),
        "REDIS_URL": redis_url,
        "DATABASE_URL": ledger_url(folder),
        "DAILY_BARS_PATH": str(folder / "bars"),
        "ALPACA_STREAM_URL": f"ws://{HOST}:{venue.port}/v2/iex",
    }
    with running(folder, "gateway", ["apps.execution_gateway.main"], settings, port) as program:
        yield program


def ledger_url(folder: Path) -> str:
    """Return where a gateway run in `folder` keeps its ledger."""
    return f"sqlite:///{folder}/ledger.db"


def wait_ready(program: Program) -> None:
    """Return when a service says that it is ready."""
    program.wait(lambda: bool(program.get("/health/ready")), "ready")


def wait_streaming(service: Program) -> None:
    """Return when the market data service's link stands."""
    service.wait(lambda: service.metric('markstream_link_state{state="streaming"}') == 1, "streaming")


def subscribe(service: Program, symbols: Sequence[str]) -> None:
    """Have the market data service stream `symbols`; return when all are confirmed."""
    wait_streaming(service)
    service.post("/api/v1/market-data/subscribe", {"symbols": list(symbols)})
    wait_confirmed(service, len(symbols))


def wait_confirmed(service: Program, count: int) -> None:
    """Return when the market data service streams at least `count` symbols."""
    service.wait(lambda: service.metric("markstream_symbols_confirmed") >= count, f"{count} symbols confirmed")


def ask(program: Program) -> dict[str, Any]:
    """Send a line to a program that answers each with a line of JSON, and return that."""
    stdin, stdout = program.process.stdin, program.process.stdout
    if stdin is None or stdout is None:
        raise program.fault("it has no stdin and stdout of ours")
    try:
        stdin.write("\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
    except (OSError, ValueError) as error:
        raise program.fault("it gave no answer") from error
    return answer


def symbols(count: int) -> list[str]:
    """Return made-up symbols: S0, S1 and so on."""
    return [f"S{number}" for number in range(count)]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
