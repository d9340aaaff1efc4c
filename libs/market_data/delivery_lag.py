"""Does the stream bring its quotes late? Then nothing it brings is live, however recently it came. Pure.

A slow path queues: frames keep coming, only ever later. One fresh quote proves that nothing queues, so the least delay
over all symbols counts; a single symbol whose venue has a wrong clock decides nothing. There is no upper bound: quotes
of yesterday are late too. Which streams are not to be judged (a delayed feed, a replay) is the caller's knowledge.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from libs.market_data.clock_lead import is_ahead

LATE_AFTER: Final = timedelta(seconds=15)
"""By so much even the freshest quote must be late."""
_LOOKS: Final = 2


@dataclass(slots=True)
class DeliveryLag:
    """Order: `begin` with each connection, `note` each new quote that the stream brings, `look` about once a second.

    `is_late` is the judgement. `least` is the least delay in the last look that had new quotes, None before any. `last`
    is that of the last new quote, however far ahead it is stamped (then negative). `ahead`: by how much all of them are
    stamped too far ahead to mark, None while they are not.
    """

    is_late: bool = False
    least: timedelta | None = None
    last: timedelta | None = None
    ahead: timedelta | None = None
    _least_since_look: timedelta | None = None
    _late_looks: int = 0
    _ahead_since_look: timedelta | None = None
    _ahead_looks: int = 0

    def begin(self) -> None:
        """Start over for a new connection. One that follows a late one is late until a quote proves otherwise."""
        self._least_since_look = None
        self._late_looks = 0
        self._ahead_since_look = self.ahead = None
        self._ahead_looks = 0

    def note(self, made_at: datetime, received_at: datetime) -> None:
        """Take in the delay of one new quote; a time far ahead of ours is a fault and proves nothing."""
        delay = self.last = received_at - made_at
        if is_ahead(made_at, received_at):
            self._ahead_since_look = -delay
            return
        if self._least_since_look is None or delay < self._least_since_look:
            self._least_since_look = delay

    def look(self) -> bool:
        """Judge what came since the last look, and return `is_late`. A look without new quotes decides nothing."""
        least, self._least_since_look = self._least_since_look, None
        ahead, self._ahead_since_look = self._ahead_since_look, None
        if least is not None:
            self.least = least
            self._late_looks = self._late_looks + 1 if least > LATE_AFTER else 0
            self.is_late = self._late_looks > 0 and (self.is_late or self._late_looks >= _LOOKS)
            self._ahead_looks, self.ahead = 0, None
        elif ahead is not None:
            self._ahead_looks += 1
            self.ahead = ahead if self._ahead_looks >= _LOOKS else None
        return self.is_late
