"""How far a venue's time may run ahead of ours before it means nothing. Pure.

Venues' clocks and ours differ by fractions of a second. What is stamped further ahead than this is a fault: it is never
live, and nothing that comes later may look old beside it.
"""

from datetime import datetime, timedelta
from typing import Final

MAX_CLOCK_LEAD: Final = timedelta(seconds=60)


def is_ahead(time: datetime, now: datetime) -> bool:
    """Say whether `time`, stamped by a venue, lies more than 60 s after `now` (both aware)."""
    return time > now and time - now > MAX_CLOCK_LEAD
