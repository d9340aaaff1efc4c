"""Makes a book of what the ledger records, and the next book of what it records later. Pure.

What comes late, or is void, makes us fold again what comes after it: the result is what folding everything from the
beginning would give, and the cost is that of what changed.
"""

from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from libs.portfolio.adjustments import Adjustment
from libs.portfolio.book import Book, Revision, Step, entries_of, reshapes
from libs.portfolio.entries import Arrival, Entry, Place, Positions, apply_entry

EntryKey = tuple[bool, str]
"""Whether an entry is a fill, and its id: fills and adjustments are counted apart."""


class Voiding(NamedTuple):
    """A recorded correction: the fill (or adjustment) of this id and symbol counts no longer."""

    seq: int
    entry_id: str
    symbol: str


@dataclass(frozen=True, slots=True)
class News:
    """What was recorded. An entry's void may come with it or later, never before."""

    fills: Sequence[Arrival] = ()
    voids: Sequence[Voiding] = ()
    adjustments: Sequence[Arrival] = ()
    adjustment_voids: Sequence[Voiding] = ()


def advance(book: Book, news: News) -> Book:
    """Return the book after what was recorded since its revision; what it has already folded is skipped."""
    known = book.revision
    fills = [arrival for arrival in news.fills if arrival.seq > known.fills]
    voids = [voiding for voiding in news.voids if voiding.seq > known.voids]
    adjustments = [arrival for arrival in news.adjustments if arrival.seq > known.adjustments]
    adjustment_voids = [voiding for voiding in news.adjustment_voids if voiding.seq > known.adjustment_voids]
    if not (fills or voids or adjustments or adjustment_voids):
        return book
    added = sorted([*fills, *adjustments], key=_place)
    gone = {(True, voiding.entry_id) for voiding in voids} | {(False, one.entry_id) for one in adjustment_voids}
    touched = {symbol for arrival in added for symbol in arrival.entry.symbols}
    touched |= {voiding.symbol for voiding in (*voids, *adjustment_voids)}
    families = _families_after(book, adjustments, {voiding.entry_id for voiding in adjustment_voids})
    changed = _Changed(dict(book.positions), dict(book.steps), set(book.reshaped))
    groups = _groups(touched, book.families, families)
    arrivals: dict[frozenset[str], list[Arrival]] = {group: [] for group in groups.values()}
    for arrival in added:
        arrivals[groups[arrival.entry.symbol]].append(arrival)
    for group, of_group in arrivals.items():
        changed.fold(group, of_group, gone)
    revision = Revision(
        _newest(known.fills, fills),
        _newest(known.voids, voids),
        _newest(known.adjustments, adjustments),
        _newest(known.adjustment_voids, adjustment_voids),
    )
    reshaped = frozenset(changed.reshaped)
    return book.followed_by(revision, changed.positions, changed.steps, families, reshaped, groups)


def most_to_fold(book: Book, news: News) -> int:
    """Return how many entries `advance` folds at the most: the new ones, and those that come after them or a void."""
    arrivals = (*news.fills, *news.adjustments)
    again = 0
    for arrival in arrivals:
        for symbol in frozenset().union(*(book.family(one) for one in arrival.entry.symbols)):
            steps = book.steps.get(symbol, ())
            again += len(steps) - bisect_left(steps, arrival.place, key=_place)
    for voiding in (*news.voids, *news.adjustment_voids):
        again += sum(len(book.steps.get(symbol, ())) for symbol in book.family(voiding.symbol))
    return len(arrivals) + again


@dataclass(frozen=True, slots=True)
class _Changed:
    """The positions and steps of the next book, while they are worked out."""

    positions: Positions
    steps: dict[str, tuple[Step, ...]]
    reshaped: set[str]

    def fold(self, group: Iterable[str], arrivals: Sequence[Arrival], gone: Container[EntryKey]) -> None:
        """Fold what has arrived (in order) at a group of symbols, and all that comes after it once more.

        The same from the first entry on that is `gone`.
        """
        changing = [arrival.place for arrival in arrivals[:1]]
        if gone:
            steps = (step for symbol in group for step in self.steps.get(symbol, ()))
            changing += [step.place for step in steps if _key(step.entry) in gone]
        if not changing:
            return
        first = min(changing)
        again = [*entries_of(self.steps, group, first), *arrivals]
        for symbol in group:
            self._go_back(symbol, first)
        self._append(one for one in sorted(again, key=_place) if _key(one.entry) not in gone)

    def _go_back(self, symbol: str, first: Place) -> None:
        """Forget the steps of `symbol` from `first` on."""
        self.positions.pop(symbol, None)
        steps = self.steps.pop(symbol, ())
        kept = steps[: bisect_left(steps, first, key=_place)]
        if kept:
            self.steps[symbol], self.positions[symbol] = kept, kept[-1].after
        if symbol in self.reshaped and not any(reshapes(step.entry) for step in kept):
            self.reshaped.remove(symbol)

    def _append(self, arrivals: Iterable[Arrival]) -> None:
        added: dict[str, list[Step]] = {}
        for arrival in arrivals:
            apply_entry(self.positions, arrival.entry)
            if reshapes(arrival.entry):
                self.reshaped.update(arrival.entry.symbols)
            for symbol in arrival.entry.symbols:
                added.setdefault(symbol, []).append(Step(arrival.place, arrival.entry, self.positions[symbol]))
        for symbol, steps in added.items():
            self.steps[symbol] = (*self.steps.get(symbol, ()), *steps)


def _families_after(book: Book, added: Iterable[Arrival], gone: set[str]) -> Mapping[str, frozenset[str]]:
    """Return the families after adjustments were added and voided; the same object when no rename is among them."""
    new = [arrival.entry for arrival in added]
    if not gone and not any(len(entry.symbols) > 1 for entry in new):
        return book.families
    known = [step.entry for symbol in book.families for step in book.steps.get(symbol, ())]
    renames = {
        entry.adjustment_id: entry.symbols
        for entry in (*known, *new)
        if isinstance(entry, Adjustment) and entry.new_symbol is not None
    }
    if not renames or not (gone & renames.keys() or any(len(entry.symbols) > 1 for entry in new)):
        return book.families
    families: dict[str, frozenset[str]] = {}
    for adjustment_id, symbols in renames.items():
        if adjustment_id not in gone:
            family = frozenset(symbols).union(*(families.get(symbol, frozenset()) for symbol in symbols))
            families |= dict.fromkeys(family, family)
    return families


def _groups(touched: Iterable[str], *families: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Return of each symbol that changes all that must be folded with it, before or after."""
    groups: dict[str, frozenset[str]] = {}
    for symbol in touched:
        group = frozenset({symbol}).union(*(family.get(symbol, frozenset()) for family in families))
        # A family that falls apart, or two that join, overlap: they are folded as one.
        group = group.union(*(groups[one] for one in group if one in groups))
        groups |= dict.fromkeys(group, group)
    return groups


def _key(entry: Entry) -> EntryKey:
    return (False, entry.adjustment_id) if isinstance(entry, Adjustment) else (True, entry.fill_id)


def _newest(known: int, news: Sequence[Arrival] | Sequence[Voiding]) -> int:
    return max([known, *(one.seq for one in news)])


_place = attrgetter("place")
