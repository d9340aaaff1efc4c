import msgspec
import pytest

from libs.redis_client.client import RedisClient
from tests.support.gateway import RunningGateway, decode, utc_now
from tests.support.waiting import eventually

FILLS = "/api/v1/fills"


def fill(**changes: object) -> dict[str, object]:
    return {
        "fill_id": "f-1",
        "symbol": "AAPL",
        "side": "buy",
        "qty": 100,
        "price": "150.123456789",
        "filled_at": "2025-10-19T14:30:15Z",
        **changes,
    }


async def post(gateway: RunningGateway, body: object) -> tuple[int, dict[str, object]]:
    response = await gateway.client.post(FILLS, content=msgspec.json.encode(body))
    return response.status_code, decode(response.content)


async def test_a_fill_counts_once(running_gateway: RunningGateway):
    assert (await post(running_gateway, fill()))[0] == 201
    status, body = await post(running_gateway, fill(price="150.1234567890"))
    assert (status, body["status"]) == (200, "repeated")
    status, problem = await post(running_gateway, fill(qty=101))
    assert (status, problem["fields"]) == (409, ["qty"])
    (position,) = (await running_gateway.get("/api/v1/positions"))["positions"]
    assert position["qty"] == 100
    assert f"{position['avg_entry_price']:f}" == "150.123456789"


async def test_a_void_fill_counts_no_longer(running_gateway: RunningGateway):
    await post(running_gateway, fill(fill_id="a/b c"))
    void = f"{FILLS}/a%2Fb%20c/void"
    for reason in ("typed twice", "another"):
        response = await running_gateway.client.post(void, json={"reason": reason})
        assert response.status_code == 200
        assert response.json()["void_reason"] == "typed twice"
    assert (await running_gateway.get("/api/v1/positions"))["positions"] == []
    (listed,) = (await running_gateway.get(FILLS))["fills"]
    assert (listed["fill_id"], listed["void_reason"]) == ("a/b c", "typed twice")
    assert listed["voided_at"].endswith("+00:00")
    response = await running_gateway.client.post(f"{FILLS}/nobody/void", json={"reason": "x"})
    assert response.status_code == 404
    response = await running_gateway.client.post(void, json={})
    assert response.status_code == 422


async def test_the_list_comes_in_pages(running_gateway: RunningGateway):
    for number in range(5):
        symbol = "MSFT" if number == 0 else "AAPL"
        await post(running_gateway, fill(fill_id=f"f{number}", symbol=symbol, filled_at=f"2025-10-19T14:30:0{number}Z"))
    first = await running_gateway.get(f"{FILLS}?limit=3")
    assert [one["fill_id"] for one in first["fills"]] == ["f4", "f3", "f2"]
    second = await running_gateway.get(f"{FILLS}?limit=3&after={first['next']}")
    assert ([one["fill_id"] for one in second["fills"]], second["next"]) == (["f1", "f0"], None)
    assert [one["fill_id"] for one in (await running_gateway.get(f"{FILLS}?symbol=msft"))["fills"]] == ["f0"]
    assert len((await running_gateway.get(f"{FILLS}?symbol=&limit=&after="))["fills"]) == 5


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "after=nonsense", "symbol=price:x"])
async def test_a_list_that_cannot_be(running_gateway: RunningGateway, query: str):
    response = await running_gateway.client.get(f"{FILLS}?{query}")
    assert response.status_code == 422
    assert query.partition("=")[0] in response.json()["detail"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"not json", b'{"qty":NaN}', msgspec.json.encode(fill(qty=-1, extra=1))]
)
async def test_a_body_that_is_no_fill(running_gateway: RunningGateway, content: bytes):
    response = await running_gateway.client.post(FILLS, content=content)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["errors"]
    assert {"type", "title", "status", "detail"} <= problem.keys()


async def test_a_huge_body(running_gateway: RunningGateway):
    assert (await running_gateway.client.post(FILLS, content=b"x" * 70_000)).status_code == 413


async def test_unknown_paths_and_methods(running_gateway: RunningGateway):
    assert (await running_gateway.client.get("/api/v1/nothing")).status_code == 404
    assert (await running_gateway.client.delete(FILLS)).status_code == 405


async def test_a_change_is_announced(running_gateway: RunningGateway, redis_client: RedisClient):
    listener = redis_client.pubsub()
    await listener.subscribe("position.changed")
    await listener.get_message(timeout=2)
    await running_gateway.fill("AAPL", 1, 150)

    async def of_the_fill() -> dict | None:
        message = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
        event = msgspec.json.decode(message["data"]) if message is not None else None
        # The one sent at every connection names no symbol.
        return event if event is not None and event["symbols"] else None

    event = await eventually(of_the_fill)
    assert event["symbols"] == ["AAPL"]
    assert event["at"] <= utc_now().isoformat()
    await listener.aclose()


async def test_metrics_and_health(running_gateway: RunningGateway):
    await running_gateway.fill("AAPL", 1, 150)
    text = (await running_gateway.client.get("/metrics")).text
    assert 'markstream_gateway_positions{price_source="unavailable"} 1.0' in text
    assert 'markstream_gateway_positions{price_source="halted"} 0.0' in text, "a source of nothing is told too"
    assert "markstream_gateway_ledger_readable 1.0" in text
    assert "process_resident_memory_bytes" in text
    health = await running_gateway.get("/health")
    assert health.keys() >= {
        "status", "version", "mode", "redis", "database", "price_feed", "positions", "market", "daily_bars", "reasons",
    }  # fmt: skip
    assert health["positions"] == {
        "open": 1, "by_price_source": {"unavailable": 1}, "unpriced": ["AAPL"], "halted": [], "doubted": [],
    }  # fmt: skip
    assert health["status"] == "degraded"
    assert await running_gateway.get("/health/live") == {"status": "live"}
    paths = (await running_gateway.get("/openapi.json"))["paths"]
    assert "/api/v1/fills/{fill_id}/void" in paths
