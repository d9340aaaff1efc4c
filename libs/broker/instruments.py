"""What a symbol of the account stands for. The same instrument is told with and without its class, by several sources.

Decides by the symbol wherever it says enough, so that all of them come to the same.
"""

import re
from decimal import Decimal
from typing import Final

from libs.market_data.symbols import QUOTE_CURRENCIES, normal_symbol

_OPTION: Final = re.compile(r"([A-Z]{1,6}|[A-Z]{1,5}[0-9])[0-9]{6}[CP][0-9]{8}")
"""OCC's form: root, date, call or put, strike in thousandths. A corporate action gives the root a digit: `AAPL1`."""
OPTION_MULTIPLIER: Final = Decimal(100)
"""An option's price is quoted per share, and a contract is for a hundred (OCC)."""


def canonical_symbol(symbol: str, asset_class: str | None) -> str:
    """Return the normal form of a symbol; a coin's is `BTC/USD`, which positions and older orders write `BTCUSD`.

    Without the slash it would be another instrument than its own fills name, and pass for a stock.
    """
    symbol = normal_symbol(symbol)
    if asset_class != "crypto" or "/" in symbol:
        return symbol
    quote = next((one for one in QUOTE_CURRENCIES if symbol.endswith(one) and symbol != one), None)
    return symbol if quote is None else f"{symbol.removesuffix(quote)}/{quote}"


def is_option(symbol: str, asset_class: str | None = None) -> bool:
    """Say whether the symbol is an option's, or the broker's class says so (None: not told)."""
    return _OPTION.fullmatch(symbol) is not None or asset_class == "us_option"
