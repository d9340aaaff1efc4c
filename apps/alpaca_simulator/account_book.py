"""The account's cash and holdings as its entries make them, in the order of time. Pure."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal, localcontext
from typing import assert_never

from apps.alpaca_simulator.account_entries import (
    Booking,
    CashMove,
    Entry,
    Execution,
    Split,
    SymbolChange,
    sync_day,
)
from apps.alpaca_simulator.lots import COSTS, NOTHING, Holding, Lot


class Book:
    """What the account has. `cash` in USD, `cash_at_sync` what it was when the account's day began."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.cash = NOTHING
        self.cash_at_sync = NOTHING
        self.day: date | None = None
        self.holdings: dict[str, Holding] = {}
        for entry in entries:
            self.apply(entry)

    def held(self, symbol: str) -> Holding:
        """Return what is held of a symbol; an empty holding when nothing is."""
        return self.holdings.get(symbol, Holding())

    def open_positions(self) -> dict[str, Holding]:
        """Return every holding with shares in it, by symbol in the order of the alphabet."""
        return {symbol: held for symbol, held in sorted(self.holdings.items()) if held.qty}

    def roll(self, day: date) -> None:
        """Go on to an account's day: if it is a new one, the morning sync happens."""
        if self.day is not None and day <= self.day:
            return
        self.day = day
        self.cash_at_sync = self.cash
        self.holdings = {symbol: held.synced() for symbol, held in self.holdings.items() if held.qty}

    def apply(self, entry: Entry) -> None:
        """Take in the next entry in the order of time."""
        self.roll(sync_day(entry.at))
        with localcontext(COSTS):
            match entry:
                case Execution():
                    self._execute(entry)
                case Split():
                    held, _ = self.held(entry.symbol).split(entry.new, entry.old)
                    self.holdings[entry.symbol] = held
                case SymbolChange():
                    moved = self.holdings.pop(entry.symbol, Holding())
                    self.holdings[entry.new_symbol] = _merged(self.held(entry.new_symbol), moved)
                case CashMove():
                    self.cash += entry.amount
                case _:
                    assert_never(entry)

    def _execute(self, execution: Execution) -> None:
        if execution.booking is Booking.BUSTED:
            return
        self.holdings[execution.symbol] = self.held(execution.symbol).traded(execution.qty, execution.price)
        self.cash -= execution.qty * execution.price


def _merged(one: Holding, other: Holding) -> Holding:
    """Return two holdings as one, for the rare symbol change to a symbol that is held too."""
    return Holding(
        (*one.lots, *other.lots),
        Lot(one.bought.qty + other.bought.qty, one.bought.cost + other.bought.cost),
        Lot(one.sold.qty + other.sold.qty, one.sold.cost + other.sold.cost),
        one.cost + other.cost,
    )


def average_price(held: Holding) -> Decimal:
    """Return what a share cost on average, in USD; 0 when none is held."""
    with localcontext(COSTS):
        return held.cost / held.qty if held.qty else NOTHING
