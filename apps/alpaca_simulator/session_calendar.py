"""What the simulator knows of sessions and of the hour: the real calendar, unless it is told to be open or closed."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Final

from apps.alpaca_simulator.market import MarketSetting
from libs.market_data.market_hours import MarketHours
from libs.market_data.trading_sessions import NEW_YORK, TradingSession

_FURTHEST_AHEAD: Final = timedelta(days=300)
_EARLIEST: Final = date(2000, 1, 1)
_LONGEST_CLOSURE: Final = timedelta(days=14)


@cache
def _shared_hours() -> MarketHours:
    """One per process: loading the calendar costs a second, and a test run starts simulators by the hundred."""
    return MarketHours()


class SessionCalendar:
    """Sessions and clock. Loading takes about a second, in a thread."""

    def __init__(self, setting: MarketSetting) -> None:
        self.setting = setting
        self._hours = _shared_hours()

    async def load(self) -> None:
        """Make every question answer at once: a client waits only so long for its first one."""
        await asyncio.to_thread(self._hours.load)

    def is_open(self) -> bool:
        """Say whether the market is on now."""
        match self.setting:
            case MarketSetting.OPEN:
                return True
            case MarketSetting.CLOSED:
                return False
            case MarketSetting.AUTO:
                return self._hours.is_open(datetime.now(UTC))

    async def next_hours(self, now: datetime) -> tuple[datetime, datetime]:
        """Return the next opening and the next closing after `now`, by the calendar whatever the setting."""
        today = now.astimezone(NEW_YORK).date()
        coming = await self.sessions(today, today + _LONGEST_CLOSURE)
        next_open = next(session.opens_at for session in coming if session.opens_at > now)
        next_close = next(session.closes_at for session in coming if session.closes_at > now)
        return next_open, next_close

    async def sessions(self, first: date, last: date) -> tuple[TradingSession, ...]:
        """Return the sessions from `first` to `last`, as far as this calendar reaches."""
        furthest = datetime.now(UTC).date() + _FURTHEST_AHEAD
        return await asyncio.to_thread(self._hours.schedule, max(first, _EARLIEST), min(last, furthest))

    async def with_previous(self, first: date, last: date) -> list[tuple[TradingSession, date]]:
        """Return the sessions from `first` to `last`, each with the date of the one before it."""
        sessions = await self.sessions(max(first, _EARLIEST + _LONGEST_CLOSURE) - _LONGEST_CLOSURE, last)
        pairs = zip(sessions[1:], sessions, strict=False)
        return [(session, before.date) for session, before in pairs if first <= session.date]
