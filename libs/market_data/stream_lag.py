"""Does the stream bring quotes long after they were made? Then none of them is news. Pure.

A slow path queues: frames keep coming, only ever later. One fresh quote proves that nothing queues, so the least delay
over all symbols counts; a single symbol whose venue has a wrong clock does not.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from libs.market_data.quote_records import SymbolRecord

_LAGS_FROM: Final = timedelta(seconds=15)
_NO_QUEUE_FROM: Final = timedelta(minutes=10)
"""No queue is this long: then the times are a recording's, a delayed feed's, or a wrong clock's, and tell nothing."""
_LOOKS: Final = 2


class LagMeter:
    """Order: `look` about once a second. `is_lagging` is the judgement, `lag` the least delay last seen."""

    def __init__(self) -> None:
        self.lag: timedelta | None = None
        self.is_lagging = False
        self._late_looks = 0
        self._seen: dict[str, datetime] = {}

    def look(self, records: Iterable[tuple[str, SymbolRecord]]) -> bool:
        """Take in what was streamed since the last look; return whether the stream lags."""
        delays = []
        for symbol, record in records:
            time, came_at = record.streamed_time, record.streamed_at
            if time is not None and came_at is not None and self._seen.get(symbol) != time:
                self._seen[symbol] = time
                delays.append(came_at - time)
        if delays:
            self.lag = min(delays)
            is_late = _LAGS_FROM < self.lag < _NO_QUEUE_FROM
            self._late_looks = self._late_looks + 1 if is_late else 0
            self.is_lagging = self._late_looks >= _LOOKS
        return self.is_lagging
