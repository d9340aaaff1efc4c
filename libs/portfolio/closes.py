"""What the official closing prices say of a book on one day, in today's shares: splits and renames are undone. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from libs.market_data.freshness import ClosingPrice
from libs.portfolio.book import Book
from libs.portfolio.days import day_gain, day_start, overnight_value
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.pnl import ClosedPnl
from libs.portfolio.rounding import PRICE_STEP
from libs.portfolio.split_sides import SplitSide, new_per_old, side_of, undecided_split

ONE: Final = Decimal(1)
_LONGEST_WEEKEND: Final = 5


class CloseSource(Protocol):
    """Where official closing prices come from."""

    def close(self, symbol: str, session: date) -> ClosingPrice | None:
        """Return the unadjusted close of `symbol` in `session`, from memory; None when unknown."""
        ...


class SessionDates(NamedTuple):
    """The session of the day's P&L, the one before it, and the last one that has closed."""

    session: date
    previous: date
    completed: date


class SymbolCloses(NamedTuple):
    """What is known of one symbol, in USD; None is unknown.

    `close` is that of the last completed session, `previous_close` that of the session before this one, both per share
    of today; `overnight_value` is what the overnight shares were worth then. `reshaped_at`: when a split or a rename
    last made another share of it. `undecided_ratio`: how many shares one became by a split of which the closes do not
    tell whether that of its date is before it; the figures are as if it was after. None: nothing is undecided.
    `todays_ratio`: the same of a split that is booked under the day's own date.
    """

    close: ClosingPrice | None
    previous_close: Decimal | None
    overnight_value: Decimal | None
    reshaped_at: datetime | None
    undecided_ratio: Decimal | None = None
    todays_ratio: Decimal | None = None

    def is_before_todays_split(self, price: Decimal) -> bool:
        """Say whether a price of the day is still one of the shares before the split that is booked under it."""
        ratio, previous = self.todays_ratio, self.previous_close
        return ratio is not None and previous is not None and side_of(price, previous, ratio) is SplitSide.BEFORE

    def settled(self, price: Decimal | None) -> "SymbolCloses":
        """Return the same with the previous close on the side of the split that `price`, a later one, tells.

        Where it tells nothing, the previous close is unknown, and so is the day.
        """
        ratio, previous, value = self.undecided_ratio, self.previous_close, self.overnight_value
        if ratio is None or previous is None or value is None:
            return self
        side = SplitSide.UNCLEAR if price is None else side_of(previous, price, ratio)
        match side:
            case SplitSide.AFTER:
                return self._replace(undecided_ratio=None)
            case SplitSide.BEFORE:
                split = EXACT.divide(previous, ratio).quantize(PRICE_STEP, context=EXACT)
                return self._replace(
                    previous_close=split, overnight_value=EXACT.divide(value, ratio), undecided_ratio=None
                )
            case SplitSide.UNCLEAR:
                return self._replace(previous_close=None, overnight_value=None)


@dataclass(frozen=True, slots=True, eq=False)
class DayCloses:
    """The closes of every open position, and what the others have brought; of one book, source and day."""

    symbols: Mapping[str, SymbolCloses] = field(default_factory=dict)
    closed: ClosedPnl = field(default_factory=ClosedPnl)
    _of: tuple[Book, CloseSource, SessionDates] | None = None

    def is_of(self, book: Book, source: CloseSource, dates: SessionDates) -> bool:
        """Say whether this was worked out from just these."""
        of = self._of
        return of is not None and of[0] is book and of[1] is source and of[2] == dates


def day_closes(book: Book, source: CloseSource, dates: SessionDates) -> DayCloses:
    """Work out what `source` says of `book`."""
    symbols = {
        position.symbol: _symbol_closes(book, source, dates, position.symbol) for position in book.open_positions
    }
    return DayCloses(symbols, _closed(book, source, dates), (book, source, dates))


def needed_closes(book: Book, dates: SessionDates) -> frozenset[tuple[str, date]]:
    """Return whose close of which session the day's figures need, each under the name it had then."""
    needed = set()
    for position in book.open_positions:
        for session in (dates.completed, dates.previous):
            needed.add((_name_then(book, position.symbol, session), session))
    until = day_start(dates.session)
    for day in book.day(dates.session).values():
        # What was held overnight and sold today as well.
        names = [held.symbol for held in day.overnight if held.symbol is not None]
        needed |= {(_name_then(book, name, dates.previous, until), dates.previous) for name in names}
    return frozenset((name, session) for name, session in needed if name is not None)


def _name_then(book: Book, symbol: str, session: date, until: datetime | None = None) -> str | None:
    """Return what a share of `symbol` was called in `session`; None when that name is another company's now."""
    units = book.units(symbol, day_start(session + timedelta(days=1)), until)
    return None if units is None else units.symbol


def close_in_todays_shares(
    book: Book, source: CloseSource, symbol: str, session: date, until: datetime | None = None
) -> ClosingPrice | None:
    """Return the close of `session` per share of `symbol` as of `until` (None: today); None when unknown.

    What a split makes of it is rounded to nine decimals.
    """
    units = book.units(symbol, day_start(session + timedelta(days=1)), until)
    close = None if units is None else source.close(units.symbol, session)
    if close is None or units is None:
        return None
    new, old = units.new, units.old
    split = undecided_split(book.steps.get(symbol, ()), session) if symbol in book.reshaped else None
    if split is not None and _side_by_closes(source, units.symbol, session, new_per_old(split)) is SplitSide.BEFORE:
        new, old = EXACT.multiply(new, split.ratio_new or ONE), EXACT.multiply(old, split.ratio_old or ONE)
    if new == old:
        return close
    price = EXACT.divide(EXACT.multiply(close.price, old), new)
    return ClosingPrice(price.quantize(PRICE_STEP, context=EXACT), session)


def _side_by_closes(source: CloseSource, symbol: str, session: date, ratio: Decimal) -> SplitSide:
    """Return in which shares the close of a split's date is, by the closes after it and before it."""
    close = source.close(symbol, session)
    if close is None:
        return SplitSide.UNCLEAR
    later = _nearest(source, symbol, session, 1)
    if later is not None and (side := side_of(close.price, later.price, ratio)) is not SplitSide.UNCLEAR:
        return side
    earlier = _nearest(source, symbol, session, -1)
    if earlier is None:
        return SplitSide.UNCLEAR
    # Of before the split for certain: what it comes to in the shares after it.
    return side_of(close.price, EXACT.divide(earlier.price, ratio), ratio)


def _nearest(source: CloseSource, symbol: str, session: date, step: int) -> ClosingPrice | None:
    days = (session + timedelta(days=step * number) for number in range(1, _LONGEST_WEEKEND + 1))
    return next((close for day in days if (close := source.close(symbol, day)) is not None), None)


def _todays_ratio(book: Book, dates: SessionDates, symbol: str) -> Decimal | None:
    split = undecided_split(book.steps.get(symbol, ()), dates.session) if symbol in book.reshaped else None
    return None if split is None else new_per_old(split)


def _undecided_ratio(book: Book, source: CloseSource, dates: SessionDates, symbol: str) -> Decimal | None:
    if symbol not in book.reshaped:
        return None
    split = undecided_split(book.steps.get(symbol, ()), dates.previous)
    name = _name_then(book, symbol, dates.previous)
    if split is None or name is None:
        return None
    ratio = new_per_old(split)
    return ratio if _side_by_closes(source, name, dates.previous, ratio) is SplitSide.UNCLEAR else None


def _symbol_closes(book: Book, source: CloseSource, dates: SessionDates, symbol: str) -> SymbolCloses:
    previous = close_in_todays_shares(book, source, symbol, dates.previous)
    return SymbolCloses(
        close_in_todays_shares(book, source, symbol, dates.completed),
        None if previous is None else previous.price,
        _overnight_value(book, source, dates, symbol),
        book.reshaped_at(symbol),
        _undecided_ratio(book, source, dates, symbol),
        _todays_ratio(book, dates, symbol),
    )


def _overnight_value(book: Book, source: CloseSource, dates: SessionDates, symbol: str) -> Decimal | None:
    """Value the overnight shares as they were that night, so that today's splits cannot round anything."""
    until = day_start(dates.session)

    def close_of(held: str) -> Decimal | None:
        close = close_in_todays_shares(book, source, held, dates.previous, until)
        return None if close is None else close.price

    return overnight_value(book.day(dates.session)[symbol], close_of)


def _closed(book: Book, source: CloseSource, dates: SessionDates) -> ClosedPnl:
    closed = book.closed
    realized = fees = income = ZERO
    day_pnl: Decimal | None = ZERO
    for symbol, day in book.day(dates.session).items():
        if book.positions[symbol].is_open or day.is_idle:
            continue
        realized = EXACT.add(realized, day.realized)
        fees = EXACT.add(fees, day.fees)
        income = EXACT.add(income, day.income)
        value = _overnight_value(book, source, dates, symbol)
        day_pnl = None if value is None or day_pnl is None else EXACT.add(day_pnl, day_gain(day, ZERO, value))
    return ClosedPnl(closed.realized, closed.fees, closed.income, realized, fees, income, day_pnl)
