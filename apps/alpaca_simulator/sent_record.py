"""The ground truth for a check from outside: of each symbol the newest good quote that was written to a client.

Not what was made: what is muted, held back or lost with its connection was never sent. No I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from apps.alpaca_simulator.points import Quote

_OUT_OF_ORDER_NS: Final = 2_000_000_000
"""A quote further behind the newest one of its symbol is out of order, and the newest one stands."""
_WIDEST_SPREAD: Final = 0.1
_REGULAR: Final = ("R",)
_NOT_FIRM: Final = frozenset("NYZLC")


@dataclass(slots=True)
class SentQuote:
    """The newest good quote of one symbol as it went out. Clock times in seconds since 1970."""

    quote: Quote
    sent_unix_s: float
    first_sent_unix_s: float
    """When this bid and ask were first sent, with nothing else in between."""
    newest_ns: int


class SentRecord:
    """Of each symbol the last good quote that was really written."""

    def __init__(self) -> None:
        self.by_symbol: dict[str, SentQuote] = {}

    def wrote(self, quotes: Iterable[Quote | None], unix_s: float) -> None:
        """Take in what one frame held, in its order; None stands for what is not to be remembered."""
        by_symbol = self.by_symbol
        for quote in quotes:
            if quote is None or not is_good(quote):
                continue
            sent = by_symbol.get(quote.symbol)
            if sent is None:
                by_symbol[quote.symbol] = SentQuote(quote, unix_s, unix_s, quote.time_ns)
                continue
            time_ns, before = quote.time_ns, sent.quote
            if time_ns > sent.newest_ns:
                sent.newest_ns = time_ns
            elif sent.newest_ns - time_ns > _OUT_OF_ORDER_NS:
                continue
            if quote.bid_price != before.bid_price or quote.ask_price != before.ask_price:
                sent.first_sent_unix_s = unix_s
            sent.quote, sent.sent_unix_s = quote, unix_s


def is_good(quote: Quote) -> bool:
    """Say whether a client should believe the quote: two-sided, not crossed, firm, no wider than a tenth of its mid."""
    bid, ask = quote.bid_price, quote.ask_price
    return (
        0 < bid <= ask < inf
        and (ask - bid) * 2 <= _WIDEST_SPREAD * (ask + bid)
        and (quote.conditions == _REGULAR or _NOT_FIRM.isdisjoint(quote.conditions))
    )
