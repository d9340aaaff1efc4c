"""When a newer quote that may not mark makes the price held of its symbol suspect, and what ends that. Pure.

The venue has withdrawn the held quote, though nobody knows what took its place. A quiet symbol is not suspect: there
nothing newer has come.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from libs.market_data.prices import Price
from libs.market_data.quotes import Quote, QuoteOrigin, Unmarkable, exact, usable_sides
from libs.market_data.suspect_marks import SEVERAL

_NO_NEWS: Final = frozenset({Unmarkable.OLDER_THAN_STREAM})
"""Reasons to refuse a quote that say nothing of the held one."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A quote that may not mark. `arrived_at` is ours; `quote` is None when the message could not be read."""

    symbol: str
    reason: Unmarkable
    arrived_at: datetime
    quote: Quote | None = None

    @property
    def is_fetched(self) -> bool:
        """Whether REST answered it."""
        return self.quote is not None and self.quote.origin is QuoteOrigin.REST

    @property
    def time(self) -> datetime | None:
        """When the venue made the quote, never later than it came; None when that is unknown."""
        made_at = None if self.quote is None else self.quote.timestamp
        return None if made_at is None else min(made_at, self.arrived_at)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why the price of a symbol is suspect.

    `since` is our time of the first rejected quote, `reason` why the newest was rejected, `quotes` how many came in a
    row (2: or more). `newest_time` is the latest venue time of one, None when none had one. `bid` and `ask` are the
    usable sides of the newest, None where it has none.
    """

    since: datetime
    reason: str
    quotes: int = 1
    newest_time: datetime | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None

    def is_ended_by(self, quote: Quote, held_time: datetime | None) -> bool:
        """Say whether `quote`, which may mark, makes the price good again; `held_time` is the held quote's.

        A streamed one does: it arrived later. One fetched by REST may be older than the rejected one.
        """
        if quote.origin is QuoteOrigin.STREAM:
            return True
        earlier = [time for time in (self.since, self.newest_time, held_time) if time is not None]
        return quote.timestamp is not None and quote.timestamp > max(earlier)

    def following(self, earlier: "Suspicion") -> "Suspicion":
        """Return the same as the next of `earlier`, which nothing has ended."""
        newest_time = _later(self.newest_time, earlier.newest_time)
        return replace(self, since=min(self.since, earlier.since), quotes=SEVERAL, newest_time=newest_time)


@dataclass(slots=True)
class SuspectQuotes:
    """The suspicion of every symbol that is under one. Bounded by the number of symbols."""

    _known: dict[str, Suspicion] = field(default_factory=dict)

    def of(self, symbol: str) -> Suspicion | None:
        """Return why the price of `symbol` is suspect; None when it is fine."""
        return self._known.get(symbol)

    @property
    def symbols(self) -> Collection[str]:
        """The suspect symbols."""
        return self._known.keys()

    def note(self, rejection: Rejection, held_time: datetime | None) -> bool:
        """Take in a quote that may not mark; return whether it says anything of the price that is held.

        `held_time` is the venue's time of the held quote. One fetched by REST must be newer: its answer may have been
        overtaken by the stream.
        """
        if rejection.reason in _NO_NEWS:
            return False
        time, earlier = rejection.time, self._known.get(rejection.symbol)
        if rejection.is_fetched and time is not None:
            newest = [one for one in (held_time, None if earlier is None else earlier.newest_time) if one is not None]
            if newest and time <= max(newest):
                return False
        bid, ask = (None, None) if rejection.quote is None else usable_sides(rejection.quote, rejection.reason)
        self._known[rejection.symbol] = Suspicion(
            rejection.arrived_at if earlier is None else earlier.since,
            rejection.reason.value,
            1 if earlier is None else SEVERAL,
            _later(time, None if earlier is None else earlier.newest_time),
            None if bid is None else exact(bid),
            None if ask is None else exact(ask),
        )
        return True

    def accept(self, quote: Quote, held_time: datetime | None) -> None:
        """Take in a quote that may mark and now is the held one; `held_time` is the time of the one before."""
        suspicion = self._known.get(quote.symbol)
        if suspicion is not None and suspicion.is_ended_by(quote, held_time):
            del self._known[quote.symbol]

    def recall(self, price: Price, held: Quote) -> bool:
        """Take over what an earlier process wrote of a symbol; return whether that is news of `held`.

        What this process knows of newer quotes counts more, but began no sooner: it must not make `held` young again.
        """
        if price.suspect_since is None:
            return False
        suspicion = Suspicion(
            price.suspect_since,
            price.suspect_reason or Unmarkable.MALFORMED.value,
            price.suspect_quotes or SEVERAL,
            price.newest_timestamp,
            price.newest_bid,
            price.newest_ask,
        )
        if suspicion.is_ended_by(held, price.timestamp):
            return False
        known = self._known.get(price.symbol)
        recalled = suspicion if known is None else known.following(suspicion)
        self._known[price.symbol] = recalled
        return recalled != known

    def shift(self, by: timedelta) -> Collection[str]:
        """Correct when symbols became suspect: our clock was off by so much. Return those symbols."""
        for symbol, suspicion in self._known.items():
            self._known[symbol] = replace(suspicion, since=suspicion.since + by)
        return self._known.keys()

    def keep_only(self, symbols: Collection[str]) -> None:
        """Forget every symbol but these."""
        for symbol in [symbol for symbol in self._known if symbol not in symbols]:
            del self._known[symbol]


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return max(one, other)
