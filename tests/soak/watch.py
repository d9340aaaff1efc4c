"""Looks at everything from outside, several times a second, and hands what it saw to the judge.

Decides nothing about right and wrong beyond asking the pure parts; keeps the newest views for whoever waits for them.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec

from benchmarks.process_usage import resident_mb
from tests.soak.bounds import DialRecord, MemoryWatch, dial_storms
from tests.soak.judge import Finding, Judge
from tests.soak.samples import HealthView, PnlView, Truth, health_of, pnl_of, truth_of, updated_by
from tests.soak.world import SIMULATOR, World
from tests.support.stack import GATEWAY, MARKET_DATA, PNL, STREAM

PNL_EVERY_S: Final = 0.2
HEALTH_EVERY_S: Final = 0.4
PROCESSES_EVERY_S: Final = 1.0
_PATIENCE_S: Final = 2.0
_ANSWERS_WITHIN_S: Final = 5.0
"""For so long the P&L may be silent though nobody has taken the gateway away, before that is a finding."""
_SLOW_S: Final = 1.0
"""The P&L answers within 250 ms whatever Redis does; a busy machine is given four times as long."""
_WARMS_UP_S: Final = 3.0
_EVENTS_PATIENCE_S: Final = 15.0
_ALLOWED_MB: Final = {MARKET_DATA: 60.0, GATEWAY: 60.0, SIMULATOR: 120.0, "redis": 60.0}
_AGAIN_S: Final = 20.0
"""The same finding is told once in so many seconds, and counted."""
_BAD_LINES: Final = re.compile(r"Traceback|never retrieved|never awaited|unhandled exception", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Violation:
    """A finding and the faults that were under way."""

    finding: Finding
    under_way: tuple[str, ...]


@dataclass(slots=True)
class Verdicts:
    """What was found, each once in a while. `under_way` names the present faults; `tell` is told each violation."""

    tell: Callable[[Violation], None]
    under_way: Callable[[], tuple[str, ...]]
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _last_s: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, *findings: Finding) -> None:
        """Take in findings."""
        for finding in findings:
            self.counts[finding.rule] += 1
            key = finding.rule, finding.subject
            if finding.at_s - self._last_s.get(key, 0.0) >= _AGAIN_S:
                self._last_s[key] = finding.at_s
                violation = Violation(finding, self.under_way())
                self.violations.append(violation)
                self.tell(violation)


class Watch:
    """The loops that look. The newest views are None while there is none."""

    def __init__(self, world: World, judge: Judge, verdicts: Verdicts) -> None:
        self.world = world
        self.judge = judge
        self.verdicts = verdicts
        self.truth: Truth | None = None
        self.pnl: PnlView | None = None
        self.events: PnlView | None = None
        self.health: dict[str, HealthView] = {}
        self.dials = DialRecord()
        self.memory = MemoryWatch(_ALLOWED_MB)
        self.pnl_took_s: list[float] = []
        self.looks = 0
        self._pnl_answered_s = time.time()
        self._log_read: dict[Path, int] = {}
        self._http = httpx2.AsyncClient(timeout=_PATIENCE_S, trust_env=False)

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._every(PNL_EVERY_S, self._look_at_pnl))
                loops.create_task(self._every(HEALTH_EVERY_S, self._look_at_health))
                loops.create_task(self._every(PROCESSES_EVERY_S, self.look_at_processes))
                loops.create_task(self._follow_events())
        finally:
            await self._http.aclose()

    async def _every(self, pause_s: float, look: Callable[[], Any]) -> None:
        while True:
            outcome = look()
            if asyncio.iscoroutine(outcome):
                await outcome
            await asyncio.sleep(pause_s)

    # --- the ground truth -----------------------------------------------------------------------------------------

    async def _learn(self) -> None:
        truth = self.truth = await self._truth()
        self.judge.market_open_since_s = self.world.market_open_since_s
        self.judge.dead_since_s = self.world.dead_since_s
        self.judge.learn(truth, time.time())
        if truth is not None:
            self.dials.learn(truth.dials_s)

    async def _truth(self) -> Truth | None:
        base = f"{self.world.url(SIMULATOR)}/control"
        try:
            state = await self._json(f"{base}/state")
            return truth_of(await self._json(f"{base}/sent"), state)
        except (httpx2.HTTPError, msgspec.DecodeError):
            return None

    async def _json(self, url: str) -> Any:
        answer = await self._http.get(url)
        answer.raise_for_status()
        return msgspec.json.decode(answer.content)

    # --- the surfaces ---------------------------------------------------------------------------------------------

    async def _look_at_pnl(self) -> None:
        await self._learn()
        asked_s, is_untouched = time.time(), not self._is_taken_away(GATEWAY)
        try:
            body = await self._json(self.world.url(GATEWAY) + PNL)
        except (httpx2.HTTPError, msgspec.DecodeError):
            self._pnl_is_silent()
            return
        self._pnl_answered_s = time.time()
        if is_untouched and not self._is_taken_away(GATEWAY):
            self._note_pace(asked_s)
        self.pnl = pnl_of("endpoint", body)
        # Taken with the endpoint's answer: both are judged by truths from before and after them.
        events = self.events
        await self._learn()
        self.looks += 1
        self.verdicts.add(*self.judge.pnl(self.pnl))
        if events is not None:
            self.verdicts.add(*self.judge.pnl(events))

    def _note_pace(self, asked_s: float) -> None:
        took_s = self._pnl_answered_s - asked_s
        if asked_s - self.world.started_s[GATEWAY] < _WARMS_UP_S:
            return
        self.pnl_took_s.append(took_s)
        if took_s > _SLOW_S:
            self.verdicts.add(Finding("slow answer", GATEWAY, self._pnl_answered_s, f"the P&L took {took_s:.2f} s"))

    def _pnl_is_silent(self) -> None:
        now_s = time.time()
        if self._is_taken_away(GATEWAY):
            self._pnl_answered_s = now_s
        elif now_s - self._pnl_answered_s > _ANSWERS_WITHIN_S:
            detail = f"no P&L for {now_s - self._pnl_answered_s:.1f} s"
            self.verdicts.add(Finding("no answer", GATEWAY, now_s, detail))

    def _is_taken_away(self, module: str) -> bool:
        program = self.world.programs.get(module)
        return program is None or module in self.world.expected_gone or program.process.pid in self.world.frozen

    async def _look_at_health(self) -> None:
        await self._learn()
        views = await asyncio.gather(*(self._health(module) for module in (MARKET_DATA, GATEWAY)))
        await self._learn()
        for view in views:
            if view is not None:
                self.health[view.service] = view
                self.verdicts.add(*self.judge.health(view))
                if "background_task_died" in view.reasons:
                    self.verdicts.add(Finding("background task died", view.service, view.at_s, "see its health"))

    async def _health(self, module: str) -> HealthView | None:
        asked_s = time.time()
        try:
            body = await self._json(f"{self.world.url(module)}/health")
        except (httpx2.HTTPError, msgspec.DecodeError):
            return None
        return health_of(module, asked_s, time.time(), body)

    # --- the event stream -----------------------------------------------------------------------------------------

    async def _follow_events(self) -> None:
        """Read the P&L's event stream for ever, and come again when it ends."""
        while True:
            try:
                async with self._http.stream(
                    "GET",
                    self.world.url(GATEWAY) + STREAM,
                    timeout=httpx2.Timeout(_PATIENCE_S, read=_EVENTS_PATIENCE_S),
                ) as answer:
                    answer.raise_for_status()
                    await self._read_events(answer)
            except httpx2.HTTPError:
                pass
            self.events = None
            await asyncio.sleep(0.2)

    async def _read_events(self, answer: httpx2.Response) -> None:
        name, lines = "", answer.aiter_lines()
        async for line in lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                body = msgspec.json.decode(line.removeprefix("data: "))
                if name == "snapshot":
                    self.events = pnl_of("events", body)
                elif name == "update":
                    self.events = updated_by(self.events, body)

    # --- the processes --------------------------------------------------------------------------------------------

    def look_at_processes(self) -> None:
        """Look once at memory, dials, logs and who has ended."""
        now_s = time.time()
        for module, words in self.world.ended().items():
            self.verdicts.add(Finding("ended by itself", module, now_s, words))
        for module, pid in self.world.pids().items():
            try:
                used_mb = resident_mb(pid)
            except OSError:
                continue
            self.verdicts.add(*self.memory.take(module, pid, now_s, used_mb))
        self.verdicts.add(*dial_storms(self.dials.times_s, self.world.starts_s))
        for path in self.world.folder.glob("*.log"):
            self._read_log(path, now_s)

    def _read_log(self, path: Path, now_s: float) -> None:
        with path.open("rb") as log:
            log.seek(self._log_read.get(path, 0))
            said = log.read()
        # A line that is still being written is read when it is whole.
        whole = said.rpartition(b"\n")[0]
        self._log_read[path] = self._log_read.get(path, 0) + len(whole)
        text = whole.decode(errors="replace")
        if (bad := _BAD_LINES.search(text)) is not None:
            at = bad.start()
            self.verdicts.add(Finding("trace in a log", path.name, now_s, text[max(0, at - 500) : at + 2500]))
