"""Quotes and trades as tests need them: good unless told otherwise."""

from datetime import UTC, datetime, timedelta
from typing import Any

from libs.market_data.quotes import Quote
from libs.market_data.trades import Trade

NOON = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)


def make_quote(symbol: str = "AAPL", bid: float | None = 150.25, ask: float | None = 150.27, **changes: Any) -> Quote:
    """Return a firm two-sided quote made and received at noon in New York; `at_s` moves both times."""
    at = NOON + timedelta(seconds=changes.pop("at_s", 0))
    fields: dict[str, Any] = {
        "bid_size": 100.0,
        "ask_size": 200.0,
        "bid_exchange": "V",
        "ask_exchange": "V",
        "conditions": ("R",),
        "tape": "C",
        "timestamp": at,
        "received_at": at,
    }
    return Quote(symbol, bid, ask, **(fields | changes))


def make_trade(trade_id: int | None = 1, price: float | None = 150.26, **changes: Any) -> Trade:
    """Return a regular trade made and received at noon in New York; `at_s` moves both times."""
    at = NOON + timedelta(seconds=changes.pop("at_s", 0))
    fields: dict[str, Any] = {
        "symbol": "AAPL",
        "exchange": "V",
        "size": 100.0,
        "conditions": ("@",),
        "tape": "C",
        "timestamp": at,
        "received_at": at,
    }
    return Trade(trade_id=trade_id, price=price, **(fields | changes))
