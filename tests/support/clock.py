"""A clock for tests that must not depend on the hour at which they run: the account's books change before dawn."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


class NoonClock:
    """Noon in New York when the test begins; from there it goes on, and leaps when told to."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self._ahead = datetime.combine(now.date(), time(12), ZoneInfo("America/New_York")) - now

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def advance(self, by: timedelta) -> None:
        self._ahead += by
