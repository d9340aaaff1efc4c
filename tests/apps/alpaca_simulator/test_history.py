"""The made-up past: consistent, reproducible, near today's prices."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.history import DailyHistory, as_traded_on_iex, midnight_ns
from apps.alpaca_simulator.listings import UNIVERSE, listing_of

days = st.dates(date(2015, 1, 2), date(2030, 1, 1))
symbols = st.sampled_from([*sorted(UNIVERSE), "ZZZT"])
history = DailyHistory(lambda symbol: listing_of(symbol).base_price)


@given(symbols, days)
def test_bars_are_consistent_and_near_the_usual_price(symbol, day):
    bar = history.bar(symbol, day, day - timedelta(days=1))
    assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
    assert bar.low <= bar.vwap <= bar.high
    assert bar.close == history.close(symbol, day)
    assert abs(bar.close / listing_of(symbol).base_price - 1) < 0.02
    assert bar.volume > 0
    assert bar.trade_count > 0
    assert bar == DailyHistory(lambda s: listing_of(s).base_price).bar(symbol, day, day - timedelta(days=1))


@given(symbols, days)
def test_iex_saw_less_and_something_else(symbol, day):
    bar = history.bar(symbol, day, day - timedelta(days=1))
    iex = as_traded_on_iex(bar)
    assert iex.volume < bar.volume
    assert iex.low <= iex.close <= iex.high
    assert abs(iex.close / bar.close - 1) < 0.002


@given(symbols, days, st.floats(1, 1_000))
def test_a_running_bar_ends_at_the_price_of_the_moment(symbol, day, price):
    bar = history.running_bar(symbol, day, day - timedelta(days=1), price)
    assert bar.close == price
    assert bar.low <= min(bar.open, price) <= max(bar.open, price) <= bar.high


def test_bars_are_stamped_with_new_yorks_midnight():
    assert midnight_ns(date(2022, 2, 1)) == 1_643_691_600_000_000_000  # 05:00Z, winter
    assert midnight_ns(date(2022, 8, 16)) == 1_660_622_400_000_000_000  # 04:00Z, summer


SPLIT_DAY = date(2025, 11, 4)
DAY_BEFORE, DAY_AFTER = date(2025, 11, 3), date(2025, 11, 5)


def fresh():
    return DailyHistory(lambda symbol: listing_of(symbol).base_price)


@pytest.mark.parametrize(("new", "old", "ratio"), [(4, 1, 4), (1, 8, 0.125), (Decimal("1.5"), Decimal(1), 1.5)])
def test_before_a_split_the_prices_of_then_are_shown(new, old, ratio):
    split = fresh()
    split.split("AAPL", new, old, SPLIT_DAY)
    assert split.close("AAPL", DAY_BEFORE) == pytest.approx(history.close("AAPL", DAY_BEFORE) * ratio, abs=0.02)
    assert split.bar("AAPL", DAY_BEFORE, date(2025, 10, 31)).close == split.close("AAPL", DAY_BEFORE)
    for day in (SPLIT_DAY, DAY_AFTER):
        assert split.close("AAPL", day) == history.close("AAPL", day)
    assert split.close("MSFT", DAY_BEFORE) == history.close("MSFT", DAY_BEFORE)


def test_the_first_day_after_a_split_opens_on_its_own_scale():
    split = fresh()
    split.split("AAPL", 10, 1, SPLIT_DAY)
    first = split.bar("AAPL", SPLIT_DAY, DAY_BEFORE)
    assert first.high / first.low < 1.06
    assert first.open == pytest.approx(history.bar("AAPL", SPLIT_DAY, DAY_BEFORE).open, abs=0.02)


def test_splits_of_several_days_multiply_and_a_repeated_one_counts_once():
    split = fresh()
    for _ in range(2):
        split.split("AAPL", 2, 1, SPLIT_DAY)
    split.split("AAPL", 3, 1, DAY_AFTER)
    assert split.close("AAPL", DAY_BEFORE) == pytest.approx(6 * history.close("AAPL", DAY_BEFORE), abs=0.04)
    assert split.close("AAPL", SPLIT_DAY) == pytest.approx(3 * history.close("AAPL", SPLIT_DAY), abs=0.02)
    assert split.close("AAPL", DAY_AFTER) == history.close("AAPL", DAY_AFTER)


def test_the_past_stays_when_the_usual_price_falls_with_the_split():
    usual = {"AAPL": 232.0}
    moving = DailyHistory(usual.__getitem__)
    before = moving.close("AAPL", DAY_BEFORE)
    moving.split("AAPL", 4, 1, SPLIT_DAY)
    usual["AAPL"] /= 4
    assert moving.close("AAPL", DAY_BEFORE) == before
    assert moving.close("AAPL", SPLIT_DAY) == pytest.approx(58, rel=0.02)


@pytest.mark.parametrize(("new", "old"), [(0, 1), (1, 0), (-2, 1), (2, -1), (Decimal("NaN"), 1)])
def test_what_is_no_split_is_refused(new, old):
    with pytest.raises(ValueError, match="are no split"):
        fresh().split("AAPL", new, old, SPLIT_DAY)


@given(symbols, days, st.integers(1, 50), st.integers(1, 50))
def test_bars_stay_consistent_across_splits(symbol, day, new, old):
    split = fresh()
    split.split(symbol, new, old, day)
    for session in (day - timedelta(days=1), day, day + timedelta(days=1)):
        bar = split.bar(symbol, session, session - timedelta(days=1))
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
