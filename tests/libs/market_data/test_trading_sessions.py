from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.trading_sessions import TradingSession, TradingSessions


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


WEDNESDAY = TradingSession(date(2024, 11, 27), at("2024-11-27T14:30"), at("2024-11-27T21:00"))
FRIDAY_EARLY = TradingSession(date(2024, 11, 29), at("2024-11-29T14:30"), at("2024-11-29T18:00"))
MONDAY = TradingSession(date(2024, 12, 2), at("2024-12-02T14:30"), at("2024-12-02T21:00"))
THANKSGIVING = TradingSessions([WEDNESDAY, FRIDAY_EARLY, MONDAY])


@pytest.mark.parametrize(
    ("now", "is_open", "next_change"),
    [
        ("2024-11-27T14:29:59", False, "2024-11-27T14:30"),
        ("2024-11-27T14:30", True, "2024-11-27T21:00"),
        ("2024-11-27T20:59:59", True, "2024-11-27T21:00"),
        ("2024-11-27T21:00", False, "2024-11-29T14:30"),
        ("2024-11-28T16:00", False, "2024-11-29T14:30"),
        ("2024-11-29T17:59:59", True, "2024-11-29T18:00"),
        ("2024-11-29T18:00", False, "2024-12-02T14:30"),
        ("2024-12-01T16:00", False, "2024-12-02T14:30"),
    ],
)
def test_open_from_the_first_moment_to_before_the_last(now: str, is_open: bool, next_change: str) -> None:
    assert THANKSGIVING.is_open(at(now)) is is_open
    assert THANKSGIVING.next_change(at(now)) == at(next_change)


@pytest.mark.parametrize(
    ("now", "completed"),
    [
        ("2024-11-27T21:00", WEDNESDAY),
        ("2024-11-29T17:59:59", WEDNESDAY),
        ("2024-11-29T18:00", FRIDAY_EARLY),
        ("2024-12-02T20:59:59", FRIDAY_EARLY),
        ("2024-12-02T21:00", MONDAY),
    ],
)
def test_a_session_is_completed_at_its_close(now: str, completed: TradingSession) -> None:
    assert THANKSGIVING.last_completed(at(now)) == completed


def test_a_holiday_counts_to_the_session_before() -> None:
    assert THANKSGIVING.on_or_before(date(2024, 11, 28)) == WEDNESDAY
    assert THANKSGIVING.on_or_before(date(2024, 11, 29)) == FRIDAY_EARLY


def test_a_stretch_of_days_includes_both_ends() -> None:
    assert THANKSGIVING.between(date(2024, 11, 28), date(2024, 12, 2)) == (FRIDAY_EARLY, MONDAY)
    assert THANKSGIVING.between(date(2024, 11, 28), date(2024, 11, 28)) == ()


def test_what_the_calendar_does_not_reach_is_an_error_not_a_guess() -> None:
    with pytest.raises(LookupError):
        THANKSGIVING.on_or_before(date(2024, 11, 26))
    with pytest.raises(LookupError):
        THANKSGIVING.last_completed(at("2024-11-27T20:00"))
    with pytest.raises(LookupError):
        THANKSGIVING.next_change(at("2024-12-02T21:00"))
    with pytest.raises(ValueError, match="without sessions"):
        TradingSessions([])


@given(st.integers(min_value=0, max_value=5 * 24 * 3600 - 1))
def test_the_state_holds_until_the_next_change_and_flips_there(seconds: int) -> None:
    now = at("2024-11-27T14:30") + timedelta(seconds=seconds)
    change = THANKSGIVING.next_change(now)
    assert change > now
    assert THANKSGIVING.is_open(change) is not THANKSGIVING.is_open(now)
    just_before = change - timedelta(microseconds=1)
    assert THANKSGIVING.is_open(just_before) is THANKSGIVING.is_open(now)
