from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.portfolio.fills import EXACT, ZERO, Fill
from libs.portfolio.positions import COST_STEP, Position, apply_fill, fold_fills
from tests.support.portfolio import OPENING, amounts, fill, fill_lists


def exact_sum(numbers: list[Decimal]) -> Decimal:
    total = ZERO
    for number in numbers:
        total = EXACT.add(total, number)
    return total


def fold(*fills: tuple[object, object]) -> Position:
    position = None
    for number, (qty, price) in enumerate(fills):
        position = apply_fill(position, fill(qty, price, filled_at=OPENING + timedelta(minutes=number)))
    assert position is not None
    return position


@pytest.mark.parametrize(
    ("fills", "qty", "cost", "realized", "average"),
    [
        ([(100, 150)], 100, 15000, 0, 150),
        ([(100, 150), (100, 160)], 200, 31000, 0, 155),
        ([(100, 150), (-40, 160)], 60, 9000, 400, 150),
        ([(100, 150), (-100, 140)], 0, 0, -1000, None),
        ([(-100, 150)], -100, -15000, 0, 150),
        ([(-100, 150), (-100, 140)], -200, -29000, 0, 145),
        ([(-100, 150), (40, 140)], -60, -9000, 400, 150),
        ([(-100, 150), (100, 160)], 0, 0, -1000, None),
        ([(100, 150), (-150, 160)], -50, -8000, 1000, 160),
        ([(-100, 150), (150, 140)], 50, 7000, 1000, 140),
        ([("0.5", 100), ("-0.2", 110)], "0.3", 30, 2, 100),
        ([(100, 150), (-100, 160), (10, 200)], 10, 2000, 1000, 200),
    ],
)
def test_average_cost(
    fills: list[tuple[object, object]], qty: object, cost: object, realized: object, average: object
) -> None:
    position = fold(*fills)
    assert position.qty == Decimal(str(qty))
    assert position.cost_basis == Decimal(str(cost))
    assert position.realized_pnl == Decimal(str(realized))
    assert position.avg_entry_price == (None if average is None else Decimal(str(average)))
    assert position.is_open is (position.qty != 0)


def test_a_third_of_a_cost_leaves_no_remainder_behind() -> None:
    position = fold((3, "3.333333333"), (-1, 4), (-1, 4), (-1, 4))
    assert (position.qty, position.cost_basis) == (0, 0)
    assert position.realized_pnl == Decimal("2.000000001")


def test_rounding_never_takes_more_cost_than_there_is() -> None:
    # 0.6e-12 of cost: closing 99 % of it would round up to a whole step and leave a long position with negative cost.
    position = fold(("0.0000001", "0.000006"), ("-0.000000099", 1))
    assert position.qty > 0
    assert position.cost_basis >= 0


def test_opened_at_follows_the_position_through_zero() -> None:
    first, second, third = (OPENING + timedelta(hours=hours) for hours in range(3))
    held = apply_fill(None, fill(10, 1, filled_at=first))
    assert held.opened_at == first
    assert apply_fill(held, fill(10, 1, filled_at=second)).opened_at == first
    assert apply_fill(held, fill(-5, 1, filled_at=second)).opened_at == first
    flat = apply_fill(held, fill(-10, 1, filled_at=second))
    assert flat.opened_at is None
    assert apply_fill(flat, fill(-1, 1, filled_at=third)).opened_at == third
    assert apply_fill(held, fill(-15, 1, filled_at=third)).opened_at == third


def test_fees_add_up_beside_the_profit() -> None:
    position = fold_fills([fill(10, 100, fee=Decimal("1.25")), fill(-10, 110, fee=Decimal("0.75"))])
    assert (position.realized_pnl, position.fees) == (100, 2)


def test_a_fill_of_another_symbol_is_refused() -> None:
    with pytest.raises(ValueError, match="MSFT"):
        fold_fills([fill(1, 1), fill(1, 1, symbol="MSFT")])


def test_no_fills_are_no_position() -> None:
    with pytest.raises(ValueError, match="no fills"):
        fold_fills([])


def test_fills_of_one_moment_apply_as_they_arrived() -> None:
    bought_first = fold_fills([fill(1, 10), fill(-1, 12), fill(-1, 14)])
    sold_first = fold_fills([fill(-1, 14), fill(1, 10), fill(-1, 12)])
    assert bought_first.cost_basis == -14
    assert sold_first.cost_basis == -12


@given(fills=fill_lists(), mark=amounts)
def test_realized_plus_unrealized_is_cash_flow_plus_value_exactly(fills: list[Fill], mark: Decimal) -> None:
    position = fold_fills(fills)
    cash_flow = exact_sum([one.signed_cost.copy_negate() for one in fills])
    value = EXACT.multiply(position.qty, mark)
    unrealized = EXACT.subtract(value, position.cost_basis)
    assert EXACT.add(position.realized_pnl, unrealized) == EXACT.add(cash_flow, value)


@given(fills=fill_lists())
def test_a_position_is_always_consistent(fills: list[Fill]) -> None:
    position = None
    for one in sorted(fills, key=lambda one: one.filled_at):
        position = apply_fill(position, one)
        assert position.cost_basis == 0 or (position.cost_basis > 0) == (position.qty > 0)
        assert (position.opened_at is None) == (not position.is_open)
        if not position.is_open:
            assert position.cost_basis == 0
            assert position.avg_entry_price is None
    assert position is not None
    assert position.qty == exact_sum([one.signed_qty for one in fills])
    assert position.fees == exact_sum([one.fee for one in fills])


@given(fills=fill_lists(), random=st.randoms(use_true_random=False))
def test_only_the_order_of_filling_counts(fills: list[Fill], random: object) -> None:
    spread = [
        fill(one.signed_qty, one.price, fee=one.fee, filled_at=one.filled_at + timedelta(microseconds=number))
        for number, one in enumerate(fills)
    ]
    shuffled = list(spread)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold_fills(shuffled) == fold_fills(spread)


@given(fills=fill_lists())
def test_a_short_is_the_mirror_of_a_long(fills: list[Fill]) -> None:
    here = fold_fills(fills)
    there = fold_fills([fill(one.signed_qty.copy_negate(), one.price, filled_at=one.filled_at) for one in fills])
    assert there.qty == here.qty.copy_negate()
    assert there.cost_basis == here.cost_basis.copy_negate()
    assert there.realized_pnl == here.realized_pnl.copy_negate()


@given(bought=st.integers(2, 1000), price=amounts, parts=st.integers(2, 12))
def test_average_survives_partial_closes(bought: int, price: Decimal, parts: int) -> None:
    position = apply_fill(None, fill(bought, price))
    part = EXACT.divide(Decimal(bought), Decimal(parts)).quantize(Decimal("1e-9"))
    for _ in range(parts - 1):
        position = apply_fill(position, fill(part.copy_negate(), price))
    if position.is_open:
        drift = EXACT.subtract(position.cost_basis, EXACT.multiply(position.qty, price))
        assert abs(drift) <= parts * COST_STEP
    assert abs(position.realized_pnl) <= parts * COST_STEP
