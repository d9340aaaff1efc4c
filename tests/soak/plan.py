"""Decides which fault comes next: every kind in turn, in the order of the dice; two at once now and then. Pure.

Two at once come in addition, from a deck of their own: every kind is to be seen alone, too.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol, TypeVar

OVERLAP_SHARE: Final = 0.12


class Card(Protocol):
    """What the plan must know of a kind of fault."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def touches(self) -> frozenset[str]:
        """Which parts it takes hold of."""
        ...

    @property
    def may_overlap(self) -> bool:
        """Whether another fault may be under way at the same time."""
        ...


C = TypeVar("C", bound=Card)


class Deck(list[C]):
    """The kinds that are still to come, shuffled; all of them again when it is empty."""

    def __init__(self, kinds: Sequence[C], dice: Random) -> None:
        super().__init__()
        self._kinds = kinds
        self._dice = dice

    def draw(self, is_possible: Callable[[C], bool], *, rather: Callable[[C], bool] = lambda _: True) -> C | None:
        """Take the first kind that is possible now; None when none is: then wait and draw again.

        Of those that are possible the first that one would `rather` have comes first: what is seldom possible must not
        be left to the end.
        """
        if not self:
            self.extend(self._dice.sample(self._kinds, len(self._kinds)))
        possible = [kind for kind in self if is_possible(kind)]
        chosen = next((kind for kind in possible if rather(kind)), possible[0] if possible else None)
        if chosen is not None:
            self.remove(chosen)
        return chosen


def companions(first: Card) -> Callable[[Card], bool]:
    """Return which faults may begin while `first` lasts: those that take hold of other parts."""
    return lambda other: first.may_overlap and other.may_overlap and first.touches.isdisjoint(other.touches)
