"""Decides which fills of a list are new to a ledger, which it holds already, and which contradict it or one another.

Pure: what the ledger holds is an argument, and recording is left to the ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from types import MappingProxyType
from typing import Final

from libs.portfolio.fills import Fill

_FIELDS: Final = tuple(one.name for one in fields(Fill))


@dataclass(frozen=True, slots=True)
class Conflict:
    """A fill whose id is taken by other content; `fields` names what differs, `stands` is what the id means already.

    `place` is the fill's place in the list, from 0. `earlier_place` is that of the fill in the same list that took the
    id first; None: it is recorded in the ledger.
    """

    place: int
    fields: tuple[str, ...]
    stands: Fill
    earlier_place: int | None


@dataclass(frozen=True, slots=True)
class VoidRepeat:
    """A fill that says again what was recorded and voided: it counts for nothing. `place` is that in the list."""

    place: int
    fill_id: str
    voided_at: datetime


@dataclass(frozen=True, slots=True)
class ListRepeat:
    """A fill that is in the list twice with the same content: it counts once. Both places count from 0."""

    place: int
    fill_id: str
    earlier_place: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Some fills beside a ledger: the new ones in their order, how many say again what counts, and the conflicts.

    `void` are those that say again what was voided; `twice` those of the repeated that only the list itself repeats.
    """

    new: tuple[Fill, ...]
    repeated: int
    conflicts: tuple[Conflict, ...]
    void: tuple[VoidRepeat, ...] = ()
    twice: tuple[ListRepeat, ...] = ()


def compare_fills(
    fills: Sequence[Fill], recorded: Mapping[str, Fill], voided: Mapping[str, datetime] = MappingProxyType({})
) -> Comparison:
    """Compare `fills` with those `recorded` under the same ids, voided ones included, and with one another.

    `voided` tells since when those recorded that are void have been so.
    """
    known = dict(recorded)
    first_places: dict[str, int] = {}
    new, conflicts, void, twice, repeated = [], [], [], [], 0
    for place, fill in enumerate(fills):
        stands = known.get(fill.fill_id)
        if stands is None:
            known[fill.fill_id] = fill
            first_places[fill.fill_id] = place
            new.append(fill)
        elif stands != fill:
            conflicts.append(Conflict(place, _differing(fill, stands), stands, first_places.get(fill.fill_id)))
        elif fill.fill_id in voided:
            void.append(VoidRepeat(place, fill.fill_id, voided[fill.fill_id]))
        else:
            repeated += 1
            if fill.fill_id in first_places:
                twice.append(ListRepeat(place, fill.fill_id, first_places[fill.fill_id]))
    return Comparison(tuple(new), repeated, tuple(conflicts), tuple(void), tuple(twice))


def _differing(fill: Fill, other: Fill) -> tuple[str, ...]:
    return tuple(name for name in _FIELDS if getattr(fill, name) != getattr(other, name))
