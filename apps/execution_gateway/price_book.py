"""Decides which price of a symbol is the newest, and what the last heartbeats say of it. Pure: time is an argument.

It holds what the gateway has heard; whether a price may be called real-time is decided in `freshness.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from apps.execution_gateway.clock_alignment import ClockAlignment
from libs.market_data.clock_lead import is_ahead
from libs.market_data.freshness import can_vouch, is_doubted, is_fresh
from libs.market_data.prices import FeedStatus, Price

MAX_SYMBOLS: Final = 20_000
"""Prices held at most (a wildcard subscription publishes every listed symbol). Overflow: the longest held goes."""


class Verdict(StrEnum):
    """What became of an offered price."""

    ACCEPTED = "accepted"
    GAP = "gap"
    """Not accepted: messages before it were lost, or it is not what it claims to be. The key tells which."""
    UNCHANGED = "unchanged"
    OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class _Vouched:
    """Until when a link of this epoch vouched for a symbol."""

    epoch: str
    at: datetime


class PriceBook:
    """The newest price per symbol and the state of the feed, as far as this process has heard.

    Order: `offer` prices and `hear` heartbeats as they arrive; `forget_feed` when the heartbeats have stopped.
    """

    def __init__(self, max_symbols: int = MAX_SYMBOLS) -> None:
        self._max_symbols = max_symbols
        self._prices: dict[str, Price] = {}
        self._known_at_s: dict[str, float] = {}
        """When each held price arrived as a message, or its key was asked for."""
        self._unconfirmed: set[str] = set()
        """Symbols whose held price came as a message and has not been found under its key since."""
        self._feed: FeedStatus | None = None
        self._heard_at: datetime | None = None
        self._last_feed: FeedStatus | None = None
        self._vouching: FeedStatus | None = None
        self._vouched_at: datetime | None = None
        self._vouched_until: dict[str, _Vouched] = {}
        self.alignment = ClockAlignment()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._prices)

    def price(self, symbol: str) -> Price | None:
        """Return the newest price of `symbol`; None when none was heard."""
        return self._prices.get(symbol)

    @property
    def feed(self) -> FeedStatus | None:
        """The newest status of the feed; None when nothing is known of it (never heard, or fallen silent)."""
        return self._feed

    @property
    def last_feed(self) -> FeedStatus | None:
        """The last status ever heard, however long ago; None before the first."""
        return self._last_feed

    @property
    def heard_at(self) -> datetime | None:
        """When the last heartbeat came; kept when the feed has fallen silent."""
        return self._heard_at

    def offer(self, price: Price, *, is_live: bool, now: datetime | None = None, at_s: float | None = None) -> Verdict:
        """Keep `price` if it is newer than what is held of its symbol.

        `is_live` says that it came as a message just published, not from its key: only messages can show a gap.
        By `now` a held price is known to be stamped far ahead: it holds up no other. None: times are believed.
        `at_s` is when the message arrived or the key was asked for, by one steady clock; None when that is not known.
        """
        held = self._prices.get(price.symbol)
        if held is None:
            self._make_room()
            self._keep(price, is_live=is_live, at_s=at_s)
            return Verdict.ACCEPTED
        if _is_same(held, price):
            return Verdict.UNCHANGED
        if is_live and _has_gap(held, price):
            return Verdict.GAP
        is_read_later = not is_live and self._is_asked_later(price, held, at_s)
        if not (self._is_newer(price, held) or is_read_later or _gives_way(held, price, self._aligned(now))):
            return Verdict.OUTDATED
        self._keep(price, is_live=is_live, at_s=at_s)
        return Verdict.ACCEPTED

    def unconfirmed(self, symbols: Collection[str], before_s: float) -> list[str]:
        """Return those of `symbols` whose price came as a message before `before_s` and whose key was not read since.

        A message that was never written under the key is a forgery or another program's: only the key tells.
        """
        unconfirmed, known_at_s = self._unconfirmed, self._known_at_s
        return [symbol for symbol in symbols if symbol in unconfirmed and known_at_s.get(symbol, 0.0) < before_s]

    def confirm(self, symbols: Collection[str], asked_at_s: float) -> None:
        """Note that the keys of `symbols` were asked for at `asked_at_s` and what they held has been offered."""
        known_at_s = self._known_at_s
        for symbol in self._unconfirmed.intersection(symbols):
            if known_at_s.get(symbol, 0.0) < asked_at_s:
                self._unconfirmed.discard(symbol)

    def forget_price(self, symbol: str) -> None:
        """Forget the price of `symbol`: whether it is the newest is not known."""
        if symbol in self._prices:
            self._forget(symbol)

    def _aligned(self, now: datetime | None) -> datetime | None:
        return None if now is None else now + self.alignment.offset

    def keep_only(self, symbols: Collection[str]) -> None:
        """Forget the prices of all other symbols: what was missed of them is not known."""
        for symbol in [symbol for symbol in self._prices if symbol not in symbols]:
            self._forget(symbol)

    def hear(self, status: FeedStatus, heard_at: datetime) -> bool:
        """Take in a heartbeat; return whether it says anything new."""
        is_news = self._feed != status
        self._feed = self._last_feed = status
        self._heard_at = heard_at
        if can_vouch(status):
            self._close_vouching(except_for=status)
            self._vouching, self._vouched_at = status, heard_at
        return is_news

    def forget_feed(self) -> bool:
        """Say that the heartbeats have stopped: nothing is known of the feed. Return whether anything was."""
        was_known = self._feed is not None
        self._feed = None
        return was_known

    def is_silent(self, now: datetime) -> bool:
        """Say whether the last heartbeat is too long ago to believe that its writer lives."""
        return self._heard_at is None or not is_fresh(self._heard_at, now)

    def last_vouched_at(self, symbol: str) -> datetime | None:
        """Return until when a live link vouched for the price held of `symbol`, or called it halted; None when never.

        A quiet quote is vouched for by heartbeats, not by newer quotes: its time as a stale price begins here.
        """
        price = self._prices.get(symbol)
        if price is None or price.epoch is None:
            return None
        vouching = self._vouching
        if vouching is not None and vouching.epoch == price.epoch and _covers(vouching, symbol):
            return self._vouched_at
        until = self._vouched_until.get(symbol)
        return until.at if until is not None and until.epoch == price.epoch else None

    def _is_newer(self, price: Price, held: Price) -> bool:
        # A price without an epoch is another program's: only times can order it.
        if price.epoch is not None and held.epoch is not None:
            if price.epoch == held.epoch:
                if price.seq is not None and held.seq is not None and price.seq != held.seq:
                    return price.seq > held.seq
            elif self._feed is not None and self._feed.epoch in {price.epoch, held.epoch}:
                # Epochs carry no order of their own, but the feed says which one is the present one.
                return price.epoch == self._feed.epoch
        # The same quote, or an equal time: the later arrival wins, as everywhere.
        return price.timestamp == held.timestamp or price.known_since >= held.known_since

    def _is_asked_later(self, price: Price, held: Price, at_s: float | None) -> bool:
        """Say whether `price` stood under its key after `held` was known.

        The writer sets the key before it publishes. So the key of the present connection is right where it differs
        from what arrived before it was asked for; and of two prices without a connection the one read later is.
        """
        known_at_s = self._known_at_s.get(price.symbol)
        if at_s is None or known_at_s is None or at_s <= known_at_s:
            return False
        feed = self._feed or self._last_feed
        is_of_present = feed is not None and price.epoch is not None and price.epoch == feed.epoch
        return is_of_present or (price.epoch is None and held.epoch is None)

    def _keep(self, price: Price, *, is_live: bool, at_s: float | None) -> None:
        symbol = price.symbol
        self._prices[symbol] = price
        if at_s is None:
            self._known_at_s.pop(symbol, None)
        else:
            self._known_at_s[symbol] = at_s
        if is_live:
            self._unconfirmed.add(symbol)
        else:
            self._unconfirmed.discard(symbol)

    def _make_room(self) -> None:
        if len(self._prices) >= self._max_symbols:
            self._forget(next(iter(self._prices)))
            self.evicted += 1

    def _forget(self, symbol: str) -> None:
        del self._prices[symbol]
        self._known_at_s.pop(symbol, None)
        self._unconfirmed.discard(symbol)
        self._vouched_until.pop(symbol, None)

    def _close_vouching(self, except_for: FeedStatus) -> None:
        """Note for every symbol that `except_for` no longer vouches for until when it was vouched for."""
        old, at = self._vouching, self._vouched_at
        if old is None or at is None or old.epoch is None:
            return
        is_same_link = old.epoch == except_for.epoch
        is_no_less = old.symbols <= except_for.symbols and old.halted <= except_for.halted
        if is_same_link and is_no_less and except_for.doubted <= old.doubted:
            return
        for symbol in self._prices if "*" in old.symbols else old.symbols:
            if not _covers(old, symbol) or (is_same_link and _covers(except_for, symbol)):
                continue
            price = self._prices.get(symbol)
            if price is not None and price.epoch == old.epoch:
                self._vouched_until[symbol] = _Vouched(old.epoch, at)


def _gives_way(held: Price, price: Price, now: datetime | None) -> bool:
    """Say whether `held` is stamped far ahead of us and `price` is not: then nothing is known of which is newer."""
    return now is not None and _is_stamped_ahead(held, now) and not _is_stamped_ahead(price, now)


def _is_stamped_ahead(price: Price, now: datetime) -> bool:
    return is_ahead(max(price.timestamp, price.known_since), now)


def _is_same(one: Price, other: Price) -> bool:
    return (
        one.seq == other.seq
        and one.epoch == other.epoch
        and one.known_since == other.known_since
        and one.timestamp == other.timestamp
        and (one.mid, one.bid, one.ask) == (other.mid, other.bid, other.ask)
        and _is_as_suspect(one, other)
    )


def _is_as_suspect(one: Price, other: Price) -> bool:
    """Say whether the same is known of newer quotes that could not mark: the key tells more of them than messages."""
    return (
        one.suspect_since == other.suspect_since
        and one.suspect_reason == other.suspect_reason
        and one.suspect_quotes == other.suspect_quotes
        and one.newest_bid == other.newest_bid
        and one.newest_ask == other.newest_ask
    )


def _has_gap(held: Price, price: Price) -> bool:
    """Say whether a message is not the next one after `held`. Each connection counts from 1."""
    if price.seq is None or price.epoch is None or held.epoch is None:
        return False
    if price.epoch != held.epoch:
        return price.seq > 1
    if held.seq is None:
        return False
    # No two messages have one sequence; the key is written again under the same one, with a later time.
    is_another_with_that_seq = price.seq == held.seq and price.known_since >= held.known_since
    return is_another_with_that_seq or price.seq > held.seq + 1


def _covers(feed: FeedStatus, symbol: str) -> bool:
    """Say whether `feed`, if its link lives, vouches for `symbol` or knows it to be halted."""
    if symbol in feed.halted:
        return True
    return (symbol in feed.symbols or "*" in feed.symbols) and not is_doubted(feed, symbol)
