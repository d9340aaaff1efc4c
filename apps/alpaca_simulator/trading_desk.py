"""The broker of the simulated account: carries out what happens to it, and tells the trading stream.

The account decides what an event makes of the books, `trade_updates.py` what is said about it; here they meet.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from math import inf
from typing import Final
from uuid import uuid4

from apps.alpaca_simulator.account import Account
from apps.alpaca_simulator.account_entries import AccountError, Execution, sync_day
from apps.alpaca_simulator.account_prices import AccountPrices
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.orders import Order, Side
from apps.alpaca_simulator.trade_updates import (
    FILLS,
    EventIds,
    Update,
    amended_update,
    execution_update,
    order_update,
)
from apps.alpaca_simulator.trade_updates_stream import TradeUpdatesStream

_SMALLEST_QTY: Final = Decimal("1e-9")
_ONE_SHARE: Final = Decimal(1)


class Announce(StrEnum):
    """How the trading stream tells of an execution; REST has it in any case."""

    ONCE = "once"
    TWICE = "twice"
    NEVER = "never"
    LATE = "late"


class TradingDesk:
    """Where everything that happens to the account passes through. `now` is the account's clock."""

    def __init__(
        self,
        account: Account,
        updates: TradeUpdatesStream,
        prices: AccountPrices,
        now: Callable[[], datetime],
        faults: Callable[[], Faults],
    ) -> None:
        self.account = account
        self.updates = updates
        self.prices = prices
        self.now = now
        self._faults = faults
        self._event_ids = EventIds()
        # What was recorded before this start has been so for long.
        self._recorded_s = [-inf] * account.recorded

    async def fill(  # noqa: PLR0913 - each is a field of the execution
        self,
        symbol: str,
        side: Side,
        qty: Decimal,
        price: Decimal | None = None,
        *,
        pieces: int = 1,
        execution_ids: Sequence[str] = (),
        fee: Decimal | None = None,
        at: datetime | None = None,
        announce: Announce = Announce.ONCE,
        delay_s: float = 1.0,
        order_id: str | None = None,
        order_qty: Decimal | None = None,
    ) -> list[str]:
        """Let `qty` shares (unsigned) change hands in `pieces` executions, and return their ids.

        `price` in USD, None: the quote's ask or bid. `order_id`: an open order's, None: a new market order over
        `order_qty` shares, None: over `qty`. `fee` in USD is booked once. Raises AccountError, having changed nothing.
        """
        parts = pieces_of(qty, pieces)
        if execution_ids and len(execution_ids) != len(parts):
            raise AccountError(f"execution_ids: {len(parts)} are needed")
        if taken := [one for one in execution_ids if one in self.account.executions]:
            raise AccountError(f"execution_ids: {taken[0][:60]} is known already")
        moment = at or self.now()
        self.account.check_moment(symbol, moment)
        paid = price if price is not None else await self._market_price(symbol, side)
        order = self._order_for(symbol, side, qty, order_id, order_qty, moment)
        if order_id is None:
            self._tell(order_update("new", order, self.now(), self._event_id()), announce, delay_s)
        ids: Sequence[str | None] = execution_ids or [None] * len(parts)
        executed = [
            self._execute(order, part, paid, moment, given, announce, delay_s)
            for part, given in zip(parts, ids, strict=True)
        ]
        if fee is not None:
            self.account.charge_fee(fee, self.now(), symbol=symbol)
            self._note_recorded()
        return [one.execution_id for one in executed]

    async def bust(self, execution_id: str, announce: Announce = Announce.ONCE, delay_s: float = 1.0) -> None:
        """Let the exchange undo an execution. Raises AccountError."""
        busted = self.account.bust(execution_id, self.now())
        self._announce("trade_bust", busted, announce, delay_s)

    async def correct(
        self,
        execution_id: str,
        price: Decimal | None = None,
        qty: Decimal | None = None,
        announce: Announce = Announce.ONCE,
        delay_s: float = 1.0,
    ) -> None:
        """Let the exchange correct an execution's price (USD) or quantity (unsigned). Raises AccountError."""
        if price is None and qty is None:
            raise AccountError("price: give it, or qty")
        corrected = self.account.correct(execution_id, price, qty, self.now())
        self._announce("trade_correct", corrected, announce, delay_s)

    async def split(self, symbol: str, new: Decimal, old: Decimal, cash_price: Decimal | None = None) -> None:
        """Split a held symbol; the market's price follows.

        `cash_price` is what a fraction is paid with, in USD a new share; None: the last close, split. Raises
        AccountError.
        """
        now = self.now()
        if cash_price is None:
            cash_price = await self._last_close(symbol) * old / new
        one_entry = self._faults().split_one_entry
        self.account.split(symbol, new, old, cash_price, now, one_entry=one_entry)
        self.prices.split(symbol, new, old, now)
        self._note_recorded()

    async def change_symbol(self, symbol: str, new_symbol: str) -> None:
        """Rename a held symbol; the market's price follows. Raises AccountError."""
        self.account.change_symbol(symbol, new_symbol, self.now())
        self.prices.change_symbol(symbol, new_symbol)
        self._note_recorded()

    async def pay_dividend(self, symbol: str, per_share: Decimal) -> Decimal:
        """Pay a cash dividend in USD a share, and return what it came to. Raises AccountError."""
        amount = self.account.pay_dividend(symbol, per_share, self.now())
        self._note_recorded()
        return amount

    async def charge_fee(self, amount: Decimal, symbol: str | None = None, kind: str = "FEE") -> None:
        """Take a fee of `amount` USD."""
        self.account.charge_fee(amount, self.now(), symbol=symbol, kind=kind)
        self._note_recorded()

    async def move_cash(self, amount: Decimal, kind: str | None = None) -> None:
        """Let USD come in, or go out when negative."""
        self.account.move_cash(amount, self.now(), kind)
        self._note_recorded()

    async def submit(self, order: Order) -> None:
        """Let an order that was placed go to the market: filled at once when it is marketable, else it stays open."""
        self._tell(order_update("new", order, self.now(), self._event_id()), Announce.ONCE, 0.0)
        price = self._marketable_price(order)
        if price is None:
            return
        for part in pieces_of(order.qty, self._faults().order_pieces):
            self._execute(order, part, price, self.now(), None, Announce.ONCE, 0.0)

    async def cancel(self, order_id: str) -> None:
        """Cancel an open order. Raises AccountError."""
        canceled = self.account.orders.canceled(order_id, self.now())
        self._tell(order_update("canceled", canceled, self.now(), self._event_id()), Announce.ONCE, 0.0)

    def reset(self) -> None:
        """Begin again with the opening positions."""
        self.account.reset()
        self.prices.wrong.clear()
        self._note_recorded()

    def recorded_before(self, lag_s: float) -> int | None:
        """Return how many things had been recorded `lag_s` seconds ago; None: all count, there is no lag."""
        if lag_s <= 0:
            return None
        return bisect_right(self._recorded_s, time.monotonic() - lag_s)

    def _execute(
        self,
        order: Order,
        qty: Decimal,
        price: Decimal,
        at: datetime,
        execution_id: str | None,
        announce: Announce,
        delay_s: float,
    ) -> Execution:
        execution = self.account.execute(order, qty, price, at, execution_id)
        self._announce("partial_fill" if execution.leaves_qty > 0 else "fill", execution, announce, delay_s)
        return execution

    def _announce(self, event: str, execution: Execution, announce: Announce, delay_s: float) -> None:
        self._note_recorded()
        now = self.now()
        order = self.account.orders.get(execution.order_id)
        position_qty = self.account.book(now).held(execution.symbol).qty
        update = execution_update(event, execution, order, position_qty, now, event_id=self._event_id())
        if event not in FILLS:
            update = amended_update(update, None if self._faults().trading_single_ids else str(uuid4()))
        self._tell(update, announce, delay_s)

    def _tell(self, update: Update, announce: Announce, delay_s: float) -> None:
        match announce:
            case Announce.NEVER:
                return
            case Announce.TWICE if update.execution_id is not None:
                self.updates.publish(update, times=2)
            case Announce.LATE:
                self.updates.publish(update, delay_s=delay_s)
            case _:
                self.updates.publish(update)

    def _event_id(self) -> str:
        return self._event_ids.next(self.now())

    def _note_recorded(self) -> None:
        """Remember when what is new in the account was recorded, for the faults that show it late."""
        missing = self.account.recorded - len(self._recorded_s)
        self._recorded_s.extend([time.monotonic()] * missing)

    def _order_for(
        self, symbol: str, side: Side, qty: Decimal, order_id: str | None, order_qty: Decimal | None, at: datetime
    ) -> Order:
        if order_id is None:
            if order_qty is not None and order_qty < qty:
                raise AccountError("order_qty: less than qty")
            return self.account.orders.place(symbol, side, order_qty or qty, at)
        order = self.account.orders.get(order_id)
        if (order.symbol, order.side) != (symbol, side):
            raise AccountError(f"order_id: an order to {order.side} {order.symbol}")
        if not order.is_open or qty > order.leaves_qty:
            raise AccountError(f"order_id: the order is {order.status}, {order.leaves_qty:f} are open")
        return order

    def _marketable_price(self, order: Order) -> Decimal | None:
        """Return at what price an order is filled at once; None when it is not."""
        price = self._quoted(order.symbol, order.side)
        if price is None or order.limit_price is None:
            return price
        crosses = price <= order.limit_price if order.side == "buy" else price >= order.limit_price
        return price if crosses else None

    async def _market_price(self, symbol: str, side: Side) -> Decimal:
        quoted = self._quoted(symbol, side)
        return await self._last_close(symbol) if quoted is None else quoted

    def _quoted(self, symbol: str, side: Side) -> Decimal | None:
        quote = self.prices.quote(symbol)
        if quote is None:
            return None
        price = quote.ask_price if side == "buy" else quote.bid_price
        return Decimal(repr(price)) if price > 0 else None

    async def _last_close(self, symbol: str) -> Decimal:
        session = await self.prices.session_before(sync_day(self.now()))
        return self.prices.lastday(symbol, session)


def pieces_of(qty: Decimal, count: int) -> list[Decimal]:
    """Return `qty` in `count` parts that are about equal and add up: whole shares where the whole is.

    Raises AccountError when it is not positive, or too small for so many parts.
    """
    if qty <= 0:
        raise AccountError("qty: must be above 0")
    unit = _ONE_SHARE if qty == qty.to_integral_value() and qty >= count else _SMALLEST_QTY
    part = (qty / count).quantize(unit, ROUND_DOWN)
    if part <= 0:
        raise AccountError(f"pieces: {qty:f} shares are too few for {count}")
    return [*[part] * (count - 1), qty - part * (count - 1)]
