"""What every kind of adjustment does to positions and P&L, and how the gateway answers, over HTTP."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from redis.asyncio.client import PubSub

from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.prices import PriceWrite
from libs.portfolio.fills import EXACT
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import RunningGateway, decode, price, serving, settings_in
from tests.support.waiting import eventually

ADJUSTMENTS = "/api/v1/adjustments"
TUESDAY = datetime(2025, 10, 21, 15, 0, tzinfo=UTC)
DAY = timedelta(days=1)
BOUGHT = "2025-10-01T14:30:00Z"
LATER = "2025-10-10"
SPLIT: dict[str, object] = {"kind": "split", "ratio_new": 10, "ratio_old": 1}


def adjustment(kind: str, **fields: object) -> dict[str, object]:
    """Return the fields of an adjustment of AAPL, later than what was bought."""
    return {"adjustment_id": kind, "kind": kind, "symbol": "AAPL", "reason": "why", "date": LATER, **fields}


async def post(gateway: RunningGateway, **fields: object) -> tuple[int, Any]:
    body = {name: value for name, value in adjustment(**fields).items() if value is not ...}  # type: ignore[arg-type]
    response = await gateway.client.post(ADJUSTMENTS, content=msgspec.json.encode(body))
    return response.status_code, decode(response.content)


async def record(gateway: RunningGateway, **fields: object) -> Any:
    status, body = await post(gateway, **fields)
    assert status == 201, body
    return body


async def void(gateway: RunningGateway, adjustment_id: str, reason: str = "mistyped") -> Any:
    path = f"{ADJUSTMENTS}/{quote(adjustment_id, safe='')}/void"
    response = await gateway.client.post(path, json={"reason": reason})
    assert response.status_code == 200, response.text
    return response.json()


async def buy(gateway: RunningGateway, qty: object, at: object, symbol: str = "AAPL", **fields: object) -> None:
    await gateway.fill(symbol, qty, at, filled_at=fields.pop("filled_at", BOUGHT), **fields)


async def positions(gateway: RunningGateway) -> dict[str, Any]:
    return {row["symbol"]: row for row in (await gateway.get("/api/v1/positions"))["positions"]}


async def pnl(gateway: RunningGateway) -> Any:
    return await gateway.get("/api/v1/positions/pnl/realtime")


async def position(gateway: RunningGateway, symbol: str = "AAPL") -> dict[str, Any]:
    """Return the figures of one position that an adjustment may change."""
    row = (await positions(gateway))[symbol]
    return {name: row[name] for name in ("qty", "avg_entry_price", "cost_basis", "realized_pnl", "fees", "income")}


class TestSplits:
    async def test_more_shares_than_can_be_is_an_error_that_a_void_mends(
        self, running_gateway: RunningGateway, redis_client: RedisClient
    ) -> None:
        """Nothing dies of it, and no figure is shown: what mends it must go on working."""
        gateway = running_gateway
        await buy(gateway, "999999999999", 150)
        for number in range(12):
            split = {**SPLIT, "adjustment_id": f"s{number}", "ratio_new": 1_000_000}
            assert (await post(gateway, **split))[0] == 201
        for path in ("/api/v1/positions", "/api/v1/positions/pnl/realtime"):
            answer = await gateway.client.get(path)
            assert answer.status_code == 503
            assert "split 's11' makes more than 1e+80 shares of AAPL" in answer.json()["detail"]
        await void(gateway, "s11")
        await PriceCache(redis_client, 300).write([PriceWrite(price("AAPL", "123456.789"), publish=False)])
        row = (await pnl(gateway))["positions"][0]
        assert row["qty"] == Decimal(f"999999999999{'0' * 66}")
        assert row["market_value"] == EXACT.multiply(row["qty"], Decimal("123456.789"))

    async def test_shares_and_average_change_and_no_money_does(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 1200, fee="1.50")
        await running_gateway.fill("AAPL", 10, 1300, "sell", filled_at="2025-10-02T14:30:00Z")
        body = await record(running_gateway, **SPLIT)
        assert (body["status"], body["effective_at"]) == ("created", "2025-10-10T04:00:00+00:00")
        assert await position(running_gateway) == {
            "qty": 900, "avg_entry_price": 120, "cost_basis": 108_000, "realized_pnl": 1000, "fees": Decimal("1.50"),
            "income": 0,
        }  # fmt: skip
        assert (await positions(running_gateway))["AAPL"]["opened_at"].startswith("2025-10-01T14:30:00")

    async def test_what_was_traded_after_it_is_not_split(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 1, 1200)
        await buy(running_gateway, 10, 130, filled_at="2025-10-10T13:30:00Z", fill_id="after")
        await record(running_gateway, **SPLIT)
        assert (await position(running_gateway))["qty"] == 20
        assert (await position(running_gateway))["cost_basis"] == 2500

    async def test_a_reverse_split_of_a_short(self, running_gateway: RunningGateway) -> None:
        await running_gateway.fill("AAPL", 100, 3, "sell", filled_at=BOUGHT)
        await record(running_gateway, kind="split", ratio_new=1, ratio_old=8)
        found = await position(running_gateway)
        assert (found["qty"], found["avg_entry_price"], found["cost_basis"]) == (Decimal("-12.5"), 24, -300)

    @pytest.mark.parametrize(("paid", "realized"), [({}, 0), ({"amount": 2_000_000_000}, Decimal("0.50"))])
    async def test_what_is_left_beyond_nine_decimals_becomes_cash(
        self, running_gateway: RunningGateway, paid: dict[str, object], realized: Decimal
    ) -> None:
        await buy(running_gateway, "0.0000005", 1_000_000)
        # Half of a billionth of a share cannot be held: at the price given it is a dollar, and had cost half a one.
        await record(running_gateway, kind="split", ratio_new=1, ratio_old=1000, **paid)
        assert await positions(running_gateway) == {}
        assert (await pnl(running_gateway))["realized_closed"] == realized

    async def test_half_of_a_smallest_part_leaves_the_whole_ones(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, "1.000000001", 100)
        await record(running_gateway, kind="split", ratio_new=1, ratio_old=2)
        assert (await position(running_gateway))["qty"] == Decimal("0.5")

    async def test_both_cost_methods_split(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 10, 100)
        await buy(running_gateway, 10, 200, filled_at="2025-10-02T14:30:00Z")
        await record(running_gateway, kind="split", ratio_new=2, ratio_old=1)
        await running_gateway.fill("AAPL", 20, 120, "sell", filled_at="2025-10-13T14:30:00Z")
        rows = {}
        for cost in ("average", "alpaca"):
            (rows[cost],) = (await running_gateway.get(f"/api/v1/positions?cost={cost}"))["positions"]
        assert (rows["average"]["cost_basis"], rows["alpaca"]["cost_basis"]) == (1500, 2000)
        assert (rows["average"]["realized_pnl"], rows["alpaca"]["realized_pnl"]) == (900, 1400)


class TestRenames:
    async def test_everything_moves(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 200, "FB", fee=1)
        await running_gateway.fill("FB", 40, 210, "sell", filled_at="2025-10-02T14:30:00Z")
        await record(running_gateway, kind="dividend", symbol="FB", amount=5, date="2025-10-03")
        before = await position(running_gateway, "FB")
        opened = (await positions(running_gateway))["FB"]["opened_at"]
        await record(running_gateway, kind="symbol_change", symbol="FB", new_symbol="meta")
        assert (await positions(running_gateway)).keys() == {"META"}
        assert await position(running_gateway, "META") == before
        assert before["realized_pnl"] == 400
        assert (await positions(running_gateway))["META"]["opened_at"] == opened
        assert (await pnl(running_gateway))["realized_closed"] == 0

    async def test_it_joins_what_is_held_already(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 200, "FB")
        await buy(running_gateway, 50, 260, "META")
        await record(running_gateway, kind="symbol_change", symbol="FB", new_symbol="META")
        assert ((await position(running_gateway, "META"))["qty"], await positions(running_gateway)).count("FB") == 0
        found = await position(running_gateway, "META")
        assert (found["qty"], found["cost_basis"], found["avg_entry_price"]) == (150, 33_000, 220)

    async def test_the_old_name_may_be_another_company_s_later(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 200, "FB")
        await record(running_gateway, kind="symbol_change", symbol="FB", new_symbol="META")
        await buy(running_gateway, 7, 20, "FB", filled_at="2025-10-11T14:30:00Z", fill_id="another")
        held = await positions(running_gateway)
        assert (held["META"]["qty"], held["FB"]["qty"], held["FB"]["cost_basis"]) == (100, 7, 140)


class TestCash:
    async def test_a_dividend_is_income_and_a_fee_a_fee(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 150, fee=1)
        found = await position(running_gateway)
        for kind, figure in (("dividend", "income"), ("fee", "fees")):
            for amount in ("24", "-0.5"):
                await record(running_gateway, kind=kind, adjustment_id=f"{kind} {amount}", amount=amount)
                found[figure] += Decimal(amount)
                assert await position(running_gateway) == found
        body = await pnl(running_gateway)
        assert (body["total_income"], body["total_fees"], body["total_income_today"]) == (23.5, 24.5, 0)

    async def test_today_s_count_in_the_day(self, tmp_path: Path, redis_url: str, redis_client: RedisClient) -> None:
        settings = settings_in(tmp_path, redis_url)
        write_bars(settings.daily_bars_path, [DailyBar("AAPL", TUESDAY.date() - DAY, *[Decimal(149)] * 4, 1000)])
        await PriceCache(redis_client, 300).write([PriceWrite(price("AAPL", 151, timestamp=TUESDAY), publish=False)])
        async with serving(settings, now=lambda: TUESDAY) as gateway:
            await buy(gateway, 100, 150, filled_at=TUESDAY.isoformat())
            for date in ("2025-10-20", "2025-10-21"):
                await record(gateway, kind="dividend", adjustment_id=f"d {date}", amount=24, date=date)
                await record(gateway, kind="fee", adjustment_id=f"f {date}", amount="0.35", date=date)
            body = await pnl(gateway)
        (row,) = body["positions"]
        assert (row["income"], row["income_today"]) == (48, 24)
        assert (row["fees"], row["fees_today"]) == (Decimal("0.70"), Decimal("0.35"))
        assert (row["unrealized_pnl"], row["day_pnl"]) == (100, Decimal("123.65"))
        assert (body["total_income"], body["total_income_today"]) == (48, 24)

    async def test_what_comes_after_the_last_share_still_counts(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 10, 150)
        await running_gateway.fill("AAPL", 10, 151, "sell", filled_at="2025-10-02T14:30:00Z")
        await record(running_gateway, kind="dividend", amount=24)
        await record(running_gateway, kind="cash_in_lieu", amount="1.25")
        await record(running_gateway, kind="fee", amount=2)
        body = await pnl(running_gateway)
        assert body["positions"] == []
        assert body["closed"] | {"realized": Decimal("11.25"), "income": 24, "fees": 2} == body["closed"]
        assert (body["total_fees"], body["total_income"]) == (2, 24)

    async def test_cash_in_lieu_is_realized(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 150)
        before = await position(running_gateway)
        await record(running_gateway, kind="cash_in_lieu", amount="12.34")
        assert await position(running_gateway) == before | {"realized_pnl": Decimal("12.34")}


class TestTransfers:
    async def test_shares_come_with_their_cost(self, running_gateway: RunningGateway) -> None:
        await record(running_gateway, kind="transfer", adjustment_id="new", symbol="KO", qty=10, amount=600)
        row = (await positions(running_gateway))["KO"]
        assert (row["qty"], row["avg_entry_price"], row["opened_at"]) == (10, 60, "2025-10-10T04:00:00+00:00")
        await buy(running_gateway, 100, 150)
        await record(running_gateway, kind="transfer", qty="50.5", amount=10_100)
        found = await position(running_gateway)
        assert (found["qty"], found["cost_basis"], found["realized_pnl"]) == (Decimal("150.5"), 25_100, 0)
        await record(running_gateway, kind="transfer", adjustment_id="cost alone", qty=0, amount="-0.01")
        assert (await position(running_gateway))["cost_basis"] == Decimal("25099.99")

    async def test_shares_go_with_theirs(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 150)
        await record(running_gateway, kind="transfer", qty=-60, amount=-9000)
        found = await position(running_gateway)
        assert (found["qty"], found["cost_basis"], found["realized_pnl"]) == (40, 6000, 0)
        await record(running_gateway, kind="transfer", adjustment_id="the rest", qty=-40, amount=-6000)
        assert await positions(running_gateway) == {}
        assert (await pnl(running_gateway))["realized_closed"] == 0


class TestRecording:
    async def test_counts_once(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 1, 1200)
        await record(running_gateway, **SPLIT)
        status, body = await post(running_gateway, kind="split", ratio_new="10.0", ratio_old="1.000")
        assert (status, body["status"], body["ratio_new"]) == (200, "repeated", 10)
        # The same instant in other words.
        assert (await post(running_gateway, **SPLIT, date=..., effective_at="2025-10-10T04:00:00Z"))[0] == 200
        status, problem = await post(running_gateway, **SPLIT | {"ratio_new": 20}, reason="x")
        assert (status, problem["fields"]) == (409, ["reason", "ratio_new"])
        assert "new adjustment_id" in problem["detail"]
        assert (await position(running_gateway))["qty"] == 10

    async def test_a_void_one_counts_no_longer_and_stays_listed(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 150)
        before = await position(running_gateway)
        for kind, fields in {
            "split": {"ratio_new": 3, "ratio_old": 2}, "symbol_change": {"new_symbol": "PEAR"},
            "dividend": {"amount": 1}, "fee": {"amount": 1}, "cash_in_lieu": {"amount": 1},
            "transfer": {"qty": 1, "amount": 1},
        }.items():  # fmt: skip
            await record(running_gateway, kind=kind, adjustment_id=f"a/b {kind}", **fields)
            assert (await positions(running_gateway)).get("AAPL") != before, kind
            for reason in ("mistyped", "another"):
                (row,) = (await void(running_gateway, f"a/b {kind}", reason))["adjustments"]
                assert (row["void_reason"], row["voided_at"] is None) == ("mistyped", False)
            assert await position(running_gateway) == before, kind
            assert (await positions(running_gateway)).keys() == {"AAPL"}
        listed = (await running_gateway.get(ADJUSTMENTS))["adjustments"]
        assert [row["void_reason"] for row in listed] == ["mistyped"] * 6
        # The same again is no new one: what is void stays void.
        assert (await post(running_gateway, kind="fee", adjustment_id="a/b fee", amount=1))[0] == 200
        assert await position(running_gateway) == before

    async def test_a_void_split_in_the_middle_of_a_history(self, running_gateway: RunningGateway) -> None:
        await buy(running_gateway, 100, 150, "FB")
        await record(running_gateway, kind="split", symbol="FB", ratio_new=2, ratio_old=1, date="2025-10-03")
        await record(running_gateway, kind="symbol_change", symbol="FB", new_symbol="META", date="2025-10-06")
        await running_gateway.fill("META", 50, 80, "sell", filled_at="2025-10-07T14:30:00Z")
        assert (await position(running_gateway, "META"))["qty"] == 150
        await void(running_gateway, "split")
        found = await position(running_gateway, "META")
        assert (found["qty"], found["cost_basis"], found["realized_pnl"]) == (50, 7500, -3500)

    async def test_voids_that_cannot_be(self, running_gateway: RunningGateway) -> None:
        await record(running_gateway, kind="fee", amount=1)
        client = running_gateway.client
        assert (await client.post(f"{ADJUSTMENTS}/nobody/void", json={"reason": "x"})).status_code == 404
        for body in (b"", b"{}", b'{"reason":" "}', b'{"reason":"x","more":1}'):
            assert (await client.post(f"{ADJUSTMENTS}/fee/void", content=body)).status_code == 422
        assert (await running_gateway.get(ADJUSTMENTS))["adjustments"][0]["voided_at"] is None

    async def test_the_list(self, running_gateway: RunningGateway) -> None:
        await record(running_gateway, kind="symbol_change", symbol="FB", new_symbol="META", date="2025-10-03")
        await record(running_gateway, kind="dividend", symbol="META", amount="24.00", date="2025-10-05")
        await record(running_gateway, kind="fee", amount=1, date="2025-10-04")

        async def listed(query: str) -> list[str]:
            return [row["adjustment_id"] for row in (await running_gateway.get(f"{ADJUSTMENTS}{query}"))["adjustments"]]

        assert await listed("") == ["dividend", "fee", "symbol_change"]
        assert await listed("?symbol=meta") == ["dividend", "symbol_change"]
        assert await listed("?symbol=FB") == ["symbol_change"]
        assert await listed("?symbol=KO") == []
        assert await listed("?limit=1") == ["dividend"]
        (row,) = (await running_gateway.get(f"{ADJUSTMENTS}?limit=1"))["adjustments"]
        assert row.pop("recorded_at").endswith("+00:00")
        assert row == {
            "adjustment_id": "dividend", "kind": "dividend", "symbol": "META", "reason": "why", "amount": 24,
            "effective_at": "2025-10-05T04:00:00+00:00", "voided_at": None, "void_reason": None,
        }  # fmt: skip
        for query in ("limit=0", "limit=1001", "limit=x", "symbol=price:x"):
            assert (await running_gateway.client.get(f"{ADJUSTMENTS}?{query}")).status_code == 422

    async def test_the_list_comes_in_pages(self, running_gateway: RunningGateway) -> None:
        # Two of each day: ties are told apart by arrival.
        for number in range(5):
            await record(
                running_gateway, kind="fee", adjustment_id=str(number), amount=1, date=f"2025-10-0{1 + number // 2}"
            )
        found, after = [], ""
        for length in (2, 2, 1):
            page = await running_gateway.get(f"{ADJUSTMENTS}?limit=2&symbol=aapl&after={after}")
            assert len(page["adjustments"]) == length
            found += [row["adjustment_id"] for row in page["adjustments"]]
            after = page["next"]
        assert (found, after) == (["4", "3", "2", "1", "0"], None)
        response = await running_gateway.client.get(f"{ADJUSTMENTS}?after=nonsense")
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "after")

    async def test_they_outlive_the_gateway(self, tmp_path: Path, redis_url: str) -> None:
        async with serving(settings_in(tmp_path, redis_url)) as gateway:
            await buy(gateway, "0.123456789", 1200)
            await record(gateway, **SPLIT, amount="0.000000001")
            await record(gateway, kind="symbol_change", new_symbol="PEAR", date="2025-10-13")
            await record(gateway, kind="fee", amount=1, symbol="PEAR", date="2025-10-14")
            await void(gateway, "fee")
            before = await positions(gateway), (await gateway.get(ADJUSTMENTS))
        async with serving(settings_in(tmp_path, redis_url)) as gateway:
            assert (await positions(gateway), await gateway.get(ADJUSTMENTS)) == before
            assert f"{before[0]['PEAR']['qty']:f}" == "1.23456789"
            assert (await post(gateway, **SPLIT, amount="0.000000001"))[0] == 200
            assert (await post(gateway, **SPLIT))[0] == 409

    async def test_a_change_is_announced(self, running_gateway: RunningGateway, redis_client: RedisClient) -> None:
        listener = redis_client.pubsub()
        await listener.subscribe("position.changed")
        await listener.get_message(timeout=2)
        # The one who says it again may have lost the answer, and with it the announcement.
        for status in (201, 200):
            assert (await post(running_gateway, kind="symbol_change", symbol="FB", new_symbol="META"))[0] == status
            assert await eventually(lambda: symbols_announced(listener)) == ["FB", "META"]
        await void(running_gateway, "symbol_change")
        assert await eventually(lambda: symbols_announced(listener)) == ["FB", "META"]
        await record(running_gateway, kind="fee", amount=1)
        assert await eventually(lambda: symbols_announced(listener)) == ["AAPL"]
        await listener.aclose()


async def symbols_announced(listener: PubSub) -> list[str] | None:
    message = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
    event = msgspec.json.decode(message["data"]) if message is not None else None
    # The one sent at every connection names no symbol.
    return None if event is None or not event["symbols"] else event["symbols"]


BAD: list[tuple[dict[str, Any], set[str]]] = [
    ({**SPLIT, "adjustment_id": ""}, {"adjustment_id"}),
    ({**SPLIT, "kind": "bonus"}, {"kind"}),
    ({**SPLIT, "symbol": "price:x"}, {"symbol"}),
    ({**SPLIT, "reason": ""}, {"reason"}),
    ({**SPLIT, "date": "someday"}, {"date"}),
    ({**SPLIT, "date": "2999-01-01"}, {"date"}),
    ({**SPLIT, "date": ..., "effective_at": "2025-10-10T00:00:00"}, {"effective_at"}),
    ({**SPLIT, "date": ..., "effective_at": "2999-01-01T00:00:00Z"}, {"effective_at"}),
    ({**SPLIT, "date": ...}, {"effective_at"}),
    ({**SPLIT, "ratio_new": 0, "ratio_old": "x"}, {"ratio_new", "ratio_old"}),
    ({**SPLIT, "ratio_new": "1000000000000"}, {"ratio_new"}),
    ({"kind": "split"}, {"ratio_new", "ratio_old"}),
    ({"kind": "symbol_change", "new_symbol": "AAPL"}, {"new_symbol"}),
    ({"kind": "symbol_change", "amount": 1}, {"new_symbol", "amount"}),
    ({"kind": "dividend", "amount": 10**12}, {"amount"}),
    ({"kind": "dividend", "amount": 1, "ratio_new": 2}, {"ratio_new"}),
    ({"kind": "fee", "amount": 0}, {"amount"}),
    ({"kind": "fee", "amount": "9" * 200}, {"amount"}),
    ({"kind": "cash_in_lieu", "amount": None}, {"amount"}),
    ({"kind": "transfer", "qty": 1}, {"amount"}),
    ({"kind": "transfer", "qty": "0.0000000001", "amount": 1}, {"qty"}),
    ({"kind": "fee", "amount": 1, "currency": "EUR"}, {"currency"}),
]


class TestBadInput:
    async def test_is_named_and_nothing_recorded(self, running_gateway: RunningGateway) -> None:
        for fields, named in BAD:
            status, problem = await post(running_gateway, **fields)
            assert (status, {error["field"] for error in problem["errors"]}) == (422, named), fields
            assert all(error["problem"] for error in problem["errors"])
        assert (await running_gateway.get(ADJUSTMENTS))["adjustments"] == []

    async def test_what_is_no_adjustment_at_all(self, running_gateway: RunningGateway) -> None:
        for content in (b"", b"{}", b"[]", b"not json", b'{"amount":NaN}', b"\xff", b"[" * 50_000):
            response = await running_gateway.client.post(ADJUSTMENTS, content=content)
            assert response.status_code == 422, content[:20]
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["errors"]

        assert (await running_gateway.client.post(ADJUSTMENTS, content=b" " * 70_000)).status_code == 413

    async def test_the_largest_numbers_that_may_come(self, running_gateway: RunningGateway) -> None:
        most = "999999999999.999999999"
        await buy(running_gateway, most, most)
        for number in range(8):
            await record(
                running_gateway, kind="split", adjustment_id=str(number), ratio_new=10**6, ratio_old=1, amount=most
            )
        await record(running_gateway, kind="transfer", qty=most, amount=most)
        await record(running_gateway, kind="dividend", amount=most)
        assert (await pnl(running_gateway))["positions"][0]["income"] == 10**12
        qty = (await position(running_gateway))["qty"]
        assert f"{qty:f}" == f"{most.replace('.', '')}{'0' * 27}{most}"
        for method in ("average", "alpaca"):
            assert len((await running_gateway.get(f"/api/v1/positions?cost={method}"))["positions"]) == 1
        assert (await running_gateway.client.get("/health")).status_code == 200
