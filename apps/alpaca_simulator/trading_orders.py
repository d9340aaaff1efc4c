"""The trading host's orders: placed, listed, shown, canceled. A market order and a marketable limit are filled at once.

A limit order that is not marketable stays open; nothing fills it later but an act that names it.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from apps.alpaca_simulator.account_entries import AccountError
from apps.alpaca_simulator.orders import Order
from apps.alpaca_simulator.rest_access import RefusedError, RestAccess
from apps.alpaca_simulator.trading import CODE_SUFFIX, asked_count, asked_descending, asked_moment_or_none
from apps.alpaca_simulator.trading_desk import TradingDesk
from apps.alpaca_simulator.trading_limits import TradingLimits
from libs.market_data.symbols import MalformedSymbolError, parse_symbol

_USUAL_COUNT: Final = 50
_MOST: Final = 500
_FINEST_QTY: Final = -9
_STATUSES: Final = frozenset({"open", "closed", "all"})


class OrderRequest(msgspec.Struct, frozen=True):
    """What is asked for; fields that are not known here are passed over, as at Alpaca."""

    symbol: str
    side: Literal["buy", "sell"]
    qty: Decimal
    type: Literal["market", "limit"] = "market"
    time_in_force: Literal["day", "gtc", "opg", "cls", "ioc", "fok"] = "day"
    limit_price: Decimal | None = None
    client_order_id: Annotated[str, Meta(max_length=128)] | None = None

    def __post_init__(self) -> None:
        exponent = self.qty.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < _FINEST_QTY or self.qty <= 0:
            raise ValueError("qty must be above 0, with 9 decimals at most")
        if (self.type == "limit") != (self.limit_price is not None):
            raise ValueError("a limit order, and no other, has a limit_price")
        if self.limit_price is not None and not (self.limit_price.is_finite() and self.limit_price > 0):
            raise ValueError("limit_price must be above 0")
        try:
            parse_symbol(self.symbol)
        except MalformedSymbolError as fault:
            raise ValueError(f"symbol: {fault}") from fault


class OrdersRest:
    """The calls under `/v2/orders`."""

    def __init__(self, desk: TradingDesk) -> None:
        self._desk = desk

    def routes(self, access: RestAccess, limits: TradingLimits) -> list[web.RouteDef]:
        """Return the guarded routes."""
        handlers = (
            ("POST", "/v2/orders", self._place),
            ("GET", "/v2/orders", self._list),
            ("GET", "/v2/orders/{order_id}", self._show),
            ("DELETE", "/v2/orders/{order_id}", self._cancel),
        )
        return [
            web.route(method, path, limits.guard(access.guard(handler, code_suffix=CODE_SUFFIX)))
            for method, path, handler in handlers
        ]

    async def _place(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=OrderRequest)
            order = self._desk.account.orders.place(
                parse_symbol(asked.symbol),
                asked.side,
                asked.qty,
                self._desk.now(),
                limit_price=asked.limit_price,
                time_in_force=asked.time_in_force,
                client_order_id=asked.client_order_id,
            )
        except (msgspec.MsgspecError, AccountError) as fault:
            raise RefusedError(422, str(fault)) from fault
        await self._desk.submit(order)
        # As it was accepted: what became of it since is told on the stream.
        return web.json_response(order.body())

    async def _list(self, request: web.Request) -> web.Response:
        status = request.query.get("status") or "open"
        if status not in _STATUSES:
            raise RefusedError(422, f"invalid status: {status[:40]}")
        after, until = asked_moment_or_none(request, "after"), asked_moment_or_none(request, "until")
        symbols = {symbol for symbol in request.query.get("symbols", "").split(",") if symbol}
        found = [
            order
            for order in self._desk.account.orders.all()
            if (status == "all" or order.is_open == (status == "open"))
            and (not symbols or order.symbol in symbols)
            and _is_between(order, after, until)
        ]
        found.sort(key=lambda order: order.created_at, reverse=asked_descending(request))
        limit = asked_count(request, "limit", _USUAL_COUNT, _MOST)
        return web.json_response([order.body() for order in found[:limit]])

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._named(request).body())

    async def _cancel(self, request: web.Request) -> web.Response:
        order = self._named(request)
        try:
            await self._desk.cancel(order.order_id)
        except AccountError as fault:
            raise RefusedError(422, str(fault)) from fault
        return web.Response(status=204)

    def _named(self, request: web.Request) -> Order:
        try:
            return self._desk.account.orders.get(request.match_info["order_id"])
        except AccountError as fault:
            raise RefusedError(404, "order not found") from fault


def _is_between(order: Order, after: datetime | None, until: datetime | None) -> bool:
    return (after is None or order.created_at > after) and (until is None or order.created_at < until)
