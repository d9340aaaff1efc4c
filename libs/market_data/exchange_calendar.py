"""Loads the sessions of the exchange.

The only importer of exchange_calendars, which costs 50 MB and a second: imported when it is asked for, not before.
"""

import warnings
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from libs.market_data.trading_sessions import TradingSession, TradingSessions

if TYPE_CHECKING:
    import pandas as pd


def load_sessions(first: date, last: date) -> TradingSessions:
    """Load the New York Stock Exchange's sessions (XNYS) from `first` to `last`. Takes about a second."""
    import exchange_calendars  # 50 MB with pandas: only for those who ask the calendar

    # exchange_calendars 4.13 uses what pandas 3.1 announces the end of. Narrow, and nothing to undo from a thread.
    warnings.filterwarnings("ignore", message="Series.values returning an ndarray", category=DeprecationWarning)
    calendar = exchange_calendars.get_calendar("XNYS", start=first.isoformat(), end=last.isoformat())
    return TradingSessions(
        [
            TradingSession(day.date(), _utc(opens_at), _utc(closes_at))
            for day, opens_at, closes_at in zip(calendar.sessions, calendar.opens, calendar.closes, strict=True)
        ]
    )


def _utc(moment: "pd.Timestamp") -> datetime:
    converted: datetime = moment.to_pydatetime()
    return converted.astimezone(UTC)
