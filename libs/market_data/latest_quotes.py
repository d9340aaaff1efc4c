"""The newest quote of every symbol between a fast reader and a slower writer: newest per symbol wins, the last is kept.

Decides which of two quotes of a symbol stands, which symbols must be written, and which writes are worth a message; the
last trade, chosen in `latest_trades.py`, goes with the quote. Bounded by the number of symbols. Never waits, reads no
clock.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from libs.market_data.latest_trades import LatestTrades
from libs.market_data.prices import Mode, Price, PriceWrite
from libs.market_data.quotes import Quote, QuoteOrigin, Unmarkable, as_standing_quote, exact, mid_price
from libs.market_data.suspect_quotes import Rejection, SuspectQuotes, Suspicion
from libs.market_data.trades import Ineligible, Trade, TradeCancel, TradeCorrection, TradeEvent, TradesInterrupted

# Venues' clocks differ, so arrival order decides, unless a quote is behind by more than clocks can explain.
LATE_TOLERANCE: Final = timedelta(seconds=2)
_GREATEST_SIZE: Final = 1e12
"""What a reader of the cache believes at most: a size beyond it must not cost it the price."""
# A quote that says the same again keeps its price young, but is worth a message only this often.
REPEAT_INTERVAL_S: Final = 1.0


@dataclass(slots=True)
class _Held:
    """`is_release_owed`: a reader may still hold this quote as one that a connection vouches for."""

    quote: Quote
    epoch: str | None
    newest_time: datetime
    last: Trade | None = None
    seq: int = 0
    is_release_owed: bool = False
    published: Quote | None = None
    published_last: Trade | None = None
    published_epoch: str | None = None
    published_at_s: float = 0.0
    published_suspect_since: datetime | None = None
    renewed_at_s: float | None = None
    """When the cached price was last given its whole life: a suspect one lives on what is left of it."""


@dataclass(slots=True)
class LatestQuotes:
    """Newest quote per symbol. `conflated` counts those that were replaced before anybody wrote them.

    `trades` holds the last trades, `suspects` what makes a symbol's price suspect; a price carries its symbol's.
    `instance` names the process that makes the prices, `mode` says whose money they speak of.
    """

    feed: str
    instance: str | None = None
    mode: Mode | None = None
    trades: LatestTrades = field(default_factory=LatestTrades)
    suspects: SuspectQuotes = field(default_factory=SuspectQuotes)
    conflated: int = 0
    accepted: int = 0
    _sequences: dict[str, tuple[str, int]] = field(default_factory=dict)
    """How many messages of a symbol each connection has published; it outlives the symbol's quote."""
    _held: dict[str, _Held] = field(default_factory=dict)
    _dirty: dict[str, None] = field(default_factory=dict)
    _to_recall: dict[str, None] = field(default_factory=dict)
    """The symbols of which only REST has brought a quote: an earlier process may know that the venue withdrew it."""

    def put(self, quote: Quote, epoch: str | None) -> Unmarkable | None:
        """Take a markable quote; return why not, or None when it now stands.

        `epoch` is the connection it belongs to; None for one fetched by REST of a symbol that no connection streams.
        """
        received, time = quote.received_at, quote.timestamp
        if time is None:
            return Unmarkable.UNTIMED
        # A venue's clock may run ahead; what it claims of the future must not make everything after it look late.
        time = min(time, received)
        symbol = quote.symbol
        held = self._held.get(symbol)
        held_time = None if held is None else held.quote.timestamp
        if held is None:
            self._held[symbol] = _Held(quote, epoch, time, self.trades.last(symbol))
        elif refusal := (self._put_snapshot if quote.origin is QuoteOrigin.REST else self._put_streamed)(
            held, quote, time
        ):
            return refusal
        else:
            held.epoch, held.is_release_owed = epoch, held.is_release_owed and epoch is None
        self.suspects.accept(quote, held_time)
        if quote.origin is QuoteOrigin.STREAM:
            self._to_recall.pop(symbol, None)
        elif held is None:
            self._to_recall[symbol] = None
        self.accepted += 1
        if symbol in self._dirty:
            self.conflated += 1
        else:
            self._dirty[symbol] = None
        return None

    def take_rejected(self, rejection: Rejection) -> bool:
        """Take in a quote that may not mark; return whether that makes the price held of its symbol suspect."""
        held = self._held.get(rejection.symbol)
        if not self.suspects.note(rejection, None if held is None else held.quote.timestamp) or held is None:
            return False
        self._dirty.setdefault(rejection.symbol, None)
        return True

    @property
    def to_recall(self) -> Collection[str]:
        """The symbols whose price the cache may know to be suspect: `recall` is due before they are taken."""
        return self._to_recall.keys()

    def recall(self, symbols: Collection[str], cached: Iterable[Price]) -> None:
        """Take over from the cache, as an earlier process left it, which of `symbols` are suspect."""
        for price in cached:
            held = self._held.get(price.symbol)
            if held is not None and price.symbol in self._to_recall and self.suspects.recall(price, held.quote):
                self._dirty.setdefault(price.symbol, None)
        for symbol in symbols:
            self._to_recall.pop(symbol, None)

    def take_trade(self, event: TradeEvent) -> Ineligible | None:
        """Take what was told of trades; return why a trade cannot be the last, else None.

        A symbol whose last trade has changed waits to be written, if a quote of it is held: a price needs one. After an
        interruption of all, a new connection, each goes without a last until told anew, and waits for its next quote.
        """
        refusal = self.trades.take(event)
        match event:
            case TradesInterrupted(None):
                for held in self._held.values():
                    held.last = None
            case TradesInterrupted(frozenset() as symbols):
                for symbol in symbols:
                    self._note_last(symbol)
            case TradeCorrection():
                self._note_last(event.corrected.symbol)
            case Trade() | TradeCancel() if refusal is None:
                self._note_last(event.symbol)
            case _:
                pass
        return refusal

    def _note_last(self, symbol: str) -> None:
        held, last = self._held.get(symbol), self.trades.last(symbol)
        if held is not None and held.last is not last:
            held.last = last
            self._dirty.setdefault(symbol, None)

    @staticmethod
    def _put_streamed(held: _Held, quote: Quote, time: datetime) -> Unmarkable | None:
        if time > held.newest_time:
            held.newest_time = time
        elif time < held.newest_time - LATE_TOLERANCE:
            if quote.received_at >= held.quote.received_at:
                return Unmarkable.OUT_OF_ORDER
            # Our own clock was set back meanwhile: start counting from what it says now.
            held.newest_time = time
        held.quote = quote
        return None

    @staticmethod
    def _put_snapshot(held: _Held, quote: Quote, time: datetime) -> Unmarkable | None:
        """Let a quote fetched by REST replace only an older one; the very same is confirmed for this connection."""
        mine, theirs = held.quote.timestamp, quote.timestamp
        if mine is None or theirs is None:
            return Unmarkable.OLDER_THAN_STREAM
        if theirs == mine:
            return None
        # What a venue's clock claims of the future must hold up no later quote.
        if mine - held.quote.received_at > LATE_TOLERANCE:
            mine = held.quote.received_at
        if theirs < mine:
            return Unmarkable.OLDER_THAN_STREAM
        held.quote = quote
        held.newest_time = max(held.newest_time, time)
        return None

    @property
    def pending(self) -> int:
        """How many symbols wait to be written."""
        return len(self._dirty)

    @property
    def waiting(self) -> Collection[str]:
        """The symbols that wait to be written."""
        return self._dirty.keys()

    def take(self, now_s: float, most: int | None = None) -> list[PriceWrite]:
        """Return the waiting symbols' prices and forget that they wait. `now_s` is any steady clock.

        If the write fails, hand the symbols to `mark_unwritten`: newer quotes that came meanwhile win.
        """
        symbols = list(self._dirty) if most is None else [s for s, _ in zip(self._dirty, range(most), strict=False)]
        batch = []
        for symbol in symbols:
            del self._dirty[symbol]
            held = self._held.get(symbol)
            if held is not None:
                suspicion = self.suspects.of(symbol)
                age_s = self._age_in_cache_s(held, suspicion, now_s)
                publish = self._is_worth_a_message(held, suspicion, now_s)
                if publish:
                    held.seq = self._next_seq(symbol, held.epoch)
                    held.published, held.published_epoch, held.published_at_s = held.quote, held.epoch, now_s
                    held.published_last = held.last
                    held.published_suspect_since = None if suspicion is None else suspicion.since
                batch.append(PriceWrite(self._price(held), publish, age_s))
        return batch

    @staticmethod
    def _age_in_cache_s(held: _Held, suspicion: Suspicion | None, now_s: float) -> float:
        """Return how much of its life in the cache is used up: a suspect price gets a new one by a later trade only."""
        if suspicion is None or held.renewed_at_s is None or _is_traded_since(held, suspicion):
            held.renewed_at_s = now_s
        return now_s - held.renewed_at_s

    def _next_seq(self, symbol: str, epoch: str | None) -> int:
        """Count one more message of `symbol`. A symbol that comes back on the same connection goes on counting."""
        counted_in, seq = self._sequences.get(symbol, (epoch, 0))
        if epoch is not None and counted_in != epoch:
            seq = 0
        self._sequences[symbol] = (epoch or counted_in or "", seq + 1)
        return seq + 1

    @staticmethod
    def _is_worth_a_message(held: _Held, suspicion: Suspicion | None, now_s: float) -> bool:
        published = held.published
        return (
            published is None
            or held.published_epoch != held.epoch
            or held.published_suspect_since != (None if suspicion is None else suspicion.since)
            or held.published_last is not held.last
            or not published.has_same_content(held.quote)
            or (published is not held.quote and now_s - held.published_at_s >= REPEAT_INTERVAL_S)
        )

    def mark_unwritten(self, symbols: Iterable[str] | None = None) -> None:
        """Have these symbols (None: all that are held) written and published again."""
        for symbol in list(self._held) if symbols is None else symbols:
            held = self._held.get(symbol)
            if held is not None:
                held.published = None
                self._dirty[symbol] = None

    def renew(self, symbols: Iterable[str], epoch: str) -> None:
        """Have these symbols' cached quotes of connection `epoch` written again, so that they do not expire.

        The suspect ones do: nothing vouches for them.
        """
        for symbol in symbols:
            held = self._held.get(symbol)
            if held is not None and held.epoch == epoch and self.suspects.of(symbol) is None:
                self._dirty.setdefault(symbol, None)

    def release(self, streamed: Collection[str], epoch: str) -> None:
        """Note that connection `epoch` streams `streamed` and nothing else: for other quotes of its it vouches no more.

        They are written once more, as belonging to no connection: should the symbol be streamed again, what was missed
        meanwhile must not be vouched for.
        """
        for symbol, held in self._held.items():
            if held.epoch == epoch and symbol not in streamed:
                held.epoch, held.is_release_owed = None, True
                self._dirty[symbol] = None
        if len(self._sequences) > len(self._held):
            self._sequences = {
                symbol: counted
                for symbol, counted in self._sequences.items()
                if counted[0] == epoch or symbol in self._held
            }

    def count_from_venue_time(self) -> None:
        """Count every held quote's age from the venue's time: the stream turns out to be late."""
        for symbol, held in self._held.items():
            standing = as_standing_quote(held.quote)
            if standing is not held.quote:
                held.quote = standing
                self._dirty.setdefault(symbol, None)

    def shift_received(self, by: timedelta) -> None:
        """Correct when quotes were received: our clock was off by so much. The venue's times stay."""
        for symbol in self.suspects.shift(by):
            if symbol in self._held:
                self._dirty.setdefault(symbol, None)
        for symbol, held in self._held.items():
            quote = held.quote
            if quote.timestamp is None or quote.received_at == quote.timestamp:
                continue
            shifted = replace(quote, received_at=quote.received_at + by)
            held.quote = as_standing_quote(shifted) if quote.origin is QuoteOrigin.REST else shifted
            held.newest_time = min(quote.timestamp, shifted.received_at)
            self._dirty.setdefault(symbol, None)

    def note_written(self, symbols: Iterable[str]) -> None:
        """Note that what was taken of these symbols has reached the readers."""
        for symbol in symbols:
            held = self._held.get(symbol)
            if held is not None and held.epoch is None:
                held.is_release_owed = False

    def keep_only(self, symbols: Collection[str]) -> None:
        """Forget every symbol but these, which nobody wants any more, once readers know what became of its quote."""
        for symbol, held in list(self._held.items()):
            if symbol not in symbols and not held.is_release_owed:
                self._forget(symbol)
        self.trades.keep_only(symbols)
        if self.suspects.symbols:
            self.suspects.keep_only({*symbols, *self._held})

    def forget_all(self) -> None:
        """Forget every symbol, told or not."""
        for symbol in list(self._held):
            self._forget(symbol)
        self.trades.keep_only(())
        self.suspects.keep_only(())

    def _forget(self, symbol: str) -> None:
        del self._held[symbol]
        self._dirty.pop(symbol, None)
        self._to_recall.pop(symbol, None)

    def epoch_of(self, symbol: str) -> str | None:
        """Return the connection that vouches for the held quote; None when none is held."""
        held = self._held.get(symbol)
        return None if held is None else held.epoch

    def price(self, symbol: str) -> Price | None:
        """Return the newest price as it stands in memory; None when no quote was accepted yet."""
        held = self._held.get(symbol)
        return None if held is None else self._price(held)

    @property
    def symbols(self) -> Collection[str]:
        """The symbols of which a quote is held."""
        return self._held.keys()

    def _price(self, held: _Held) -> Price:
        quote, last = held.quote, held.last
        # why_unmarkable() let through only two-sided, timed quotes.
        assert quote.bid is not None  # noqa: S101
        assert quote.ask is not None  # noqa: S101
        assert quote.timestamp is not None  # noqa: S101
        bid, ask = exact(quote.bid), exact(quote.ask)
        suspicion = self.suspects.of(quote.symbol)
        return Price(
            symbol=quote.symbol,
            mid=mid_price(bid, ask),
            timestamp=quote.timestamp,
            bid=bid,
            ask=ask,
            bid_size=_shares(quote.bid_size),
            ask_size=_shares(quote.ask_size),
            exchange=quote.bid_exchange,
            ask_exchange=quote.ask_exchange,
            feed=self.feed,
            received_at=quote.received_at,
            epoch=held.epoch,
            seq=held.seq,
            last=None if last is None or last.price is None else exact(last.price),
            last_timestamp=None if last is None else _traded_at(last),
            last_size=None if last is None else _shares(last.size),
            instance=self.instance,
            mode=self.mode,
            suspect_since=None if suspicion is None else suspicion.since,
            suspect_reason=None if suspicion is None else suspicion.reason,
            suspect_quotes=None if suspicion is None else suspicion.quotes,
            newest_bid=None if suspicion is None else suspicion.bid,
            newest_ask=None if suspicion is None else suspicion.ask,
            newest_timestamp=None if suspicion is None else suspicion.newest_time,
        )


def _is_traded_since(held: _Held, suspicion: Suspicion) -> bool:
    """Say whether the last trade is news that came after the held quote was withdrawn."""
    last = held.last
    traded_at = None if last is None or last is held.published_last else _traded_at(last)
    return traded_at is not None and traded_at > suspicion.since


def _traded_at(trade: Trade) -> datetime | None:
    """Return when `trade` was made, never later than it came: a clock ahead of ours proves nothing."""
    return None if trade.timestamp is None else min(trade.timestamp, trade.received_at)


def _shares(size: float | None) -> Decimal | None:
    """Return a size in shares; None when it is absent or no number (a size never marks, so it refuses nothing)."""
    if size is None or not 0 <= size <= _GREATEST_SIZE:  # also false for NaN
        return None
    return Decimal(int(size)) if size == int(size) else exact(size)
