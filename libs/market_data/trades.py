"""A trade as the venue reported it, and the one decision about it: may it be the last price, and if not, why.

Knows nothing of order, corrections or Redis; `latest_trades.py` decides which trade of a symbol is the last.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from libs.market_data.clock_lead import is_ahead
from libs.market_data.quotes import QuoteOrigin


class Ineligible(StrEnum):
    """Why a trade may not be the last price. The text is what `/health` and the metrics show."""

    UNTIMED = "untimed"
    AHEAD = "ahead"
    PRICE = "price"
    CONDITION = "condition"
    OUT_OF_ORDER = "out_of_order"
    OLDER_THAN_STREAM = "older_than_stream"
    REPEATED = "repeated"
    WITHDRAWN = "withdrawn"


@dataclass(slots=True)
class Trade:
    """One trade of one symbol, in USD per share and in shares.

    The price stays the binary float of the wire; `Decimal(repr(x))` gives back the digits that were sent.
    `trade_id` is the venue's: unique with symbol and exchange on one day. None: it cannot be corrected or cancelled.
    `timestamp` is the venue's clock (None: none was sent, or unreadable), `received_at` ours, both aware UTC.
    `conditions` are the sale conditions; `tape` is A, B, C, N or O.

    Treat it as frozen. It is not declared so because there is one per tick, and a frozen dataclass costs
    three times as much to build.
    """

    symbol: str
    trade_id: int | None
    exchange: str | None
    price: float | None
    size: float | None
    conditions: tuple[str, ...]
    tape: str | None
    timestamp: datetime | None
    received_at: datetime
    origin: QuoteOrigin = QuoteOrigin.STREAM


@dataclass(frozen=True, slots=True)
class TradeCancel:
    """The venue takes a trade back: it was cancelled, or an error."""

    symbol: str
    trade_id: int
    exchange: str | None


@dataclass(frozen=True, slots=True)
class TradeCorrection:
    """The venue corrects the trade of `original_id`. `corrected` is what it should have been, with its own id."""

    original_id: int
    corrected: Trade


@dataclass(frozen=True, slots=True)
class TradesInterrupted:
    """From here on trades of these symbols may have been missed: no last price of them is known.

    `symbols` None means all.
    """

    symbols: frozenset[str] | None = None


TradeEvent = Trade | TradeCancel | TradeCorrection | TradesInterrupted

_BOTH_PLANS: Final = frozenset(
    "@ "  # regular sale
    "F"  # intermarket sweep
    "K"  # rule 127 or rule 155 trade
    "L"  # sold last: reported late, but in its place
    "O"  # market centre's opening trade
    "T"  # extended hours, form T: see below
    "X"  # cross or periodic auction trade
    "56"  # market centre's reopening and closing trade
    "8"  # placeholder of the trade-through exemption
    "9"  # corrected consolidated close
)
_CTA: Final = _BOTH_PLANS | frozenset("E")  # automatic execution
_UTP: Final = _BOTH_PLANS | frozenset("ABDSY1")  # acquisition, bunched, distribution, split, yellow flag, stopped stock
UPDATES_LAST_BY_TAPE: Final = {"A": _CTA, "B": _CTA, "C": _UTP, "O": _UTP}
"""The sale conditions with which a trade is the consolidated last price, by tape; one other makes it ineligible.

Our reading of what the two plans call "update last" (the processing guidelines of the CTS output specification and of
the UTP trade data feed specification, which Alpaca says it follows), checked against public lists of exclusions, not
against the plans' own text. No last price: average price (B by CTA, W by UTP), cash (C), bunched sold (G), price
variation (H), odd lot (I), official close and open (M, Q: figures, no trades), next day (N), prior reference price (P),
seller (R), extended hours sold out of sequence (U), contingent (V, 7), sold out of sequence (Z), derivatively priced
(4). The plans let G, P, Z and 4 be the last while the day has no other; here they never are. A condition that a plan
does not know is not trusted.

One difference is meant: by the plans form T (T) does not update the last. It names a trade outside the regular session,
when there is no other kind, and brokers mark with it; so here it is eligible (an odd one, T with I, is not).
"""
_ANY_PLAN: Final = _CTA & _UTP
"""A tape that neither plan governs is read with what both let pass: B is an average price by one of them."""

_LEAST_PRICE: Final = 1e-6
_GREATEST_PRICE: Final = 1e9


def why_ineligible(trade: Trade) -> Ineligible | None:
    """Return why `trade` may not be the last price of its symbol, or None when it may."""
    price = trade.price
    if trade.timestamp is None:
        return Ineligible.UNTIMED
    if is_ahead(trade.timestamp, trade.received_at):
        return Ineligible.AHEAD
    # Also false for NaN, and for both infinities.
    if price is None or not _LEAST_PRICE <= price <= _GREATEST_PRICE:
        return Ineligible.PRICE
    eligible = UPDATES_LAST_BY_TAPE.get(trade.tape or "", _ANY_PLAN)
    if not eligible.issuperset(trade.conditions):
        return Ineligible.CONDITION
    return None
