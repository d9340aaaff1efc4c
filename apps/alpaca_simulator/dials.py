"""When clients dialled, and how densely: the server's own count of what a client may be blamed for. No I/O."""

from collections import deque
from typing import Final

WINDOWS_S: Final = (10.0, 60.0)
_REMEMBERED: Final = 10_000


class DialLog:
    """Every WebSocket upgrade that was asked for, refused ones included. Of the times the last 10,000 are kept."""

    def __init__(self) -> None:
        self.count = 0
        """Since the beginning, or since the last `reset`."""
        self.most_in: dict[float, int] = dict.fromkeys(WINDOWS_S, 0)
        """By window in seconds: the most dials that any span of that length has seen since then."""
        self._times: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def add(self, now_s: float, unix_s: float) -> None:
        """Take in one dial, by a monotonic clock and by the clock on the wall."""
        self.count += 1
        self._times.append((now_s, unix_s))
        for window_s in WINDOWS_S:
            self.most_in[window_s] = max(self.most_in[window_s], self._within(window_s, now_s))

    def reset(self) -> None:
        """Begin to count anew."""
        self.count = 0
        self.most_in = dict.fromkeys(WINDOWS_S, 0)
        self._times.clear()

    @property
    def times_s(self) -> list[float]:
        """The remembered dials, in seconds of the monotonic clock."""
        return [now_s for now_s, _ in self._times]

    def last_unix_s(self, count: int) -> list[float]:
        """Return the last `count` dials at most, in seconds since 1970, oldest first."""
        return [unix_s for _, unix_s in self._times][-count:]

    def _within(self, window_s: float, now_s: float) -> int:
        """Count the dials of the window that ends now; one exactly its length ago is outside."""
        found = 0
        for then_s, _ in reversed(self._times):
            if now_s - then_s >= window_s:
                break
            found += 1
        return found
