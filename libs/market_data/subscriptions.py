"""Who wants which symbol, and in which order they are served when the plan does not allow all of them.

Every symbol has owners; each owner changes only its own symbols, and what is wanted is their union.
Pure: what Alpaca has confirmed is kept in `session.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum


class Owner(StrEnum):
    """On whose behalf a symbol is wanted."""

    MANUAL = "manual"
    POSITIONS = "positions"


@dataclass(slots=True)
class Subscriptions:
    """The wanted set, by owner. `revision` grows with every change of it."""

    revision: int = 0
    _manual: dict[str, None] = field(default_factory=dict)
    _positions: dict[str, Decimal] = field(default_factory=dict)

    def subscribe(self, symbols: Iterable[str]) -> None:
        """Want `symbols` by hand; those wanted earlier keep their age."""
        self._change(dict.fromkeys([*self._manual, *symbols]), self._positions)

    def unsubscribe(self, symbols: Iterable[str]) -> None:
        """Give up the manual ownership of `symbols`; unknown ones are passed over."""
        gone = set(symbols)
        self._change({s: None for s in self._manual if s not in gone}, self._positions)

    def replace_positions(self, cost_basis: Mapping[str, Decimal]) -> None:
        """Want exactly these symbols for positions; the values (signed, USD) say how much each matters."""
        self._change(self._manual, {symbol: abs(cost) for symbol, cost in cost_basis.items()})

    def _change(self, manual: dict[str, None], positions: dict[str, Decimal]) -> None:
        before = self.by_priority()
        self._manual, self._positions = manual, positions
        if self.by_priority() != before:
            self.revision += 1

    def owners(self, symbol: str) -> list[Owner]:
        """Return who wants `symbol`; empty when nobody does."""
        return [
            owner
            for owner, symbols in ((Owner.MANUAL, self._manual), (Owner.POSITIONS, self._positions))
            if symbol in symbols
        ]

    def by_priority(self) -> list[str]:
        """Return the wanted symbols, first those that matter most.

        Positions by absolute cost basis, then manual ones by age, the oldest first.
        """
        by_cost = sorted(self._positions, key=lambda symbol: (-self._positions[symbol], symbol))
        return [*by_cost, *(symbol for symbol in self._manual if symbol not in self._positions)]

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._manual or symbol in self._positions

    def __len__(self) -> int:
        return len(self._manual.keys() | self._positions.keys())
