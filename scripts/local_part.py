"""One program of the local stack: started, its output kept in a rotated log, restarted with back-off when it dies."""

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from libs.redis_client.parent_death import ParentWatch, die_with_parent

_LOG_BYTES: Final = 5_000_000
_LOG_FILES: Final = 3
_LAST_LINES: Final = 8
_OWNERS_FILE: Final = 0o600
_OWNERS_FOLDER: Final = 0o700
_RESTART_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_PROVEN_AFTER_S: Final = 30.0
"""A program that has run this long gets a quick restart again."""


class LocalPart:
    """A program run as `python -m module`, for as long as `run` does.

    `on_death(part, exit_code)` is told of every end that was not asked for. `last_lines` is the end of its output.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        on_death: Callable[["LocalPart", int], None],
    ) -> None:
        self.name = name
        self.log = log
        self.deaths = 0
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._command = [sys.executable, "-m", *command]
        self._environment = environment
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False

    @property
    def pid(self) -> int | None:
        """The process id; None while it is not running."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Run the program, again and again, until `stop`."""
        failures = 0
        while True:
            began_s = time.monotonic()
            code = await self._run_once()
            if self._is_stopping:
                return
            self.deaths += 1
            failures = 0 if time.monotonic() - began_s > _PROVEN_AFTER_S else failures
            self._on_death(self, code)
            await asyncio.sleep(_RESTART_S[min(failures, len(_RESTART_S) - 1)])
            failures += 1

    async def _run_once(self) -> int:
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environment),
            # Ctrl-C reaches the whole foreground group: the parts end in order, when we say so.
            process_group=0,
            preexec_fn=die_with_parent(),
        )
        watch = ParentWatch(process.pid)
        try:
            await self._keep_log(process)
            return await process.wait()
        finally:
            if process.returncode is None:
                # We are being cancelled ourselves: leave nothing behind.
                process.kill()
                await process.wait()
            watch.close()
            self._process = None

    async def _keep_log(self, process: asyncio.subprocess.Process) -> None:
        handler = PrivateLog(self.log, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for above
            while line := await _next_line(process.stdout):
                text = line.decode(errors="replace").rstrip()
                self.last_lines.append(text)
                handler.emit(logging.LogRecord(self.name, logging.INFO, "", 0, text, None, None))
        finally:
            handler.close()

    async def stop(self, within_s: float) -> None:
        """Ask the program to end, and make it after `within_s`."""
        self._is_stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await process.wait()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


class PrivateLog(logging.handlers.RotatingFileHandler):
    """A rotated log that only its owner may read, as the ledger: it names trades. Files already there are tightened."""

    def __init__(self, path: Path, *, maxBytes: int, backupCount: int, encoding: str) -> None:  # noqa: N803  # theirs
        path.parent.mkdir(parents=True, exist_ok=True, mode=_OWNERS_FOLDER)
        path.parent.chmod(_OWNERS_FOLDER)
        for kept in path.parent.glob(f"{path.name}*"):
            kept.chmod(_OWNERS_FILE)
        super().__init__(path, maxBytes=maxBytes, backupCount=backupCount, encoding=encoding)

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, _OWNERS_FILE)


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or as much of an endless one as the reader holds; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with `changes`, and with output that is not held back."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **changes}
