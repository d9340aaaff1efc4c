"""The one form in which a symbol is known here, and which forms can be subscribed.

Everything that takes a symbol from outside comes through here, so that one instrument is one position under every name
that people, brokers and files write: `BRK/B`, `BRK-B` and `brk.b` are `BRK.B`; `btc-usd` and
`BTCUSD` are `BTC/USD`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

WILDCARD: Final = "*"
TEST_SYMBOL: Final = "FAKEPACA"
"""The one symbol of Alpaca's test stream; longer than a real ticker may be."""
QUOTE_CURRENCIES: Final = ("USDT", "USDC", "USD", "BTC")
"""What Alpaca trades coins against; the longer first, for `BTCUSDT` is no pair with a T."""

_STREAMABLE: Final = re.compile(r"[A-Z][A-Z0-9]{0,5}((\.[A-Z0-9]{1,4}){0,2}|-[A-Z0-9]{1,4})|FAKEPACA")
_CLASS: Final = re.compile(r"([A-Z][A-Z0-9]{0,5}(?:\.[A-Z0-9]{1,4})?)[/-]([A-Z])")
"""A class of shares is one letter: `BRK/B`, and `ABC.WS/A` for the warrants of a series."""
_COIN_PAIR: Final = re.compile(rf"([A-Z0-9]{{1,16}})[/-]({'|'.join(QUOTE_CURRENCIES)})")
_JOINED_PAIR: Final = re.compile(rf"(?=.{{6}})([A-Z0-9]{{2,16}})({'|'.join(QUOTE_CURRENCIES)})")
"""A pair without its slash, as the account writes it beside the other. No ticker of a stock has six characters."""


class MalformedSymbolError(ValueError):
    """The text names no symbol that can be subscribed. Asking again does not help."""

    def __init__(self, text: str) -> None:
        self.text = text
        if is_coin_pair(normal_symbol(text)):
            problem = f"{normal_symbol(text)} is a coin pair, which is held and valued, but not streamed"
        else:
            problem = (
                f"malformed symbol {text[:40]!r}: expected 1 to 6 letters and digits beginning with a letter, "
                "optionally with suffixes such as BRK.B or ABC.WS.A"
            )
        super().__init__(problem)


@lru_cache(maxsize=16_384)  # the same few are asked about again and again
def normal_symbol(text: str) -> str:
    """Return the form in which the instrument that `text` names is known here, upper-cased. Never raises.

    What is neither a class nor a coin pair stays as it is written: an option, or a form nobody knows yet.
    """
    # upper() may lengthen or fold exotic letters into ASCII ("ß" gives "SS"): only ASCII is ever a symbol.
    if not text.isascii():
        return text
    symbol = text.upper()
    if named := _CLASS.fullmatch(symbol):
        return f"{named[1]}.{named[2]}"
    if named := _COIN_PAIR.fullmatch(symbol) or _JOINED_PAIR.fullmatch(symbol):
        return f"{named[1]}/{named[2]}"
    return symbol


def spellings(symbol: str) -> Sequence[str]:
    """Return every upper-case text whose normal form is `symbol`, itself first: older records may hold any of them."""
    if is_coin_pair(symbol):
        others = [symbol.replace("/", mark) for mark in ("-", "")]
    else:
        base, _, suffix = symbol.rpartition(".")
        others = [f"{base}{mark}{suffix}" for mark in "/-"]
    return [symbol, *(other for other in others if normal_symbol(other) == symbol)]


@lru_cache(maxsize=16_384)
def is_symbol(text: str) -> bool:
    """Say whether `text` is a symbol that can be subscribed, in its normal form."""
    return _STREAMABLE.fullmatch(text) is not None and normal_symbol(text) == text


def is_coin_pair(text: str) -> bool:
    """Say whether `text` is a pair of coins, or of a coin and a currency, in its normal form."""
    return "/" in text and _COIN_PAIR.fullmatch(text) is not None


def parse_symbol(text: str) -> str:
    """Return the normal form of the symbol that `text` names: `brk/b` gives `BRK.B`.

    Raises MalformedSymbolError for anything that cannot be subscribed, white space, coin pairs and `*` included.
    """
    symbol = normal_symbol(text)
    if not is_symbol(symbol):
        raise MalformedSymbolError(text)
    return symbol
