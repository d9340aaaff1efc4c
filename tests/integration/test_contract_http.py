"""Every endpoint's answer, key by key, and who may have it, as other programs rely on it.

Written from the contract, not from the code; with `API_TOKEN` set, so that every call here shows that it works too.
"""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.support.stack import PNL as PNL_PATH
from tests.support.stack import STREAM, Service, Stack, decoded, fill_body, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "correct-horse-battery-staple"
WRONG = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}]
GATEWAY_PATHS = [
    "/health",
    "/metrics",
    "/api/v1/positions",
    PNL_PATH,
    STREAM,
    "/api/v1/fills",
    "/nothing",
    "/openapi.json",
]
MARKET_DATA_PATHS = ["/health", "/metrics", "/api/v1/market-data/subscriptions", "/api/v1/market-data/prices/AAPL"]
OPEN_PATHS = ["/health/live", "/health/ready"]

NUMBER = int | Decimal
MAYBE_NUMBER = int | Decimal | None
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00")

PNL_ROW = {
    "symbol": str, "unrealized_pnl": MAYBE_NUMBER, "current_price": MAYBE_NUMBER, "price_source": str,
    "last_updated": "time?", "qty": NUMBER, "avg_entry_price": NUMBER, "market_value": MAYBE_NUMBER,
    "cost_basis": NUMBER, "unrealized_pnl_pct": MAYBE_NUMBER, "realized_pnl": NUMBER, "fees": NUMBER,
    "day_pnl": MAYBE_NUMBER, "bid": MAYBE_NUMBER, "ask": MAYBE_NUMBER, "previous_close": MAYBE_NUMBER,
    "price_age_seconds": MAYBE_NUMBER, "closing_date": str | None,
}  # fmt: skip
PNL = {
    "positions": list, "total_unrealized": NUMBER, "total_realized": NUMBER, "total_fees": NUMBER,
    "total_day_pnl": NUMBER, "total_market_value": NUMBER, "realized_closed": NUMBER, "complete": bool,
    "unpriced": list, "mode": str, "feed": dict, "calculated_at": "time", "calculation_id": str,
}  # fmt: skip
FILL = {
    "fill_id": str, "symbol": str, "side": str, "qty": NUMBER, "price": NUMBER, "fee": NUMBER, "filled_at": "time",
}  # fmt: skip
PRICE = {
    "symbol": str, "bid": NUMBER, "ask": NUMBER, "mid": NUMBER, "bid_size": NUMBER, "ask_size": NUMBER,
    "timestamp": "time", "exchange": str, "ask_exchange": str, "feed": str, "received_at": "time", "epoch": str,
    "seq": int,
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("stack"), API_TOKEN=TOKEN) as running:
        yield running


def has(body: Any, shape: dict[str, Any]) -> None:
    """Check that the keys of `shape` are there with values of its types; "time" is ISO-8601 UTC, "time?" or null."""
    missing = shape.keys() - body.keys()
    assert not missing, f"missing: {missing}"
    for name, kind in shape.items():
        value = body[name]
        if kind == "time?" and value is None:
            continue
        if isinstance(kind, str):
            assert TIME.fullmatch(value), f"{name} is {value!r}"
        else:
            assert isinstance(value, kind), f"{name} is {value!r}"
            assert isinstance(value, bool) == (kind is bool), f"{name} is {value!r}"


async def test_a_fill_and_what_the_ledger_says_of_it(stack: Stack) -> None:
    first = fill_body("AAPL", 100, "150.00", fee="0.35", filled_at="2025-10-16T14:30:15.123456-04:00")
    answer = await stack.gateway.http.post("/api/v1/fills", json=first)
    assert answer.status_code == 201
    body = decoded(answer.content)
    has(body, FILL)
    assert body["filled_at"] == "2025-10-16T18:30:15.123456+00:00"
    again = await stack.gateway.http.post("/api/v1/fills", json=first)
    assert again.status_code == 200
    numbers = {**fill_body("AAPL", 1, 1), "qty": 0.1, "price": 150.25}
    assert (await stack.gateway.http.post("/api/v1/fills", json=numbers)).status_code == 201

    listed = await stack.gateway.get("/api/v1/fills?symbol=AAPL&limit=1")
    assert listed.keys() == {"fills", "next"}
    assert [one["fill_id"] for one in listed["fills"]] == [numbers["fill_id"]], "newest first"
    has(listed["fills"][0], FILL)
    older = await stack.gateway.get(f"/api/v1/fills?symbol=AAPL&limit=1&after={listed['next']}")
    assert [one["fill_id"] for one in older["fills"]] == [first["fill_id"]]
    assert older["next"] is None

    voided = await stack.gateway.http.post(f"/api/v1/fills/{numbers['fill_id']}/void", json={"reason": "mistyped"})
    assert voided.status_code == 200
    position = next(
        one for one in (await stack.gateway.get("/api/v1/positions"))["positions"] if one["symbol"] == "AAPL"
    )
    has(
        position,
        {"symbol": str, "qty": NUMBER, "avg_entry_price": NUMBER, "cost_basis": NUMBER}
        | {"realized_pnl": NUMBER, "fees": NUMBER, "opened_at": "time"},
    )
    figures = {name: position[name] for name in ("qty", "avg_entry_price", "cost_basis", "realized_pnl", "fees")}
    assert figures == {
        "qty": 100, "avg_entry_price": 150, "cost_basis": 15000, "realized_pnl": 0, "fees": Decimal("0.35"),
    }  # fmt: skip
    assert (await stack.gateway.http.get("/api/v1/positions")).text.count('"cost_basis":15000.00') == 1


async def test_the_pnl_body(stack: Stack) -> None:
    day_ago = (datetime.now(UTC) - timedelta(days=20)).isoformat()
    await stack.fill("MSFT", 10, "400", filled_at=day_ago, fee="1")
    await stack.fill("MSFT", -4, "410")
    await stack.fill("KO", 5, "60", filled_at=day_ago)
    await stack.fill("KO", -5, "62", fee="0.10")
    await stack.until_confirmed("MSFT")
    stack.simulator.emit("MSFT", 419.99, 420.01)
    row = await stack.until_row("MSFT", current_price=Decimal(420))
    body = await stack.pnl()
    has(body, PNL)
    has(body["feed"], {"connected": bool, "state": str, "since": "time"})
    for one in body["positions"]:
        has(one, PNL_ROW)
        assert one["price_source"] in {"real-time", "halted", "stale", "closing", "unavailable", "delayed"}
    assert (row["qty"], row["cost_basis"], row["market_value"]) == (6, 2400, 2520)
    assert (row["unrealized_pnl"], row["unrealized_pnl_pct"], row["realized_pnl"]) == (120, 5, 40)
    assert (row["fees"], row["avg_entry_price"]) == (1, 400)
    assert (row["day_pnl"], row["previous_close"]) == (None, None), "without a previous close nobody knows the day"
    assert body["mode"] == "simulated"
    assert (body["feed"]["connected"], body["feed"]["state"]) == (True, "streaming")
    assert body["realized_closed"] == 10
    rows = body["positions"]
    assert body["total_realized"] == sum(one["realized_pnl"] for one in rows) + body["realized_closed"]
    assert body["total_unrealized"] == sum(one["unrealized_pnl"] or 0 for one in rows)
    assert body["total_market_value"] == sum(one["market_value"] or 0 for one in rows)
    assert body["complete"] == (not body["unpriced"])
    assert "KO" not in [one["symbol"] for one in rows]
    assert body["calculation_id"] != (await stack.pnl())["calculation_id"]


async def test_subscribe_and_unsubscribe(stack: Stack) -> None:
    http, path = stack.market_data.http, "/api/v1/market-data/subscribe"
    one = (await http.post(path, json={"symbol": "NVDA"})).json()
    assert one == {"status": "subscribed", "symbol": "NVDA", "streamed": True}
    many = (await http.post(path, json={"symbols": ["NVDA", "amzn"]})).json()
    assert (many["status"], many["symbols"], many["streamed"]) == ("subscribed", ["NVDA", "AMZN"], True)
    await stack.until_confirmed("AMZN")
    listed = await stack.market_data.get("/api/v1/market-data/subscriptions")
    assert {"NVDA", "AMZN"} <= set(listed["symbols"]) == set(listed["details"])
    has(
        listed["details"]["AMZN"],
        {"owners": list, "confirmed": bool, "streamed": bool, "last_quote_at": "time?"}
        | {"age_seconds": MAYBE_NUMBER, "quotes": int, "rejected": dict},
    )
    gone = (await http.delete(f"{path}/NVDA")).json()
    assert gone == {"status": "unsubscribed", "symbol": "NVDA", "still_held_by": []}
    assert (await http.delete(f"{path}/NVDA")).status_code == 200, "twice is as good as once"
    assert (await http.delete(f"{path}/AMZN")).status_code == 200


async def test_a_price(stack: Stack) -> None:
    await stack.subscribe("JPM")
    stack.simulator.emit("JPM", 249.99, 250.01, bid_size=300, ask_size=100, bid_exchange="V", ask_exchange="Q")

    async def is_there() -> Any:
        answer = await stack.market_data.http.get("/api/v1/market-data/prices/jpm")
        body = decoded(answer.content) if answer.status_code == 200 else {}
        return body if body.get("mid") == 250 else None

    price = await eventually(is_there)
    has(price, PRICE | {"age_seconds": NUMBER})
    assert (price["bid_size"], price["ask_size"], price["exchange"], price["ask_exchange"]) == (300, 100, "V", "Q")


async def test_health_live_ready_and_metrics(stack: Stack) -> None:
    common = {"status": str, "version": str, "mode": str, "redis": dict, "market": dict, "reasons": list}
    # Until its first sync it is degraded: it may have asked before the gateway was up, and wait to ask again.
    await eventually(lambda: is_streaming(stack), within_s=12)
    market_data = await stack.market_data.health()
    has(
        market_data,
        common | {"websocket_connected": bool, "subscribed_symbols": int, "link": dict, "position_sync": dict},
    )
    has(
        market_data["link"],
        {"state": str, "since": "time", "last_frame_age_seconds": NUMBER, "reconnects": int},
    )
    assert market_data["link"]["last_error"] is None
    assert (market_data["status"], market_data["websocket_connected"]) == ("healthy", True)
    assert market_data["subscribed_symbols"] == len(await stack.subscriptions())
    gateway = await stack.gateway.health()
    has(gateway, common | {"database": dict, "price_feed": dict, "positions": dict})
    for body in (market_data, gateway):
        market = body["market"]
        # The same question has the same answer under the same name on both services.
        assert "open" in market.values(), market
        assert {"state", "next_change", "said_by"} <= market.keys(), market
    for service in stack.services.values():
        await is_plain(service)


async def is_plain(service: Service) -> None:
    assert (await service.http.get("/health/live")).status_code == 200
    assert (await service.http.get("/health/ready")).status_code == 200
    metrics = await service.http.get("/metrics")
    assert metrics.status_code == 200
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "markstream_" in metrics.text
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in metrics.text.splitlines())


async def test_reconnect(stack: Stack) -> None:
    await stack.subscribe("TSLA")
    dials = len(stack.simulator.dials)
    answer = await stack.market_data.http.post("/api/v1/market-data/reconnect")
    assert answer.status_code == 200
    await eventually(lambda: len(stack.simulator.dials) == dials + 1)
    await eventually(lambda: is_streaming(stack))
    await stack.until_confirmed("TSLA")


async def is_streaming(stack: Stack) -> bool:
    health = await stack.market_data.health()
    return bool(health["link"]["state"] == "streaming" and health["status"] == "healthy")


@pytest.mark.parametrize("headers", WRONG, ids=["none", "wrong", "bare", "basic"])
async def test_without_the_token_nothing_is_told(stack: Stack, headers: dict[str, str]) -> None:
    for service, paths in ((stack.gateway, GATEWAY_PATHS), (stack.market_data, MARKET_DATA_PATHS)):
        async with httpx2.AsyncClient(base_url=service.base_url, headers=headers, trust_env=False) as stranger:
            for path in paths:
                answer = await stranger.get(path)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == "application/problem+json"
                assert TOKEN not in answer.text
            for path in ("/api/v1/fills", "/api/v1/market-data/subscribe", "/api/v1/market-data/reconnect"):
                assert (await stranger.post(path, json={"symbol": "AAPL"})).status_code == 401
            for path in OPEN_PATHS:
                assert (await stranger.get(path)).status_code == 200


async def test_with_the_token_the_position_sync_works_too_and_no_log_tells_it(stack: Stack) -> None:
    # A cost basis that no other test of this file looks for.
    await stack.fill("SPY", 100, 160)
    await stack.until_row("SPY", 2, price_source="real-time")
    health = await stack.market_data.health()
    assert health["position_sync"]["last_error"] is None
    assert (await stack.subscriptions())["SPY"]["owners"] == ["positions"]
    for service in stack.services.values():
        assert TOKEN not in service.output


NOT_KEPT = {
    "gateway": ["/api/v1/positions", "/api/v1/positions/pnl/realtime", "/api/v1/fills", "/api/v1/adjustments",
                "/api/v1/pnl/history", "/api/v1/positions/parity"],
    "market-data": ["/api/v1/market-data/subscriptions", "/api/v1/market-data/prices/ZZZZ"],
}  # fmt: skip


@pytest.mark.parametrize("name", ["gateway", "market-data"])
async def test_what_shows_money_is_kept_nowhere_and_no_slash_redirects(stack: Stack, name: str) -> None:
    service = stack.gateway if name == "gateway" else stack.market_data
    for path in [*NOT_KEPT[name], "/health", "/health/live", "/health/ready", "/metrics", "/nowhere"]:
        answer = await service.http.get(path)
        assert answer.headers["cache-control"] == "no-store", path
        slash = await service.http.get(f"{path}/", follow_redirects=False)
        assert (slash.status_code, "location" in slash.headers) in {(404, False), (422, False)}, path
    refused = await service.http.get("/health", headers={"Authorization": ""})
    assert (refused.status_code, refused.headers["cache-control"]) == (401, "no-store")


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_head_is_get_without_a_body(stack: Stack, path: str) -> None:
    for service in (stack.gateway, stack.market_data):
        whole, head = await service.http.get(path), await service.http.head(path)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert int(head.headers["content-length"]) > 0
