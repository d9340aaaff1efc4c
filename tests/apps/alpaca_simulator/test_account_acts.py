"""The account's acts: over HTTP, in a scenario, and each of them made wrongly."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from apps.alpaca_simulator.account_acts import ACCOUNT_ACTS
from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.scenario import ScenarioError, read_scenario, read_scenario_file
from tests.apps.alpaca_simulator.trading_line import trading
from tests.support.waiting import eventually

D = Decimal
APPLE = (HeldPosition("AAPL", D(100), D(150)),)

WRONG = [
    ("fill", {"side": "buy", "qty": 1}, "symbol"),
    ("fill", {"symbol": "$$", "side": "buy", "qty": 1}, "symbol"),
    ("fill", {"symbol": "AAPL", "side": "short", "qty": 1}, "side"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": -1}, "qty"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": "1e-10"}, "qty"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": "NaN"}, "qty"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 1, "price": 0}, "price"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 1, "pieces": 0}, "pieces"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": "0.000000001", "pieces": 2}, "pieces"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 2, "pieces": 2, "execution_ids": ["a"]}, "execution_ids"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 1, "at": "2026-11-16T10:00:00"}, "at"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 1, "announce": "maybe"}, "announce"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 1, "order_id": "nobody"}, "order_id"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 2, "order_qty": 1}, "order_qty"),
    ("fill", {"symbol": "AAPL", "side": "buy", "qty": 1, "hue": "red"}, "hue"),
    ("bust", {"execution_id": "nobody"}, "execution_id"),
    ("correct", {"execution_id": "nobody", "price": 1}, "execution_id"),
    ("correct", {"execution_id": "nobody"}, "price"),
    ("split", {"symbol": "KO", "new": 2, "old": 1}, "symbol"),
    ("split", {"symbol": "AAPL", "new": 0, "old": 1}, "new"),
    ("symbol-change", {"symbol": "KO", "new_symbol": "COKE"}, "symbol"),
    ("symbol-change", {"symbol": "AAPL", "new_symbol": "$"}, "new_symbol"),
    ("dividend", {"symbol": "KO", "per_share": 1}, "symbol"),
    ("fee", {"amount": "Infinity"}, "amount"),
    ("fee", {"amount": 1, "type": "a fee"}, "type"),
    ("cash", {}, "amount"),
    ("holding", {"fields": {"qty": "1"}}, "symbol"),
    ("holding", {}, "fields"),
    ("wrong-price", {"symbol": "AAPL"}, "price"),
    ("drop-trading", {"how": "gently"}, "how"),
    ("account-reset", {"now": True}, "now"),
]


@pytest.mark.parametrize(("name", "fields", "field"), WRONG)
async def test_a_wrong_act_is_named_and_changes_nothing(name, fields, field):
    async with trading(positions=APPLE) as (sim, broker):
        before, recorded = await broker.truth(), sim.account.recorded
        told = await broker.act(name, expects=400, **fields)
        assert field in told["message"]
        after = await broker.truth()
        assert {**after, "time": 0} == {**before, "time": 0}
        assert sim.account.recorded == recorded
        assert len(sim.account.orders.all()) == 1


def test_every_act_is_made_wrongly():
    assert {name for name, _, _ in WRONG} | {"remove-holding"} == {name.replace("_", "-") for name in ACCOUNT_ACTS}


async def test_nothing_is_added_before_a_split():
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    async with trading(positions=APPLE) as (sim, broker):
        await broker.act("split", symbol="AAPL", new=2, old=1)
        told = await broker.act("fill", expects=400, symbol="AAPL", side="buy", qty=1, price=1, at=yesterday)
        assert told["message"].startswith("at: before the split")
        assert len(sim.account.orders.all()) == 1
        await broker.fill("KO", "buy", 1, 1, at=yesterday)


async def test_an_order_is_filled_bit_by_bit():
    async with trading() as (_, broker):
        order = await broker.act("fill", symbol="AAPL", side="buy", qty=3, price=100, order_qty=10)
        rest = {"symbol": "AAPL", "side": "buy", "price": 101, "order_id": order["order_id"]}
        assert "order_id" in (await broker.act("fill", expects=400, qty=8, **rest))["message"]
        assert "order_id" in (await broker.act("fill", expects=400, qty=1, **rest | {"side": "sell"}))["message"]
        await broker.act("fill", qty=7, **rest)
        shown = await broker.get(f"orders/{order['order_id']}")
        assert (shown["status"], shown["filled_avg_price"]) == ("filled", "100.7")
        assert "filled" in (await broker.act("fill", expects=400, qty=1, **rest))["message"]


async def test_ids_prices_and_times_as_given():
    yesterday = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)
    async with trading(positions=APPLE) as (sim, broker):
        sim.emit("AAPL", 231.98, 232.02)
        ids = ["6f5c7c1e-0000-4000-8000-000000000001", "6f5c7c1e-0000-4000-8000-000000000002"]
        bought = await broker.act(
            "fill", symbol="aapl", side="buy", qty="0.5", pieces=2, execution_ids=ids, at=yesterday.isoformat()
        )
        assert bought["execution_ids"] == ids
        assert [(one["price"], one["qty"]) for one in (await broker.truth())["executions"][1:]] == [
            ("232.02", "0.25")
        ] * 2
        assert {datetime.fromisoformat(one["at"]) for one in (await broker.truth())["executions"][1:]} == {yesterday}
        assert (await broker.truth())["positions"]["AAPL"]["qty"] == "100.5"
        again = await broker.act("fill", expects=400, symbol="AAPL", side="buy", qty=1, execution_ids=ids[:1])
        assert "execution_ids" in again["message"]


async def test_a_reset():
    async with trading(positions=APPLE) as (_, broker):
        before = await broker.truth()
        await broker.fill("AAPL", "sell", 100, 200)
        await broker.act("wrong-price", symbol="AAPL", price=1)
        assert await broker.act("account-reset") == {"cash": "100000"}
        after = await broker.truth()
        assert (after["positions"], after["executions"]) == (before["positions"], before["executions"])


SCENARIO = """
begin = "start"
[[step]]
at = 0.0
act = "bust"
execution_id = "nobody"
[[step]]
at = 0.05
act = "fill"
symbol = "AAPL"
side = "buy"
qty = 2.5
price = 101.25
at_time = 1
"""


async def test_in_a_scenario_a_refused_act_stops_nothing():
    script = read_scenario_file(SCENARIO.replace("at_time = 1", "").encode())
    async with trading(scenario=script) as (sim, broker):
        await eventually(lambda: not sim.scenario.is_running)
        (one,) = (await broker.truth())["executions"]
        assert (one["qty"], one["price"]) == ("2.5", "101.25")


def test_a_wrong_scenario_is_named():
    with pytest.raises(ScenarioError, match=r"step 2, fill: .*at_time"):
        read_scenario_file(SCENARIO.encode())
    with pytest.raises(ScenarioError, match=r"step 1, act: 'buy' is none of .*drop_trading"):
        read_scenario({"steps": [{"at": 0, "act": "buy"}]})
