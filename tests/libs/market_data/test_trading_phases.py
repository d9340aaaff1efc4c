from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.market_hours import MarketHours
from libs.market_data.trading_sessions import NEW_YORK, TradingPhase

HOURS = MarketHours()


def in_new_york(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("moment", "phase"),
    [
        ("2025-10-20 00:00:00", TradingPhase.CLOSED),
        ("2025-10-20 03:59:59.999999", TradingPhase.CLOSED),
        ("2025-10-20 04:00:00", TradingPhase.PRE),
        ("2025-10-20 09:29:59.999999", TradingPhase.PRE),
        ("2025-10-20 09:30:00", TradingPhase.REGULAR),
        ("2025-10-20 15:59:59.999999", TradingPhase.REGULAR),
        ("2025-10-20 16:00:00", TradingPhase.POST),
        ("2025-10-20 19:59:59.999999", TradingPhase.POST),
        ("2025-10-20 20:00:00", TradingPhase.CLOSED),
        # The day after Thanksgiving closes at one.
        ("2025-11-28 12:59:59", TradingPhase.REGULAR),
        ("2025-11-28 13:00:00", TradingPhase.POST),
        ("2025-11-28 19:59:59", TradingPhase.POST),
        ("2025-11-28 20:00:00", TradingPhase.CLOSED),
        # Thanksgiving, a Saturday, a Sunday: no part of them is traded.
        ("2025-11-27 08:00:00", TradingPhase.CLOSED),
        ("2025-11-27 12:00:00", TradingPhase.CLOSED),
        ("2025-11-29 18:00:00", TradingPhase.CLOSED),
        ("2025-11-30 04:00:00", TradingPhase.CLOSED),
    ],
)
def test_the_parts_of_a_day(moment: str, phase: TradingPhase) -> None:
    assert HOURS.trading_phase(in_new_york(moment)) is phase


@pytest.mark.parametrize(
    ("moment", "phase"),
    [
        # New York is four hours behind UTC on the Friday before the clocks change in autumn, five on the Monday after.
        ("2025-10-31T07:59:59", TradingPhase.CLOSED),
        ("2025-10-31T08:00:00", TradingPhase.PRE),
        ("2025-10-31T23:59:59", TradingPhase.POST),
        ("2025-11-01T00:00:00", TradingPhase.CLOSED),
        ("2025-11-03T08:59:59", TradingPhase.CLOSED),
        ("2025-11-03T09:00:00", TradingPhase.PRE),
        ("2025-11-04T00:59:59", TradingPhase.POST),
        ("2025-11-04T01:00:00", TradingPhase.CLOSED),
        ("2026-03-06T09:00:00", TradingPhase.PRE),
        ("2026-03-09T08:00:00", TradingPhase.PRE),
        ("2026-03-09T07:59:59", TradingPhase.CLOSED),
    ],
)
def test_the_same_wall_times_in_summer_and_winter(moment: str, phase: TradingPhase) -> None:
    assert HOURS.trading_phase(datetime.fromisoformat(moment).replace(tzinfo=UTC)) is phase


@given(st.datetimes(datetime(2024, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_regular_is_when_the_market_is_open_and_nothing_else(now: datetime) -> None:
    phase = HOURS.trading_phase(now)
    assert (phase is TradingPhase.REGULAR) == HOURS.is_open(now)


@given(st.dates(date(2024, 1, 1), date(2026, 12, 31)))
def test_a_session_has_its_phases_in_order_and_another_day_none(day: date) -> None:
    midnight = datetime.combine(day, time(), NEW_YORK)
    seen = [HOURS.trading_phase(midnight + timedelta(minutes=15 * number)) for number in range(96)]
    if HOURS.sessions_between(day, day):
        order = [TradingPhase.CLOSED, TradingPhase.PRE, TradingPhase.REGULAR, TradingPhase.POST, TradingPhase.CLOSED]
        assert [phase for before, phase in zip([None, *seen], seen, strict=False) if phase is not before] == order
    else:
        assert set(seen) == {TradingPhase.CLOSED}
