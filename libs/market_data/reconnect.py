"""When to dial Alpaca again after a connection has ended, and when to stop until a person acts.

Pure: clocks and dice are arguments. Alpaca allows one connection per key and keeps the slot of a vanished client for
about 90 s, so hammering makes an outage longer.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import ClassVar, Final

CAP_S: Final = 20.0
_SLOW_TRACK_S: Final = (10.0, 20.0)
_PROVEN_AFTER_S: Final = 10.0


class Ending(Enum):
    """What the end of a connection, or of an attempt, says about the next one."""

    LOST = auto()
    """The network or the server gave way: try again, later each time."""
    SLOT_TAKEN = auto()
    """406: another session still holds the key's slot, up to 90 s after an unclean end. Try again, slowly."""
    WRONG_PLACE = auto()
    """HTTP 404 at the upgrade: no such stream here. Try again at the cap."""
    REFUSED = auto()
    """402, 409, 411, HTTP 401 or 403: trying again cannot help. Stop until a person acts."""
    REQUESTED = auto()
    """A person asked for a new connection."""


@dataclass(slots=True)
class ReconnectPolicy:
    """Delays between attempts. `dice` returns numbers in [0, 1); `max_attempts` 0 means never to give up."""

    dice: Callable[[], float]
    max_attempts: int = 0
    failures: int = 0

    def delay_after(self, ending: Ending, *, retry_after_s: float | None = None) -> float | None:
        """Return the seconds to wait before the next attempt; None means to make none.

        First 0 to 1 s, then 1, 2, 4, 8 … s and up to a quarter more, never over 20 s; a longer Retry-After is honoured.
        """
        if ending is Ending.REFUSED:
            return None
        if ending is Ending.REQUESTED:
            return 0.0
        self.failures += 1
        if self.max_attempts and self.failures >= self.max_attempts:
            return None
        low, high = _SLOW_TRACK_S
        if ending is Ending.SLOT_TAKEN:
            delay = low + (high - low) * self.dice()
        elif ending is Ending.WRONG_PLACE:
            delay = CAP_S
        elif self.failures == 1:
            delay = self.dice()
        else:
            delay = min(CAP_S, 2.0 ** min(self.failures - 2, 10) * (1 + self.dice() / 4))
        return max(delay, retry_after_s or 0.0)

    def connection_proven(self, *, lasted_s: float, delivered_data: bool) -> None:
        """Forget past failures once a connection has delivered data and lasted 10 s.

        Authenticating is no proof: a server may accept and drop at once, for ever.
        """
        if delivered_data and lasted_s >= _PROVEN_AFTER_S:
            self.failures = 0

    def forgive(self) -> None:
        """Forget past failures: a person has acted."""
        self.failures = 0


@dataclass(slots=True)
class DialBudget:
    """At most 5 dials in any 10 s and 20 in any 60 s, whoever asks for them. Times are of any one steady clock.

    The windows are a little longer: the server counts when dials arrive, and one may be slower than the next.
    """

    _dials: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    LIMITS: ClassVar = ((5, 10.5), (20, 61.0))

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait before the next dial is allowed; 0 when it is allowed now."""
        waits = [self._dials[-most] + window_s - now_s for most, window_s in self.LIMITS if len(self._dials) >= most]
        return max(0.0, *waits) if waits else 0.0

    def record(self, now_s: float) -> None:
        """Note a dial made at `now_s`."""
        self._dials.append(now_s)
