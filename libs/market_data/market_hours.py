"""When the regular session of the US stock market is on, and which session a moment belongs to.

Decides who is asked: the account's clock first (a simulator may be open on a Sunday), the exchange calendar when
that cannot be had. The sessions themselves come from `trading_sessions.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from threading import Lock
from typing import Annotated, Final

import msgspec
import structlog

from libs.market_data.exchange_calendar import load_sessions
from libs.market_data.prices import MarketPhase, Mode
from libs.market_data.trading_sessions import NEW_YORK, TradingPhase, TradingSession, TradingSessions
from libs.market_data.wire_times import usable_time

log = structlog.get_logger(__name__)


class MarketHours:
    """The New York Stock Exchange's calendar (XNYS). Loads at the first question and reaches as far as it is asked.

    Loading takes about a second: in an event loop call `await asyncio.to_thread(hours.load)` before the first question.
    """

    _margin: Final = timedelta(days=40)
    """More than the longest closure in a century of peace, so that every question has a session on each side."""

    def __init__(self) -> None:
        self._loaded: TradingSessions | None = None
        self._reach = (date.max, date.min)
        self._lock = Lock()

    @property
    def is_loaded(self) -> bool:
        """Say whether questions are answered at once."""
        return self._loaded is not None

    def load(self) -> None:
        """Load the calendar around today. Safe from any thread, and a second time."""
        self._reaching(datetime.now(UTC).date())

    def is_open(self, now: datetime) -> bool:
        """Say whether the regular session is on at `now` (aware)."""
        return self._around(now).is_open(now)

    def phase(self, now: datetime) -> MarketPhase:
        """Return whether the market is open or closed at `now` (aware)."""
        return MarketPhase.OPEN if self.is_open(now) else MarketPhase.CLOSED

    def trading_phase(self, now: datetime) -> TradingPhase:
        """Return whether `now` (aware) is before, in or after a regular session, or on no trading day."""
        return self._around(now).trading_phase(now)

    def next_change(self, now: datetime) -> datetime:
        """Return the next opening or closing after `now`, UTC."""
        return self._around(now).next_change(now)

    def session_on_or_before(self, day: date) -> date:
        """Return `day` when it is a session, else the last session before it."""
        return self._reaching(day).on_or_before(day).date

    def session_date(self, now: datetime) -> date:
        """Return the session that `now` counts to: New York's date when that is a session, else the last one before."""
        return self.session_on_or_before(now.astimezone(NEW_YORK).date())

    def last_completed_session(self, now: datetime) -> date:
        """Return the last session that has closed at `now`: the one whose closing price is official."""
        return self._around(now).last_completed(now).date

    def last_completed(self, now: datetime, count: int) -> tuple[TradingSession, ...]:
        """Return the last `count` sessions that have closed at `now`, oldest first, with their hours."""
        last = self.last_completed_session(now)
        # 5 sessions in 7 days, 9 holidays a year, and a margin for the longest closures.
        first = last - timedelta(days=count * 8 // 5 + 15)
        return self.schedule(first, last)[-count:]

    def previous_session(self, session: date) -> date:
        """Return the last session before `session`."""
        return self.session_on_or_before(session - timedelta(days=1))

    def sessions_between(self, first: date, last: date) -> tuple[date, ...]:
        """Return the sessions from `first` to `last`, both included."""
        return tuple(session.date for session in self.schedule(first, last))

    def schedule(self, first: date, last: date) -> tuple[TradingSession, ...]:
        """Return the sessions from `first` to `last` with their hours."""
        if last < first:
            return ()
        self._reaching(first)
        return self._reaching(last).between(first, last)

    def _around(self, now: datetime) -> TradingSessions:
        return self._reaching(now.astimezone(UTC).date())

    def _reaching(self, day: date) -> TradingSessions:
        """Return sessions that surely surround `day`, loading further ones when the loaded do not."""
        loaded = self._loaded
        if loaded is not None and self._reach[0] <= day <= self._reach[1]:
            return loaded
        with self._lock:
            today = datetime.now(UTC).date()
            first = min(day, self._reach[0], today - timedelta(days=730))
            last = max(day, self._reach[1], today + timedelta(days=180))
            self._loaded = load_sessions(first - self._margin, last + self._margin)
            self._reach = (first, last)
            return self._loaded


@dataclass(frozen=True, slots=True)
class AccountClock:
    """What the account's clock said: `next_change` is the next close while open, else the next opening (aware UTC).

    `simulator_mode` is set when a simulator said it. `timestamp` is the time there (aware UTC), None when the answer
    had none that can be read.
    """

    is_open: bool
    next_change: datetime
    simulator_mode: Mode | None = None
    timestamp: datetime | None = None


class _WireClock(msgspec.Struct):
    """The answer of `GET /v2/clock`; the times carry New York's offset.

    `{"timestamp":"2025-06-24T14:15:22-04:00","is_open":true,
      "next_open":"2025-06-25T09:30:00-04:00","next_close":"2025-06-24T16:00:00-04:00"}`
    """

    is_open: bool
    next_open: Annotated[datetime, msgspec.Meta(tz=True)]
    next_close: Annotated[datetime, msgspec.Meta(tz=True)]
    timestamp: object = None


_decode_clock = msgspec.json.Decoder(_WireClock).decode


def read_clock(body: bytes, simulator_mode: Mode | None = None) -> AccountClock:
    """Return what a clock answer says. Raises ValueError (msgspec.MsgspecError is one) or RecursionError otherwise."""
    wire = _decode_clock(body)
    next_change = wire.next_close if wire.is_open else wire.next_open
    usable = usable_time(next_change)
    if usable is None:
        raise ValueError(f"the next change at {next_change} is out of range")
    return AccountClock(wire.is_open, usable, simulator_mode, _time_there(wire.timestamp))


def _time_there(wire: object) -> datetime | None:
    """Return the time in a clock answer. Whether the market is open is worth having without it."""
    try:
        return usable_time(msgspec.convert(wire, datetime))
    except msgspec.ValidationError:
        return None


class SaidBy(StrEnum):
    """Who told whether the market is open."""

    ACCOUNT_CLOCK = "account clock"
    CALENDAR = "calendar"


@dataclass(frozen=True, slots=True)
class MarketState:
    """Whether the market is open, until when, who said so and when (aware UTC)."""

    phase: MarketPhase
    next_change: datetime
    said_by: SaidBy
    checked_at: datetime


ANSWER_HOLDS: Final = timedelta(seconds=60)
"""How long the account clock's answer is believed, unless its next change comes first."""

_ASK_AGAIN_S: Final = 45.0
_ASK_AFTER_FAULT: Final = timedelta(seconds=10)
_QUICK_RETRIES: Final = 3
_ASK_AT_MOST: Final = timedelta(seconds=1)
_PATIENCE_S: Final = 3.0


class MarketClock:
    """Knows whether the market is open: by the account's clock, else by the calendar. Never raises.

    `current` answers at once from what is known; `state` asks first when the answer is too old; `keep_current` asks in
    the background for as long as it runs. `last_error` is the last question's fault, None after a good answer.
    """

    def __init__(self, ask: Callable[[], Awaitable[AccountClock]] | None, hours: MarketHours) -> None:
        """`ask` may be None, where there is no account: the calendar alone is asked."""
        self._ask = ask
        self._hours = hours
        self._answer: AccountClock | None = None
        self._answered_at = _LONG_AGO
        self._asked_at = _LONG_AGO
        self._asking = asyncio.Lock()
        self.simulator_mode: Mode | None = None
        self.last_error: str | None = None
        self.faults = 0
        self._faults_in_a_row = 0

    def current(self, now: datetime) -> MarketState:
        """Return the state as far as known, without asking. Loads the calendar (a second) if nothing else answers."""
        answer = self._answer
        if answer is not None and self._holds(answer, now):
            phase = MarketPhase.OPEN if answer.is_open else MarketPhase.CLOSED
            return MarketState(phase, answer.next_change, SaidBy.ACCOUNT_CLOCK, self._answered_at)
        return MarketState(self._hours.phase(now), self._hours.next_change(now), SaidBy.CALENDAR, now)

    async def state(self, now: datetime) -> MarketState:
        """Return the state, asking the account's clock when its last answer no longer holds."""
        async with self._asking:
            if not (self._answer is not None and self._holds(self._answer, now)):
                await self._refresh(now)
        return self.current(now)

    def shift(self, by: timedelta) -> None:
        """Correct when was asked and answered: the clock that said so was off by so much."""
        if self._asked_at != _LONG_AGO:
            self._asked_at += by
        if self._answer is not None:
            self._answered_at += by

    async def keep_current(self, now: Callable[[], datetime]) -> None:
        """Ask again before each answer runs out, and at each change. Runs until cancelled."""
        while True:
            async with self._asking:
                await self._refresh(now())
            await asyncio.sleep(self._pause_s(now()))

    async def _refresh(self, now: datetime) -> None:
        # Either sign: where our clock was set back, the times from before lie ahead.
        if self._ask is not None and abs(now - self._asked_at) >= self._least_pause():
            self._asked_at = now
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    answer = await self._ask()
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the calendar answers; counted and shown
                self._note_fault(error)
            else:
                # Asking may have corrected our clock, and `_asked_at` with it.
                self._answer, self._answered_at, self._faults_in_a_row = answer, self._asked_at, 0
                self.simulator_mode, self.last_error = answer.simulator_mode, None
        if not self._hours.is_loaded and not (self._answer is not None and self._holds(self._answer, now)):
            await asyncio.to_thread(self._hours.load)

    def _holds(self, answer: AccountClock, now: datetime) -> bool:
        """Say whether `answer` is young enough. A next change already past when it was given says nothing."""
        is_before_change = now < answer.next_change or answer.next_change <= self._answered_at
        return is_before_change and abs(now - self._answered_at) < ANSWER_HOLDS

    def _least_pause(self) -> timedelta:
        return self._after_fault() if self.last_error is not None else _ASK_AT_MOST

    def _after_fault(self) -> timedelta:
        # One slow answer while everything starts must not leave the calendar's word standing for long.
        return _ASK_AT_MOST if self._faults_in_a_row <= _QUICK_RETRIES else _ASK_AFTER_FAULT

    def _pause_s(self, now: datetime) -> float:
        if self.last_error is not None:
            return self._after_fault().total_seconds()
        if self._answer is None:
            return _ASK_AGAIN_S
        until_change_s = (self._answer.next_change - now).total_seconds()
        return (
            max(_ASK_AT_MOST.total_seconds(), min(_ASK_AGAIN_S, until_change_s)) if until_change_s > 0 else _ASK_AGAIN_S
        )

    def _note_fault(self, error: Exception) -> None:
        if self.last_error is None:
            log.warning("account_clock_unavailable", error=str(error) or type(error).__name__, falls_back_to="calendar")
        self.faults += 1
        self._faults_in_a_row += 1
        self.last_error = str(error) or type(error).__name__


_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
