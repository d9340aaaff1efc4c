"""How the trading host writes numbers, moments and ids: everything is a string. Pure."""

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from apps.alpaca_simulator.lots import COSTS

_MOST_PLACES: Final = 20


def number_text(number: Decimal, places: int = _MOST_PLACES) -> str:
    """Return a number without an exponent and without needless zeros, to `places` decimals at most."""
    with localcontext(COSTS):
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -places:
            number = number.quantize(Decimal(1).scaleb(-places))
        text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def moment_text(moment: datetime) -> str:
    """Return an aware moment in UTC to the microsecond: 2026-02-20T15:30:00.695569Z."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def asset_id(symbol: str) -> str:
    """Return the symbol's made-up asset id, always the same."""
    return str(uuid5(NAMESPACE_URL, f"simulated-asset:{symbol}"))
