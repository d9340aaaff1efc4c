"""What a symbol of the account stands for. The same instrument is told with and without its class, by several sources.

Decides by the symbol wherever it says enough, so that all of them come to the same.
"""

import re
from decimal import Decimal
from typing import Final

_OPTION: Final = re.compile(r"([A-Z]{1,6}|[A-Z]{1,5}[0-9])[0-9]{6}[CP][0-9]{8}")
"""OCC's form: root, date, call or put, strike in thousandths. A corporate action gives the root a digit: `AAPL1`."""
OPTION_MULTIPLIER: Final = Decimal(100)
"""An option's price is quoted per share, and a contract is for a hundred (OCC)."""
_QUOTE_CURRENCIES: Final = ("USDT", "USDC", "USD", "BTC")
"""What Alpaca trades coins against; the longer first, for `BTCUSDT` is no pair with a T."""


def canonical_symbol(symbol: str, asset_class: str | None) -> str:
    """Return a coin's symbol as `BTC/USD`, which positions and older orders write `BTCUSD`; all others as they are.

    Without the slash it would be another instrument than its own fills name, and pass for a stock.
    """
    if asset_class != "crypto" or "/" in symbol:
        return symbol
    quote = next((one for one in _QUOTE_CURRENCIES if symbol.endswith(one) and symbol != one), None)
    return symbol if quote is None else f"{symbol.removesuffix(quote)}/{quote}"


def is_option(symbol: str, asset_class: str | None = None) -> bool:
    """Say whether the symbol is an option's, or the broker's class says so (None: not told)."""
    return _OPTION.fullmatch(symbol) is not None or asset_class == "us_option"
