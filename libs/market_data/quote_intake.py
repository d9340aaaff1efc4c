"""Takes every quote that came, by the stream or by REST: counts it, asks whether it may mark, hands it on.

Trades, and what the venue says of them later, pass through it too, to handlers of their own.

Knows no connection. What a quote means for the newest price of its symbol is the handlers' business.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from libs.market_data.clock_lead import is_ahead
from libs.market_data.delivery_lag import DeliveryLag
from libs.market_data.quote_records import QuoteRecords, SymbolRecord
from libs.market_data.quotes import Quote, Unmarkable, as_standing_quote, why_unmarkable
from libs.market_data.suspect_quotes import Rejection
from libs.market_data.trades import Ineligible, Trade, TradeCancel, TradeCorrection, TradeEvent, TradesInterrupted

log = structlog.get_logger(__name__)

QuoteHandler = Callable[[Quote], object]
TradeHandler = Callable[[TradeEvent], object]
RejectionHandler = Callable[[Rejection], object]


_KINDS: Final[Mapping[type[TradeEvent], str]] = {
    Trade: "trades",
    TradeCancel: "cancels",
    TradeCorrection: "corrections",
    TradesInterrupted: "interruptions",
}
_NOT_QUOTES: Final = frozenset({"t", "c", "x", "s", "subscription", "error", "success"})
"""What a message may say in its `T` that is not a quote."""


class QuoteIntake:
    """Where quotes come in. `counts` counts what was odd, and `quotes` those that the stream brought.

    `trades` counts the trade messages by kind, and those that could not be the last price by reason.
    `delivery` measures how late the stream is. While `is_late`, its quotes count as known since the venue made them,
    not since they came.
    """

    def __init__(self, is_wanted: Callable[[str], bool], max_spread_pct: float) -> None:
        self.records = QuoteRecords(is_wanted)
        self.counts: Counter[str] = Counter()
        self.trades: Counter[str] = Counter()
        self.delivery = DeliveryLag()
        self.is_late = False
        self._max_spread_pct = max_spread_pct
        self._is_wanted = is_wanted
        self._handlers: list[QuoteHandler] = []
        self._trade_handlers: list[TradeHandler] = []
        self._rejection_handlers: list[RejectionHandler] = []

    def add_handler(self, handler: QuoteHandler) -> None:
        """Have `handler(quote)` called for every quote that may mark. Raises TypeError for a coroutine function."""
        _refuse_coroutine(handler)
        self._handlers.append(handler)

    def add_trade_handler(self, handler: TradeHandler) -> None:
        """Have `handler(event)` called for all that is told of trades. Raises TypeError for a coroutine function."""
        _refuse_coroutine(handler)
        self._trade_handlers.append(handler)

    def add_rejection_handler(self, handler: RejectionHandler) -> None:
        """Have `handler(rejection)` called for every quote that may not mark. Raises TypeError for a coroutine."""
        _refuse_coroutine(handler)
        self._rejection_handlers.append(handler)

    def take_streamed(self, quote: Quote) -> bool:
        """Take a quote that the stream brought; return whether it may mark."""
        record = self._record(quote.symbol)
        if record is None:
            return False
        record.streamed += 1
        record.streamed_at = quote.received_at
        self._note_time(record, quote)
        return self._offer(record, as_standing_quote(quote) if self.is_late else quote, quote.received_at)

    def take_fetched(self, quote: Quote) -> None:
        """Take a quote fetched by REST: known since the venue made it."""
        record = self._record(quote.symbol)
        if record is not None:
            standing = as_standing_quote(quote)
            record.fetched += 1
            record.fetched_at = standing.received_at
            self._offer(record, standing, quote.received_at)

    def take_snapshot(self, quote: Quote) -> None:
        """Take a quote fetched right after its symbol was confirmed: what the stream brings is to be newer."""
        record = self._record(quote.symbol)
        if record is not None and quote.timestamp is not None:
            record.snapshot_time = quote.timestamp
        self.take_fetched(quote)

    def take_trade(self, event: TradeEvent) -> None:
        """Take a trade, by the stream or by REST, or what the venue says of an earlier one."""
        if not isinstance(event, TradesInterrupted):
            symbol = event.corrected.symbol if isinstance(event, TradeCorrection) else event.symbol
            if not self._is_wanted(symbol):
                self.trades["unwanted"] += 1
                return
        self.trades[_KINDS[event.__class__]] += 1
        for handler in self._trade_handlers:
            try:
                outcome = handler(event)
            except Exception:
                self.counts["handler_errors"] += 1
                log.exception("trade_handler_failed", kind=type(event).__name__)
            else:
                if isinstance(outcome, Ineligible):
                    self.trades[outcome.value] += 1

    def reject_malformed(self, symbol: str | None, kind: str | None = None, arrived_at: datetime | None = None) -> None:
        """Count a message of `symbol` that could not be read; None when not even the symbol could.

        `kind` is what the message said it was, None when that could not be read either. What surely was not a quote
        says nothing of the newest one.
        """
        self.counts["unreadable_messages"] += 1
        if symbol is not None and (record := self.records.begin(symbol)):
            rejection = Rejection(symbol, Unmarkable.MALFORMED, arrived_at or datetime.now(UTC))
            if kind in _NOT_QUOTES:
                self.records.reject(record, Unmarkable.MALFORMED)
            else:
                self._reject(record, rejection)

    def _note_time(self, record: SymbolRecord, quote: Quote) -> None:
        """Note when the venue made a streamed quote. The same time again, as of a replayed quote, is no news."""
        made_at = quote.timestamp
        if made_at is None or made_at == record.streamed_time:
            return
        self.delivery.note(made_at, quote.received_at)
        if not is_ahead(made_at, quote.received_at):
            record.streamed_time = made_at

    def _record(self, symbol: str) -> SymbolRecord | None:
        record = self.records.begin(symbol)
        if record is None:
            # A few points may still arrive after an unsubscribe: they must not bring a dropped symbol back.
            self.counts["quotes_unwanted"] += 1
        return record

    def _reject(self, record: SymbolRecord, rejection: Rejection) -> None:
        self.records.reject(record, rejection.reason)
        for handler in self._rejection_handlers:
            try:
                handler(rejection)
            except Exception:
                self.counts["handler_errors"] += 1
                log.exception("rejection_handler_failed", symbol=rejection.symbol)

    def _offer(self, record: SymbolRecord, quote: Quote, arrived_at: datetime) -> bool:
        """Hand the quote to the handlers if it may mark; say whether it may. Never raises for what it holds."""
        refusal = why_unmarkable(quote, self._max_spread_pct)
        if refusal is not None:
            self._reject(record, Rejection(quote.symbol, refusal, arrived_at, quote))
            return False
        for handler in self._handlers:
            try:
                outcome = handler(quote)
            except Exception:
                self.counts["handler_errors"] += 1
                log.exception("quote_handler_failed", symbol=quote.symbol)
            else:
                if isinstance(outcome, Unmarkable):
                    self._reject(record, Rejection(quote.symbol, outcome, arrived_at, quote))
        return True


def _refuse_coroutine(handler: Callable[..., object]) -> None:
    if inspect.iscoroutinefunction(handler):
        raise TypeError("a handler must not wait: register a plain function that hands over what it gets")
