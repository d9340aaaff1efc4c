"""Quotes as no good venue sends them, made of good ones: each kind of fault, encoded for the wire. Pure but for dice.

A kind that a client must refuse carries prices that would show if it did not; a kind that it may take carries the
good quote's own.
"""

from enum import StrEnum
from math import inf, nan
from random import Random
from typing import Any, Final, assert_never

from apps.alpaca_simulator.market import NO_EXCHANGE
from apps.alpaca_simulator.points import Quote
from apps.alpaca_simulator.wire import Codec, encode_element, rfc3339, wire_time

_STALE_NS: Final = 60_000_000_000
_OUT_OF_ORDER_NS: Final = 5_000_000_000
_OFF: Final = 1.05
"""By what a price that must not be believed is off."""
_WIDE: Final = (0.7, 1.3)
_FIELDS: Final = ("S", "bx", "bp", "bs", "ax", "ap", "as", "c", "z", "t")
_ODD_SIZES: Final = {"bs": -100, "as": 1 << 40}
_EXTRA: Final = {"r": 1, "new": {"nested": [None, "text"]}, "": False}


class QuoteFault(StrEnum):
    """What may be wrong with a quote."""

    ONE_SIDED = "one_sided"
    CROSSED = "crossed"
    WIDE = "wide"
    STALE = "stale"
    OUT_OF_ORDER = "out_of_order"
    DUPLICATE = "duplicate"
    NULL_FIELDS = "null_fields"
    MISSING_FIELDS = "missing_fields"
    NAN = "nan"
    INFINITE = "infinite"
    NEGATIVE = "negative"
    NON_FIRM = "non_firm"
    UNKNOWN_EXCHANGE = "unknown_exchange"
    EXTRA_KEYS = "extra_keys"
    TEXT_TIME = "text_time"
    ODD_SIZES = "odd_sizes"


def choose_fault(kinds: frozenset[QuoteFault], share: float, dice: Random) -> QuoteFault | None:
    """Return what is wrong with the copy that follows the next good quote; None, and no copy, for all but `share`."""
    if not kinds or dice.random() >= share:
        return None
    return dice.choice(sorted(kinds))


def spoiled(quote: Quote, codec: Codec, fault: QuoteFault, dice: Random) -> bytes:
    """Return a spoiled copy of a two-sided quote, as an element of a data frame."""
    message = _message(quote, codec)
    match fault:
        case QuoteFault.NULL_FIELDS:
            message[dice.choice(_FIELDS)] = None
        case QuoteFault.MISSING_FIELDS:
            del message[dice.choice(_FIELDS)]
        case _:
            message |= _changes(quote, fault, codec)
    return encode_element(message, codec)


def _changes(quote: Quote, fault: QuoteFault, codec: Codec) -> dict[str, Any]:  # noqa: C901, PLR0911, PLR0912 - a table
    """Return the fields that a fault replaces or adds."""
    bid, ask = quote.bid_price, quote.ask_price
    off = {"bp": round(bid * _OFF, 4), "ap": round(ask * _OFF, 4)}
    match fault:
        case QuoteFault.ONE_SIDED:
            return {"bp": off["bp"], "ap": 0.0, "as": 0, "ax": NO_EXCHANGE}
        case QuoteFault.CROSSED:
            return {"bp": off["ap"], "ap": round(bid / _OFF, 4)}
        case QuoteFault.WIDE:
            return {"bp": round(bid * _WIDE[0], 4), "ap": round(ask * _WIDE[1] * _OFF, 4)}
        case QuoteFault.STALE:
            return {**off, "t": wire_time(quote.time_ns - _STALE_NS, codec)}
        case QuoteFault.OUT_OF_ORDER:
            return {**off, "t": wire_time(quote.time_ns - _OUT_OF_ORDER_NS, codec)}
        case QuoteFault.NAN:
            return {"bp": nan, "ap": off["ap"]}
        case QuoteFault.INFINITE:
            return {"bp": off["bp"], "ap": inf}
        case QuoteFault.NEGATIVE:
            return {"bp": -bid, "ap": off["ap"]}
        case QuoteFault.NON_FIRM:
            return {**off, "c": ["N"]}
        case QuoteFault.UNKNOWN_EXCHANGE:
            return {"bx": "?", "ax": "\N{GREEK SMALL LETTER OMEGA}"}
        case QuoteFault.EXTRA_KEYS:
            return dict(_EXTRA)
        case QuoteFault.TEXT_TIME:
            # Text where MessagePack has its own type; JSON's times are text, so there the zone is missing.
            return {"t": rfc3339(quote.time_ns).removesuffix("Z" if codec is Codec.JSON else "")}
        case QuoteFault.ODD_SIZES:
            return dict(_ODD_SIZES)
        case QuoteFault.DUPLICATE | QuoteFault.NULL_FIELDS | QuoteFault.MISSING_FIELDS:
            return {}
        case _:
            assert_never(fault)


def _message(quote: Quote, codec: Codec) -> dict[str, Any]:
    return {
        "T": "q", "S": quote.symbol,
        "bx": quote.bid_exchange, "bp": quote.bid_price, "bs": quote.bid_size,
        "ax": quote.ask_exchange, "ap": quote.ask_price, "as": quote.ask_size,
        "c": list(quote.conditions), "z": quote.tape, "t": wire_time(quote.time_ns, codec),
    }  # fmt: skip
