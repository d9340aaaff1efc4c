"""The record of gaps: when quotes may have been missed, of which symbols, and why. Pure.

Alpaca replays nothing and numbers nothing, so every lost connection is a gap, whether or not a quote fell into it.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

_KEPT: Final = 50


@dataclass(frozen=True, slots=True)
class Gap:
    """Quotes of `symbols` may be missing from `began_at` on; `ended_at` is None while it lasts. Aware UTC."""

    began_at: datetime
    ended_at: datetime | None
    symbols: frozenset[str]
    reason: str


@dataclass(slots=True)
class GapLog:
    """The gaps that last, and the last 50 that are over. `closed` counts those ever over."""

    closed: int = 0
    history: deque[Gap] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _open: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    @property
    def open(self) -> list[Gap]:
        """The gaps that last, the oldest first; symbols that were lost together stand together."""
        together: dict[tuple[datetime, str], set[str]] = {}
        for symbol, lost in self._open.items():
            together.setdefault(lost, set()).add(symbol)
        return [Gap(at, None, frozenset(symbols), why) for (at, why), symbols in sorted(together.items())]

    def lost(self, symbols: Collection[str], at: datetime, reason: str) -> None:
        """Note that `symbols` are not heard of since `at`. One that is lost already keeps its first time."""
        for symbol in symbols:
            self._open.setdefault(symbol, (at, reason))

    def regained(self, symbols: Collection[str], at: datetime) -> list[Gap]:
        """Note that `symbols` stream again; return the gaps that ended with it."""
        together: dict[tuple[datetime, str], set[str]] = {}
        for symbol in symbols:
            if (lost := self._open.pop(symbol, None)) is not None:
                together.setdefault(lost, set()).add(symbol)
        ended = [Gap(began, at, frozenset(names), why) for (began, why), names in sorted(together.items())]
        self.history.extend(ended)
        self.closed += len(ended)
        return ended

    def keep_only(self, wanted: Collection[str]) -> None:
        """Forget the open gaps of symbols that nobody wants any more."""
        for symbol in [symbol for symbol in self._open if symbol not in wanted]:
            del self._open[symbol]
