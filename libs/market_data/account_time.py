"""Is our clock wrong, by the account's? Then ages count by the account's, and no stream is called late for it. Pure.

`GET /v2/clock` says what time it is there. One answer proves nothing: it may be a cached one, or have been long on its
way. Two that agree while our own steady clock went on do. A simulator's clock may be far from every other on purpose:
it is believed only when the stream's quotes are stamped by it too, and a replay's never.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from libs.market_data.delivery_lag import LATE_AFTER
from libs.market_data.prices import Mode

TOLERANCE: Final = timedelta(seconds=5)
"""A clock that is wrong by no more than this changes nothing."""
_STILL_WRONG: Final = timedelta(seconds=3)
"""So that one at the edge of it does not come and go."""
_LONGEST_ROUND_TRIP: Final = timedelta(seconds=2)
_AGREE_WITHIN: Final = timedelta(seconds=2)
"""The answers may be cut to whole seconds, and each has been on its way."""
CONFIRMS_AFTER_S: Final = 4.0
"""A cached answer lags by as much more the second time, which is longer than they may differ."""
_STEP: Final = timedelta(seconds=2)
_SAME: Final = timedelta(seconds=1)
_QUICK_QUESTIONS: Final = 5

_NONE: Final = timedelta()


class _Answer(NamedTuple):
    offset: timedelta
    at_s: float


def _nobody(_by: timedelta) -> None:
    """Nobody holds times that have to follow."""


class AccountTime:
    """Order: `look` about once a second, `answered` with each answer, `witness` with each second's newest delay.

    `offset` is what to add to our clock: zero unless it is known to be wrong. `on_change` is called with the difference
    whenever it changes: our times from before are off by that much.
    """

    def __init__(self) -> None:
        self.offset = _NONE
        self.on_change: Callable[[timedelta], None] = _nobody
        self._suspicion: _Answer | None = None
        self._confirmed: timedelta | None = None
        self._needs_witness = False
        self._suspicions = 0
        self._was_set = False
        self._looked: tuple[datetime, float] | None = None

    @property
    def wants_answer(self) -> bool:
        """Whether another answer, some seconds after the last, would say whether our clock is wrong."""
        return self._was_set or self._is_in_doubt

    @property
    def _is_in_doubt(self) -> bool:
        return self._suspicion is not None and self._confirmed is None and self._suspicions <= _QUICK_QUESTIONS

    def look(self, now: datetime, now_s: float) -> None:
        """Compare our clock with a steady one: when it was set, what was known of it is void."""
        if self._looked is not None:
            earlier, earlier_s = self._looked
            if abs(now - earlier - timedelta(seconds=now_s - earlier_s)) > _STEP:
                self._forget()
                self._was_set = True
        self._looked = now, now_s

    def answered(
        self, theirs: datetime | None, asked_at: datetime, asked_s: float, answered_s: float, said_by: Mode | None
    ) -> None:
        """Take in the time that an answer gave (None: none that can be read), and when we asked.

        `asked_at` is by our own clock, the others by a steady one. `said_by` is a simulator's mode, else None.
        """
        self._was_set = False
        round_trip = timedelta(seconds=answered_s - asked_s)
        if said_by is Mode.REPLAY:
            self._forget()
        elif theirs is not None and round_trip <= _LONGEST_ROUND_TRIP:
            self._compare(theirs - asked_at - round_trip / 2, answered_s, needs_witness=said_by is not None)

    def witness(self, delay: timedelta | None) -> None:
        """Take in the delay of a quote, our corrected time less the venue's: the venue may agree with the account."""
        if self._confirmed is not None and self._needs_witness and delay is not None:
            by_their_clock = delay - self.offset + self._confirmed
            if abs(by_their_clock) <= LATE_AFTER:
                self._apply(self._confirmed)

    def _compare(self, offset: timedelta, at_s: float, *, needs_witness: bool) -> None:
        self._needs_witness = needs_witness
        if abs(offset) <= (_STILL_WRONG if self.offset else TOLERANCE):
            self._suspicions = 0
            self._forget()
            return
        first = self._suspicion
        if first is None or abs(offset - first.offset) > _AGREE_WITHIN:
            self._forget()
            self._suspicion = _Answer(offset, at_s)
            self._suspicions += 1
        elif at_s - first.at_s >= CONFIRMS_AFTER_S:
            self._suspicions = 0
            self._suspicion = _Answer(offset, first.at_s)
            self._confirmed = offset
            if self.offset or not needs_witness:
                self._apply(offset)

    def _forget(self) -> None:
        self._suspicion = self._confirmed = None
        self._apply(_NONE)

    def _apply(self, offset: timedelta) -> None:
        if offset == self.offset or (offset and self.offset and abs(offset - self.offset) <= _SAME):
            return
        by, self.offset = offset - self.offset, offset
        self.on_change(by)
