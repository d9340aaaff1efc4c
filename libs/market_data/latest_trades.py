"""The last eligible trade of every symbol: newest by arrival, with the venue's corrections and cancels applied.

A short history of each symbol lets the last roll back when it is taken back. Bounded by the number of symbols.
Pure: never waits, never reads a clock. Whether the last price marks a position is the reader's business.
"""

from collections import deque
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from libs.market_data.quotes import QuoteOrigin
from libs.market_data.trades import (
    Ineligible,
    Trade,
    TradeCancel,
    TradeCorrection,
    TradeEvent,
    TradesInterrupted,
    why_ineligible,
)

# Venues' clocks differ, so arrival order decides, unless a trade is behind by more than clocks can explain.
LATE_TOLERANCE: Final = timedelta(seconds=2)
HISTORY: Final = 64
"""Eligible trades kept per symbol, the oldest goes first; when all that are kept are taken back, no last is known."""
_WITHDRAWN: Final = 16


@dataclass(slots=True)
class _History:
    """The newest eligible trades of one symbol by exchange and id, in order of arrival, and the ids last taken back."""

    trades: dict[Hashable, Trade] = field(default_factory=dict)
    newest_time: datetime | None = None
    withdrawn: deque[Hashable] = field(default_factory=lambda: deque(maxlen=_WITHDRAWN))

    @property
    def last(self) -> Trade | None:
        return self.trades[next(reversed(self.trades))] if self.trades else None

    def append(self, trade: Trade) -> None:
        """Make `trade` the last. Ids begin anew every day: an earlier trade of the same id gives way."""
        key = _key(trade)
        self.trades.pop(key, None)
        self.trades[key] = trade
        if len(self.trades) > HISTORY:
            del self.trades[next(iter(self.trades))]

    def has(self, trade: Trade) -> bool:
        kept = self.trades.get(_key(trade))
        return kept is not None and kept.timestamp == trade.timestamp

    def substitute(self, key: Hashable, trade: Trade) -> None:
        """Put `trade` where that of `key` stands."""
        self.trades = {
            _key(trade) if each == key else each: trade if each == key else kept for each, kept in self.trades.items()
        }


@dataclass(slots=True)
class LatestTrades:
    """The last eligible trade per symbol. `corrected` and `cancelled` count those that changed what was kept."""

    accepted: int = 0
    corrected: int = 0
    cancelled: int = 0
    _histories: dict[str, _History] = field(default_factory=dict)

    def take(self, event: TradeEvent) -> Ineligible | None:
        """Take in what the stream or REST told; return why a trade cannot be the last, else None.

        A correction or a cancel of a trade that is not kept changes nothing.
        """
        match event:
            case Trade():
                return self._put(event)
            case TradeCancel():
                self._cancel(event)
            case TradeCorrection():
                self._correct(event)
            case TradesInterrupted():
                self._interrupt(event.symbols)
            case _:
                assert_never(event)
        return None

    def last(self, symbol: str) -> Trade | None:
        """Return the last eligible trade; None when none is known, or all that were are taken back."""
        history = self._histories.get(symbol)
        return None if history is None else history.last

    @property
    def symbols(self) -> Collection[str]:
        """The symbols of which anything was told."""
        return self._histories.keys()

    def keep_only(self, symbols: Collection[str]) -> None:
        """Forget every symbol but these: nobody wants the others any more."""
        self._interrupt([symbol for symbol in self._histories if symbol not in symbols])

    def _put(self, trade: Trade) -> Ineligible | None:
        if (refusal := why_ineligible(trade)) is not None or trade.timestamp is None:
            return refusal
        # A venue's clock may run ahead; what it claims of the future must not make everything after it look late.
        time = min(trade.timestamp, trade.received_at)
        history = self._of(trade.symbol)
        judge = _why_not_fetched if trade.origin is QuoteOrigin.REST else _why_not_streamed
        if (refusal := judge(history, trade, time)) is not None:
            return refusal
        if history.newest_time is None or time > history.newest_time:
            history.newest_time = time
        history.append(trade)
        self.accepted += 1
        return None

    def _cancel(self, cancel: TradeCancel) -> None:
        history, key = self._of(cancel.symbol), (cancel.exchange, cancel.trade_id)
        history.withdrawn.append(key)
        if history.trades.pop(key, None) is not None:
            self.cancelled += 1

    def _correct(self, correction: TradeCorrection) -> None:
        """Let the corrected trade stand in the original's place, at the original's time; out if it is ineligible."""
        corrected = correction.corrected
        history, key = self._of(corrected.symbol), (corrected.exchange, correction.original_id)
        if key != _key(corrected):
            history.withdrawn.append(key)
        original = history.trades.get(key)
        if original is None:
            return
        self.corrected += 1
        corrected = replace(corrected, timestamp=original.timestamp, received_at=original.received_at)
        if why_ineligible(corrected) is None:
            history.substitute(key, corrected)
        else:
            del history.trades[key]

    def _interrupt(self, symbols: Collection[str] | None) -> None:
        for symbol in list(self._histories) if symbols is None else symbols:
            self._histories.pop(symbol, None)

    def _of(self, symbol: str) -> _History:
        history = self._histories.get(symbol)
        if history is None:
            history = self._histories[symbol] = _History()
        return history


def _key(trade: Trade) -> Hashable:
    """Return by what the venue will name the trade; for one without an id, something it will never name."""
    return object() if trade.trade_id is None else (trade.exchange, trade.trade_id)


def _why_not_streamed(history: _History, trade: Trade, time: datetime) -> Ineligible | None:
    if history.has(trade):
        return Ineligible.REPEATED
    last = history.last
    if last is None or history.newest_time is None:
        return None
    if time < history.newest_time - LATE_TOLERANCE:
        if trade.received_at >= last.received_at:
            return Ineligible.OUT_OF_ORDER
        # Our own clock was set back meanwhile: start counting from what it says now.
        history.newest_time = time
    return None


def _why_not_fetched(history: _History, trade: Trade, _time: datetime) -> Ineligible | None:
    """Let a trade fetched by REST be the last only if it is newer than what the stream brought."""
    if history.has(trade):
        return Ineligible.REPEATED
    # The answer may have been made before the stream told that the trade is none.
    if _key(trade) in history.withdrawn:
        return Ineligible.WITHDRAWN
    last = history.last
    if last is None or last.timestamp is None or trade.timestamp is None:
        return None
    return None if trade.timestamp > last.timestamp else Ineligible.OLDER_THAN_STREAM
