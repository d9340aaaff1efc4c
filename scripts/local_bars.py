"""Keeps the daily bars of what is held complete while the local stack runs."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Final

import httpx2

from scripts.local_services import LocalServicesSettings, ask

_LOOK_EVERY_S: Final = 5.0
_FETCH_EVERY_S: Final = 900.0
"""A session's bar can be had half an hour after its close; until it has been asked for there is no close."""
_AFTER_FAULT_S: Final = 60.0


class BarsKeeper:
    """Runs `scripts.fetch_daily_bars` when the held symbols change, every quarter of an hour, and after a failure."""

    def __init__(
        self,
        settings: LocalServicesSettings,
        http: httpx2.AsyncClient,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._http = http
        self._environment = environment
        self._say = say
        self._told = ""

    async def run(self) -> None:
        """Keep the bars complete until cancelled. What goes wrong is told, and tried again."""
        loop = asyncio.get_running_loop()
        fetched_for: frozenset[str] = frozenset()
        due_at_s = 0.0
        while True:
            held = await self._held()
            if held and (held - fetched_for or loop.time() >= due_at_s):
                is_done = await self._fetch()
                fetched_for = held if is_done else fetched_for
                due_at_s = loop.time() + (_FETCH_EVERY_S if is_done else _AFTER_FAULT_S)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _held(self) -> frozenset[str]:
        answer = await ask(self._http, f"{self._settings.gateway_url}/api/v1/positions", self._settings.token)
        rows = (answer.body or {}).get("positions") if answer.error is None else None
        return frozenset(str(row.get("symbol")) for row in rows or [])

    async def _fetch(self) -> bool:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts.fetch_daily_bars",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environment), process_group=0,
        )  # fmt: skip
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        news = (output.decode(errors="replace").strip().splitlines() or ["no output"])[-1][:300]
        if news != self._told:
            self._say(f"daily bars: {news}")
            self._told = news
        return process.returncode == 0
