"""Times as people read them: New York's and their own, and ages in words. Pure, but for the machine's time zone."""

from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

NEW_YORK: Final = ZoneInfo("America/New_York")
UNKNOWN: Final = "—"

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400


def people_time(text: object, here: tzinfo | None = None) -> str:
    """Return an ISO-8601 time as `Fri 09:30:00 New York, 15:30:00 here`; unknown gives a dash.

    `here` is the reader's zone; None means the machine's.
    """
    moment = _moment(text)
    if moment is None:
        return UNKNOWN
    there, own = moment.astimezone(NEW_YORK), moment.astimezone(here)
    if there.utcoffset() == own.utcoffset():
        return f"{there:%a %H:%M:%S} New York"
    day = "" if there.date() == own.date() else f"{own:%a} "
    return f"{there:%a %H:%M:%S} New York, {day}{own:%H:%M:%S} here"


def people_age(seconds: object) -> str:
    """Return an age in seconds as `0.2 s`, `14 s`, `3 min`, `2 h` or `5 d`; unknown gives a dash."""
    if not isinstance(seconds, int | float | Decimal) or isinstance(seconds, bool):
        return UNKNOWN
    age_s = float(seconds)
    if age_s < 10:  # noqa: PLR2004 - below ten seconds the tenths are of interest
        return f"{age_s:.1f} s"
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if age_s >= unit_s:
            return f"{age_s / unit_s:.0f} {unit}"
    return f"{age_s:.0f} s"


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
