"""Executions for tests, and what the wire says of them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from libs.broker.executions import Execution
from libs.portfolio.fills import Side

NOON = datetime(2025, 10, 20, 16, tzinfo=UTC)
D = Decimal


def execution(execution_id="x1", qty=10, price=100, *, cum=None, order_id="o1", symbol="AAPL", side=Side.BUY, at=NOON):
    cum_qty = None if order_id is None else D(str(qty if cum is None else cum))
    return Execution(execution_id, order_id, symbol, "us_equity", side, D(str(qty)), D(str(price)), cum_qty, at)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


POSITION = {
    "asset_id": "904837e3-3b76-47ec-b432-046db621571b",
    "symbol": "AAPL",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "qty": "5",
    "side": "long",
    "avg_entry_price": "100.0",
    "market_value": "600.0",
    "cost_basis": "500.0",
    "unrealized_pl": "100.0",
    "unrealized_intraday_pl": "5.0",
    "current_price": "120.0",
    "lastday_price": "119.0",
}
FILL = {
    "activity_type": "FILL",
    "cum_qty": "1",
    "id": "20190524113406977::8efc7b9a-8b2b-4000-9955-d36e7db0df74",
    "leaves_qty": "0",
    "price": "1.63",
    "qty": "1",
    "side": "buy",
    "symbol": "LPCN",
    "transaction_time": "2019-05-24T15:34:06.977Z",
    "order_id": "904837e3-3b76-47ec-b432-046db621571b",
    "type": "fill",
}
DIVIDEND = {
    "activity_type": "DIV",
    "id": "20190801011955195::5f596936-6f23-4cef-bdf1-3806aae57dbf",
    "date": "2019-08-01",
    "net_amount": "1.02",
    "symbol": "T",
    "qty": "2",
    "per_share_amount": "0.51",
    "status": "executed",
}
ORDER = {"id": "o-1", "symbol": "AAPL", "asset_class": "us_equity", "side": "buy", "qty": "100", "filled_qty": "40"}
PARTIAL_FILL = {
    "at": "2026-02-20T15:30:00.700950Z",
    "event_id": "01JJ3WE73W5PG672TC4XACXH5R",
    "event": "partial_fill",
    "execution_id": "2f63ea93-423d-4169-b3f6-3fdafc10c418",
    "timestamp": "2026-02-20T15:30:00.695569506Z",
    "price": "105.89",
    "qty": "40",
    "position_qty": "140",
    "order": ORDER,
}
