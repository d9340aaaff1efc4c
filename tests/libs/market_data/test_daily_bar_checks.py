from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.daily_bar_checks import bar_fault, sift_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.missing_bars import BarsRequest

FRIDAY, SATURDAY, MONDAY = date(2025, 10, 31), date(2025, 11, 1), date(2025, 11, 3)
ASKED = BarsRequest(("A", "B"), (FRIDAY, MONDAY))


def bar(symbol: str, day: date, ohlc: str = "2 4 1 3", volume: int = 1000) -> DailyBar:
    return DailyBar(symbol, day, *(Decimal(price) for price in ohlc.split()), volume)


@pytest.mark.parametrize(
    ("ohlc", "fault"),
    [
        ("2 4 1 3", None),
        ("2 2 2 2", None),
        ("2 2.9 1 3", "its high 2.9 is below close 3"),
        ("5 4 1 3", "its high 4 is below open 5"),
        ("2 4 3.5 3", "its low 3.5 is above open 2"),
        ("2 4 2 1.5", "its low 2 is above close 1.5"),
        ("0 4 1 3", "its open is 0"),
        ("2 4 1 -3", "its close is -3"),
        ("2 NaN 1 3", "its high is NaN"),
        ("2 Infinity 1 3", "its high is Infinity"),
    ],
)
def test_what_no_bar_can_be(ohlc: str, fault: str | None) -> None:
    assert bar_fault(bar("A", MONDAY, ohlc)) == fault


def test_a_negative_volume() -> None:
    assert bar_fault(bar("A", MONDAY, volume=-1)) == "its volume is -1"
    assert bar_fault(bar("A", MONDAY, volume=0)) is None


positive = st.decimals(min_value="0.01", max_value="100", places=2)


@given(positive, positive, positive, positive)
def test_a_bar_is_kept_when_every_price_lies_between_low_and_high(
    open_: Decimal, high: Decimal, low: Decimal, close: Decimal
) -> None:
    kept = bar_fault(DailyBar("A", MONDAY, open_, high, low, close, 1)) is None
    assert kept == (low <= open_ <= high and low <= close <= high)


class TestAnAnswer:
    def test_one_bad_bar_costs_one_bar(self) -> None:
        sifted = sift_bars([bar("A", MONDAY, "2 1 1 3"), bar("B", MONDAY)], ASKED)
        assert sifted.usable == (bar("B", MONDAY),)
        assert sifted.refused == ("A 2025-11-03: its high 1 is below close 3",)

    def test_a_bar_of_a_day_without_a_session_is_named(self) -> None:
        sifted = sift_bars([bar("A", SATURDAY), bar("A", FRIDAY)], ASKED)
        assert sifted.usable == (bar("A", FRIDAY),)
        assert sifted.refused == ("A 2025-11-01: the market was closed that day",)

    def test_what_was_not_asked_is_left_out_without_a_word(self) -> None:
        running = date(2025, 11, 4)
        assert sift_bars([bar("A", running), bar("A", date(2025, 10, 30)), bar("C", MONDAY)], ASKED) == sift_bars(
            [], ASKED
        )

    def test_two_different_bars_of_a_day_are_no_bar(self) -> None:
        sifted = sift_bars([bar("A", MONDAY), bar("A", MONDAY, "2 4 1 2"), bar("B", MONDAY), bar("B", MONDAY)], ASKED)
        assert sifted.usable == (bar("B", MONDAY),)
        assert sifted.refused == ("A 2025-11-03: the server gave two different bars",)
