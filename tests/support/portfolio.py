"""Fills for tests: a short way to write one, and hypothesis strategies for any of them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import strategies as st

from libs.portfolio.fills import Fill, Side

OPENING = datetime(2025, 10, 20, 13, 30, tzinfo=UTC)


def fill(signed_qty: object, price: object, **fields: object) -> Fill:
    """Write a fill as signed shares at a price; bought when positive."""
    qty = Decimal(str(signed_qty))
    known = {"fill_id": "f", "symbol": "AAPL", "fee": Decimal(0), "filled_at": OPENING} | fields
    side = Side.BUY if qty > 0 else Side.SELL
    return Fill(side=side, qty=qty.copy_abs(), price=Decimal(str(price)), **known)  # type: ignore[arg-type]


amounts = st.decimals("0.000000001", "1000000000", places=9)
fees = st.decimals("0", "100", places=4)
# Few distinct moments and sizes, so that ties, exact closes and flips through zero happen often.
moments = st.integers(0, 8).map(lambda minutes: OPENING + timedelta(hours=minutes * 7))
quantities = st.integers(1, 5).map(Decimal) | st.decimals("0.000000001", "3", places=9) | amounts


@st.composite
def fill_lists(draw: st.DrawFn, *, symbols: tuple[str, ...] = ("AAPL",), max_size: int = 15) -> list[Fill]:
    """Draw fills with ids of their own, in the order of arrival."""
    size = draw(st.integers(1, max_size))
    return [
        Fill(
            f"f{number}",
            draw(st.sampled_from(symbols)),
            draw(st.sampled_from(Side)),
            draw(quantities),
            draw(amounts),
            draw(fees),
            draw(moments),
        )
        for number in range(size)
    ]
