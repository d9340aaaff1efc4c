"""Which texts name a symbol that can be subscribed. Everything that takes a symbol from outside comes through here."""

import re
from typing import Final

WILDCARD: Final = "*"
TEST_SYMBOL: Final = "FAKEPACA"
"""The one symbol of Alpaca's test stream; longer than a real ticker may be."""

_SYMBOL = re.compile(r"[A-Z][A-Z0-9]{0,5}([.-][A-Z0-9]{1,4})?|FAKEPACA")


class MalformedSymbolError(ValueError):
    """The text names no symbol that can be subscribed. Asking again does not help."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(
            f"malformed symbol {text[:40]!r}: expected 1 to 6 letters and digits beginning with a letter, "
            "optionally a class suffix such as BRK.B"
        )


def is_symbol(text: str) -> bool:
    """Say whether `text` is a symbol in its normal, upper-case form."""
    return _SYMBOL.fullmatch(text) is not None


def parse_symbol(text: str) -> str:
    """Return the upper-cased symbol that `text` names: `brk.b` gives `BRK.B`.

    Raises MalformedSymbolError for anything else, white space and `*` included.
    """
    symbol = text.upper()
    # upper() may lengthen or fold exotic letters into ASCII ("ß" gives "SS"): only ASCII is ever a symbol.
    if not text.isascii() or not is_symbol(symbol):
        raise MalformedSymbolError(text)
    return symbol
