"""What is known of the one connection to Alpaca: its state, since when, and the record of its last changes."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from libs.market_data.prices import LinkState
from libs.market_data.reconnect import Ending


@dataclass(frozen=True, slots=True)
class LinkFault:
    """Why a connection or an attempt ended. `code` is Alpaca's error code, a close code or an HTTP status."""

    at: datetime
    message: str
    code: int | None
    ending: Ending


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The link went to `state` at `at`, for `reason`."""

    at: datetime
    state: LinkState
    reason: str


@dataclass(slots=True)
class Link:
    """The link's state and history. `epoch` names the last authenticated connection; None before the first.

    `connections` counts authenticated connections, `attempts_ended` attempts that ended, whichever way.
    """

    now: Callable[[], datetime]
    state: LinkState = LinkState.STANDBY
    since: datetime = field(init=False)
    epoch: str | None = None
    connections: int = 0
    attempts_ended: int = 0
    last_fault: LinkFault | None = None
    history: deque[LinkChange] = field(default_factory=lambda: deque(maxlen=50))
    entered: Counter[LinkState] = field(default_factory=Counter)
    """How often each state was entered."""
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.since = self.now()

    @property
    def reconnects(self) -> int:
        """How often a connection was made again after the first."""
        return max(0, self.connections - 1)

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, without arguments and without waiting, after every change worth telling others."""
        self._listeners.append(listener)

    def go(self, state: LinkState, reason: str = "") -> None:
        """Enter `state`. Entering the present one changes nothing."""
        if state is not self.state:
            self.state, self.since = state, self.now()
            self.entered[state] += 1
            self.history.append(LinkChange(self.since, state, reason))
            self.announce()

    def announce(self) -> None:
        """Tell the listeners that something worth telling has changed."""
        for listener in self._listeners:
            listener()
