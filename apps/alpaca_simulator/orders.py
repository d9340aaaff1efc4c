"""The orders of the simulated account, and how the API writes one. Pure: it fills nothing by itself."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any, Final, Literal
from uuid import uuid4

from apps.alpaca_simulator.account_entries import AccountError
from apps.alpaca_simulator.lots import COSTS, NOTHING
from apps.alpaca_simulator.wire_text import asset_id, moment_text, number_text

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit"]

_OPEN: Final = frozenset({"new", "partially_filled"})
_ALWAYS_NULL: Final = (
    "expired_at", "failed_at", "replaced_at", "replaced_by", "replaces", "notional", "stop_price", "legs",
    "trail_percent", "trail_price", "hwm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One execution's share in an order: the quantity, whose sign does not matter, and its price in USD."""

    qty: Decimal
    price: Decimal

    @property
    def value(self) -> Decimal:
        """What it is worth, unsigned."""
        with localcontext(COSTS):
            return abs(self.qty) * self.price


@dataclass(frozen=True, slots=True)
class Order:
    """One order. Quantities are unsigned; `filled_value` is the sum of quantity times price over its executions."""

    order_id: str
    client_order_id: str
    symbol: str
    side: Side
    qty: Decimal
    order_type: OrderType
    limit_price: Decimal | None
    time_in_force: str
    created_at: datetime
    updated_at: datetime
    filled_qty: Decimal = NOTHING
    filled_value: Decimal = NOTHING
    filled_at: datetime | None = None
    canceled_at: datetime | None = None

    @property
    def leaves_qty(self) -> Decimal:
        """What is not filled yet; negative when corrections made it more than was ordered."""
        return self.qty - self.filled_qty

    @property
    def status(self) -> str:
        """Where the order stands, in the API's words."""
        if self.filled_qty >= self.qty:
            return "filled"
        if self.canceled_at is not None:
            return "canceled"
        return "partially_filled" if self.filled_qty else "new"

    @property
    def is_open(self) -> bool:
        """Whether it may still be filled."""
        return self.status in _OPEN

    def body(self) -> dict[str, Any]:
        """Return the order as the API writes it: numbers are strings."""
        with localcontext(COSTS):
            average = number_text(self.filled_value / self.filled_qty) if self.filled_qty else None
        created = moment_text(self.created_at)
        return {
            "id": self.order_id,
            "client_order_id": self.client_order_id,
            "created_at": created,
            "updated_at": moment_text(self.updated_at),
            "submitted_at": created,
            "filled_at": None if self.filled_at is None else moment_text(self.filled_at),
            "canceled_at": None if self.canceled_at is None else moment_text(self.canceled_at),
            "cancel_requested_at": None,
            "asset_id": asset_id(self.symbol),
            "symbol": self.symbol,
            "asset_class": "us_equity",
            "qty": number_text(self.qty),
            "filled_qty": number_text(self.filled_qty),
            "filled_avg_price": average,
            "order_class": "",
            "order_type": self.order_type,
            "type": self.order_type,
            "side": self.side,
            "time_in_force": self.time_in_force,
            "limit_price": None if self.limit_price is None else number_text(self.limit_price),
            "status": self.status,
            "extended_hours": False,
        } | dict.fromkeys(_ALWAYS_NULL)  # fmt: skip


class Orders:
    """Every order, oldest first."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}

    def place(
        self,
        symbol: str,
        side: Side,
        qty: Decimal,
        now: datetime,
        *,
        limit_price: Decimal | None = None,
        time_in_force: str = "day",
        client_order_id: str | None = None,
        order_id: str | None = None,
    ) -> Order:
        """Take in a new order for `qty` shares (unsigned): a limit order when it has a limit in USD.

        Raises AccountError when its client order id is taken.
        """
        if client_order_id is not None and any(order.client_order_id == client_order_id for order in self.all()):
            raise AccountError("client_order_id must be unique")
        order = Order(
            order_id=order_id or str(uuid4()),
            client_order_id=client_order_id or str(uuid4()),
            symbol=symbol,
            side=side,
            qty=qty,
            order_type="market" if limit_price is None else "limit",
            limit_price=limit_price,
            time_in_force=time_in_force,
            created_at=now,
            updated_at=now,
        )
        return self._put(order)

    def get(self, order_id: str) -> Order:
        """Return an order. Raises AccountError when there is none."""
        if order_id not in self._orders:
            raise AccountError(f"order_id: {order_id[:60]} is not known")
        return self._orders[order_id]

    def all(self) -> list[Order]:
        """Return them all, oldest first."""
        return list(self._orders.values())

    def open_qty(self, symbol: str, side: Side) -> Decimal:
        """Return how many shares open orders of one side are for."""
        found = (one for one in self._orders.values() if (one.symbol, one.side) == (symbol, side) and one.is_open)
        return sum((order.leaves_qty for order in found), NOTHING)

    def filled(self, order_id: str, qty: Decimal, price: Decimal, at: datetime) -> Order:
        """Record an execution of `qty` shares (unsigned). Raises AccountError when the order has no room for it."""
        order = self.get(order_id)
        if not order.is_open:
            raise AccountError(f"order_id: the order is {order.status}")
        if qty > order.leaves_qty:
            raise AccountError(f"qty: the order is open for {order.leaves_qty:f} only")
        return self._changed(order, None, Part(qty, price), at)

    def amended(self, order_id: str, before: Part, after: Part | None, now: datetime) -> Order:
        """Record that an execution was corrected, or busted when `after` is None."""
        return self._changed(self.get(order_id), before, after, now)

    def canceled(self, order_id: str, now: datetime) -> Order:
        """Cancel what is not filled. Raises AccountError when the order is not open."""
        order = self.get(order_id)
        if not order.is_open:
            raise AccountError(f"order_id: the order is {order.status}")
        return self._put(replace(order, canceled_at=now, updated_at=now))

    def clear(self) -> None:
        """Forget them all."""
        self._orders.clear()

    def _changed(self, order: Order, before: Part | None, after: Part | None, now: datetime) -> Order:
        qty, value = order.filled_qty, order.filled_value
        with localcontext(COSTS):
            if before is not None:
                qty, value = qty - abs(before.qty), value - before.value
            if after is not None:
                qty, value = qty + abs(after.qty), value + after.value
        is_filled = qty >= order.qty
        return self._put(
            replace(order, filled_qty=qty, filled_value=value, updated_at=now, filled_at=now if is_filled else None)
        )

    def _put(self, order: Order) -> Order:
        self._orders[order.order_id] = order
        return order
