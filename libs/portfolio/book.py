"""The folded ledger: every symbol's position, kept up to date as fills and voids are recorded. Pure and immutable.

A fill in time order is applied to what is there; a late fill or a void folds that symbol's fills again. Either way the
result is what folding everything from the beginning would give.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Final, NamedTuple

from libs.portfolio.fills import EXACT, ZERO, Fill
from libs.portfolio.positions import DayActivity, Position, apply_fill, day_start, fold_fills, sum_day


class Revision(NamedTuple):
    """How much of the ledger is folded: the last sequence numbers of its two append-only tables."""

    fills: int = 0
    voids: int = 0


NOTHING_READ: Final = Revision()


class Arrival(NamedTuple):
    """A fill with its place in the order of arrival."""

    seq: int
    fill: Fill


class Voiding(NamedTuple):
    """A recorded correction: the fill counts no longer."""

    seq: int
    fill_id: str
    symbol: str


@dataclass(frozen=True)
class Book:
    """Positions as of one revision of the ledger, flat ones included. Every amount is exact.

    `arrivals` holds the fills that count, per symbol, in the order they apply.
    """

    revision: Revision = NOTHING_READ
    positions: Mapping[str, Position] = field(default_factory=dict)
    arrivals: Mapping[str, tuple[Arrival, ...]] = field(default_factory=dict)
    _days: dict[date, Mapping[str, DayActivity]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def open_positions(self) -> tuple[Position, ...]:
        """Positions with shares, by symbol."""
        return tuple(position for _, position in sorted(self.positions.items()) if position.is_open)

    @cached_property
    def realized_closed(self) -> Decimal:
        """USD before fees, earned in symbols no longer held."""
        return _sum(position.realized_pnl for position in self.positions.values() if not position.is_open)

    @cached_property
    def fees_closed(self) -> Decimal:
        """USD of fees paid in symbols no longer held."""
        return _sum(position.fees for position in self.positions.values() if not position.is_open)

    def day(self, session_date: date) -> Mapping[str, DayActivity]:
        """Return per symbol what happened since `session_date` began in New York. Computed once per date."""
        if session_date not in self._days:
            # One date is asked for at a time: the day before must not pile up in a process that runs for weeks.
            self._days.clear()
            self._days[session_date] = {symbol: self._day_of(symbol, session_date) for symbol in self.positions}
        return self._days[session_date]

    def _day_of(self, symbol: str, session_date: date) -> DayActivity:
        arrivals = self.arrivals[symbol]
        first = bisect_left(arrivals, day_start(session_date), key=_filled_at)
        day = sum_day(ZERO, [arrival.fill for arrival in arrivals[first:]])
        overnight = EXACT.subtract(self.positions[symbol].qty, day.net_qty)
        return DayActivity(overnight, day.net_qty, day.net_cost, day.fees)


def advance(book: Book, new_fills: Iterable[Arrival], new_voids: Iterable[Voiding]) -> Book:
    """Return the book after what was recorded since its revision; what it has already folded is skipped.

    A void must not come before its fill: read the voids first, then the fills.
    """
    fills = [arrival for arrival in new_fills if arrival.seq > book.revision.fills]
    voids = [voiding for voiding in new_voids if voiding.seq > book.revision.voids]
    if not fills and not voids:
        return book
    positions, arrivals = dict(book.positions), dict(book.arrivals)
    voided: dict[str, set[str]] = {}
    for voiding in voids:
        voided.setdefault(voiding.symbol, set()).add(voiding.fill_id)
    for symbol, added in _by_symbol(fills, voided).items():
        gone = voided.get(symbol, set())
        known = arrivals.get(symbol, ())
        if gone or _is_late(known, added):
            kept = [arrival for arrival in (*known, *added) if arrival.fill.fill_id not in gone]
            arrivals[symbol] = tuple(sorted(kept, key=_order))
            positions.pop(symbol, None)
            if kept:
                positions[symbol] = fold_fills(arrival.fill for arrival in arrivals[symbol])
            else:
                del arrivals[symbol]
        else:
            arrivals[symbol] = (*known, *added)
            for arrival in added:
                positions[symbol] = apply_fill(positions.get(symbol), arrival.fill)
    revision = Revision(
        max([book.revision.fills, *(arrival.seq for arrival in fills)]),
        max([book.revision.voids, *(voiding.seq for voiding in voids)]),
    )
    return Book(revision, positions, arrivals)


def _by_symbol(fills: Iterable[Arrival], voided: Mapping[str, set[str]]) -> dict[str, list[Arrival]]:
    """Group by symbol in the order of application, with an empty list for symbols that only lost fills."""
    groups: dict[str, list[Arrival]] = {symbol: [] for symbol in voided}
    for arrival in sorted(fills, key=_order):
        groups.setdefault(arrival.fill.symbol, []).append(arrival)
    return groups


def _is_late(known: tuple[Arrival, ...], added: list[Arrival]) -> bool:
    return bool(known and added) and _order(added[0]) < _order(known[-1])


def _order(arrival: Arrival) -> tuple[datetime, int]:
    return arrival.fill.filled_at, arrival.seq


def _filled_at(arrival: Arrival) -> datetime:
    return arrival.fill.filled_at


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total
