"""Which price marks a position right now, and what may be said of it: live, stale, the official close, or nothing.

Decides nothing about P&L and reads no clock: `now` is an argument.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple

from libs.market_data.clock_lead import is_ahead
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Price
from libs.market_data.suspect_marks import as_last_trade, has_later_trade, is_overdue, is_withdrawn
from libs.market_data.symbols import WILDCARD
from libs.market_data.trading_sessions import TradingPhase

HEARTBEAT_SILENCE_S: Final = 6.0
"""The heartbeat comes every 2 s: after three missed ones the publisher is taken for dead or frozen."""
DELAYED_FEED: Final = "delayed_sip"


class PriceSource(StrEnum):
    """What a mark is, in the words of the P&L body."""

    REAL_TIME = "real-time"
    DELAYED = "delayed"
    HALTED = "halted"
    STALE = "stale"
    CLOSING = "closing"
    UNAVAILABLE = "unavailable"


class MarkRule(StrEnum):
    """Which of a quote's prices marks a position; `close` is what stands for it when there is no quote to use."""

    MID = "mid"
    LAST = "last"
    LIQUIDATION = "liquidation"
    CLOSE = "close"


class MarkState(StrEnum):
    """How good a mark is, in one word; unlike the source it tells the close of a closed market from a makeshift."""

    LIVE = "live"
    DELAYED = "delayed"
    HALTED = "halted"
    STALE = "stale"
    CLOSED = "closed"
    """The market is closed, and this is its official close."""
    FALLBACK = "fallback"
    """The market is open, and there is nothing better than the last official close."""
    UNPRICED = "unpriced"


class FeedWord(Enum):
    """What the market data service says of the price held of one symbol, if it says anything."""

    NOTHING = auto()
    VOUCHED = auto()
    """A live link stands behind it: quiet or not, it is the quote."""
    HALTED = auto()
    """The venue has halted trading: it is the last quote before."""
    DOUBTED = auto()
    """A newer one may well have been missed: it is not live, however young."""
    LATE = auto()
    """The stream that brought it is late: it is not live, and its age counts from the venue's time."""


@dataclass(frozen=True, slots=True)
class ClosingPrice:
    """The official unadjusted close of one session, USD per share."""

    price: Decimal
    session: date


class Mark(NamedTuple):
    """The price a position is valued at, and where it comes from. Prices in USD per share.

    `price` is None only when unavailable. `bid`, `ask`, `last_updated` (the venue's time), `last_trade` and its time
    `last_trade_at`, `received_at` (our time), `feed` and `age_s` belong to a quote and are None for a close;
    `closing_date` is the session of a close and None for a quote. `rule` is the one that was applied, None without a
    price. `extended_price` is what a fresh quote outside the regular session would have marked, where the settings say
    that it must not. `stale_reason` says why a stale quote is not live: `late` (the stream is), `ahead` (stamped so),
    `out_of_hours` (nothing vouches for a quiet quote then), `link` (no link in order stands behind it), or what was
    wrong with the newer quotes; None for all other marks. `suspect_since` is when those began; once the quote's sides
    can no longer be met (`is_withdrawn`), `newest_bid` and `newest_ask` are what can, None where that is unknown.
    """

    source: PriceSource
    price: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    last_updated: datetime | None = None
    age_s: float | None = None
    closing_date: date | None = None
    state: MarkState = MarkState.UNPRICED
    rule: MarkRule | None = None
    last_trade: Decimal | None = None
    last_trade_at: datetime | None = None
    feed: str | None = None
    received_at: datetime | None = None
    extended_price: Decimal | None = None
    stale_reason: str | None = None
    suspect_since: datetime | None = None
    is_withdrawn: bool = False
    newest_bid: Decimal | None = None
    newest_ask: Decimal | None = None

    @property
    def exit_bid(self) -> Decimal | None:
        """What selling would meet now; None when unknown."""
        return self.newest_bid if self.is_withdrawn else self.bid

    @property
    def exit_ask(self) -> Decimal | None:
        """What buying would meet now; None when unknown."""
        return self.newest_ask if self.is_withdrawn else self.ask

    def is_same_but_for_age(self, other: "Mark") -> bool:
        """Say whether both are the same price from the same source, whatever their ages."""
        return self[:_AGE] == other[:_AGE] and self[_AGE + 1 :] == other[_AGE + 1 :]


_AGE: Final = Mark._fields.index("age_s")
UNAVAILABLE: Final = Mark(PriceSource.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class MarkRules:
    """What the settings say of marks: which price, how old it may grow, and whether quotes mark out of hours."""

    stale_after_s: float
    ttl_s: float
    rule: MarkRule = MarkRule.MID
    extended_hours: bool = True


def choose_mark(  # noqa: PLR0913 - each is a fact of its own, by name
    price: Price | None,
    *,
    word: FeedWord,
    last_vouched_at: datetime | None,
    close: ClosingPrice | None,
    market: MarketPhase,
    now: datetime,
    rules: MarkRules,
    is_short: bool = False,
    session: TradingPhase | None = None,
) -> Mark:
    """Return the best mark that can be had, honestly named.

    Market open: halted, live, stale, close, unavailable; so in the sessions before and after, but for halts. At night:
    live, close, stale, unavailable. Where quotes must not mark out of hours: close, unavailable.
    `word` is what the feed says of `price` now (see `word_of`), `last_vouched_at` when it last vouched; None when it
    never did. `close` is that of the last completed session, None when unknown. `is_short` says on which side the
    position would be liquidated. `session` None: the regular one while the market is open, else night.
    """
    circumstances = _Circumstances(
        word, last_vouched_at, close, market, now, rules, is_short=is_short, is_night=_is_night(market, session)
    )
    if price is not None and price.suspect_since is not None:
        return _suspect_mark(price, price.suspect_since, circumstances)
    return _ladder(price, circumstances)


class _Circumstances(NamedTuple):
    """The arguments of `choose_mark` but for the price."""

    word: FeedWord
    last_vouched_at: datetime | None
    close: ClosingPrice | None
    market: MarketPhase
    now: datetime
    rules: MarkRules
    is_short: bool
    is_night: bool


def _is_night(market: MarketPhase, session: TradingPhase | None) -> bool:
    return market is MarketPhase.CLOSED and session not in {TradingPhase.PRE, TradingPhase.POST}


def _suspect_mark(price: Price, since: datetime, known: _Circumstances) -> Mark:
    """Return the mark of a price whose newest quotes could not mark: it was vouched for until `since` at most."""
    rules, now = known.rules, known.now
    is_gone = is_withdrawn(price, now)
    if rules.rule is MarkRule.LAST and has_later_trade(price):
        word = FeedWord.NOTHING if known.word is FeedWord.VOUCHED else known.word
        mark = _ladder(as_last_trade(price), known._replace(word=word, last_vouched_at=None))
        if mark.last_updated is not None:
            mark = mark._replace(rule=MarkRule.LAST)
    else:
        until = since if known.word is FeedWord.VOUCHED else known.last_vouched_at
        # What closing would meet is gone with the sides; a mid may be believed a little longer.
        is_too_old = is_overdue(price, now, rules.stale_after_s) or (is_gone and rules.rule is MarkRule.LIQUIDATION)
        limited = known._replace(last_vouched_at=None if until is None else min(until, since))
        mark = _ladder(price, limited, may_be_live=not is_too_old)
    return mark._replace(
        suspect_since=since,
        stale_reason=(price.suspect_reason or "suspect") if mark.source is PriceSource.STALE else None,
        is_withdrawn=is_gone and mark.last_updated is not None,
        newest_bid=price.newest_bid,
        newest_ask=price.newest_ask,
    )


def _ladder(  # noqa: PLR0911 - a rung each
    price: Price | None, known: _Circumstances, *, may_be_live: bool = True
) -> Mark:
    word, last_vouched_at, close, market, now, rules, is_short, is_night = known
    age_s = 0.0 if price is None else (now - _counts_from(price, word)).total_seconds()
    if price is not None and word is FeedWord.HALTED and market is MarketPhase.OPEN:
        return _quote_mark(PriceSource.HALTED, price, age_s, rules.rule, is_short=is_short)
    is_live = (
        price is not None
        and may_be_live
        and _is_live(price, age_s, word=word, now=now, stale_after_s=rules.stale_after_s)
    )
    if market is MarketPhase.CLOSED and not rules.extended_hours:
        extended = quote_price(price, rules.rule, is_short=is_short)[0] if price is not None and is_live else None
        closing = UNAVAILABLE if close is None else _closing_mark(close, MarkState.CLOSED)
        return closing._replace(extended_price=extended)
    if price is not None and is_live:
        source = PriceSource.DELAYED if price.feed == DELAYED_FEED else PriceSource.REAL_TIME
        return _quote_mark(source, price, age_s, rules.rule, is_short=is_short)
    if close is not None and is_night:
        return _closing_mark(close, MarkState.CLOSED)
    if price is not None and _is_within_ttl(age_s, last_vouched_at=last_vouched_at, now=now, ttl_s=rules.ttl_s):
        stale = _quote_mark(PriceSource.STALE, price, age_s, rules.rule, is_short=is_short)
        return stale._replace(stale_reason=_stale_reason(price, word, market, now))
    if close is None:
        return UNAVAILABLE
    return _closing_mark(close, MarkState.FALLBACK if market is MarketPhase.OPEN else MarkState.CLOSED)


def quote_price(price: Price, rule: MarkRule, *, is_short: bool) -> tuple[Decimal, MarkRule]:
    """Return the price that marks by `rule`, and the rule that gave it: the mid where the asked one has no price.

    `last`: the last eligible trade, as the broker marks, when it lies inside the quote. `liquidation`: what closing
    would meet, the bid for a long and the ask for a short position.
    """
    bid, ask, last = price.bid, price.ask, price.last
    if bid is None or ask is None or rule in {MarkRule.MID, MarkRule.CLOSE}:
        return price.mid, MarkRule.MID
    if rule is MarkRule.LIQUIDATION:
        return (ask if is_short else bid), MarkRule.LIQUIDATION
    return (last, MarkRule.LAST) if last is not None and bid <= last <= ask else (price.mid, MarkRule.MID)


def can_vouch(feed: FeedStatus) -> bool:
    """Say whether the link stands behind the quotes of its connection: it streams in time, and the market is open."""
    return (
        feed.state is LinkState.STREAMING
        and feed.connected
        and feed.epoch is not None
        and feed.market is MarketPhase.OPEN
        and feed.lag_s is None
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


def word_of(feed: LiveFeed | None, price: Price, day_began: datetime) -> FeedWord:  # noqa: PLR0911 - one per word
    """Return what the feed says of `price`; `day_began` is when this New York day did.

    It vouches for a quote that came over its very connection, of a symbol that is confirmed and not doubted. A quote of
    an earlier day is nobody's any more, however long the connection has stood and whatever REST fetched over it.
    """
    if feed is None:
        return FeedWord.NOTHING
    status, may_vouch = feed
    symbol = price.symbol
    if is_late(status, price):
        return FeedWord.LATE
    if may_vouch and symbol in status.halted:
        return FeedWord.HALTED
    if status.doubted and is_doubted(status, symbol):
        return FeedWord.DOUBTED
    if price.timestamp < day_began:
        return FeedWord.NOTHING
    if may_vouch and price.epoch == status.epoch and (symbol in status.symbols or WILDCARD in status.symbols):
        return FeedWord.VOUCHED
    return FeedWord.NOTHING


def is_late(feed: FeedStatus, price: Price) -> bool:
    """Say whether `price` came over a stream that is late. A polled or foreign price, without an epoch, did not."""
    return feed.lag_s is not None and price.epoch is not None


def is_doubted(feed: FeedStatus, symbol: str) -> bool:
    """Say whether a newer quote of `symbol` may well have been missed."""
    return symbol in feed.doubted or WILDCARD in feed.doubted


def _counts_from(price: Price, word: FeedWord) -> datetime:
    """Return from when the age of `price` counts: what came late is as old as the venue says."""
    return price.timestamp if word is FeedWord.LATE else price.known_since


def _stale_reason(price: Price, word: FeedWord, market: MarketPhase, now: datetime) -> str:
    if word is FeedWord.LATE:
        return "late"
    if _is_stamped_ahead(price, now):
        return "ahead"
    return "link" if market is MarketPhase.OPEN or word is FeedWord.DOUBTED else "out_of_hours"


def _is_stamped_ahead(price: Price, now: datetime) -> bool:
    return is_ahead(max(price.timestamp, price.known_since), now)


def _is_live(price: Price, age_s: float, *, word: FeedWord, now: datetime, stale_after_s: float) -> bool:
    # A price stamped far in the future would look new-born until then: it is shown, but never as live.
    if _is_stamped_ahead(price, now) or word in {FeedWord.DOUBTED, FeedWord.LATE}:
        return False
    return word is FeedWord.VOUCHED or age_s < stale_after_s


def _is_within_ttl(age_s: float, *, last_vouched_at: datetime | None, now: datetime, ttl_s: float) -> bool:
    is_young = age_s <= ttl_s
    return is_young or (last_vouched_at is not None and now - last_vouched_at <= timedelta(seconds=ttl_s))


_STATES: Final = {
    PriceSource.REAL_TIME: MarkState.LIVE,
    PriceSource.DELAYED: MarkState.DELAYED,
    PriceSource.HALTED: MarkState.HALTED,
    PriceSource.STALE: MarkState.STALE,
}


def _quote_mark(source: PriceSource, price: Price, age_s: float, rule: MarkRule, *, is_short: bool) -> Mark:
    marked_at, applied = quote_price(price, rule, is_short=is_short)
    # Never a negative age: a venue's clock may run ahead of ours.
    age_s = max(0.0, age_s)
    return Mark(
        source, marked_at, price.bid, price.ask, price.timestamp, age_s, None, _STATES[source], applied, price.last,
        price.last_timestamp, price.feed, price.received_at,
    )  # fmt: skip


def _closing_mark(close: ClosingPrice, state: MarkState) -> Mark:
    return Mark(PriceSource.CLOSING, close.price, closing_date=close.session, state=state, rule=MarkRule.CLOSE)
