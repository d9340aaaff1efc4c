"""Somebody else trading in the account: small market orders in the held symbols now and then, for a demonstration."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Final

import structlog

from apps.alpaca_simulator.orders import Side
from apps.alpaca_simulator.trading_desk import TradingDesk

log = structlog.get_logger(__name__)

_MOST_SHARES: Final = 5
_SECONDS_PER_MINUTE: Final = 60.0


class Autofill:
    """Places orders at random moments, `per_minute` of them on average, while the market is open. Seeded."""

    def __init__(self, desk: TradingDesk, per_minute: float, seed: int, is_open: Callable[[], bool]) -> None:
        self._desk = desk
        self._mean_s = _SECONDS_PER_MINUTE / per_minute
        self._dice = Random(f"autofill:{seed}")
        self._is_open = is_open

    async def run(self) -> None:
        """Trade for ever."""
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / self._mean_s))
            if self._is_open():
                await self._trade()

    async def _trade(self) -> None:
        desk = self._desk
        symbols = list(desk.account.book(desk.now()).open_positions())
        if not symbols:
            return
        symbol = self._dice.choice(symbols)
        side: Side = self._dice.choice(("buy", "sell"))
        qty = Decimal(self._dice.randint(1, _MOST_SHARES))
        await desk.fill(symbol, side, qty)
        log.info("autofilled", symbol=symbol, side=side, qty=str(qty))
