"""Has this process slept? What piled up in a socket meanwhile must not be taken for news. Pure: clocks are arguments.

A stopped process (SIGSTOP, a suspended laptop, a paused virtual machine) finds old frames waiting when it wakes, and
stamping them with the time of reading would make them look young. The wall clock tells: it goes on meanwhile.
"""

from datetime import datetime, timedelta
from typing import Final

BEAT_EVERY_S: Final = 1.0
_SLEPT_AFTER: Final = timedelta(seconds=5)
"""Far longer than any turn of a healthy event loop."""


class Wakefulness:
    """Order: `beat` every second while awake, `has_slept` before believing that something has just come."""

    def __init__(self, now: datetime) -> None:
        self._awake_until = now + _SLEPT_AFTER

    def beat(self, now: datetime) -> None:
        """Note that the process is awake at `now` (aware)."""
        self._awake_until = now + _SLEPT_AFTER

    def has_slept(self, now: datetime) -> bool:
        """Say whether no beat came for so long that the process must have slept."""
        return now > self._awake_until
