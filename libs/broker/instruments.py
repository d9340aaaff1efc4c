"""What a symbol of the account stands for. The same instrument is told with and without its class, by several sources.

Decides by the symbol wherever it says enough, so that all of them come to the same.
"""

import re
from typing import Final

_OPTION: Final = re.compile(r"([A-Z]{1,6}|[A-Z]{1,5}[0-9])[0-9]{6}[CP][0-9]{8}")
"""OCC's form: root, date, call or put, strike in thousandths. A corporate action gives the root a digit: `AAPL1`."""


def is_option(symbol: str, asset_class: str | None = None) -> bool:
    """Say whether the symbol is an option's, or the broker's class says so (None: not told)."""
    return _OPTION.fullmatch(symbol) is not None or asset_class == "us_option"
