"""A quote as the venue sent it, and the one decision about it: may it mark a position, and if not, why.

Knows nothing of order, symbols wanted or Redis; `latest_quotes.py` decides which of two quotes is the newer.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Final, Self

from libs.market_data.clock_lead import is_ahead

if TYPE_CHECKING:
    from alpaca.data.models import Quote as SdkQuote


class QuoteOrigin(StrEnum):
    """How a quote reached us."""

    STREAM = "stream"
    REST = "rest"


class Unmarkable(StrEnum):
    """Why a quote may not mark a position. The text is what `/subscriptions` and the metrics show."""

    UNTIMED = "untimed"
    AHEAD = "ahead"
    """Stamped more than 60 s ahead of our clock: its age means nothing."""
    NOT_FINITE = "not_finite"
    ONE_SIDED = "one_sided"
    NEGATIVE = "negative"
    ABSURD = "absurd"
    CROSSED = "crossed"
    NOT_FIRM = "not_firm"
    TOO_WIDE = "too_wide"
    OUT_OF_ORDER = "out_of_order"
    OLDER_THAN_STREAM = "older_than_stream"
    MALFORMED = "malformed"


@dataclass(slots=True)
class Quote:
    """The best bid and offer of one symbol at one moment, in USD per share and in shares.

    Prices stay the binary floats of the wire; `Decimal(repr(x))` gives back the digits that were sent.
    0 means that the side has no quote (Alpaca's OpenAPI text for `bp` and `ap`), as None does: the field was absent.
    `timestamp` is the venue's clock (None: none was sent, or unreadable), `received_at` ours, both aware UTC.
    `conditions` holds one flag for both sides, or the bid's and the ask's. `tape` is A, B, C, N or O.

    Treat it as frozen. It is not declared so because there is one per tick, and a frozen dataclass costs
    three times as much to build.
    """

    symbol: str
    bid: float | None
    ask: float | None
    bid_size: float | None
    ask_size: float | None
    bid_exchange: str | None
    ask_exchange: str | None
    conditions: tuple[str, ...]
    tape: str | None
    timestamp: datetime | None
    received_at: datetime
    origin: QuoteOrigin = QuoteOrigin.STREAM

    @classmethod
    def from_sdk(cls, quote: "SdkQuote", received_at: datetime) -> Self:
        """Take over a quote of alpaca-py's model, whose times are UTC and whose sizes are in shares."""
        conditions = quote.conditions or ()
        return cls(
            symbol=quote.symbol,
            bid=quote.bid_price,
            ask=quote.ask_price,
            bid_size=quote.bid_size,
            ask_size=quote.ask_size,
            bid_exchange=_text(quote.bid_exchange),
            ask_exchange=_text(quote.ask_exchange),
            conditions=(conditions,) if isinstance(conditions, str) else tuple(conditions),
            tape=quote.tape,
            timestamp=quote.timestamp,
            received_at=received_at,
        )

    def has_same_content(self, other: "Quote") -> bool:
        """Say whether both name the same prices, sizes and venues, whatever their times."""
        return (
            self.bid == other.bid
            and self.ask == other.ask
            and self.bid_size == other.bid_size
            and self.ask_size == other.ask_size
            and self.bid_exchange == other.bid_exchange
            and self.ask_exchange == other.ask_exchange
        )


_NEVER_FIRM: Final = frozenset("NYZ")
# The CTA plan (tapes A and B) writes C for a closing quote and L for a closed market maker; the UTP plan (tapes C, O)
# writes L for closed and has no C. A tape that neither plan governs is read with both.
_CTA: Final = _NEVER_FIRM | frozenset("CL")
_UTP: Final = _NEVER_FIRM | frozenset("L")
NOT_FIRM_BY_TAPE: Final = {"A": _CTA, "B": _CTA, "C": _UTP, "O": _UTP}
"""Quote flags after which a quote marks nothing: non-firm (N), one-sided (Y), no open (Z), closed (C, L by tape)."""

_LEAST_PRICE: Final = 1e-6
_GREATEST_PRICE: Final = 1e9


def why_unmarkable(quote: Quote, max_spread_pct: float) -> Unmarkable | None:  # noqa: C901, PLR0911 - a table of refusals
    """Return why `quote` may not mark a position, or None when it may.

    `max_spread_pct` is the widest spread in percent of mid that may still mark. A locked quote (bid equals ask) may.
    """
    bid, ask = quote.bid, quote.ask
    if quote.timestamp is None:
        return Unmarkable.UNTIMED
    if is_ahead(quote.timestamp, quote.received_at):
        return Unmarkable.AHEAD
    if not bid or not ask:
        return Unmarkable.ONE_SIDED
    if not (isfinite(bid) and isfinite(ask)):
        return Unmarkable.NOT_FINITE
    if bid < 0 or ask < 0:
        return Unmarkable.NEGATIVE
    if bid < _LEAST_PRICE or ask > _GREATEST_PRICE:
        return Unmarkable.ABSURD
    if bid > ask:
        return Unmarkable.CROSSED
    conditions = quote.conditions
    if conditions and conditions != ("R",):
        not_firm = NOT_FIRM_BY_TAPE.get(quote.tape or "", _CTA)
        if any(flag in not_firm for flag in conditions):
            return Unmarkable.NOT_FIRM
    # spread / mid > pct / 100, without the division
    if (ask - bid) * 200 > max_spread_pct * (ask + bid):
        return Unmarkable.TOO_WIDE
    return None


_SIDES_USABLE: Final = frozenset(
    {Unmarkable.ONE_SIDED, Unmarkable.TOO_WIDE, Unmarkable.NOT_FINITE, Unmarkable.NEGATIVE, Unmarkable.ABSURD}
)
"""Reasons that leave a side usable. Of a crossed quote either may be wrong, of an untimed one the age is unknown."""


def usable_sides(quote: Quote, why: Unmarkable) -> tuple[float | None, float | None]:
    """Return the bid and the ask at which `quote`, which may not mark because of `why`, could still be met."""
    if why not in _SIDES_USABLE or not NOT_FIRM_BY_TAPE.get(quote.tape or "", _CTA).isdisjoint(quote.conditions):
        return None, None
    bid, ask = _usable(quote.bid), _usable(quote.ask)
    return (None, None) if bid is not None and ask is not None and bid > ask else (bid, ask)


def _usable(side: float | None) -> float | None:
    # Also false for NaN.
    return side if side is not None and _LEAST_PRICE <= side <= _GREATEST_PRICE else None


def as_standing_quote(quote: Quote) -> Quote:
    """Return a quote as known since the venue made it: neither asking for it by REST nor a slow way makes it young."""
    if quote.timestamp is None or quote.timestamp >= quote.received_at:
        return quote
    return replace(quote, received_at=quote.timestamp)


@lru_cache(maxsize=16_384)  # the same prices come again and again
def exact(wire_float: float) -> Decimal:
    """Return the decimal number that the venue wrote: the shortest one that reads back as this float."""
    return Decimal(repr(wire_float))


def mid_price(bid: Decimal, ask: Decimal) -> Decimal:
    """Return (bid + ask) / 2 exactly."""
    return (bid + ask) / 2


def _text(exchange: object) -> str | None:
    """Take an exchange code that the SDK may have turned into an enum."""
    return None if exchange is None else str(getattr(exchange, "value", exchange))
