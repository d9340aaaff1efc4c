from datetime import timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from scripts.people_time import people_age, people_time

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2025-10-17T13:30:00+00:00", "Fri 09:30:00 New York, 15:30:00 here"),
        ("2025-10-17T13:30:00.123456Z", "Fri 09:30:00 New York, 15:30:00 here"),
        ("2025-10-17T23:30:00+00:00", "Fri 19:30:00 New York, Sat 01:30:00 here"),
        (None, "—"),
        ("", "—"),
        ("yesterday", "—"),
        ("2025-10-17T13:30:00", "—"),
        (1760707800, "—"),
    ],
)
def test_new_yorks_time_and_ones_own(text: object, shown: str) -> None:
    assert people_time(text, BERLIN) == shown


def test_who_is_in_new_yorks_time_reads_it_once() -> None:
    assert people_time("2025-10-17T13:30:00Z", timezone(timedelta(hours=-4))) == "Fri 09:30:00 New York"


def test_the_machines_zone_is_the_default() -> None:
    assert people_time("2025-10-17T13:30:00Z").startswith("Fri 09:30:00 New York")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (Decimal("0.212"), "0.2 s"),
        (9.94, "9.9 s"),
        (14.6, "15 s"),
        (180, "3 min"),
        (7200, "2 h"),
        (5 * 86400, "5 d"),
        (None, "—"),
        (True, "—"),
        ("3", "—"),
    ],
)
def test_ages(seconds: object, shown: str) -> None:
    assert people_age(seconds) == shown
