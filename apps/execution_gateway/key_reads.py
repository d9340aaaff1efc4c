"""Decides when which key in Redis is read because a message was not believed: at once, but seldom. Pure.

`now_s` is any one steady clock.
"""

from typing import Final

KEY_PAUSE_S: Final = 1.0
"""A price's key is read at most this often, whatever is published."""
FEED_PAUSE_S: Final = 0.2
"""There is one status for all symbols, and a new connection or process must be known soon."""
GATHER_S: Final = 0.05
"""Requests are at least this far apart, so that a swarm of symbols shares one."""


class KeyReads:
    """The keys that wait to be read. As many as there are names that a reader may want."""

    def __init__(self, pause_s: float = KEY_PAUSE_S) -> None:
        self._pause_s = pause_s
        self._wanted: dict[str, None] = {}
        self._read_at_s: dict[str, float] = {}
        self._looked_at_s: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether any key waits to be read: then `take` is due within GATHER_S."""
        return bool(self._wanted)

    def want(self, name: str) -> None:
        """Have the key of `name` read as soon as it may be."""
        self._wanted[name] = None

    def take(self, now_s: float) -> list[str]:
        """Return the names to read now, and note that they are read."""
        if not self._wanted or (self._looked_at_s is not None and now_s < self._looked_at_s + GATHER_S):
            return []
        self._looked_at_s = now_s
        self._read_at_s = {name: at_s for name, at_s in self._read_at_s.items() if now_s < at_s + self._pause_s}
        due = [name for name in self._wanted if name not in self._read_at_s]
        for name in due:
            del self._wanted[name]
            self._read_at_s[name] = now_s
        return due
