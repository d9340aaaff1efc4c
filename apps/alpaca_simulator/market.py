"""Where quotes and trades come from when nothing is replayed: one seeded random walk per symbol. No I/O, no clock."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import exp, isfinite
from random import Random
from typing import Final, Protocol, TypeVar

from msgspec.structs import replace

from apps.alpaca_simulator.listings import Listing, listing_of
from apps.alpaca_simulator.points import Feed, Point, Quote, Trade, TradeCancel, TradeCorrection
from apps.alpaca_simulator.trade_tape import TradeTape

IEX_EXCHANGE: Final = "V"
NO_EXCHANGE: Final = " "
DELAY_NS: Final = 15 * 60 * 1_000_000_000
"""How far `delayed_sip` lags."""

_VENUES: Final = {"A": "NNPTZKV", "B": "PPQZKTV", "C": "QQPZKTV"}
_STEP_DEVIATION: Final = 1.2e-4
"""Relative move of the mid per quote: a few cents on a 200-dollar share."""
_PULL: Final = 2e-4
"""How strongly each step pulls back to the day's start, so that a demo left alone for a week stays believable."""
_FURTHEST: Final = 0.15
_IEX, _SIP, _DELAYED_SIP = Feed.IEX, Feed.SIP, Feed.DELAYED_SIP
"""Here because a look-up in the class for every point is felt in a flood."""
_ROUND_LOT: Final = 100
_TICK: Final = 0.01


P = TypeVar("P", bound=Point)


class QuoteSource(Protocol):
    """What REST and a test's own quotes need of a market: the random walk, or a recording being replayed."""

    tape: TradeTape
    """The trades that were made."""

    def latest_quote(self, symbol: str, feed: Feed, now_ns: int, /) -> Quote | None:
        """Return the newest quote as `feed` shows it; None when the symbol has none."""

    def latest_trade(self, symbol: str, feed: Feed, now_ns: int, /) -> Trade | None:
        """Return the last trade that stands and may be a last price, as `feed` shows it; None when nobody traded."""

    def put(self, quote: Quote, /) -> None:
        """Take over a quote made elsewhere as the latest of its symbol."""

    def put_trade(self, trade: Trade, /) -> None:
        """Take over a trade made elsewhere as the latest of its symbol, shown as it was given."""

    def rescale(self, symbol: str, factor: float, /) -> None:
        """Multiply what the symbol costs, to the cent: its shares were split."""


class MarketSetting(StrEnum):
    """What the simulator's clock says: the real calendar's word, or always the same."""

    AUTO = "auto"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Habits:
    """Symbols that behave oddly on purpose: some never quote, some quote a bid only."""

    silent: frozenset[str] = frozenset()
    one_sided: frozenset[str] = frozenset()


class _Walk:
    """One symbol's price path; its dice are its own, so that other symbols' traffic does not change it."""

    def __init__(self, listing: Listing, start_price: float, seed: int) -> None:
        self.listing = listing
        self.mid = start_price
        self._start_price = start_price
        self._dice = Random(f"{seed}:{listing.symbol}")
        self._venues = _VENUES[listing.tape]
        self._next_trade_id = self._dice.randrange(1_000, 90_000)

    def rescale(self, factor: float) -> None:
        self.mid *= factor
        self._start_price *= factor

    def quote(self, time_ns: int) -> Quote:
        dice = self._dice
        offset = self.mid / self._start_price - 1.0
        self.mid *= exp(dice.gauss(0.0, _STEP_DEVIATION) - _PULL * offset)
        self.mid = min(max(self.mid, self._start_price * (1 - _FURTHEST)), self._start_price * (1 + _FURTHEST))
        ticks = max(1, round(self.mid * self.listing.spread_bp / 1e4 / _TICK * (0.5 + 1.3 * dice.random())))
        bid = max(_TICK, round(self.mid - ticks * _TICK / 2, 2))
        return Quote(
            self.listing.symbol, bid, self._size(), self._venue(), round(bid + ticks * _TICK, 2),
            self._size(), self._venue(), time_ns, ("R",), self.listing.tape,
        )  # fmt: skip

    def trade(self, quote: Quote, time_ns: int) -> Trade:
        dice = self._dice
        sides = [price for price in (quote.bid_price, quote.ask_price) if price > 0]
        self._next_trade_id += 1
        size = dice.choice((1, 5, 20, 50, 100, 100, 200, 300))
        conditions = ("@",) if size >= _ROUND_LOT else ("@", "I")
        exchange = self._venue()
        return Trade(
            quote.symbol, self._next_trade_id, exchange, dice.choice(sides), size, time_ns, conditions, quote.tape
        )

    def _size(self) -> int:
        """Return a few round lots, seldom many."""
        return _ROUND_LOT * int(1 / (0.05 + 0.95 * self._dice.random()))

    def _venue(self) -> str:
        return self._venues[int(self._dice.random() * len(self._venues))]


class RandomWalkMarket:
    """Every well-formed symbol, walking from `start_price(symbol)`; the same seed gives the same paths."""

    def __init__(self, seed: int, start_price: Callable[[str], float], habits: Habits | None = None) -> None:
        self._seed = seed
        self._start_price = start_price
        self._habits = habits or Habits()
        self._walks: dict[str, _Walk] = {}
        self._latest: dict[str, Quote] = {}
        self._given: set[str] = set()
        self.tape = TradeTape()

    def activity(self, symbol: str) -> float:
        """Return how many quotes per second the symbol makes in an ordinary minute; 0 for one that never quotes."""
        return 0.0 if symbol in self._habits.silent else listing_of(symbol).activity

    def step(self, symbol: str, now_ns: int) -> Quote:
        """Move the symbol's price and return its next quote, with the exchanges of the consolidated tape."""
        previous = self._latest.get(symbol)
        # Venues' clocks have their jitter; a symbol's own times still never run backwards here.
        time_ns = now_ns if previous is None else max(now_ns, previous.time_ns + 1)
        quote = self._walk(symbol).quote(time_ns)
        if symbol in self._habits.one_sided:
            quote = replace(quote, ask_price=0.0, ask_size=0, ask_exchange=NO_EXCHANGE)
        self._latest[symbol] = quote
        self._given.discard(symbol)
        return quote

    def trade(self, quote: Quote) -> Trade:
        """Make a trade at one side of a quote that has at least one, at the quote's time."""
        trade = self._walk(quote.symbol).trade(quote, quote.time_ns)
        self.tape.add(trade)
        return trade

    def latest_trade(self, symbol: str, feed: Feed, _now_ns: int) -> Trade | None:
        """Return the last trade that stands and may be a last price; one that was given is shown as it was."""
        last = self.tape.last(symbol)
        if last is None:
            return None
        return last.trade if last.is_given else as_seen_on(feed, last.trade)

    def put_trade(self, trade: Trade) -> None:
        """Take over a trade made elsewhere."""
        self.tape.add(trade, is_given=True)

    def rescale(self, symbol: str, factor: float) -> None:
        """Multiply the price that the walk goes on from and around, and those of its latest quote and trades."""
        self._walk(symbol).rescale(factor)
        self.tape.rescale(symbol, factor)
        if (latest := self._latest.get(symbol)) is not None:
            self._latest[symbol] = rescaled(latest, factor)

    def put(self, quote: Quote) -> None:
        """Take over a quote made elsewhere: it is the latest, and the walk goes on from there when it is two-sided."""
        self._latest[quote.symbol] = quote
        self._given.add(quote.symbol)
        mid = (quote.bid_price + quote.ask_price) / 2
        if quote.bid_price > 0 and quote.ask_price > 0 and isfinite(mid):
            self._walk(quote.symbol).mid = mid

    def latest_quote(self, symbol: str, feed: Feed, now_ns: int) -> Quote | None:
        """Return the newest quote, making a first one for a symbol nobody has asked for; None when it never quotes.

        A quote that was put is shown as it was given, any other as the feed shows it.
        """
        latest = self._latest.get(symbol)
        if latest is None:
            if symbol in self._habits.silent:
                return None
            latest = self.step(symbol, now_ns)
        return latest if symbol in self._given else as_seen_on(feed, latest)

    def _walk(self, symbol: str) -> _Walk:
        walk = self._walks.get(symbol)
        if walk is None:
            walk = self._walks[symbol] = _Walk(listing_of(symbol), self._start_price(symbol), self._seed)
        return walk


def as_seen_on(feed: Feed, point: P) -> P:
    """Return a consolidated point as a feed shows it: IEX knows one exchange, the delayed feed lags 15 minutes."""
    if feed is _SIP:
        return point
    if feed is _DELAYED_SIP:
        return replace(point, time_ns=point.time_ns - DELAY_NS)
    if feed is not _IEX:
        return point
    match point:
        case Quote():
            bid_exchange = IEX_EXCHANGE if point.bid_price > 0 else NO_EXCHANGE
            ask_exchange = IEX_EXCHANGE if point.ask_price > 0 else NO_EXCHANGE
            return replace(point, bid_exchange=bid_exchange, ask_exchange=ask_exchange)
        case Trade() | TradeCancel() | TradeCorrection():
            return replace(point, exchange=IEX_EXCHANGE)
        case _:
            return point


def rescaled(quote: Quote, factor: float) -> Quote:
    """Return a quote at `factor` times its prices, to the cent."""
    return replace(quote, bid_price=round(quote.bid_price * factor, 2), ask_price=round(quote.ask_price * factor, 2))


class Lottery:
    """Chooses which symbol quotes next, in proportion to its activity."""

    def __init__(self, symbols: Iterable[str], activity: Callable[[str], float], dice: Random) -> None:
        weighted = [(symbol, activity(symbol)) for symbol in sorted(symbols)]
        self._symbols = [symbol for symbol, weight in weighted if weight > 0]
        self._weights = [weight for _, weight in weighted if weight > 0]
        self._dice = dice

    @property
    def total_activity(self) -> float:
        """Quotes per second that all of them make together in an ordinary minute."""
        return sum(self._weights)

    def draw(self, count: int) -> list[str]:
        """Return the next `count` symbols; none when nobody quotes."""
        return self._dice.choices(self._symbols, self._weights, k=count) if self._symbols else []
