from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.wire_times import usable_time

ZONES = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
    lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
)


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("2026-11-20T17:00:00+00:00", "2026-11-20T17:00:00+00:00"),
        ("2026-11-20T12:00:00-05:00", "2026-11-20T17:00:00+00:00"),
        ("1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00"),
        ("2200-12-31T23:59:59+00:00", "2200-12-31T23:59:59+00:00"),
        ("2026-11-20T17:00:00", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("0001-01-01T00:00:00+00:00", None),
        ("9999-12-31T23:59:59+00:00", None),
        ("1970-01-01T00:00:00+00:01", None),
        ("2200-12-31T23:59:59-00:01", None),
    ],
)
def test_times(text: str, usable: str | None) -> None:
    found = usable_time(datetime.fromisoformat(text))
    assert found == (None if usable is None else datetime.fromisoformat(usable))
    assert found is None or found.tzinfo is UTC


def test_no_time_is_none() -> None:
    assert usable_time(None) is None


@given(st.datetimes(timezones=ZONES))
def test_any_time_is_none_or_can_be_calculated_with(time: datetime) -> None:
    found = usable_time(time)
    if found is not None:
        assert found == time
        assert found + timedelta(days=36_500) > found - timedelta(days=36_500)
