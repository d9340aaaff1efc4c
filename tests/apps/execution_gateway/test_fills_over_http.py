import msgspec
import pytest
from redis.asyncio.client import PubSub

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
    assert (status, body["status"], body["voided_at"]) == (200, "repeated", None)
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


@pytest.mark.parametrize("fill_id", ["%00", "a%00b", "x" * 129, "x" * 200, "%F0%9F%98%80" * 129])
@pytest.mark.parametrize("entries", [FILLS, "/api/v1/adjustments"])
async def test_an_id_that_cannot_have_been_recorded_is_not_found(
    running_gateway: RunningGateway, entries: str, fill_id: str
):
    response = await running_gateway.client.post(f"{entries}/{fill_id}/void", json={"reason": "x"})
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_the_longest_id_can_be_voided(running_gateway: RunningGateway):
    longest = "é" * 128
    await post(running_gateway, fill(fill_id=longest))
    response = await running_gateway.client.post(f"{FILLS}/{longest}/void", json={"reason": "x"})
    assert (response.status_code, response.json()["fill_id"]) == (200, longest)


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


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (f"{FILLS}?symbl=AAPL", "symbl"),
        (f"{FILLS}?limit=abc&limit=5", "limit"),
        ("/api/v1/adjustments?before=x", "before"),
        ("/api/v1/adjustments?symbol=AAPL&symbol=KO", "symbol"),
        ("/api/v1/positions?costs=alpaca", "costs"),
        ("/api/v1/positions?cost=alpaca&cost=average", "cost"),
    ],
)
async def test_a_question_that_is_misspelt_or_contradicts_itself(
    running_gateway: RunningGateway, path: str, named: str
):
    response = await running_gateway.client.get(path)
    assert (response.status_code, [one["field"] for one in response.json()["errors"]]) == (422, [named])


async def test_what_is_posted_takes_no_parameters(running_gateway: RunningGateway):
    await post(running_gateway, fill(fill_id="1"))
    for path in (FILLS, f"{FILLS}/1/void", "/api/v1/adjustments", "/api/v1/adjustments/1/void"):
        response = await running_gateway.client.post(f"{path}?dry_run=true", content=msgspec.json.encode(fill()))
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "dry_run"), path
    (listed,) = (await running_gateway.get(FILLS))["fills"]
    assert listed["voided_at"] is None


async def test_a_field_given_twice_is_refused(running_gateway: RunningGateway):
    once = msgspec.json.encode(fill())
    twice = once[:-1] + b',"qty":10000}'
    for path, content in ((FILLS, twice), (f"{FILLS}/import", b'{"fills":[' + once + b'],"fills":[]}')):
        response = await running_gateway.client.post(path, content=content)
        assert response.status_code == 422
        assert "given more than once" in response.json()["detail"]
    response = await running_gateway.client.post(f"{FILLS}/import", content=b'{"fills":[' + twice + b"]}")
    assert [(one["index"], one["field"]) for one in response.json()["errors"]] == [(0, "qty")]
    assert (await running_gateway.get(FILLS))["fills"] == []


async def test_no_web_page_from_elsewhere_writes_or_reads(running_gateway: RunningGateway):
    await post(running_gateway, fill(fill_id="1"))
    page = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    response = await running_gateway.client.post(f"{FILLS}/1/void", headers=page, content=b'{"reason":"x"}')
    assert response.status_code == 403
    assert (await running_gateway.client.get(FILLS, headers={"Host": "evil.example"})).status_code == 403
    (listed,) = (await running_gateway.get(FILLS))["fills"]
    assert listed["voided_at"] is None


async def test_a_huge_body(running_gateway: RunningGateway):
    assert (await running_gateway.client.post(FILLS, content=b"x" * 70_000)).status_code == 413


async def post_list(gateway: RunningGateway, fills: object, query: str = "") -> tuple[int, dict]:
    response = await gateway.client.post(f"{FILLS}/import{query}", content=msgspec.json.encode({"fills": fills}))
    return response.status_code, decode(response.content)


def counts(status: str, created: int, repeated: int) -> dict[str, object]:
    return {"status": status, "created": created, "repeated": repeated, "void": 0, "void_fills": [],
            "twice": 0, "twice_fills": []}  # fmt: skip


async def test_a_void_fill_said_again_is_told_and_counts_for_nothing(running_gateway: RunningGateway):
    status, created = await post(running_gateway, fill(fill_id="wrong"))
    assert (status, created["voided_at"]) == (201, None)
    voided = (await running_gateway.client.post(f"{FILLS}/wrong/void", json={"reason": "x"})).json()["voided_at"]
    status, again = await post(running_gateway, fill(fill_id="wrong"))
    assert (status, again["status"], again["voided_at"]) == (200, "repeated", voided)
    fills = [fill(fill_id="new"), fill(fill_id="wrong")]
    void = {"void": 1, "void_fills": [{"index": 1, "fill_id": "wrong", "voided_at": voided}]}
    assert await post_list(running_gateway, fills, "?dry_run=true") == (200, counts("checked", 1, 0) | void)
    assert await post_list(running_gateway, fills) == (200, counts("imported", 1, 0) | void)
    assert await post_list(running_gateway, fills) == (200, counts("imported", 0, 1) | void)
    (position,) = (await running_gateway.get("/api/v1/positions"))["positions"]
    assert position["qty"] == 100


async def test_a_list_is_imported_once(running_gateway: RunningGateway):
    fills = [fill(fill_id=str(number), symbol=symbol) for number, symbol in enumerate(["AAPL", "MSFT", "AAPL"])]
    nothing_yet = counts("checked", 3, 0)
    assert await post_list(running_gateway, fills, "?dry_run=true") == (200, nothing_yet)
    assert (await running_gateway.get(FILLS))["fills"] == []
    assert await post_list(running_gateway, fills) == (200, counts("imported", 3, 0))
    assert await post_list(running_gateway, fills) == (200, counts("imported", 0, 3))
    assert await post_list(running_gateway, []) == (200, counts("imported", 0, 0))
    held = (await running_gateway.get("/api/v1/positions"))["positions"]
    assert {row["symbol"]: row["qty"] for row in held} == {"AAPL": 200, "MSFT": 100}


@pytest.mark.parametrize("query", ["", "?dry_run=true", "?dry_run=false"])
async def test_every_fault_of_a_list_is_told_and_nothing_recorded(running_gateway: RunningGateway, query: str):
    await post(running_gateway, fill(fill_id="known"))
    fills = [
        fill(fill_id="good"),
        fill(fill_id="bad", qty=-1, side="up"),
        fill(fill_id="known", price=1),
        fill(fill_id="twice"),
        fill(fill_id="twice", symbol="MSFT"),
        fill(fill_id="future", filled_at="2999-01-01T00:00:00Z"),
    ]
    status, problem = await post_list(running_gateway, fills, query)
    assert status == 422
    told = [(one["index"], one["fill_id"], one["field"], one["other_index"]) for one in problem["errors"]]
    assert told == [
        (1, "bad", "side", None),
        (1, "bad", "qty", None),
        (2, "known", "fill_id", None),
        (4, "twice", "fill_id", 3),
        (5, "future", "filled_at", None),
    ]
    assert all(one["detail"] for one in problem["errors"])
    assert "no fill was recorded: 4 of the list" in problem["detail"]
    status, problem = await post_list(running_gateway, [fills[0], fills[2]], query)
    assert (status, [one["index"] for one in problem["errors"]]) == (409, [1])
    assert "'known' is recorded already with another price" in problem["errors"][0]["detail"]
    assert [one["fill_id"] for one in (await running_gateway.get(FILLS))["fills"]] == ["known"]


@pytest.mark.parametrize(
    "query", ["?dryrun=true", "?dry_run=true&x=1", "?dry_run=maybe", "?dry_run=", "?dry_run=true&dry_run=false"]
)
async def test_a_dry_run_asked_for_wrongly_is_no_import(running_gateway: RunningGateway, query: str):
    assert (await post_list(running_gateway, [fill()], query))[0] == 422
    assert (await running_gateway.get(FILLS))["fills"] == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"fills":null}', b'{"fills":[' + b"0," * 10_000 + b"0]}"])
async def test_a_body_that_is_no_list(running_gateway: RunningGateway, content: bytes):
    response = await running_gateway.client.post(f"{FILLS}/import", content=content)
    assert response.status_code == 422
    assert response.json()["errors"]


async def test_only_an_import_may_be_long(running_gateway: RunningGateway):
    # As many as may come at once, with ids as long as they may be.
    fills = [fill(fill_id=f"{number:0128}", symbol=f"S{number % 50}") for number in range(10_000)]
    assert await post_list(running_gateway, fills) == (200, counts("imported", 10_000, 0))
    assert len((await running_gateway.get("/api/v1/positions"))["positions"]) == 50
    too_long = b" " * (16 * 1024 * 1024 + 1)
    assert (await running_gateway.client.post(f"{FILLS}/import", content=too_long)).status_code == 413
    assert (await running_gateway.client.post(f"{FILLS}/import/void", content=b" " * 70_000)).status_code == 413


async def test_unknown_paths_and_methods(running_gateway: RunningGateway):
    assert (await running_gateway.client.get("/api/v1/nothing")).status_code == 404
    assert (await running_gateway.client.delete(FILLS)).status_code == 405


async def symbols_announced(listener: PubSub) -> list[str] | None:
    message = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
    event = msgspec.json.decode(message["data"]) if message is not None else None
    # The one sent at every connection names no symbol.
    if event is None or not event["symbols"]:
        return None
    assert event["at"] <= utc_now().isoformat()
    return event["symbols"]


async def listening(gateway: RunningGateway, redis_client: RedisClient) -> PubSub:
    """Return a listener to what is announced from here on."""
    # A gateway that connects announces what is held: later, that would be what the test has just bought.
    await eventually(lambda: gateway.gateway.subscriber.is_connected)
    listener = redis_client.pubsub()
    await listener.subscribe("position.changed")
    await listener.get_message(timeout=2)
    return listener


async def test_a_change_is_announced(running_gateway: RunningGateway, redis_client: RedisClient):
    listener = await listening(running_gateway, redis_client)
    await running_gateway.fill("AAPL", 1, 150)
    assert await eventually(lambda: symbols_announced(listener)) == ["AAPL"]
    # The one who says it again may have lost the answer, and with it the announcement.
    for body in (fill(symbol="KO"), fill(symbol="KO")):
        await post(running_gateway, body)
        assert await eventually(lambda: symbols_announced(listener)) == ["KO"]
    await listener.aclose()


async def test_an_import_is_announced_once_for_all_its_symbols(
    running_gateway: RunningGateway, redis_client: RedisClient
):
    listener = await listening(running_gateway, redis_client)
    fills = [fill(fill_id=symbol, symbol=symbol) for symbol in ("MSFT", "AAPL", "KO")]
    await post_list(running_gateway, [fill(fill_id="F", symbol="F")], "?dry_run=true")
    await post_list(running_gateway, [])
    for _ in range(2):
        await post_list(running_gateway, fills)
        assert await eventually(lambda: symbols_announced(listener)) == ["AAPL", "KO", "MSFT"], "a check is no news"
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
        "suspect": [], "not_streamable": [],
    }  # fmt: skip
    assert health["status"] == "degraded"
    assert await running_gateway.get("/health/live") == {"status": "live"}
    paths = (await running_gateway.get("/openapi.json"))["paths"]
    assert {"/api/v1/fills/{fill_id}/void", "/api/v1/fills/import"} <= paths.keys()
