"""The sessions of the US stock market, and the questions that bisecting them answers. Pure.

Where the sessions come from is `exchange_calendar.py`'s business.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

NEW_YORK: Final = ZoneInfo("America/New_York")
PRE_MARKET_BEGINS: Final = time(4, 0)
"""Wall time in New York, on days of a session only."""
POST_MARKET_ENDS: Final = time(20, 0)
"""Also on days of an early close, though many venues end sooner then: a quote that comes is still of that day."""


class TradingPhase(StrEnum):
    """What part of a trading day a moment is, by the calendar. Outside of the first three nothing is traded."""

    PRE = "pre"
    REGULAR = "regular"
    POST = "post"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class TradingSession:
    """One regular session: its New York date, and its first and last moment (aware UTC; early closes included)."""

    date: date
    opens_at: datetime
    closes_at: datetime


class TradingSessions:
    """The sessions of a stretch of days, in order. A question that they do not reach raises LookupError."""

    def __init__(self, sessions: Sequence[TradingSession]) -> None:
        if not sessions:
            raise ValueError("a calendar without sessions answers nothing")
        self._sessions = tuple(sessions)
        self._dates = [session.date for session in sessions]
        self._opens = [session.opens_at for session in sessions]
        self._closes = [session.closes_at for session in sessions]

    def is_open(self, now: datetime) -> bool:
        """Say whether `now` lies in a session: its first moment does, its closing moment does not."""
        begun = bisect_right(self._opens, now)
        return begun > 0 and now < self._closes[begun - 1]

    def trading_phase(self, now: datetime) -> TradingPhase:
        """Return the phase of `now`: a session's first moment is regular, its closing moment already post."""
        if self.is_open(now):
            return TradingPhase.REGULAR
        in_new_york = now.astimezone(NEW_YORK)
        session = self.on_or_before(in_new_york.date())
        if session.date != in_new_york.date():
            return TradingPhase.CLOSED
        if now < session.opens_at:
            return TradingPhase.PRE if in_new_york.time() >= PRE_MARKET_BEGINS else TradingPhase.CLOSED
        return TradingPhase.POST if in_new_york.time() < POST_MARKET_ENDS else TradingPhase.CLOSED

    def next_change(self, now: datetime) -> datetime:
        """Return the first opening or closing after `now`."""
        if self.is_open(now):
            return self._closes[bisect_right(self._opens, now) - 1]
        return self._opens[bisect_right(self._opens, now)]

    def on_or_before(self, day: date) -> TradingSession:
        """Return the session of `day`, or the last one before it."""
        index = bisect_right(self._dates, day) - 1
        if index < 0:
            raise LookupError(f"no session on or before {day}")
        return self._sessions[index]

    def last_completed(self, now: datetime) -> TradingSession:
        """Return the last session that has closed."""
        index = bisect_right(self._closes, now) - 1
        if index < 0:
            raise LookupError(f"no session completed by {now}")
        return self._sessions[index]

    def between(self, first: date, last: date) -> tuple[TradingSession, ...]:
        """Return the sessions from `first` to `last`, both included."""
        return self._sessions[bisect_left(self._dates, first) : bisect_right(self._dates, last)]
