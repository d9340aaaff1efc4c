"""What the account's shares are worth now and were worth at the last close, and how corporate actions move prices."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Final

import msgspec

from apps.alpaca_simulator.account import Account
from apps.alpaca_simulator.history import DailyHistory
from apps.alpaca_simulator.lots import COSTS
from apps.alpaca_simulator.market import QuoteSource
from apps.alpaca_simulator.points import Feed, Quote
from apps.alpaca_simulator.session_calendar import SessionCalendar
from libs.market_data.trading_sessions import NEW_YORK

_LAST_SESSIONS: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class _Split:
    symbol: str
    new: Decimal
    old: Decimal
    effective: date


def _tell(history: DailyHistory, splits: Iterable[_Split]) -> None:
    for split in splits:
        history.split(split.symbol, split.new, split.old, split.effective)


class PriceScale:
    """What splits and symbol changes make of the usual prices: a share costs less after a split, its past stays."""

    def __init__(self) -> None:
        self._splits: list[_Split] = []
        self._factors: defaultdict[str, float] = defaultdict(lambda: 1.0)
        self._earlier_symbols: dict[str, str] = {}

    def usual_price(self, price_of: Callable[[str], float]) -> Callable[[str], float]:
        """Return what a symbol usually costs now in USD, if it cost `price_of` before all splits."""

        def scaled(symbol: str) -> float:
            return price_of(self._first_symbol(symbol)) * self._factors.get(symbol, 1.0)

        return scaled

    def split(self, symbol: str, new: Decimal, old: Decimal, effective: date, history: DailyHistory) -> None:
        """Let a split happen, on a New York date."""
        self._factors[symbol] *= float(old / new)
        self._splits.append(_Split(symbol, new, old, effective))
        _tell(history, self._splits[-1:])

    def change_symbol(self, symbol: str, new_symbol: str, history: DailyHistory) -> None:
        """Let prices go on under another symbol, whose past becomes that of the first."""
        self._earlier_symbols[new_symbol] = symbol
        if symbol in self._factors:
            self._factors[new_symbol] = self._factors[symbol]
        inherited = [replace(split, symbol=new_symbol) for split in self._splits if split.symbol == symbol]
        self._splits += inherited
        _tell(history, inherited)

    def tell(self, history: DailyHistory, market: QuoteSource, price_of: Callable[[str], float]) -> None:
        """Tell a new history and a new market, that knows the prices of `price_of`, what there has been."""
        _tell(history, self._splits)
        usual = self.usual_price(price_of)
        for symbol in self._factors.keys() | self._earlier_symbols.keys():
            market.rescale(symbol, usual(symbol) / price_of(symbol))

    def _first_symbol(self, symbol: str) -> str:
        seen = {symbol}
        while (earlier := self._earlier_symbols.get(symbol)) is not None and earlier not in seen:
            seen.add(earlier)
            symbol = earlier
        return symbol


class AccountPrices:
    """The broker's view of prices; `wrong` are those it insists on until told otherwise, in USD by symbol."""

    def __init__(
        self, market: QuoteSource, history: DailyHistory, calendar: SessionCalendar, account: Account, scale: PriceScale
    ) -> None:
        self.wrong: dict[str, Decimal] = {}
        self._market = market
        self._history = history
        self._calendar = calendar
        self._account = account
        self._scale = scale

    def quote(self, symbol: str) -> Quote | None:
        """Return the newest quote; None when the symbol has none. The market's clock is the real one."""
        return self._market.latest_quote(symbol, Feed.SIP, time.time_ns())

    def current(self, symbol: str, lastday_price: Decimal) -> Decimal:
        """Return what the broker says a share costs now, in USD.

        The last trade, as Alpaca has it; the middle of the quote when nobody has traded, else the close before today.
        """
        if symbol in self.wrong:
            return self.wrong[symbol]
        trade = self._market.latest_trade(symbol, Feed.SIP, time.time_ns())
        if trade is not None:
            return _exact(trade.price)
        middle = self._middle(symbol)
        return lastday_price if middle is None else middle

    def lastday(self, symbol: str, session: date) -> Decimal:
        """Return a session's close in USD a share of today: what splits since have made of it."""
        close = _exact(self._history.close(symbol, session))
        after = datetime.combine(session + timedelta(days=1), datetime.min.time(), NEW_YORK)
        with localcontext(COSTS):
            for split in self._account.splits_since(symbol, after - timedelta(microseconds=1)):
                close = close * split.old / split.new
        return close

    async def session_before(self, day: date) -> date:
        """Return the last session before a day of the account."""
        sessions = await self._calendar.sessions(day - _LAST_SESSIONS, day - timedelta(days=1))
        return sessions[-1].date

    def split(self, symbol: str, new: Decimal, old: Decimal, now: datetime) -> None:
        """Let the market price follow a split."""
        self._scale.split(symbol, new, old, now.astimezone(NEW_YORK).date(), self._history)
        self._market.rescale(symbol, float(old / new))

    def change_symbol(self, symbol: str, new_symbol: str) -> None:
        """Let the market price go on under the new symbol."""
        self._scale.change_symbol(symbol, new_symbol, self._history)
        quote, before, after = self.quote(symbol), self._middle(symbol), self._middle(new_symbol)
        if quote is not None and before is not None and after is not None:
            self._market.rescale(new_symbol, float(before / after))
            self._market.put(msgspec.structs.replace(quote, symbol=new_symbol))

    def _middle(self, symbol: str) -> Decimal | None:
        quote = self.quote(symbol)
        if quote is None or quote.bid_price <= 0 or quote.ask_price <= 0:
            return None
        return (_exact(quote.bid_price) + _exact(quote.ask_price)) / 2


def _exact(price: float) -> Decimal:
    return Decimal(repr(price))
