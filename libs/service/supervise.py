"""Gives every background task an owner, a name and a consequence: a service whose task has died must not look well."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

STOP_TIMEOUT_S: Final = 3.0
"""How long `stop` waits in all for tasks that do not heed their cancellation."""
_CANCEL_AGAIN_S: Final = 0.3

log = structlog.get_logger(__name__)

OnDeath = Callable[[str, str], None]


def end_process(_name: str, _reason: str) -> None:
    """Ask this process to stop. `serve` then answers with an exit code that is not 0."""
    os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Run background tasks that are meant to last as long as the service does.

    `failures` maps the name of each task that has ended by itself to the reason. `on_death(name, reason)` is called
    once for each.
    """

    def __init__(self, on_death: OnDeath = end_process) -> None:
        self._on_death = on_death
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_stopping = False
        self.failures: dict[str, str] = {}

    @property
    def has_failed(self) -> bool:
        """Whether any task has ended by itself."""
        return bool(self.failures)

    def spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Start `run()` as the task `name`. Raises ValueError when that name is taken."""
        if name in self._tasks:
            raise ValueError(f"a background task named {name!r} runs already")
        self._tasks[name] = asyncio.create_task(self._watched(name, run), name=name)

    async def stop(self) -> None:
        """Cancel the tasks, the youngest first, each awaited before the next. Idempotent."""
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_TIMEOUT_S
        for name, task in reversed(self._tasks.items()):
            while not task.done():
                # Asked more than once: before Python 3.12 asyncio.wait_for may swallow a cancellation.
                task.cancel()
                await asyncio.wait({task}, timeout=max(0.0, min(_CANCEL_AGAIN_S, deadline - loop.time())))
                if loop.time() >= deadline and not task.done():
                    log.error("background_task_stuck", task=name)
                    break
        self._tasks.clear()

    async def _watched(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except asyncio.CancelledError:
            if self._is_stopping:
                return
            self._died(name, "it was cancelled", None)
        except Exception as error:  # the one place where any end of a task is told
            reason = f"{type(error).__name__}: {error}"
            if self._is_stopping:
                log.warning("background_task_failed_while_stopping", task=name, reason=reason, exc_info=error)
            else:
                self._died(name, reason, error)
        else:
            if not self._is_stopping:
                self._died(name, "it returned", None)

    def _died(self, name: str, reason: str, error: Exception | None) -> None:
        self.failures[name] = reason
        log.error("background_task_died", task=name, reason=reason, exc_info=error)
        self._on_death(name, reason)
