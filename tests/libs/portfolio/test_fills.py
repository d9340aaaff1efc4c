from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from libs.portfolio.fills import Fill, InvalidFillError, Side

FILL = Fill("f1", "AAPL", Side.BUY, Decimal(100), Decimal("150.00"), Decimal(0), datetime(2025, 10, 20, tzinfo=UTC))


def test_a_purchase_gains_shares_and_a_sale_loses_them() -> None:
    assert (FILL.signed_qty, FILL.signed_cost) == (100, 15000)
    sale = replace(FILL, side=Side.SELL)
    assert (sale.signed_qty, sale.signed_cost) == (-100, -15000)


def test_a_product_keeps_digits_that_the_default_context_would_round() -> None:
    fill = replace(FILL, qty=Decimal("123456789012.123456789"), price=Decimal("987654321.987654321"))
    assert Fraction(fill.signed_cost) == Fraction(fill.qty) * Fraction(fill.price)
    negated = replace(fill, side=Side.SELL, qty=Decimal("1234567890123456789012345.123456789"))
    assert negated.signed_qty == Decimal("-1234567890123456789012345.123456789")


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("qty", "0"),
        ("qty", "-1"),
        ("qty", "NaN"),
        ("qty", "sNaN"),
        ("qty", "Infinity"),
        ("price", "0"),
        ("price", "-0.01"),
        ("price", "NaN"),
        ("fee", "-0.01"),
        ("fee", "-Infinity"),
        ("fee", "NaN"),
    ],
)
def test_numbers_that_no_execution_can_have_are_refused_by_name(field: str, number: str) -> None:
    with pytest.raises(InvalidFillError, match=field) as caught:
        replace(FILL, **{field: Decimal(number)})
    assert caught.value.field == field


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidFillError, match="zone"):
        replace(FILL, filled_at=datetime(2025, 10, 20))  # noqa: DTZ001
