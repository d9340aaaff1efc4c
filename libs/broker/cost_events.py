"""Finds differences that are one event: the cost of one symbol became that of shares of another. Pure.

A spin-off may be in the account's positions long before its activities are reported. The parent's shares then have less
cost, and other shares have appeared at just what it lost. Taken each for itself, the one would be a loss.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import Final, Protocol

from libs.portfolio.fills import EXACT, ZERO

_CENT: Final = Decimal("0.01")
_PRICE_STEP: Final = Decimal("0.0001")
_MOST_CANDIDATES: Final = 10


class ChangedHolding(Protocol):
    """What this needs of a difference: signed shares and signed USD of cost that would have to come in."""

    @property
    def symbol(self) -> str:
        """Whose shares."""

    @property
    def theirs_qty(self) -> Decimal | None:
        """The account's signed shares."""

    @property
    def missing_qty(self) -> Decimal:
        """Signed shares that ours lack."""

    @property
    def missing_cost(self) -> Decimal:
        """Signed USD of cost that ours lack."""


@dataclass(frozen=True, slots=True)
class CostEvents:
    """Symbols whose differences are one event each, and those of which it cannot be said what belongs together."""

    events: tuple[frozenset[str], ...] = ()
    ambiguous: frozenset[str] = frozenset()

    def event_of(self, symbol: str) -> frozenset[str] | None:
        """Return the symbols of the event that `symbol` is part of; None when it is part of none."""
        return next((event for event in self.events if symbol in event), None)


def find_cost_events(changed: Iterable[ChangedHolding], appeared: Mapping[str, Decimal]) -> CostEvents:
    """Put together each changed cost with the shares that came or went at that cost.

    `appeared` is the cost of what was lately taken over from outside, by symbol: it may have come of the same event.
    """
    differences = list(changed)
    costs = [one for one in differences if not one.missing_qty and one.missing_cost]
    moved = [one for one in differences if one.missing_qty]
    events: list[frozenset[str]] = []
    for one in costs:
        found = _completing([one], moved)
        if found:
            events.append(frozenset({one.symbol, *(other.symbol for other in found)}))
            moved = [other for other in moved if other not in found]
    rest = [one for one in costs if not any(one.symbol in event for event in events)]
    if len(rest) > 1 and (found := _completing(rest, moved)):
        events.append(frozenset(one.symbol for one in (*rest, *found)))
        rest, moved = [], [other for other in moved if other not in found]
    for one in list(rest):
        if _has_appeared(one, appeared):
            events.append(frozenset({one.symbol}))
            rest.remove(one)
        elif (whole := _but_for_a_fraction(one, moved)) is not None:
            events.append(frozenset({one.symbol, whole.symbol}))
            rest.remove(one)
            moved.remove(whole)
    is_unclear = bool(rest and moved)
    return CostEvents(tuple(events), frozenset(one.symbol for one in (*rest, *moved)) if is_unclear else frozenset())


def _completing(costs: Sequence[ChangedHolding], moved: Sequence[ChangedHolding]) -> Sequence[ChangedHolding]:
    """Return those of `moved` whose cost is what `costs` have lost or gained; none when there are none, or several."""
    some = moved[:_MOST_CANDIDATES]
    subsets = (subset for size in range(1, len(some) + 1) for subset in combinations(some, size))
    fitting = [subset for subset in subsets if _is_balanced((*costs, *subset))]
    return fitting[0] if len(fitting) == 1 else ()


def _is_balanced(members: Sequence[ChangedHolding]) -> bool:
    total, tolerance = ZERO, ZERO
    for one in members:
        total = EXACT.add(total, one.missing_cost)
        tolerance = EXACT.add(tolerance, EXACT.add(_CENT, _rounding(one)))
    return total.copy_abs() <= tolerance


def _rounding(one: ChangedHolding) -> Decimal:
    """Return how far a cost may be off when it is an average, rounded by the broker, times the shares."""
    return EXACT.multiply((one.theirs_qty or ZERO).copy_abs(), _PRICE_STEP)


def _has_appeared(one: ChangedHolding, appeared: Mapping[str, Decimal]) -> bool:
    """Say whether what `one` has lost was taken over as the cost of another symbol before."""
    tolerance = EXACT.add(EXACT.multiply(_CENT, Decimal(2)), _rounding(one))
    return any(
        symbol != one.symbol and EXACT.add(cost, one.missing_cost).copy_abs() <= tolerance
        for symbol, cost in appeared.items()
    )


def _but_for_a_fraction(one: ChangedHolding, moved: Sequence[ChangedHolding]) -> ChangedHolding | None:
    """Return the shares that took all of the lost cost but less than one share's: that fraction is paid in cash."""
    fitting = []
    for other in moved:
        rest = EXACT.add(one.missing_cost, other.missing_cost)
        per_share = EXACT.divide(other.missing_cost, other.missing_qty).copy_abs()
        is_opposite = (one.missing_cost > ZERO) != (other.missing_cost > ZERO)
        is_less = other.missing_cost.copy_abs() < one.missing_cost.copy_abs()
        if is_opposite and is_less and rest.copy_abs() < per_share:
            fitting.append(other)
    return fitting[0] if len(fitting) == 1 else None
