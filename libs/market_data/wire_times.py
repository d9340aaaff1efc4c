"""Turns a time that came from outside into one that can be calculated with, or into none. Pure.

A decoder takes any time of the years 1 to 9999. Near either end, changing the zone or adding a second overflows; and a
venue that does not know a time writes one of the year 1.
"""

from datetime import UTC, datetime
from typing import Final

YEARS: Final = range(1970, 2201)
"""A time or a date outside these years is nobody's."""


def usable_time(time: datetime | None) -> datetime | None:
    """Return `time` in UTC; None for one without a zone, outside `YEARS`, or absent."""
    if time is None or time.tzinfo is None:
        return None
    if time.tzinfo is not UTC:
        # Every zone is less than a day from UTC: the years beside both ends of the calendar may not be converted.
        if not 1 < time.year < 9999:  # noqa: PLR2004 - the calendar's own ends
            return None
        time = time.astimezone(UTC)
    return time if time.year in YEARS else None
