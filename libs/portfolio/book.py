"""The folded ledger: every symbol's position, and what each was before. Pure; `folding.py` makes one of entries.

Symbols that one was renamed to another are one family.
"""

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from operator import attrgetter
from typing import Final, Generic, NamedTuple, Self, TypeVar

from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.alpaca_cost import AlpacaHolding, alpaca_holdings, sync_day
from libs.portfolio.cash import EntryCash, cash_of_entries
from libs.portfolio.days import Crossed, DayActivity, Held, day_between, day_start
from libs.portfolio.entries import Arrival, Entry, Place, after_split
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.positions import Position, flat

T = TypeVar("T")

_NO_DAY: Final = date.min
"""The date of what is worked out for all days at once."""


class Revision(NamedTuple):
    """How much of the ledger is folded: the last sequence numbers of its append-only tables."""

    fills: int = 0
    voids: int = 0
    adjustments: int = 0
    adjustment_voids: int = 0


NOTHING_READ: Final = Revision()


class Step(NamedTuple):
    """An entry where it applies, and the symbol's position after it."""

    place: Place
    entry: Entry
    after: Position


class Units(NamedTuple):
    """What one share of a symbol was at an earlier moment: `old` shares of `symbol` for every `new` of today's."""

    symbol: str
    new: Decimal = Decimal(1)
    old: Decimal = Decimal(1)


class _WorkedOut(Generic[T]):
    """What was worked out of each symbol for one date; that of another date replaces it. Threads may share it."""

    def __init__(self, kept: tuple[date, Mapping[str, T]] = (date.min, {})) -> None:
        self._kept = kept

    def of(self, day: date) -> Mapping[str, T]:
        """Return what there is for `day`: all symbols, some, or none."""
        kept_day, kept = self._kept
        return kept if kept_day == day else {}

    def keep(self, day: date, worked_out: Mapping[str, T]) -> None:
        self._kept = day, worked_out

    def without(self, changed: Container[str]) -> Self:
        """Return a copy that lacks some symbols."""
        day, kept = self._kept
        return type(self)((day, {symbol: one for symbol, one in kept.items() if symbol not in changed}))


@dataclass(frozen=True)
class Book:
    """Positions as of one revision of the ledger, flat ones included. Every amount is exact.

    `steps` holds the entries that count, per symbol, in the order they apply; `families` the symbols that are folded
    together because one was renamed to another, `reshaped` those that were ever split or renamed.
    """

    revision: Revision = NOTHING_READ
    positions: Mapping[str, Position] = field(default_factory=dict)
    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    families: Mapping[str, frozenset[str]] = field(default_factory=dict)
    reshaped: frozenset[str] = frozenset()
    _days: _WorkedOut[DayActivity] = field(default_factory=_WorkedOut, compare=False, repr=False)
    _alpaca: _WorkedOut[AlpacaHolding] = field(default_factory=_WorkedOut, compare=False, repr=False)
    _unclassified: _WorkedOut[tuple[Adjustment, ...]] = field(default_factory=_WorkedOut, compare=False, repr=False)
    _cash: _WorkedOut[EntryCash] = field(default_factory=_WorkedOut, compare=False, repr=False)

    def followed_by(
        self,
        revision: Revision,
        positions: Mapping[str, Position],
        steps: Mapping[str, tuple[Step, ...]],
        families: Mapping[str, frozenset[str]],
        reshaped: frozenset[str],
        changed: Container[str],
    ) -> Self:
        """Return the next book, which keeps what this one has worked out of all symbols but those that `changed`."""
        days, holdings = self._days.without(changed), self._alpaca.without(changed)
        unclassified, cash = self._unclassified.without(changed), self._cash.without(changed)
        return type(self)(revision, positions, steps, families, reshaped, days, holdings, unclassified, cash)

    def family(self, symbol: str) -> frozenset[str]:
        """Return `symbol` and the symbols that are folded together with it."""
        return self.families.get(symbol, frozenset({symbol}))

    @cached_property
    def open_positions(self) -> tuple[Position, ...]:
        """Positions with shares, by symbol."""
        return tuple(position for _, position in sorted(self.positions.items()) if position.is_open)

    @cached_property
    def closed(self) -> "Closed":
        """What symbols no longer held have earned and cost since the beginning."""
        closed = [position for position in self.positions.values() if not position.is_open]
        return Closed(
            _sum(position.realized_pnl for position in closed),
            _sum(position.fees for position in closed),
            _sum(position.income for position in closed),
        )

    @cached_property
    def unclassified(self) -> tuple[Adjustment, ...]:
        """The adjustments of cash that nobody has classified, by symbol and in the order they apply."""
        known = self._unclassified.of(_NO_DAY)
        missing = self.positions.keys() - known.keys()
        known = {**known, **{symbol: _unclassified(self.steps.get(symbol, ())) for symbol in missing}}
        self._unclassified.keep(_NO_DAY, known)
        return tuple(one for symbol in sorted(known) for one in known[symbol])

    def entry_cash(self) -> EntryCash:
        """Return what the entries did to cash. Takes as long as `alpaca_holdings`: call it in a thread likewise."""
        known = self._cash.of(_NO_DAY)
        missing = self.positions.keys() - known.keys()
        # A rename stands in the steps of two symbols, but moves no cash.
        worked_out = {one: cash_of_entries(step.entry for step in self.steps.get(one, ())) for one in missing}
        known = {**known, **worked_out}
        self._cash.keep(_NO_DAY, known)
        total = EntryCash()
        for of_symbol in known.values():
            total = total.plus(of_symbol)
        return total

    def day(self, session_date: date) -> Mapping[str, DayActivity]:
        """Return per symbol what happened since `session_date` began in New York. Computed once per date."""
        known = self._days.of(session_date)
        if len(known) < len(self.positions):
            start = day_start(session_date)
            missing = self.positions.keys() - known.keys()
            known = {**known, **{symbol: self._day_of(symbol, start) for symbol in missing}}
            self._days.keep(session_date, known)
        return known

    def alpaca_holdings(self, now: datetime) -> Mapping[str, AlpacaHolding]:
        """Return per symbol the shares and the cost as Alpaca counts them as of `now`. Worked out once per sync day.

        Takes half a second for 100,000 entries: in an event loop call `asyncio.to_thread` before it is needed.
        """
        day = sync_day(now)
        known = self._alpaca.of(day)
        if len(known) < len(self.positions):
            missing = self.positions.keys() - known.keys()
            known = {**known}
            for symbols in {self.family(symbol) for symbol in missing}:
                known |= alpaca_holdings([one.entry for one in entries_of(self.steps, symbols)], now)
            self._alpaca.keep(day, known)
        return known

    def alpaca_positions(self, now: datetime) -> Mapping[str, Position]:
        """Return the positions with cost and realized P&L by Alpaca's cost method as of `now`."""
        holdings = self.alpaca_holdings(now)
        return {symbol: _with_cost(position, holdings[symbol].cost) for symbol, position in self.positions.items()}

    def units(self, symbol: str, since: datetime, until: datetime | None = None) -> Units | None:
        """Return what a share of `symbol` as of `until` (None: now) was at `since`: splits and renames are undone.

        A symbol that was held when another was renamed to it had a name and a price of its own before. None: what had
        this name then has been renamed since, and the name is another company's now.
        """
        if symbol not in self.reshaped:
            return Units(symbol)
        new = old = Decimal(1)
        place: Place | None = None
        while True:
            steps = self.steps.get(symbol, ())
            for number in range(len(steps) - 1, -1, -1):
                step = steps[number]
                entry = step.entry
                if entry.at < since:
                    return Units(symbol, new, old)
                is_outside = (until is not None and entry.at >= until) or (place is not None and step.place >= place)
                if is_outside or not isinstance(entry, Adjustment):
                    continue
                if entry.kind is AdjustmentKind.SPIN_OFF:
                    continue
                if entry.ratio_new is not None and entry.ratio_old is not None:
                    new, old = EXACT.multiply(new, entry.ratio_new), EXACT.multiply(old, entry.ratio_old)
                elif entry.symbol == symbol and entry.new_symbol is not None:
                    return None
                elif entry.new_symbol == symbol and not (number and steps[number - 1].after.is_open):
                    symbol, place = entry.symbol, step.place
                    break
            else:
                return Units(symbol, new, old)

    def reshaped_at(self, symbol: str) -> datetime | None:
        """Return when a split last changed what one share of `symbol` is, or a rename its name; None if never."""
        if symbol not in self.reshaped:
            return None
        return max((step.entry.at for step in self.steps[symbol] if reshapes(step.entry)), default=None)

    def _day_of(self, symbol: str, start: datetime) -> DayActivity:
        if symbol not in self.reshaped:
            before = self.position_before(symbol, start)
            crossed = _crossings(self.steps.get(symbol, ()), start)
            qty = _sum(one.qty or ZERO for one in crossed)
            held = () if not qty else (Held(symbol, qty),)
            return day_between(
                (before,), self.positions[symbol], EXACT.add(before.qty, qty), Crossed(held, _cost_of(crossed))
            )
        night = self._overnight(symbol, start)
        starts = [self.position_before(origin, start) for origin in night.origins]
        return day_between(starts, self.positions[symbol], night.qty, Crossed(night.crossed, night.crossed_cost))

    def position_before(self, symbol: str, moment: datetime) -> Position:
        """Return the position in `symbol` as it was just before `moment`."""
        steps = self.steps.get(symbol, ())
        index = bisect_left(steps, moment, key=_at)
        return steps[index - 1].after if index else flat(symbol)

    def _overnight(self, symbol: str, start: datetime) -> "_Overnight":
        """Return what was held at `start` of the symbols that have become `symbol` since, in today's shares."""
        family = self.family(symbol)
        held = {one: _Overnight((one,), self.position_before(one, start).qty, Units(one)) for one in family}
        for arrival in entries_of(self.steps, family, Place(start, is_fill=False, seq=0)):
            entry = arrival.entry
            if not isinstance(entry, Adjustment):
                continue
            one = held[entry.symbol]
            if entry.kind is AdjustmentKind.SYMBOL_CHANGE and entry.new_symbol is not None:
                new_steps = self.steps.get(entry.new_symbol, ())
                index = bisect_left(new_steps, arrival.place, key=_place)
                is_held = bool(index) and new_steps[index - 1].after.is_open
                held[entry.new_symbol] = held[entry.new_symbol].joined_by(one, is_held=is_held)
                held[entry.symbol] = _Overnight((), ZERO, None)
            elif entry.kind is AdjustmentKind.SPLIT:
                held[entry.symbol] = one.split(entry)
            elif _is_crossing(entry):
                held[entry.symbol] = one.crossed_by(entry)
        return held[symbol]


class _Overnight(NamedTuple):
    """Shares held as a day began, and under which names; and those that have crossed the account's edge since.

    `units` is what one share was that night, None when the name has been given to another company since; `crossed` the
    shares in the units of that night, `crossed_cost` in USD.
    """

    origins: tuple[str, ...]
    qty: Decimal
    units: Units | None
    crossed: tuple[Held, ...] = ()
    crossed_cost: Decimal = ZERO

    def joined_by(self, old: "_Overnight", *, is_held: bool) -> "_Overnight":
        """Return this after everything of `old` came under its name; what `is_held` then keeps closes of its own."""
        return _Overnight(
            (*self.origins, *old.origins),
            EXACT.add(self.qty, old.qty),
            self.units if is_held else old.units,
            (*self.crossed, *old.crossed),
            EXACT.add(self.crossed_cost, old.crossed_cost),
        )

    def split(self, entry: Adjustment) -> "_Overnight":
        """Return this in the shares after a split."""
        new, old = entry.ratio_new or Decimal(1), entry.ratio_old or Decimal(1)
        units = self.units
        if units is not None:
            units = Units(units.symbol, EXACT.multiply(units.new, new), EXACT.multiply(units.old, old))
        return self._replace(qty=after_split(self.qty, entry), units=units)

    def crossed_by(self, entry: Adjustment) -> "_Overnight":
        """Return this as if the shares of a transfer had crossed the night before."""
        qty, units = entry.qty or ZERO, self.units
        then = Held(None, qty)
        if units is not None:
            then = Held(units.symbol, EXACT.divide(EXACT.multiply(qty, units.old), units.new))
        return self._replace(
            qty=EXACT.add(self.qty, qty),
            crossed=(*self.crossed, then),
            crossed_cost=EXACT.add(self.crossed_cost, entry.amount or ZERO),
        )


def _is_crossing(entry: Entry) -> bool:
    """Say whether an entry brings shares from outside of the account, or takes them there."""
    return isinstance(entry, Adjustment) and entry.kind is AdjustmentKind.TRANSFER and bool(entry.qty)


def _crossings(steps: tuple[Step, ...], start: datetime) -> list[Adjustment]:
    """Return the transfers of shares since `start`."""
    since = steps[bisect_left(steps, start, key=_at) :]
    return [step.entry for step in since if isinstance(step.entry, Adjustment) and _is_crossing(step.entry)]


def _cost_of(crossed: Iterable[Adjustment]) -> Decimal:
    return _sum(one.amount or ZERO for one in crossed)


class Closed(NamedTuple):
    """USD earned (before fees), paid in fees and received as income in symbols no longer held."""

    realized: Decimal
    fees: Decimal
    income: Decimal


def entries_of(
    steps: Mapping[str, tuple[Step, ...]], symbols: Iterable[str], since: Place | None = None
) -> Iterator[Arrival]:
    """Yield the entries of some symbols in the order they apply, a rename once; `since` None: all there are."""
    places: dict[Place, Entry] = {}
    for symbol in symbols:
        of_symbol = steps.get(symbol, ())
        first = 0 if since is None else bisect_left(of_symbol, since, key=_place)
        places |= {step.place: step.entry for step in of_symbol[first:]}
    for place in sorted(places):
        yield Arrival(place.seq, places[place])


def _unclassified(steps: Iterable[Step]) -> tuple[Adjustment, ...]:
    adjustments = [step.entry for step in steps if isinstance(step.entry, Adjustment)]
    return tuple(one for one in adjustments if one.kind is AdjustmentKind.UNCLASSIFIED)


def _with_cost(position: Position, cost: Decimal) -> Position:
    """Return `position` by another cost method: what is not in the cost has been realized."""
    realized = EXACT.add(position.realized_pnl, EXACT.subtract(cost, position.cost_basis))
    return Position(position.symbol, position.qty, cost, realized, position.fees, position.opened_at, position.income)


def reshapes(entry: Entry) -> bool:
    """Say whether an entry changes what a share is, or is called."""
    return isinstance(entry, Adjustment) and entry.kind in {AdjustmentKind.SPLIT, AdjustmentKind.SYMBOL_CHANGE}


def _at(step: Step) -> datetime:
    return step.place.at


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


_place = attrgetter("place")
