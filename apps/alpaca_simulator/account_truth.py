"""The ground truth of the account, for a check from outside: what it has, and what was told of it. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from apps.alpaca_simulator.account import Account
from apps.alpaca_simulator.account_book import average_price
from apps.alpaca_simulator.account_entries import Execution
from apps.alpaca_simulator.lots import Holding
from apps.alpaca_simulator.wire_text import moment_text, number_text


def account_truth(account: Account, announced: Mapping[str, int], now: datetime) -> dict[str, Any]:
    """Return cash, positions and every execution, busted ones too, with how often each was written to a client."""
    book = account.book(now)
    return {
        "time": moment_text(now),
        "cash": number_text(book.cash),
        "positions": {symbol: _position(held) for symbol, held in book.open_positions().items()},
        "executions": [_execution(one, announced.get(one.execution_id, 0)) for one in account.executions.values()],
    }


def _position(held: Holding) -> dict[str, Any]:
    return {
        "qty": number_text(held.qty),
        "cost": number_text(held.cost),
        "avg_entry_price": number_text(average_price(held)),
        "lots": [{"qty": number_text(lot.qty), "cost": number_text(lot.cost)} for lot in held.lots],
    }


def _execution(execution: Execution, announced: int) -> dict[str, Any]:
    return {
        "execution_id": execution.execution_id,
        "order_id": execution.order_id,
        "symbol": execution.symbol,
        "side": "buy" if execution.qty > 0 else "sell",
        "qty": number_text(abs(execution.qty)),
        "price": number_text(execution.price),
        "at": moment_text(execution.at),
        "booking": execution.booking.value,
        "announced": announced,
    }
