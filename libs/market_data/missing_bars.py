"""Which daily bars are missing, in what portions they are asked for, and how a gap is told. Pure.

Decides that only what is missing is asked, so that a symbol that never had a bar on some day costs that day alone.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

SYMBOLS_PER_REQUEST: Final = 100
SESSIONS_PER_REQUEST: Final = 60
"""About three months: with a hundred symbols 6,000 bars, which is one page, and what an interruption costs at most."""

_MOST_RANGES: Final = 4


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """A symbol has no close of a session."""

    symbol: str
    session: date


@dataclass(frozen=True, slots=True)
class BarsRequest:
    """One portion: all of `symbols`, sorted, lack all of `sessions`, which follow one another, oldest first."""

    symbols: tuple[str, ...]
    sessions: tuple[date, ...]

    @property
    def first(self) -> date:
        """The oldest session."""
        return self.sessions[0]

    @property
    def last(self) -> date:
        """The newest session."""
        return self.sessions[-1]

    @property
    def keys(self) -> frozenset[tuple[str, date]]:
        """The (symbol, session) pairs that are asked for."""
        return frozenset((symbol, session) for symbol in self.symbols for session in self.sessions)

    def halves(self) -> tuple["BarsRequest", "BarsRequest"]:
        """Return the same in two requests of fewer symbols. Makes sense for two symbols or more."""
        middle = len(self.symbols) // 2
        return BarsRequest(self.symbols[:middle], self.sessions), BarsRequest(self.symbols[middle:], self.sessions)


def bars_requests(
    symbols: Iterable[str], sessions: Sequence[date], held: Collection[tuple[str, date]]
) -> tuple[BarsRequest, ...]:
    """Return requests for exactly the pairs of `symbols` and `sessions` (oldest first) that are not in `held`.

    The newest sessions come first: they matter most when the work is cut short.
    """
    asked = sorted(set(symbols))
    requests: list[BarsRequest] = []
    for end in range(len(sessions), 0, -SESSIONS_PER_REQUEST):
        block = sessions[max(0, end - SESSIONS_PER_REQUEST) : end]
        lacking: defaultdict[tuple[date, ...], list[str]] = defaultdict(list)
        for symbol in asked:
            for stretch in _missing_stretches(symbol, block, held):
                lacking[stretch].append(symbol)
        for stretch in sorted(lacking, key=lambda dates: (dates[-1], len(dates)), reverse=True):
            requests += [BarsRequest(some, stretch) for some in _portions(lacking[stretch])]
    return tuple(requests)


def gap_lines(gaps: Iterable[Gap], sessions: Sequence[date]) -> list[str]:
    """Return a line for each symbol, its sessions without a bar put together: `XYZ: 2025-10-01 to 2025-10-03 (3)`."""
    by_symbol: defaultdict[str, set[date]] = defaultdict(set)
    for gap in gaps:
        by_symbol[gap.symbol].add(gap.session)
    return [f"{symbol}: {_ranges(days, sessions)}" for symbol, days in sorted(by_symbol.items())]


def _missing_stretches(
    symbol: str, block: Sequence[date], held: Collection[tuple[str, date]]
) -> Iterator[tuple[date, ...]]:
    """Yield the runs of sessions that follow one another and are not held."""
    stretch: list[date] = []
    for session in block:
        if (symbol, session) not in held:
            stretch.append(session)
        elif stretch:
            yield tuple(stretch)
            stretch = []
    if stretch:
        yield tuple(stretch)


def _portions(symbols: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(symbols), SYMBOLS_PER_REQUEST):
        yield tuple(symbols[start : start + SYMBOLS_PER_REQUEST])


def _ranges(days: set[date], sessions: Sequence[date]) -> str:
    held = {("", session) for session in sessions if session not in days}
    texts = [
        str(stretch[0]) if len(stretch) == 1 else f"{stretch[0]} to {stretch[-1]} ({len(stretch)} sessions)"
        for stretch in _missing_stretches("", sessions, held)
    ]
    more = len(texts) - _MOST_RANGES
    return ", ".join(texts) if more <= 0 else f"{', '.join(texts[-_MOST_RANGES:])} and {more} stretches before"
