"""Which price marks a position right now, and what may be said of it: live, stale, the official close, or nothing.

Decides nothing about P&L and reads no clock: `now` is an argument.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple

from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Price
from libs.market_data.symbols import WILDCARD

HEARTBEAT_SILENCE_S: Final = 6.0
"""The heartbeat comes every 2 s: after three missed ones the publisher is taken for dead or frozen."""
MAX_CLOCK_LEAD_S: Final = 60.0
"""How far a price's time may run ahead of our clock before its age means nothing."""
DELAYED_FEED: Final = "delayed_sip"


class PriceSource(StrEnum):
    """What a mark is, in the words of the P&L body."""

    REAL_TIME = "real-time"
    DELAYED = "delayed"
    HALTED = "halted"
    STALE = "stale"
    CLOSING = "closing"
    UNAVAILABLE = "unavailable"


class FeedWord(Enum):
    """What the market data service says of the price held of one symbol, if it says anything."""

    NOTHING = auto()
    VOUCHED = auto()
    """A live link stands behind it: quiet or not, it is the quote."""
    HALTED = auto()
    """The venue has halted trading: it is the last quote before."""
    DOUBTED = auto()
    """A newer one may well have been missed: it is not live, however young."""


@dataclass(frozen=True, slots=True)
class ClosingPrice:
    """The official unadjusted close of one session, USD per share."""

    price: Decimal
    session: date


class Mark(NamedTuple):
    """The price a position is valued at. Prices in USD per share.

    `price` is None only when unavailable. `bid`, `ask`, `last_updated` (the venue's time) and `age_s` belong to a
    quote and are None for a close; `closing_date` is the session of a close and None for a quote.
    """

    source: PriceSource
    price: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    last_updated: datetime | None = None
    age_s: float | None = None
    closing_date: date | None = None


UNAVAILABLE: Final = Mark(PriceSource.UNAVAILABLE)


def choose_mark(
    price: Price | None,
    *,
    word: FeedWord,
    last_vouched_at: datetime | None,
    close: ClosingPrice | None,
    market: MarketPhase,
    now: datetime,
    stale_after_s: float,
    ttl_s: float,
) -> Mark:
    """Return the best mark that can be had, honestly named.

    Market open: halted, live, stale, close, unavailable. Market closed: live, close, stale, unavailable.
    `word` is what the feed says of `price` now (see `word_of`), `last_vouched_at` when it last vouched; None when it
    never did. `close` is that of the last completed session, None when unknown.
    """
    age_s = 0.0 if price is None else (now - price.known_since).total_seconds()
    if price is not None and word is FeedWord.HALTED and market is MarketPhase.OPEN:
        return _quote_mark(PriceSource.HALTED, price, age_s)
    if price is not None and _is_live(age_s, word=word, stale_after_s=stale_after_s):
        source = PriceSource.DELAYED if price.feed == DELAYED_FEED else PriceSource.REAL_TIME
        return _quote_mark(source, price, age_s)
    if close is not None and market is MarketPhase.CLOSED:
        return _closing_mark(close)
    if price is not None and _is_within_ttl(price, last_vouched_at=last_vouched_at, now=now, ttl_s=ttl_s):
        return _quote_mark(PriceSource.STALE, price, age_s)
    return UNAVAILABLE if close is None else _closing_mark(close)


def can_vouch(feed: FeedStatus) -> bool:
    """Say whether the link stands behind the quotes of its connection: it streams, and the market is open."""
    return (
        feed.state is LinkState.STREAMING
        and feed.connected
        and feed.epoch is not None
        and feed.market is MarketPhase.OPEN
    )


class LiveFeed(NamedTuple):
    """A feed whose heartbeat is fresh, and whether its link can vouch for anything now."""

    status: FeedStatus
    can_vouch: bool


def live_feed(feed: FeedStatus | None, heard_at: datetime | None, now: datetime) -> LiveFeed | None:
    """Return `feed` if its heartbeat was heard within 6 s, else None: then nobody says anything."""
    if feed is None or heard_at is None or not is_fresh(heard_at, now):
        return None
    return LiveFeed(feed, can_vouch(feed))


def is_fresh(heard_at: datetime, now: datetime) -> bool:
    """Say whether a heartbeat heard at `heard_at` still speaks for its writer.

    One from the future does not: the clock was set back since, and nobody knows by how much it is too old.
    """
    return abs((now - heard_at).total_seconds()) <= HEARTBEAT_SILENCE_S


def word_of(feed: LiveFeed | None, price: Price) -> FeedWord:
    """Return what the feed says of `price`.

    It vouches for a quote that came over its very connection, of a symbol that is confirmed and not doubted.
    """
    if feed is None:
        return FeedWord.NOTHING
    status, may_vouch = feed
    symbol = price.symbol
    if may_vouch and symbol in status.halted:
        return FeedWord.HALTED
    if status.doubted and is_doubted(status, symbol):
        return FeedWord.DOUBTED
    if may_vouch and price.epoch == status.epoch and (symbol in status.symbols or WILDCARD in status.symbols):
        return FeedWord.VOUCHED
    return FeedWord.NOTHING


def is_doubted(feed: FeedStatus, symbol: str) -> bool:
    """Say whether a newer quote of `symbol` may well have been missed."""
    return symbol in feed.doubted or WILDCARD in feed.doubted


def _is_live(age_s: float, *, word: FeedWord, stale_after_s: float) -> bool:
    # A price stamped far in the future would look new-born until then: it is shown, but never as live.
    if age_s < -MAX_CLOCK_LEAD_S or word is FeedWord.DOUBTED:
        return False
    return word is FeedWord.VOUCHED or age_s < stale_after_s


def _is_within_ttl(price: Price, *, last_vouched_at: datetime | None, now: datetime, ttl_s: float) -> bool:
    known = price.known_since if last_vouched_at is None else max(price.known_since, last_vouched_at)
    return now - known <= timedelta(seconds=ttl_s)


def _quote_mark(source: PriceSource, price: Price, age_s: float) -> Mark:
    # Never a negative age: a venue's clock may run ahead of ours.
    return Mark(source, price.mid, price.bid, price.ask, price.timestamp, max(0.0, age_s))


def _closing_mark(close: ClosingPrice) -> Mark:
    return Mark(PriceSource.CLOSING, close.price, closing_date=close.session)
