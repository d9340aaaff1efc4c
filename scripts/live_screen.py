"""What `make run` shows while it runs: the live P&L in a terminal, plain lines anywhere else.

Decides how often to ask and when a line is worth printing. What no longer answers is not shown on, as if it were live.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx2
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from scripts.local_services import Answer, LocalServicesSettings, ask
from scripts.pnl_table import mode_banner, plain_lines, pnl_view

REFRESH_S: Final = 0.5
_HEALTH_EVERY_S: Final = 1.0
_PLAIN_EVERY_S: Final = 5.0
_NEWS_SHOWN: Final = 6


@dataclass(slots=True)
class Screen:
    """The live view. `addresses` are lines to open; `say` tells of an event, such as a part that died."""

    settings: LocalServicesSettings
    http: httpx2.AsyncClient
    mode: str
    addresses: list[str]
    empty_book_hint: list[str]
    console: Console = field(default_factory=lambda: Console(highlight=False))
    _news: deque[str] = field(default_factory=lambda: deque(maxlen=_NEWS_SHOWN))
    _live: Live | None = None

    def say(self, text: str) -> None:
        """Tell of an event: among the news of the screen, or as a line."""
        line = f"{datetime.now().astimezone():%H:%M:%S} {text}"
        self._news.append(line)
        if self._live is None:
            print(line, flush=True)

    async def show(self) -> None:
        """Show the P&L until cancelled."""
        if self.console.is_terminal:
            await self._show_live()
        else:
            await self._show_lines()

    async def _show_live(self) -> None:
        with Live(console=self.console, auto_refresh=False, screen=False) as live:
            self._live = live
            try:
                async for pnl, health in self._looks(REFRESH_S):
                    live.update(self._view(pnl, health), refresh=True)
            finally:
                self._live = None

    async def _show_lines(self) -> None:
        for line in self.addresses:
            print(line, flush=True)
        clock = asyncio.get_running_loop().time
        said, said_at_s = None, 0.0
        async for pnl, health in self._looks(REFRESH_S):
            standing = _standing(pnl, health)
            # How things stand is told at once; figures, which change all the time, now and then.
            if standing == said and clock() - said_at_s < _PLAIN_EVERY_S:
                continue
            said, said_at_s = standing, clock()
            for line in self._lines(pnl, health):
                print(line)
            print(flush=True)

    async def _looks(self, every_s: float) -> Any:
        loop = asyncio.get_running_loop()
        health: dict[str, Answer] = {}
        health_at_s = -_HEALTH_EVERY_S
        while True:
            began_s = loop.time()
            asking = asyncio.gather(
                self._ask(f"{self.settings.gateway_url}/api/v1/positions/pnl/realtime"),
                # Together: who does not answer is waited for once.
                self._ask_health() if began_s - health_at_s >= _HEALTH_EVERY_S else _known(health),
            )
            pnl, newest = await asking
            if newest is not health:
                health, health_at_s = newest, began_s
            yield pnl, health
            await asyncio.sleep(max(0.05, every_s - (loop.time() - began_s)))

    async def _ask_health(self) -> dict[str, Answer]:
        names = {"market data": self.settings.market_data_url, "execution gateway": self.settings.gateway_url}
        answers = await asyncio.gather(*(self._ask(f"{url}/health") for url in names.values()))
        return dict(zip(names, answers, strict=True))

    async def _ask(self, url: str) -> Answer:
        return await ask(self.http, url, self.settings.token)

    def _view(self, pnl: Answer, health: Mapping[str, Answer]) -> Group:
        parts: list[RenderableType] = []
        if pnl.body is not None and pnl.error is None:
            parts.append(pnl_view(pnl.body, self.console.width))
            if not pnl.body.get("positions"):
                parts += [Text(line, style="bold") for line in self.empty_book_hint]
        else:
            parts += [mode_banner(self.mode), Text(f"No P&L: {pnl.error}", style="yellow")]
        parts += [Text(line, style="green" if line.endswith("healthy") else "yellow") for line in _health_lines(health)]
        parts += [Text(line, style="dim") for line in (*self._news, *self.addresses, "Ctrl-C stops everything.")]
        return Group(*parts)

    def _lines(self, pnl: Answer, health: Mapping[str, Answer]) -> list[str]:
        lines = _health_lines(health)
        if pnl.body is None or pnl.error is not None:
            return [*lines, f"no P&L: {pnl.error}"]
        hint = [] if pnl.body.get("positions") else self.empty_book_hint
        return [*lines, *plain_lines(pnl.body), *hint]


async def _known(health: dict[str, Answer]) -> dict[str, Answer]:
    return health


def _standing(pnl: Answer, health: Mapping[str, Answer]) -> object:
    """Return what of an answer is worth telling as soon as it changes: all but the figures."""
    if pnl.body is None or pnl.error is not None:
        return pnl.error, _health_lines(health)
    rows = pnl.body.get("positions") or []
    return [(row.get("symbol"), row.get("price_source")) for row in rows], pnl.body.get("feed"), _health_lines(health)


def _health_lines(health: Mapping[str, Answer]) -> list[str]:
    lines = []
    for name, answer in health.items():
        if answer.error is not None or answer.body is None:
            lines.append(f"{name}: {answer.error}")
        else:
            reasons = "; ".join(str(reason.get("detail")) for reason in answer.body.get("reasons") or [])
            lines.append(f"{name}: {answer.body.get('status')}{f' ({reasons})' if reasons else ''}")
    return lines


def tell(text: str) -> None:
    """Say what is being done, before there is a screen."""
    print(text, file=sys.stdout, flush=True)


Say = Callable[[str], None]
