"""What time is it by the writer of the prices? Then their ages are right, whichever machine's clock is wrong. Pure.

A heartbeat says when it was written (by the account's clock, where that is known). It was sent after the last answered
ping and before it was read: that bounds what our clock is off. What is within a few seconds changes nothing, nor does a
single odd heartbeat. Within the bounds ages are counted as the older ones.
"""

from datetime import datetime, timedelta
from typing import Final

TOLERANCE: Final = timedelta(seconds=5)
_NONE: Final = timedelta()


class ClockAlignment:
    """Order: `heard` with each heartbeat. `offset` is what to add to our clock, zero unless two in a row agree."""

    def __init__(self) -> None:
        self.offset = _NONE
        self._last = _NONE

    def heard(self, written_at: datetime | None, sent_after: datetime, now: datetime) -> bool:
        """Take in a heartbeat; return whether `offset` has changed. `written_at` None: it does not say when."""
        latest = _NONE if written_at is None else _correction(written_at, sent_after, now)
        before, earlier = self.offset, self._last
        self._last = latest
        do_agree = bool(latest) and bool(earlier) and abs(latest - earlier) <= TOLERANCE
        # Each is the most that it can be: of two that agree the greater is safe, and a smaller one of before is closer.
        offset = max(latest, earlier) if do_agree else _NONE
        self.offset = min(offset, before) if do_agree and before and abs(offset - before) <= TOLERANCE else offset
        return self.offset != before


def _correction(written_at: datetime, sent_after: datetime, now: datetime) -> timedelta:
    """Return the most that our clock can be off; zero when it may be right within 5 s."""
    most, least = written_at - sent_after, written_at - now
    if least > TOLERANCE:
        return most
    return most if most < -TOLERANCE else _NONE
