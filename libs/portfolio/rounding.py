"""How figures are written: money to the cent, percentages to 4 decimals, prices to 9 at most, all half to even."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from libs.portfolio.fills import EXACT

CENT: Final = Decimal("0.01")
PCT_STEP: Final = Decimal("0.0001")
PRICE_STEP: Final = Decimal("1e-9")

_ONE: Final = Decimal(1)
# The same digits as EXACT, with nothing trapped but nonsense: rounding is what it is for.
_ROUND: Final = Context(prec=EXACT.prec, rounding=ROUND_HALF_EVEN)


def rounded_money(amount: Decimal) -> Decimal:
    """Return USD to the cent, half to even, and never -0.00."""
    return rounded_to(amount, CENT)


def rounded_price(price: Decimal | None) -> Decimal | None:
    """Return a price with at least 2 and at most 9 decimals; None stays None."""
    if price is None:
        return None
    in_cents = price.quantize(CENT, None, _ROUND)
    if in_cents == price:
        return in_cents
    rounded = price.quantize(PRICE_STEP, None, _ROUND)
    # What is whole cents only after this rounding keeps its two decimals.
    return in_cents if in_cents == rounded else rounded.normalize(_ROUND)


def plain_number(number: Decimal) -> Decimal:
    """Return the same number as people write it: 100, not 1E+2 nor 100.000000000; 0.5, not 0.500."""
    whole = number.quantize(_ONE, None, _ROUND)
    return whole if whole == number else number.normalize(_ROUND)


def rounded_to(amount: Decimal, step: Decimal) -> Decimal:
    """Return `amount` in whole steps, half to even, and never -0."""
    rounded = amount.quantize(step, None, _ROUND)
    # A lost fraction of a cent must not leave -0.00 behind.
    return rounded or rounded.copy_abs()
