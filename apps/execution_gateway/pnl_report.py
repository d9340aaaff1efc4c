"""Builds the P&L as of now: positions from the ledger, the newest prices, one mark for each, one valuation.

The endpoint, the push stream and the metrics all come through here. Which mark is chosen is decided in `freshness.py`,
what it is worth in `valuation.py`.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import uuid4

import structlog

from apps.execution_gateway.account_view import AccountView
from apps.execution_gateway.database import BookUnavailableError
from apps.execution_gateway.ledger_facts import DayFacts
from apps.execution_gateway.price_book import PriceBook
from libs.broker.activity_results import ACCOUNT_WIDE
from libs.broker.parity import OurFigures
from libs.market_data.clock_lead import is_ahead
from libs.market_data.freshness import (
    HEARTBEAT_SILENCE_S,
    FeedWord,
    LiveFeed,
    Mark,
    MarkRules,
    choose_mark,
    is_doubted,
    live_feed,
    word_of,
)
from libs.market_data.market_hours import MarketHours
from libs.market_data.missing_bars import Gap
from libs.market_data.modes import body_mode, is_foreign_mode, is_real_account
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price
from libs.market_data.trading_sessions import TradingPhase
from libs.portfolio.book import Book
from libs.portfolio.closes import (
    CloseSource,
    DayCloses,
    SessionDates,
    SymbolCloses,
    close_in_todays_shares,
    day_closes,
    needed_closes,
)
from libs.portfolio.days import NEW_YORK, day_start
from libs.portfolio.fills import ZERO
from libs.portfolio.pnl import DayUnknown, PnlReport, UnclassifiedCash
from libs.portfolio.positions import Position
from libs.portfolio.rounding import rounded_money
from libs.portfolio.valuation import RowMemory, Valuable, value_positions
from libs.redis_client.client import RedisUnavailableError
from libs.redis_client.price_cache import PriceCache

CACHE_DEADLINE_S: Final = 0.150
"""The answer is due within 250 ms whatever Redis does."""
LEAST_CACHE_WAIT_S: Final = 0.050
LEDGER_HELD_FOR_S: Final = 1.0
"""How long a book counts for those who look many times a second; what is recorded here is seen at once all the same."""
_READ_AGAIN: Final = 3
OUTDATED_AFTER: Final = timedelta(seconds=1)
"""Figures are sent within milliseconds of being made. What is older then was made before this process slept."""
MARKET_HELD_FOR: Final = timedelta(seconds=60)
"""How long the feed's last word on the market counts after it has fallen silent; then the calendar is asked."""

log = structlog.get_logger(__name__)


class BookSource(Protocol):
    """Where the positions come from."""

    async def book(self) -> Book:
        """Return all positions as of now. Raises BookUnavailableError, never an empty book in its place."""
        ...


@dataclass(frozen=True, slots=True)
class PnlRules:
    """What the settings say: how marks are chosen, and whose money the positions are."""

    marks: MarkRules
    account_mode: Mode


class MarketSaidBy(StrEnum):
    """Who told whether the market is open."""

    FEED = "market data service"
    CALENDAR = "calendar"


@dataclass(frozen=True, slots=True)
class MarketView:
    """Whether the market is open. `next_change` (UTC) is None when the one who said so did not tell.

    `session` is the part of the trading day: regular while open, else what the calendar says of the hour.
    """

    phase: MarketPhase
    session: TradingPhase
    next_change: datetime | None
    said_by: MarketSaidBy


@dataclass(frozen=True, slots=True)
class FeedView:
    """What is known of the link to the venue. `since`: when that state began; None when it was never heard of.

    `lag_s`: by how many seconds the stream is late, while that makes nothing live; None while it is in time.
    `clock_offset_s`: what our clock has to add to be the account's; 0 while it is not known to be wrong.
    `mode`: what the prices are where they are made up and the account is not, else None.
    """

    connected: bool
    state: LinkState
    since: datetime | None
    lag_s: float | None = None
    clock_offset_s: float = 0.0
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class RealtimePnl:
    """A valued book and what its readers must know of it: whose money, which feed, when, which calculation.

    `account` is how well the mirrored account is known; None when the positions are the ledger's own.
    """

    report: PnlReport
    mode: Mode
    feed: FeedView
    market: MarketView
    calculated_at: datetime
    calculation_id: str
    account: AccountView | None = None


class _Moment(NamedTuple):
    """When a book is valued, and what that moment is: `day_began` is when its New York day did.

    `now` is by the clock of those who write the prices, which is ours plus `clock_offset`.
    """

    now: datetime
    clock_offset: timedelta
    day_began: datetime
    market: MarketPhase
    session: TradingPhase


class PnlReporter:
    """Value the ledger's positions at the newest prices known. `closes` returns the closing prices of the moment."""

    def __init__(
        self,
        ledger: BookSource,
        prices: PriceBook,
        cache: PriceCache,
        closes: Callable[[], CloseSource],
        hours: MarketHours,
        rules: PnlRules,
        now: Callable[[], datetime],
        account: Callable[[], AccountView] | None = None,
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._cache = cache
        self._closes = closes
        self._hours = hours
        self._rules = rules
        self._now = now
        self._account = account
        self._book = Book()
        self._rows = RowMemory()
        self._day_closes = DayCloses()
        self._book_read_at_s: float | None = None
        self._forgotten = 0
        self._seen_forgotten = 0
        self._held: frozenset[str] = frozenset()
        self.cache_faults = 0
        self.last_cache_error: str | None = None

    async def report(self) -> RealtimePnl:
        """Return the P&L as of now: the ledger and the cached prices are read.

        Raises BookUnavailableError: an unreadable ledger is no empty one.
        """
        await self.refresh()
        return self.value()

    async def refresh(self) -> None:
        """Read the ledger and the cached prices. Raises BookUnavailableError."""
        # What was held a moment ago is nearly always held now: the two reads need not wait for each other.
        guessed = self._held
        deadline_s = _clock_s() + CACHE_DEADLINE_S
        reading = asyncio.create_task(self.take_in_prices(guessed))
        try:
            await self._read_book()
            await reading
        finally:
            reading.cancel()
        new, left_s = self._held - guessed, deadline_s - _clock_s()
        if new:
            # A slow ledger must not make a symbol unpriced whose price lies in the cache.
            await self.take_in_prices(new, max(left_s, LEAST_CACHE_WAIT_S))
        for _ in range(_READ_AGAIN):
            # Recorded while the ledger answered: what is valued from here on must contain it.
            if self.is_current:
                break
            await self._read_book()

    @property
    def is_current(self) -> bool:
        """Whether nothing has been recorded here since the ledger was last asked."""
        return self._seen_forgotten == self._forgotten

    def value(self) -> RealtimePnl:
        """Return the P&L as of now, of the book as it was last read."""
        return self._value(self._book)

    async def report_from_memory(self) -> RealtimePnl:
        """Return the P&L as of now with the prices in memory; the ledger is asked when that was not just done.

        For those who look many times a second, or must not wait for Redis. Raises BookUnavailableError.
        """
        if self._book_read_at_s is None or _clock_s() - self._book_read_at_s > LEDGER_HELD_FOR_S:
            await self._read_book()
        return self.value()

    def is_outdated(self, pnl: RealtimePnl) -> bool:
        """Say whether `pnl` is too old to be sent: what it calls live may long be something else."""
        return abs(self._now() - pnl.calculated_at) > OUTDATED_AFTER

    async def held_symbols(self) -> frozenset[str]:
        """Return the symbols of the open positions; the last known ones while the ledger cannot be read."""
        try:
            await self._read_book()
        except BookUnavailableError as error:
            log.warning("held_symbols_unknown", reason=str(error))
        return self._held

    @property
    def held(self) -> frozenset[str]:
        """The symbols of the open positions when the ledger was last read."""
        return self._held

    def forget_book(self) -> None:
        """Ask the ledger at the next look, however lately it was asked: something was recorded."""
        self._book_read_at_s = None
        self._forgotten += 1

    @property
    def mode(self) -> Mode:
        """Whose money it is: the account's where that is real, else what the feed last said."""
        feed = self._prices.last_feed
        return body_mode(self._rules.account_mode, None if feed is None else feed.mode)

    def _is_foreign(self, feed: FeedStatus | None) -> bool:
        """Say whether the prices of `feed` are made up and the account is not: then they mark nothing."""
        return feed is not None and is_foreign_mode(self._rules.account_mode, feed.mode)

    def _may_mark(self, price: Price) -> bool:
        """Say whether `price` is of a kind that may mark in this account.

        A price that names no mode is judged by the feed that it came from; one of no feed is anybody's.
        """
        account = self._rules.account_mode
        if not is_real_account(account):
            return True
        feed = self._prices.last_feed
        if price.mode is None and price.epoch is not None and feed is not None and feed.instance == price.instance:
            return not is_foreign_mode(account, feed.mode)
        return not is_foreign_mode(account, price.mode)

    def feed(self, now: datetime) -> FeedView:
        """Return what is known of the feed; `unknown` when its heartbeats have stopped or never came."""
        feed = self._prices.feed
        if feed is None or self._prices.is_silent(now):
            return FeedView(connected=False, state=LinkState.UNKNOWN, since=self._prices.heard_at)
        if self._is_foreign(feed):
            return FeedView(connected=False, state=LinkState.FOREIGN_MODE, since=feed.since, mode=feed.mode)
        offset_s = self._prices.alignment.offset.total_seconds()
        return FeedView(feed.connected, feed.state, feed.since, feed.lag_s, offset_s)

    def doubted(self, now: datetime) -> list[str]:
        """Return the held symbols of which the feed says that newer quotes may have been missed."""
        feed = live_feed(self._prices.feed, self._prices.heard_at, now)
        return [] if feed is None else sorted(symbol for symbol in self._held if is_doubted(feed.status, symbol))

    def market(self, now: datetime) -> MarketView:
        """Return whether the market is open: as the feed says (it asks the account's clock), else the calendar."""
        feed, heard_at = self._prices.last_feed, self._prices.heard_at
        is_known = feed is not None and heard_at is not None and now - heard_at <= MARKET_HELD_FOR
        # A simulated market may be open on a Sunday.
        if feed is not None and is_known and not self._is_foreign(feed):
            return MarketView(feed.market, self._session(feed.market, now), None, MarketSaidBy.FEED)
        phase = self._hours.phase(now)
        return MarketView(phase, self._session(phase, now), self._hours.next_change(now), MarketSaidBy.CALENDAR)

    def _session(self, phase: MarketPhase, now: datetime) -> TradingPhase:
        if phase is MarketPhase.OPEN:
            return TradingPhase.REGULAR
        session = self._hours.trading_phase(now)
        if session is not TradingPhase.REGULAR:
            return session
        # At the opening the last heartbeat may still be of before. Else it is an unscheduled closure, which only the
        # account's clock knows of.
        was_before = self._hours.trading_phase(now - timedelta(seconds=HEARTBEAT_SILENCE_S)) is TradingPhase.PRE
        return TradingPhase.PRE if was_before else TradingPhase.CLOSED

    async def _read_book(self) -> None:
        asked_at_s, forgotten = _clock_s(), self._forgotten
        self._book_read_at_s = None
        self._book = await self._ledger.book()
        self._seen_forgotten = forgotten
        # What was recorded while the ledger answered may not be in the answer: then the next look asks again.
        if self._forgotten == forgotten:
            self._book_read_at_s = asked_at_s
        self._held = frozenset(position.symbol for position in self._book.open_positions)

    async def take_in_prices(self, symbols: Iterable[str], deadline_s: float = CACHE_DEADLINE_S) -> None:
        """Take in cached prices that are newer than ours. Without Redis, memory is all there is."""
        names, asked_at_s = list(symbols), _clock_s()
        try:
            cached = await self._cache.read(names, deadline_s, self._prices.price)
        except RedisUnavailableError as error:
            self.cache_faults += 1
            if self.last_cache_error is None:
                log.warning("price_cache_unavailable", reason=error.reason)
            self.last_cache_error = error.reason
            return
        self.last_cache_error = None
        for price in cached.values():
            self._prices.offer(price, is_live=False, now=self._now(), at_s=asked_at_s)
        self._prices.confirm(names, asked_at_s)

    def figures(self, book: Book) -> dict[str, OurFigures]:
        """Return what a comparison with the account needs of each open position in `book`, at the marks of now."""
        now = self._now()
        session = self._hours.session_date(now)
        holdings, day = book.alpaca_holdings(now), book.day(session)
        closes = self._closes_of(book, session, now)
        return {
            one.position.symbol: OurFigures(
                one.position,
                holdings[one.position.symbol],
                day[one.position.symbol],
                one.mark.price,
                one.previous_close,
                one.overnight_value,
            )
            for one in self._inputs(book, closes, self.market(now), session, now)
        }

    def day_facts(self, book: Book) -> DayFacts:
        """Return what belongs to the day of `book` beside the figures of its open positions."""
        now = self._now()
        session = self._hours.session_date(now)
        closes, source, dates = self._closes_of(book, session, now), self._closes(), self._dates(session, now)

        def previous_close(symbol: str) -> Decimal | None:
            close = close_in_todays_shares(book, source, symbol, dates.previous)
            return None if close is None else close.price

        return DayFacts(session, dates.previous, closes.closed.day_pnl, previous_close)

    def _value(self, book: Book) -> RealtimePnl:
        now = self._now()
        market = self.market(now)
        session = self._hours.session_date(now)
        closes = self._closes_of(book, session, now)
        report = value_positions(
            self._inputs(book, closes, market, session, now), closes.closed, self._rows, _unclassified(book)
        )
        account = None if self._account is None else self._account()
        return RealtimePnl(report, self.mode, self.feed(now), market, now, uuid4().hex, account)

    def _inputs(
        self, book: Book, closes: DayCloses, market: MarketView, session: date, now: datetime
    ) -> list[Valuable]:
        day = book.day(session)
        feed = live_feed(self._prices.feed, self._prices.heard_at, now)
        offset = self._prices.alignment.offset
        day_began = day_start(now.astimezone(NEW_YORK).date())
        moment = _Moment(now + offset, offset, day_began, market.phase, market.session)
        unresolved = frozenset() if self._account is None else self._account().unresolved_symbols
        inputs = []
        for position in book.open_positions:
            symbol = position.symbol
            known = closes.symbols[symbol]
            mark = self._mark(position, known, feed, moment)
            day_unknown = None
            if known.undecided_ratio is not None:
                known = known.settled(mark.price if mark.closing_date is None else None)
                day_unknown = None if known.undecided_ratio is None else DayUnknown.SPLIT
            if symbol in unresolved:
                # The shares may be those from before a split, the price one after it: the day is not known.
                known = known._replace(previous_close=None, overnight_value=None)
                day_unknown = DayUnknown.ACTIVITY
            closes_known = known.previous_close, known.overnight_value
            inputs.append(Valuable(position, day[symbol], mark, *closes_known, market.session, day_unknown))
        return inputs

    def missing_closes(self, now: datetime) -> list[Gap]:
        """Return which closes the figures lack, of the book as it was last read."""
        dates, source = self._dates(self._hours.session_date(now), now), self._closes()
        needed = sorted(needed_closes(self._book, dates))
        return [Gap(symbol, session) for symbol, session in needed if source.close(symbol, session) is None]

    def _dates(self, session: date, now: datetime) -> SessionDates:
        return SessionDates(session, self._hours.previous_session(session), self._hours.last_completed_session(now))

    def _closes_of(self, book: Book, session: date, now: datetime) -> DayCloses:
        """Return what the closing prices say of the book; worked out anew when either or the date has changed."""
        dates, source = self._dates(session, now), self._closes()
        if not self._day_closes.is_of(book, source, dates):
            self._day_closes = day_closes(book, source, dates)
        return self._day_closes

    def _mark(self, position: Position, closes: SymbolCloses, feed: LiveFeed | None, moment: _Moment) -> Mark:
        prices, symbol = self._prices, position.symbol
        price = prices.price(symbol)
        price = None if price is None or not self._may_mark(price) else _usable(price, closes, moment)
        word = FeedWord.NOTHING if price is None else word_of(feed, price, moment.day_began)
        # While it is vouched for, nobody asks until when it was: nearly every row is, and looking it up costs. A quote
        # of an earlier day is not young because its connection was vouched for until this one.
        is_of_today = price is not None and price.timestamp >= moment.day_began
        last_vouched_at = prices.last_vouched_at(symbol) if is_of_today and word is not FeedWord.VOUCHED else None
        if last_vouched_at is not None:
            last_vouched_at += moment.clock_offset
        return choose_mark(
            price,
            word=word,
            last_vouched_at=last_vouched_at,
            close=closes.close,
            market=moment.market,
            now=moment.now,
            rules=self._rules.marks,
            is_short=position.qty < 0,
            session=moment.session,
        )


def _unclassified(book: Book) -> tuple[UnclassifiedCash, ...]:
    return tuple(
        UnclassifiedCash(
            one.adjustment_id.removeprefix("activity:"),
            one.reason.partition(":")[0],
            None if one.symbol == ACCOUNT_WIDE else one.symbol,
            rounded_money(one.amount or ZERO),
            one.effective_at.astimezone(NEW_YORK).date(),
        )
        for one in book.unclassified
    )


def _usable(price: Price, closes: SymbolCloses, moment: _Moment) -> Price | None:
    """Return what of `price` may be used.

    Nothing of it after a split or a rename, and no last trade of an earlier day or stamped far ahead.
    """
    if closes.reshaped_at is not None and price.timestamp < closes.reshaped_at:
        return None
    if closes.todays_ratio is not None and closes.is_before_todays_split(price.mid):
        return None
    if price.last is None:
        return price
    traded_at = price.last_timestamp
    since = moment.day_began if closes.reshaped_at is None else max(moment.day_began, closes.reshaped_at)
    if traded_at is None or traded_at < since or is_ahead(traded_at, moment.now):
        return replace(price, last=None, last_timestamp=None, last_size=None)
    return price


def _clock_s() -> float:
    return asyncio.get_running_loop().time()
