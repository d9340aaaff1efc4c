"""The trading REST calls over a real socket: positions, account, activities, orders, limits."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.market import MarketSetting
from apps.alpaca_simulator.trading_limits import RateWindow
from tests.apps.alpaca_simulator.trading_line import listening, trading

D = Decimal
MONDAY = datetime(2026, 11, 16, 15, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    def __init__(self, now=MONDAY):
        self.now = now

    def __call__(self):
        return self.now


def held(*positions):
    return tuple(HeldPosition(symbol, D(qty), D(price)) for symbol, qty, price in positions)


def number(body, *names):
    return tuple(D(body[name]) for name in names)


class TestPositions:
    async def test_the_worked_example_through_the_week(self):
        clock = Clock()
        async with trading(now=clock) as (_, broker):
            await broker.fill("AAPL", "buy", 100, 10)
            await broker.fill("AAPL", "buy", 50, 12)
            clock.now += DAY
            await broker.fill("AAPL", "buy", 30, 15)
            clock.now += DAY
            await broker.fill("AAPL", "sell", 120, 14)
            (position,) = await broker.get("positions")
            assert (position["qty"], round(D(position["avg_entry_price"]), 2)) == ("60", D("11.39"))
            clock.now += DAY
            (position,) = await broker.get("positions")
            assert (position["cost_basis"], position["avg_entry_price"]) == ("770", "12.833333333")

    async def test_a_sync_changes_the_cost_and_no_value(self):
        sync = datetime(2026, 11, 17, 7, 30, tzinfo=UTC)
        clock = Clock()
        early = HeldPosition("AAPL", D(100), D(10), MONDAY - 9 * DAY)
        late = HeldPosition("AAPL", D(100), D(30), MONDAY - 8 * DAY)
        async with trading(positions=(early, late), now=clock) as (sim, broker):
            sim.emit("AAPL", 231.99, 232.01)
            await broker.fill("AAPL", "sell", 150, 232)
            seen = []
            for clock.now in (sync - timedelta(seconds=1), sync):
                seen.append((await broker.get("positions/AAPL"), await broker.get("account")))
            (before, account_before), (after, account_after) = seen
            assert (before["cost_basis"], after["cost_basis"]) == ("1000", "1500")
            assert D(before["unrealized_pl"]) - D(after["unrealized_pl"]) == 500
            assert account_before["equity"] == account_after["equity"]
            assert account_before["last_equity"] != account_after["last_equity"]
            # The new day counts from Monday's close; Monday's sale is no longer part of it.
            intraday = D(account_after["equity"]) - D(account_after["last_equity"])
            assert intraday == D(after["unrealized_intraday_pl"]) == 50 * (232 - D(after["lastday_price"]))

    async def test_shares_of_today_count_from_their_entry(self):
        async with trading(positions=held(("AAPL", 10, 100))) as (sim, broker):
            sim.emit("AAPL", 240.00, 240.02)
            (overnight,) = await broker.get("positions")
            current, lastday, intraday = number(overnight, "current_price", "lastday_price", "unrealized_intraday_pl")
            assert (current, intraday) == (D("240.01"), 10 * (current - lastday))
            await broker.fill("AAPL", "buy", 5, 230)
            (mixed,) = await broker.get("positions")
            assert D(mixed["unrealized_intraday_pl"]) == intraday + 5 * (current - 230)
            await broker.fill("AAPL", "sell", 10, 240)
            (today,) = await broker.get("positions")
            assert D(today["unrealized_intraday_pl"]) == 5 * (current - 230)
            assert today["qty"] == "5"
            assert round(D(today["cost_basis"]), 4) == round(D(2150) / 3, 4)

    async def test_the_close_of_the_day_before(self):
        clock = Clock(datetime(2026, 11, 16, 7, 29, tzinfo=UTC))
        async with trading(positions=held(("AAPL", 10, 100)), now=clock) as (sim, broker):
            friday, thursday = (
                D(repr(sim.desk.prices._history.close("AAPL", (MONDAY - age * DAY).date()))) for age in (3, 4)
            )
            assert friday != thursday
            (before_the_sync,) = await broker.get("positions")
            clock.now = MONDAY + timedelta(hours=8)
            (monday_evening,) = await broker.get("positions")
            assert D(monday_evening["lastday_price"]) == D(before_the_sync["lastday_price"]) == friday
            assert (await broker.get("account"))["balance_asof"] == "2026-11-13"

    async def test_the_last_trade_is_the_current_price(self):
        async with trading(positions=held(("AAPL", 10, 100))) as (sim, broker):
            sim.emit("AAPL", 231, 233)
            sim.trade("AAPL", 232.75)
            assert (await broker.get("positions/AAPL"))["current_price"] == "232.75"
            await broker.act("split", symbol="AAPL", new=5, old=1)
            assert (await broker.get("positions/AAPL"))["current_price"] == "46.55"

    async def test_a_wrong_price_until_told_otherwise(self):
        async with trading(positions=held(("AAPL", 10, 100))) as (sim, broker):
            sim.emit("AAPL", 200, 202)
            assert (await broker.act("wrong-price", symbol="aapl", price="2.01"))["wrong"] == {"AAPL": "2.01"}
            assert (await broker.get("positions/AAPL"))["current_price"] == "2.01"
            await broker.act("wrong-price", symbol="AAPL", price=None)
            assert (await broker.get("positions/AAPL"))["current_price"] == "201"

    async def test_exotic_holdings(self):
        async with trading(positions=held(("AAPL", 10, 100), ("KO", 5, 60))) as (_, broker):
            coin = {"symbol": "BTC/USD", "asset_class": "crypto", "qty": "0.5", "market_value": None}
            await broker.act("holding", fields=coin)
            await broker.act(
                "holding", fields={"symbol": "KO", "asset_class": "global_equity"}, without=["side", "qty"]
            )
            apple, coke, shown = await broker.get("positions")
            assert (apple["asset_class"], coke["asset_class"]) == ("us_equity", "global_equity")
            assert coke.keys() == apple.keys() - {"side", "qty"}
            assert shown == coin == await broker.get("positions/BTC/USD")
            for symbol in ("KO", "BTC/USD"):
                assert await broker.act("remove-holding", symbol=symbol) == {"removed": True}
            assert [one.keys() for one in await broker.get("positions")] == [apple.keys()] * 2

    async def test_flat_is_an_empty_list(self):
        async with trading() as (_, broker):
            assert await broker.get("positions") == []
            assert (await broker.get("positions/AAPL", expects=404))["code"] == 40410000


class TestAccount:
    async def test_it_adds_up(self):
        async with trading(positions=held(("AAPL", 10, 100), ("F", -20, 12))) as (_, broker):
            before = await broker.get("account")
            positions = await broker.get("positions")
            cash, equity, last = number(before, "cash", "equity", "last_equity")
            assert equity - cash == sum(D(one["market_value"]) for one in positions)
            assert equity - last == sum(D(one["unrealized_intraday_pl"]) for one in positions)
            await broker.fill("AAPL", "sell", 10, 240, fee="0.02")
            after = await broker.get("account")
            assert D(after["cash"]) == cash + 2400 - D("0.02")
            assert after["last_equity"] == before["last_equity"]
            assert [one["symbol"] for one in await broker.get("positions")] == ["F"]

    async def test_a_split_moves_prices_and_no_value(self):
        async with trading(positions=held(("AAPL", 10, 100))) as (sim, broker):
            sim.emit("AAPL", 232.00, 232.04)
            before, account_before = await broker.get("positions/AAPL"), await broker.get("account")
            bars = await broker.get(
                "stocks/bars", symbols="AAPL", timeframe="1Day", start="2025-01-02", end="2025-01-31"
            )
            await broker.act("split", symbol="AAPL", new=2, old=1)
            after, account_after = await broker.get("positions/AAPL"), await broker.get("account")
            assert (after["qty"], after["cost_basis"]) == ("20", "1000")
            assert D(after["lastday_price"]) * 2 == D(before["lastday_price"])
            assert D(after["current_price"]) * 2 == D(before["current_price"])
            assert after["unrealized_intraday_pl"] == before["unrealized_intraday_pl"]
            assert number(account_after, "equity", "last_equity") == number(account_before, "equity", "last_equity")
            # What was fetched before stays true: closes are unadjusted.
            assert bars == await broker.get(
                "stocks/bars", symbols="AAPL", timeframe="1Day", start="2025-01-02", end="2025-01-31"
            )

    async def test_a_symbol_change_takes_the_price_along(self):
        async with trading(positions=held(("AAPL", 10, 100))) as (_, broker):
            await broker.act("split", symbol="AAPL", new=2, old=1)
            before = await broker.get("positions/AAPL")
            await broker.act("symbol-change", symbol="AAPL", new_symbol="FRUT")
            after = await broker.get("positions/FRUT")
            for name in ("qty", "cost_basis", "current_price"):
                assert after[name] == before[name]
            assert abs(D(after["lastday_price"]) / D(before["lastday_price"]) - 1) < D("0.03")
            await broker.get("positions/AAPL", expects=404)

    async def test_a_restart_forgets_no_split_and_no_symbol_change(self):
        async with trading(positions=held(("AAPL", 10, 100))) as (sim, broker):
            await broker.act("split", symbol="AAPL", new=4, old=1)
            await broker.act("symbol-change", symbol="AAPL", new_symbol="FRUT")
            before = await broker.get("positions/FRUT")
            await sim.stop()
            await sim.start()
            after = await broker.get("positions/FRUT")
            assert {**after, "current_price": 0}.items() >= {
                (name, before[name]) for name in ("qty", "cost_basis", "lastday_price")
            }
            assert D(after["current_price"]) == pytest.approx(D(58), rel=D("0.02"))
            assert D(after["lastday_price"]) == pytest.approx(D(58), rel=D("0.03"))


class TestActivities:
    async def test_shapes(self):
        async with trading(positions=held(("AAPL", 10, 100))) as (_, broker):
            (opening,) = await broker.get("account/activities/FILL")
            assert opening["id"].endswith(f"::{next(iter((await broker.truth())['executions']))['execution_id']}")
            first, _ = await broker.fill("AAPL", "buy", 3, "231.5", pieces=2)
            _, partial, *_ = await broker.get("account/activities", activity_types="FILL")
            assert partial["id"].split("::")[1] == first
            assert {name: partial[name] for name in ("type", "qty", "cum_qty", "leaves_qty", "price", "side")} == {
                "type": "partial_fill", "qty": "1", "cum_qty": "1", "leaves_qty": "2", "price": "231.5", "side": "buy",
            }  # fmt: skip
            await broker.act("dividend", symbol="AAPL", per_share="0.25")
            (dividend,) = await broker.get("account/activities/DIV")
            assert dividend.items() >= {
                "activity_type": "DIV", "symbol": "AAPL", "qty": "13", "per_share_amount": "0.25", "net_amount": "3.25",
                "status": "executed",
            }.items()  # fmt: skip

    async def test_paging_in_both_directions(self):
        clock = Clock()
        async with trading(now=clock) as (_, broker):
            for _ in range(7):
                await broker.fill("AAPL", "buy", 1, 100)
                clock.now += timedelta(minutes=1)
            for direction in ("asc", "desc"):
                found, token = [], {}
                while page := await broker.get("account/activities", direction=direction, page_size=3, **token):
                    assert len(page) <= 3
                    found += [one["id"] for one in page]
                    token = {"page_token": page[-1]["id"]}
                assert len(found) == len(set(found)) == 8
                assert found == sorted(found, reverse=direction == "desc")
            after = (MONDAY + timedelta(minutes=4)).isoformat()
            later = await broker.get(
                "account/activities", after=after, until=(MONDAY + timedelta(minutes=6)).isoformat()
            )
            assert [one["transaction_time"][14:16] for one in later] == ["05"]
            assert len(await broker.get("account/activities", date="2026-11-16")) == 7
            assert await broker.get("account/activities", date="2026-11-17") == []

    @pytest.mark.parametrize(
        "query",
        [{"page_size": "101"}, {"page_size": "0"}, {"direction": "up"}, {"page_token": "x"},
         {"date": "2026-11-16", "after": "2026-11-16"}],
    )  # fmt: skip
    async def test_wrong_questions(self, query):
        async with trading() as (_, broker):
            assert (await broker.get("account/activities", expects=422, **query))["code"] == 42210000

    async def test_busts_and_corrections(self):
        async with trading() as (sim, broker):
            (gone,) = await broker.fill("AAPL", "buy", 1, 100)
            (kept,) = await broker.fill("AAPL", "buy", 1, 100)
            await broker.act("bust", execution_id=gone)
            await broker.act("correct", execution_id=kept, price="99.5", qty="2")
            (one,) = await broker.get("account/activities/FILL")
            assert (one["id"].split("::")[1], one["price"], one["qty"]) == (kept, "99.5", "2")
            sim.faults = Faults(busted_stay=True)
            assert len(await broker.get("account/activities/FILL")) == 2

    async def test_a_full_catch_up_explains_positions_and_cash(self):
        clock = Clock()
        async with trading(positions=held(("AAPL", 10, 100), ("F", -20, 12)), now=clock) as (_, broker):
            await broker.fill("AAPL", "sell", 3, 240, pieces=2, fee="0.01")
            clock.now += DAY
            await broker.act("split", symbol="AAPL", new=1, old=3)
            await broker.act("symbol-change", symbol="F", new_symbol="FORD")
            await broker.act("dividend", symbol="FORD", per_share="0.15")
            await broker.act("cash", amount="-50")
            shares, cash = {}, D(0)
            for one in await broker.get("account/activities", direction="asc"):
                if one["activity_type"] == "FILL":
                    signed = D(one["qty"]) * (1 if one["side"] == "buy" else -1)
                    cash -= signed * D(one["price"])
                else:
                    signed = D(one.get("qty", 0)) if one["activity_type"] in {"SPLIT", "NC"} else D(0)
                    cash += D(one["net_amount"])
                if signed:
                    shares[one["symbol"]] = shares.get(one["symbol"], 0) + signed
            truth = await broker.truth()
            assert {symbol: qty for symbol, qty in shares.items() if qty} == {
                symbol: D(one["qty"]) for symbol, one in truth["positions"].items()
            }
            assert cash == D(truth["cash"])


class TestOrders:
    async def place(self, broker, status=200, **fields):
        answer = await broker.http.post("/v2/orders", json=fields)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def test_a_market_order_is_filled_at_the_quote(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.emit("AAPL", 99.98, 100.02)
            order = await self.place(broker, symbol="AAPL", side="buy", qty="2", type="market", client_order_id="mine")
            assert (order["status"], order["client_order_id"]) == ("new", "mine")
            assert (await line.event())["event"] == "new"
            (event,) = await line.executed()
            assert (event["event"], event["price"], event["order"]["id"]) == ("fill", "100.02", order["id"])
            shown = await broker.get(f"orders/{order['id']}")
            assert (shown["status"], shown["filled_avg_price"]) == ("filled", "100.02")
            refused = await self.place(broker, 422, symbol="AAPL", side="buy", qty="2", client_order_id="mine")
            assert refused["message"] == "client_order_id must be unique"

    async def test_pieces(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.emit("AAPL", 99.98, 100.02)
            sim.faults = Faults(order_pieces=3)
            await self.place(broker, symbol="AAPL", side="sell", qty="1", type="limit", limit_price="99")
            events = await line.executed(3)
            assert [event["event"] for event in events] == ["partial_fill", "partial_fill", "fill"]
            assert {event["price"] for event in events} == {"99.98"}
            assert events[-1]["position_qty"] == "-1"

    async def test_a_limit_that_is_not_marketable_stays_and_is_canceled(self):
        async with trading() as (sim, broker), listening(sim) as line:
            sim.emit("AAPL", 99.98, 100.02)
            order = await self.place(broker, symbol="AAPL", side="buy", qty="2", type="limit", limit_price="100.01")
            assert (await line.event())["event"] == "new"
            assert [one["id"] for one in await broker.get("orders")] == [order["id"]]
            assert await broker.get("orders", status="closed") == []
            await broker.fill("AAPL", "buy", 1, 100, order_id=order["id"])
            assert (await line.event())["order"]["status"] == "partially_filled"
            answer = await broker.http.delete(f"/v2/orders/{order['id']}")
            assert (answer.status_code, answer.content) == (204, b"")
            assert (await line.event())["event"] == "canceled"
            assert await broker.get("orders") == []
            assert [one["filled_qty"] for one in await broker.get("orders", status="all")] == ["1"]
            assert (await broker.http.delete(f"/v2/orders/{order['id']}")).status_code == 422

    @pytest.mark.parametrize(("qty", "side", "available"), [(5, "sell", "3"), (-5, "buy", "-3"), (5, "buy", "5")])
    async def test_shares_that_an_order_is_to_close_are_not_available(self, qty, side, available):
        async with trading(positions=held(("AAPL", qty, 100))) as (sim, broker):
            sim.emit("AAPL", 99.98, 100.02)
            limit = "1" if side == "buy" else "1000"
            order = await self.place(broker, symbol="AAPL", side=side, qty="2", type="limit", limit_price=limit)
            position = await broker.get("positions/AAPL")
            assert (position["qty"], position["qty_available"]) == (str(qty), available)
            await broker.http.delete(f"/v2/orders/{order['id']}")
            assert (await broker.get("positions/AAPL"))["qty_available"] == str(qty)

    async def test_a_list_has_bounds_and_an_order(self):
        clock = Clock()
        async with trading(now=clock) as (_, broker):
            for symbol in ("AAPL", "KO", "F"):
                await broker.fill(symbol, "buy", 1, 10)
                clock.now += timedelta(minutes=1)
            every = {"status": "all", "direction": "asc"}
            assert [one["symbol"] for one in await broker.get("orders", **every)] == ["AAPL", "KO", "F"]
            after = (MONDAY + timedelta(seconds=1)).isoformat()
            assert [one["symbol"] for one in await broker.get("orders", after=after, limit=1, **every)] == ["KO"]
            assert [one["symbol"] for one in await broker.get("orders", symbols="F,X", **every)] == ["F"]

    @pytest.mark.parametrize(
        "wrong",
        [{"qty": "0"}, {"qty": "1e-10"}, {"side": "up"}, {"type": "stop"}, {"type": "limit"}, {"symbol": "$"},
         {"limit_price": "1"}, {"qty": "NaN"}],
    )  # fmt: skip
    async def test_wrong_orders(self, wrong):
        async with trading() as (_, broker):
            await self.place(broker, 422, **{"symbol": "AAPL", "side": "buy", "qty": "1"} | wrong)
            assert await broker.get("orders", status="all") == []

    async def test_an_unknown_order(self):
        async with trading() as (_, broker):
            assert (await broker.get("orders/nobody", expects=404))["message"] == "order not found"


class TestLimits:
    async def test_every_answer_tells_and_one_too_many_is_refused(self):
        async with trading(trading_rate_limit=2) as (_, broker):
            first = await broker.http.get("/v2/positions")
            assert (first.headers["X-RateLimit-Limit"], first.headers["X-RateLimit-Remaining"]) == ("2", "1")
            assert (await broker.http.get("/v2/positions/AAPL")).headers["X-RateLimit-Remaining"] == "0"
            refused = await broker.http.get("/v2/account")
            assert (refused.status_code, refused.headers["X-RateLimit-Remaining"]) == (429, "0")
            assert 0 < int(refused.headers["Retry-After"]) <= 60
            assert (await broker.http.get("/v2/stocks/quotes/latest?symbols=AAPL")).status_code == 200

    def test_the_minute_passes(self):
        window = RateWindow(1)
        assert [window.takes(now) for now in (100.5, 159.9, 160.0, 161.0)] == [True, False, True, False]
        assert window.headers()["X-RateLimit-Reset"] == "220"
        assert window.wait_s(161.0) == 59

    def test_no_limit(self):
        window = RateWindow(None)
        assert all(window.takes(1.0) for _ in range(20_000))
        assert window.headers()["X-RateLimit-Remaining"] == "0"

    async def test_a_key_is_needed(self):
        async with trading(key="right") as (_, broker):
            for path in ("positions", "account", "account/activities", "orders"):
                await broker.get(path, expects=401)


async def test_the_clock_is_the_accounts():
    clock = Clock()
    async with trading(now=clock, market=MarketSetting.AUTO) as (_, broker):
        for hours, is_open in ((0, True), (7, False), (23, False), (24, True)):
            clock.now = MONDAY + timedelta(hours=hours)
            told = await broker.get("clock")
            assert datetime.fromisoformat(told["timestamp"]) == clock.now
            assert told["is_open"] is is_open
