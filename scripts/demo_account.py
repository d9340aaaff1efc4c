"""The made-up account of the demo: fills in well-known symbols, posted to the gateway as a person would post them.

Posted again at every start; the ledger takes each fill once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import httpx2

from apps.alpaca_simulator.listings import listing_of

SILENT_SYMBOLS: Final = ("XOM",)
"""Never quote: their last official close is what is known of them."""
ONE_SIDED_SYMBOLS: Final = ("GME",)
"""Only have a bid: half of a quote marks nothing."""

_CENT: Final = Decimal("0.01")
_MOST_REPLAYED: Final = 12


class DemoError(Exception):
    """The gateway did not take the demo's fills."""


@dataclass(frozen=True, slots=True)
class _Trade:
    symbol: str
    qty: str
    price_factor: str
    hours_ago: float
    fee: str = "0"


# Signed quantities: longs, shorts, a fraction, a partial close, and one bought today.
_TRADES: Final = (
    _Trade("AAPL", "100", "0.972", 196),
    _Trade("MSFT", "80", "0.985", 192),
    _Trade("MSFT", "-30", "1.004", 75, "0.12"),
    _Trade("NVDA", "150", "0.951", 170),
    _Trade("NVDA", "50", "0.999", 0.05),
    _Trade("AMZN", "60", "1.012", 150),
    _Trade("TSLA", "-40", "1.021", 122, "0.35"),
    _Trade("JPM", "35", "0.990", 120),
    _Trade("SPY", "25", "0.994", 100),
    _Trade("F", "-1000", "0.987", 98, "0.60"),
    _Trade("BRK.B", "10", "0.996", 97),
    _Trade("KO", "12.345678", "1.003", 96),
    _Trade("GME", "200", "1.050", 76),
    _Trade("XOM", "45", "0.980", 74),
)


def demo_fills(now: datetime) -> list[dict[str, Any]]:
    """Return the demo account's fills, the times reckoned back from `now`."""
    return [
        _fill(f"demo-{number:02d}", trade.symbol, trade.qty, _demo_price(trade), now, trade.hours_ago, trade.fee)
        for number, trade in enumerate(_TRADES, 1)
    ]


def demo_positions(now: datetime) -> list[dict[str, str]]:
    """Return what the demo's fills add up to, as the simulator takes an account's positions: at their average cost."""
    held: dict[str, list[dict[str, Any]]] = {}
    for fill in demo_fills(now):
        held.setdefault(fill["symbol"], []).append(fill)
    found = []
    for symbol, fills in held.items():
        signed = [Decimal(one["qty"]) * (1 if one["side"] == "buy" else -1) for one in fills]
        qty = sum(signed, Decimal(0))
        opened = [one for one, moved in zip(fills, signed, strict=True) if (moved > 0) == (qty > 0)]
        shares = sum((Decimal(one["qty"]) for one in opened), Decimal(0))
        cost = sum((Decimal(one["qty"]) * Decimal(one["price"]) for one in opened), Decimal(0))
        found.append({"symbol": symbol, "qty": str(qty), "avg_entry_price": str((cost / shares).quantize(_CENT))})
    return found


def replay_fills(first_prices: Mapping[str, float], now: datetime) -> list[dict[str, Any]]:
    """Return one long position of 100 shares in each of a recording's first dozen symbols, at its first price."""
    return [
        _fill(f"replay-{symbol}", symbol, "100", Decimal(repr(price)).quantize(_CENT), now, 48)
        for symbol, price in list(first_prices.items())[:_MOST_REPLAYED]
        if price > 0
    ]


async def post_fills(http: httpx2.AsyncClient, gateway_url: str, fills: list[dict[str, Any]], token: str | None) -> int:
    """Post `fills`; return how many were new. Raises DemoError."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    added = 0
    for fill in fills:
        try:
            answer = await http.post(f"{gateway_url}/api/v1/fills", json=fill, headers=headers)
        except httpx2.HTTPError as error:
            raise DemoError(f"the gateway does not answer: {error or type(error).__name__}") from error
        # An earlier start posted the same fill, with its own times: it stands.
        if answer.status_code not in {httpx2.codes.CREATED, httpx2.codes.OK, httpx2.codes.CONFLICT}:
            raise DemoError(f"the gateway refused a demo fill with {answer.status_code}: {answer.text[:300]}")
        added += answer.status_code == httpx2.codes.CREATED
    return added


def _demo_price(trade: _Trade) -> Decimal:
    base = Decimal(repr(listing_of(trade.symbol).base_price))
    return (base * Decimal(trade.price_factor)).quantize(_CENT, ROUND_HALF_EVEN)


def _fill(
    fill_id: str, symbol: str, qty: str, price: Decimal, now: datetime, hours_ago: float, fee: str = "0"
) -> dict[str, Any]:
    return {
        "fill_id": fill_id,
        "symbol": symbol,
        "side": "sell" if qty.startswith("-") else "buy",
        "qty": qty.removeprefix("-"),
        "price": str(price),
        "fee": fee,
        "filled_at": (now - timedelta(hours=hours_ago)).isoformat(),
    }
