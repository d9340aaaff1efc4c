"""The real, unmodified SDK cannot tell the trading side: its trading stream and its trading client."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.models import NonTradeActivity, TradeActivity
from alpaca.trading.requests import GetOrdersRequest, LimitOrderRequest, MarketOrderRequest
from alpaca.trading.stream import TradingStream
from pydantic import TypeAdapter

from apps.alpaca_simulator.config import HeldPosition
from tests.apps.alpaca_simulator.trading_line import trading
from tests.support.waiting import eventually

D = Decimal


@asynccontextmanager
async def told(sim):
    """Run the SDK's stream and yield the list of what it hands out."""
    updates = []

    async def on_update(update):
        updates.append(update)

    stream = TradingStream("K", "S", url_override=sim.trading_stream_url)
    stream.subscribe_trade_updates(on_update)
    running = asyncio.create_task(stream._run_forever())
    try:
        await eventually(lambda: sim.updates.connections and sim.updates.connections[0].session.is_listening)
        yield updates
    finally:
        await stream.stop_ws()
        running.cancel()
        await asyncio.wait([running])
        await stream.close()


async def test_the_trading_stream():
    async with trading() as (sim, broker):
        async with told(sim) as updates:
            ids = await broker.fill("AAPL", "sell", 3, "231.5", pieces=2)
            await broker.act("bust", execution_id=ids[0])
            await eventually(lambda: len(updates) == 4)
        await eventually(lambda: not sim.updates.connections)
    assert [update.event for update in updates] == ["new", "partial_fill", "fill", "trade_bust"]
    assert [str(update.execution_id) for update in updates[1:3]] == ids
    assert [(update.price, update.qty, update.position_qty) for update in updates[1:3]] == [
        (231.5, 1.0, -1.0),
        (231.5, 2.0, -3.0),
    ]
    assert updates[2].order.status is OrderStatus.FILLED
    assert (updates[0].order.symbol, updates[0].order.side) == ("AAPL", OrderSide.SELL)


async def test_orders():
    async with trading() as (sim, _):
        sim.emit("AAPL", 99.98, 100.02)
        client = TradingClient("K", "S", url_override=sim.base_url)
        market = MarketOrderRequest(symbol="AAPL", qty=2, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
        placed = await asyncio.to_thread(client.submit_order, market)
        assert (await asyncio.to_thread(client.get_order_by_id, placed.id)).status is OrderStatus.FILLED
        limit = LimitOrderRequest(
            symbol="AAPL", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=50
        )
        waiting = await asyncio.to_thread(client.submit_order, limit)
        asked = GetOrdersRequest(status=QueryOrderStatus.OPEN)
        assert [one.id for one in await asyncio.to_thread(client.get_orders, asked)] == [waiting.id]
        await asyncio.to_thread(client.cancel_order_by_id, waiting.id)
        assert await asyncio.to_thread(client.get_orders, asked) == []
        with pytest.raises(APIError) as refused:
            await asyncio.to_thread(client.cancel_order_by_id, waiting.id)
        assert refused.value.code == 42210000


async def test_positions_account_and_activities():
    async with trading(positions=(HeldPosition("AAPL", D(10), D(100)),)) as (sim, broker):
        await broker.act("split", symbol="AAPL", new=2, old=1)
        await broker.act("dividend", symbol="AAPL", per_share="0.25")
        client = TradingClient("K", "S", url_override=sim.base_url)
        (position,) = await asyncio.to_thread(client.get_all_positions)
        assert (position.qty, position.cost_basis) == ("20", "1000")
        assert (await asyncio.to_thread(client.get_account)).cash == "100005"
        # The SDK's trading client has no call for activities, only models for them.
        # The models are the broker API's, which knows many accounts.
        found = await asyncio.to_thread(client.get, "/account/activities", {"direction": "asc"})
        raw = [{**one, "account_id": position.asset_id} for one in found]
        fills = TypeAdapter(list[TradeActivity]).validate_python([one for one in raw if one["activity_type"] == "FILL"])
        others = TypeAdapter(list[NonTradeActivity]).validate_python([one for one in raw if "net_amount" in one])
        assert [(one.symbol, one.qty) for one in fills] == [("AAPL", 10.0)]
        assert [(one.activity_type.value, one.qty) for one in others[1:]] == [
            ("SPLIT", -10),
            ("SPLIT", 20),
            ("DIV", 20),
        ]
