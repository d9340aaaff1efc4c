"""How old may be what a connection delivers just now? Pure: `now` is an argument, aware.

A message may have waited: in our own socket while this process was stopped, in a buffer on the way, behind a flood.
Read late, it looks young. But a connection delivers in order: what comes after the answer to a ping was sent after the
ping, by our own clock and whatever the sender's says.
"""

from datetime import datetime, timedelta
from typing import Final

PING_EVERY: Final = timedelta(seconds=0.5)
LATE_AFTER: Final = timedelta(seconds=4)
"""Longer than any turn of a healthy event loop; sooner than three heartbeats."""


class Delivery:
    """One connection's bound. `now` at the start is from before the connection was opened.

    Order: `is_late` before a message is believed; whenever `wants_ping`, `pinged` as the ping is sent, `answered` when
    its answer is read, in its place among the messages.
    """

    def __init__(self, now: datetime) -> None:
        self._sent_after = now
        self._pinged_at: datetime | None = None

    @property
    def sent_after(self) -> datetime:
        """Whatever is read from now on was sent after this."""
        return self._sent_after

    def wants_ping(self, now: datetime) -> bool:
        """Say whether it is time to learn more; one ping is under way at most."""
        # A clock that was set back is no reason to wait for the hour it was set back by.
        return self._pinged_at is None and abs(now - self._sent_after) >= PING_EVERY

    def pinged(self, now: datetime) -> None:
        """Note that a ping goes out."""
        self._pinged_at = now

    def answered(self) -> None:
        """Note that the answer to the ping has been read."""
        if self._pinged_at is not None:
            self._sent_after, self._pinged_at = self._pinged_at, None

    def is_late(self, now: datetime) -> bool:
        """Say whether what is read now may be so old that a new connection tells more than the rest of this one."""
        return now - self._sent_after > LATE_AFTER
