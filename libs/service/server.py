"""Runs an ASGI application as a process: takes the port, stops cleanly on a signal, and answers with an exit code."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from libs.service.request_time import PunctualProtocol
from libs.service.supervise import Supervisor

GRACE_S: Final = 4
"""How long open requests may take to end once a stop is asked for."""
HARD_STOP_S: Final = 9.5
"""When a stop takes longer, the process ends at once: people and supervisors count on 10 s."""
_BACKLOG: Final = 2048
_GC_AFTER_ALLOCATIONS: Final = 50_000

log = structlog.get_logger(__name__)


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    port_variable: str = "the port",
    supervisor: Supervisor | None = None,
    on_stop_requested: Callable[[], None] | None = None,
) -> int:
    """Serve `app` until SIGINT or SIGTERM; return the exit code.

    0 after a requested stop; 1 when the port cannot be had (told in one line naming `port_variable`), when start-up
    failed, or when a task of `supervisor` has died. `on_stop_requested` runs on the event loop as soon as the signal
    arrives, before open connections are waited for: end event streams there.
    """
    listener = listen(host, port, port_variable)
    if listener is None:
        return 1
    server = _Server(_config(app), on_stop_requested)
    with listener:
        try:
            server.run([listener])
        except SystemExit:  # uvicorn's way to say that the application did not start; its log has told why
            return 1
    return 1 if supervisor is not None and supervisor.has_failed else 0


def listen(host: str, port: int, port_variable: str = "the port") -> socket.socket | None:
    """Return a socket that listens; None after one line on stderr when that cannot be.

    It listens from here on: of two programs that are started together, one then fails here and not half-way.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio turns Nagle's delay off only for a socket that says it is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        print(f"cannot listen on {host} port {port}: {reason}; set {port_variable} to another", file=sys.stderr)  # noqa: T201  # for the person at the terminal, whatever the log format
        return None
    return listener


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PunctualProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        # Whoever sits in front of us is not trusted to name the client: nothing here depends on it.
        proxy_headers=False,
    )


class _Server(uvicorn.Server):
    """A uvicorn server that tells of the signal, and does not raise it again at the end: a stop is no error."""

    def __init__(self, config: uvicorn.Config, on_stop_requested: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_stop_requested = on_stop_requested
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hard_stop: threading.Timer | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            with self.capture_signals():
                await self._serve(sockets)
                # Emptied within the context: uvicorn would end the process by the signal it has just obeyed.
                self._captured_signals.clear()
        finally:
            if self._hard_stop is not None:
                self._hard_stop.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What the imports have made lives as long as the process. Set aside, it is not searched for garbage again and
        # again: a full search of it takes a tenth of a second, in which nothing is answered. And an answer of a
        # thousand rows must not be searched while it is being built: hardly anything here is in a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_AFTER_ALLOCATIONS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self._hard_stop = threading.Timer(HARD_STOP_S, _end_at_once)
            self._hard_stop.daemon = True
            self._hard_stop.start()
            if self._loop is not None:
                # Not here: a signal handler runs between any two instructions of the main thread.
                self._loop.call_soon_threadsafe(self._announce_stop, signal.Signals(sig).name)
        super().handle_exit(sig, frame)

    def _announce_stop(self, signal_name: str) -> None:
        log.info("stop_requested", signal=signal_name)
        if self._on_stop_requested is not None:
            self._on_stop_requested()


def _end_at_once() -> None:  # pragma: no cover  # it ends the process, coverage included
    print(f"the stop took longer than {HARD_STOP_S} s: ending at once", file=sys.stderr)  # noqa: T201  # last words
    os._exit(1)
