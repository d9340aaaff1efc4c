"""The made-up past: consistent, reproducible, near today's prices."""

from datetime import date, timedelta

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
