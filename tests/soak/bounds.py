"""Decides whether a process has dialled too often, grown too much, or ended by itself. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Final, NamedTuple

from tests.soak.judge import Finding

DIAL_LIMITS: Final = ((5, 10.0), (20, 60.0))
"""At most so many dials in any span of so many seconds."""
WARM_UP_S: Final = 30.0
"""What a process holds at its largest in its first 30 s is what it needs; from then on it may grow by its allowance."""


def dial_storms(dials_s: Iterable[float], starts_s: Sequence[float]) -> list[Finding]:
    """Return where one process dialled too often. `starts_s` is when each process of the service was started, in order.

    A restarted process cannot know what its predecessor did: each is counted for itself.
    """
    found = []
    times = sorted(set(dials_s))
    for began_s, until_s in pairwise((*starts_s, inf)):
        own = [time for time in times if began_s <= time < until_s]
        for most, span_s in DIAL_LIMITS:
            for first, last in zip(own, own[most:], strict=False):
                if last - first < span_s:
                    detail = f"{most + 1} dials in {last - first:.2f} s"
                    found.append(Finding(f"more than {most} dials in {span_s:.0f} s", "market-data", last, detail))
                    break
    return found


@dataclass(slots=True)
class DialRecord:
    """All dials of the run, collected from a server that forgets them when it is restarted."""

    times_s: set[float] = field(default_factory=set)

    def learn(self, dials_s: Iterable[float]) -> None:
        """Take in what the server remembers."""
        self.times_s.update(dials_s)

    def within(self, span_s: float, now_s: float) -> int:
        """Count the dials of the last `span_s` seconds."""
        return sum(1 for time in self.times_s if now_s - span_s < time <= now_s)


class Growth(NamedTuple):
    """How much one process has grown since it had warmed up."""

    role: str
    pid: int
    settled_mb: float
    most_mb: float


@dataclass(slots=True)
class _Memory:
    role: str
    first_at_s: float
    settled_mb: float = 0.0
    most_mb: float = 0.0
    last: deque[float] = field(default_factory=lambda: deque(maxlen=5))


class MemoryWatch:
    """Follows the resident memory of processes; `allowed_mb` is by how much each role may grow once warmed up."""

    def __init__(self, allowed_mb: Mapping[str, float]) -> None:
        self._allowed_mb = allowed_mb
        self._seen: dict[int, _Memory] = {}

    def take(self, role: str, pid: int, at_s: float, resident_mb: float) -> list[Finding]:
        """Take in one measurement; return a finding when the process has grown too much and does not shrink again."""
        one = self._seen.setdefault(pid, _Memory(role, at_s))
        if at_s - one.first_at_s <= WARM_UP_S:
            one.settled_mb = max(one.settled_mb, resident_mb)
        one.most_mb = max(one.most_mb, resident_mb)
        one.last.append(resident_mb)
        allowed_mb = one.settled_mb + self._allowed_mb[role]
        if min(one.last) <= allowed_mb:
            return []
        detail = (
            f"{resident_mb:.0f} MB, {one.settled_mb:.0f} MB when warmed up, {self._allowed_mb[role]:.0f} allowed on top"
        )
        return [Finding("memory grows", f"{role} ({pid})", at_s, detail)]

    def growths(self) -> list[Growth]:
        """Return what each process came to."""
        return [Growth(one.role, pid, one.settled_mb, one.most_mb) for pid, one in self._seen.items()]
