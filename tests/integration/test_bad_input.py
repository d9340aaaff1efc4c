"""Bad input over HTTP, on both services: a clear answer that names the field, and nothing changed."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.support.stack import Service, Stack, fill_body
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILLS = "/api/v1/fills"
SUBSCRIBE = "/api/v1/market-data/subscribe"
INJECTED = ["*", "AAPL\r\n", "AAPL\n", "price:x", "price:AAPL", "AA PL", " AAPL", "", "ÄPFEL", "AAPL\x00", "a" * 5000]
NOW = datetime.now(UTC)


def is_problem(answer: httpx2.Response, status: int, field: str | None = None) -> None:
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    assert body["title"]
    assert "Traceback" not in answer.text
    assert len(answer.text) < 2000, "a problem repeats no flood"
    if field is not None:
        named = {error["field"].removeprefix("body.") for error in body.get("errors", [])}
        assert field in named or body["detail"].startswith(field), answer.text


async def snapshot(stack: Stack) -> Any:
    """Return all that bad input might change, once what was filled before is subscribed."""

    async def at_rest() -> Any:
        book = await stack.gateway.get("/api/v1/positions")
        fills = await stack.gateway.get(f"{FILLS}?limit=1000")
        subscribed = await stack.market_data.get("/api/v1/market-data/subscriptions")
        missing = {position["symbol"] for position in book["positions"]} - set(subscribed["symbols"])
        assert not missing, f"not subscribed yet: {missing}"
        return book, fills, subscribed["symbols"]

    return await eventually(at_rest)


async def post(service: Service, path: str, content: str | bytes) -> httpx2.Response:
    return await service.http.post(path, content=content, headers={"Content-Type": "application/json"})


def changed(**fields: object) -> str:
    return json.dumps({**fill_body("AAPL", 10, 150), **fields})


def raw(name: str, value: str) -> str:
    """Return a fill with `value` written into its field as it stands, JSON or not."""
    return changed(**{name: "@"}).replace('"@"', value)


BAD_FILLS = [
    *[(f"symbol {symbol!r:.20}", changed(symbol=symbol), "symbol") for symbol in INJECTED],
    ("qty NaN", raw("qty", "NaN"), None),
    ("qty 'NaN'", changed(qty="NaN"), "qty"),
    ("qty Infinity", changed(qty="Infinity"), "qty"),
    ("qty negative", raw("qty", "-5"), "qty"),
    ("qty zero", raw("qty", "0"), "qty"),
    ("qty true", raw("qty", "true"), "qty"),
    ("qty null", raw("qty", "null"), "qty"),
    ("qty list", raw("qty", "[1]"), "qty"),
    ("qty too precise", changed(qty="1.0000000001"), "qty"),
    ("qty absurd", raw("qty", "1e30"), "qty"),
    ("qty words", changed(qty="ten"), "qty"),
    ("qty underscore", changed(qty="1_000"), "qty"),
    ("price zero", changed(price="0"), "price"),
    ("price negative", changed(price="-150"), "price"),
    ("fee negative", changed(fee="-0.01"), "fee"),
    ("side", changed(side="hold"), "side"),
    ("side type", raw("side", "1"), "side"),
    ("fill_id empty", changed(fill_id=""), "fill_id"),
    ("fill_id long", changed(fill_id="x" * 129), "fill_id"),
    ("fill_id control", changed(fill_id="a\nb"), "fill_id"),
    ("fill_id number", raw("fill_id", "7"), "fill_id"),
    ("naive time", changed(filled_at="2025-10-19T14:30:15"), "filled_at"),
    ("future time", changed(filled_at=(NOW + timedelta(minutes=30)).isoformat()), "filled_at"),
    ("time as number", raw("filled_at", "1760884215"), "filled_at"),
    ("no time", changed(filled_at="yesterday"), "filled_at"),
    ("unknown key", changed(quantity="10"), "quantity"),
    ("missing key", json.dumps({"fill_id": "x"}), "symbol"),
    ("empty", "", "body"),
    ("blank", "  \n", "body"),
    ("not JSON", "symbol=AAPL", "body"),
    ("cut", '{"fill_id": "x"', "body"),
    ("array", "[]", "body"),
    ("null", "null", "body"),
    ("not UTF-8", b'{"fill_id": "\xff"}', None),
    ("deep", "[" * 30_000, "body"),
]


@pytest.mark.parametrize(("body", "field"), [case[1:] for case in BAD_FILLS], ids=[case[0] for case in BAD_FILLS])
async def test_a_bad_fill_is_refused_by_name(stack: Stack, body: str | bytes, field: str | None) -> None:
    before = await snapshot(stack)
    is_problem(await post(stack.gateway, FILLS, body), 422, field)
    assert await snapshot(stack) == before


BAD_SUBSCRIPTIONS = [
    *[(f"symbol {symbol!r:.20}", json.dumps({"symbol": symbol}), "symbol") for symbol in INJECTED],
    ("one bad of many", json.dumps({"symbols": ["MSFT", "price:x"]}), "symbol"),
    ("number", '{"symbol": 7}', "symbol"),
    ("null", '{"symbol": null}', "symbol"),
    ("list as symbol", '{"symbol": ["AAPL"]}', "symbol"),
    ("text as list", '{"symbols": "AAPL"}', "symbols"),
    ("no symbols", '{"symbols": []}', "symbols"),
    ("both", '{"symbol": "AAPL", "symbols": ["AAPL"]}', "symbol"),
    ("unknown key", '{"symbol": "AAPL", "feed": "sip"}', "feed"),
    ("nothing", "{}", "symbol"),
    ("empty", "", "body"),
    ("not JSON", "symbol=AAPL", "body"),
    ("array", '["AAPL"]', "body"),
    ("not UTF-8", b'{"symbol": "\xff"}', None),
    ("deep", "[" * 30_000, None),
]


@pytest.mark.parametrize(
    ("body", "field"), [case[1:] for case in BAD_SUBSCRIPTIONS], ids=[case[0] for case in BAD_SUBSCRIPTIONS]
)
async def test_a_bad_subscription_is_refused_by_name(stack: Stack, body: str | bytes, field: str | None) -> None:
    before = await snapshot(stack)
    is_problem(await post(stack.market_data, SUBSCRIBE, body), 422, field)
    assert await snapshot(stack) == before


@pytest.mark.parametrize("symbol", ["%2A", "AAPL%0D%0A", "price%3Ax", "%20AAPL", "AAAAAAAAAA", "1A"])
async def test_a_malformed_symbol_in_a_path_is_refused(stack: Stack, symbol: str) -> None:
    is_problem(await stack.market_data.http.delete(f"{SUBSCRIBE}/{symbol}"), 422, "symbol")
    is_problem(await stack.market_data.http.get(f"/api/v1/market-data/prices/{symbol}"), 422, "symbol")


async def test_lower_case_means_the_symbol(stack: Stack) -> None:
    answer = await post(stack.market_data, SUBSCRIBE, '{"symbol": "brk.b"}')
    assert answer.json()["symbol"] == "BRK.B"
    assert (await stack.market_data.http.delete(f"{SUBSCRIBE}/brk.b")).json()["symbol"] == "BRK.B"
    recorded = await stack.fill("spy", 1, 500)
    assert recorded["symbol"] == "SPY"
    assert (await stack.row("SPY"))["qty"] == 1


async def test_a_repeated_fill_counts_once_and_another_content_is_a_conflict(stack: Stack) -> None:
    body = fill_body("GME", 10, "20.50", fill_id="twice")
    assert (await stack.gateway.http.post(FILLS, json=body)).status_code == 201
    before = await snapshot(stack)
    again = await stack.gateway.http.post(FILLS, json={**body, "qty": 10.0, "price": "20.5"})
    assert again.status_code == 200, again.text
    for other in ({"qty": "11"}, {"price": "20.51"}, {"side": "sell"}, {"symbol": "AMC"}, {"fee": "1"}):
        is_problem(await stack.gateway.http.post(FILLS, json={**body, **other}), 409)
    both = await asyncio.gather(
        *(stack.gateway.http.post(FILLS, json=fill_body("GME", 1, 20, fill_id="at once", filled_at=NOW.isoformat()))
          for _ in range(5))
    )  # fmt: skip
    assert sorted(answer.status_code for answer in both) == [200, 200, 200, 200, 201]
    book, fills, _ = await snapshot(stack)
    assert len(fills["fills"]) == len(before[1]["fills"]) + 1
    assert next(position["qty"] for position in book["positions"] if position["symbol"] == "GME") == 11


async def test_a_body_that_is_too_long_is_refused(stack: Stack) -> None:
    before = await snapshot(stack)
    huge = b'{"symbol":"' + b"A" * 200_000 + b'"}'

    async def in_pieces() -> Any:
        for start in range(0, len(huge), 10_000):
            yield huge[start : start + 10_000]

    for service, path in ((stack.gateway, FILLS), (stack.market_data, SUBSCRIBE)):
        is_problem(await post(service, path, huge), 413)
        is_problem(await service.http.post(path, content=in_pieces()), 413)
        assert (await service.health())["status"] in {"healthy", "degraded"}
    assert await snapshot(stack) == before


async def test_unknown_paths_and_methods_are_problems_too(stack: Stack) -> None:
    for service in stack.services.values():
        is_problem(await service.http.get("/api/v1/nothing/here"), 404)
        is_problem(await service.http.get("/../../etc/passwd"), 404)
        is_problem(await service.http.request("PATCH", "/health"), 405)
    is_problem(await stack.gateway.http.delete(FILLS), 405)
    is_problem(await stack.market_data.http.get(SUBSCRIBE), 405)
    is_problem(await stack.market_data.http.get("/api/v1/market-data/prices/ZZZZ"), 404)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1e3", "limit"),
        ("limit=-1", "limit"),
        ("symbol=%2A", "symbol"),
        ("after=x", "after"),
    ],
)
async def test_a_bad_query_is_refused_by_name(stack: Stack, query: str, field: str) -> None:
    is_problem(await stack.gateway.http.get(f"{FILLS}?{query}"), 422, field)


async def test_a_void_needs_a_fill_and_a_reason(stack: Stack) -> None:
    recorded = await stack.fill("XOM", 1, 100)
    path = f"{FILLS}/{recorded['fill_id']}/void"
    is_problem(await post(stack.gateway, f"{FILLS}/unheard-of/void", '{"reason":"x"}'), 404)
    for body, field in (('{"reason":""}', "reason"), ('{"reason":null}', "reason"), ("{}", "reason"), ("", "body")):
        is_problem(await post(stack.gateway, path, body), 422, field)
    assert (await stack.row("XOM"))["qty"] == 1
