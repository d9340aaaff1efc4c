"""One instrument is one position, one subscription and one price, however its symbol is written."""

import pytest

from tests.support.stack import Stack, fill_body
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILLS = "/api/v1/fills"
SUBSCRIBE = "/api/v1/market-data/subscribe"


async def post_fill(stack: Stack, symbol: str, qty: int, fill_id: str) -> int:
    body = fill_body(symbol, qty, 480, fill_id=fill_id, filled_at="2025-10-20T15:00:00Z")
    answer = await stack.gateway.http.post(FILLS, json=body)
    return answer.status_code


async def test_what_is_bought_under_one_spelling_is_sold_under_another(stack: Stack) -> None:
    for number, symbol in enumerate(("BRK/B", "brk-b", "BRK.B")):
        assert await post_fill(stack, symbol, 10, f"spelling-{number}") == 201
    assert await post_fill(stack, "BRK.B", 10, "spelling-0") == 200, "the same fill, written otherwise"
    row = await stack.row("BRK.B")
    assert (row["qty"], row["streamable"]) == (30, True)
    page = await stack.gateway.get(f"{FILLS}?symbol=BRK/B")
    assert [one["symbol"] for one in page["fills"]] == ["BRK.B"] * 3


async def test_what_is_held_and_not_streamed_is_named_in_its_row_and_in_both_healths(stack: Stack) -> None:
    option = "AAPL240119C00100000"
    for number, symbol in enumerate(("eth-usd", option, "ABC.WS.A")):
        assert await post_fill(stack, symbol, 1, f"kind-{number}") == 201
    assert not (await stack.row(option))["streamable"]
    assert not (await stack.row("ETH/USD"))["streamable"]
    assert (await stack.row("ABC.WS.A"))["streamable"]

    async def are_named() -> bool:
        ours = (await stack.gateway.health())["positions"]["not_streamable"]
        theirs = (await stack.market_data.health())["position_sync"]["not_streamable"]
        return {option, "ETH/USD"} <= set(ours) & set(theirs)

    await eventually(are_named)
    wanted = (await stack.market_data.get("/api/v1/market-data/subscriptions"))["symbols"]
    assert "ABC.WS.A" in wanted
    assert not {option, "ETH/USD"} & set(wanted)


async def test_a_subscription_is_given_up_under_another_spelling(stack: Stack) -> None:
    http = stack.market_data.http
    assert (await http.post(SUBSCRIBE, json={"symbol": "bf/a"})).json()["symbol"] == "BF.A"
    for spelling in ("BF%2FA", "BF/A", "bf-a", "BF.A"):
        answer = await http.delete(f"{SUBSCRIBE}/{spelling}")
        assert (answer.status_code, answer.json()["symbol"]) == (200, "BF.A")
    assert "BF.A" not in (await stack.market_data.get("/api/v1/market-data/subscriptions"))["symbols"]
    answer = await http.get("/api/v1/market-data/prices/BF/A")
    assert (answer.status_code, "BF.A" in answer.json()["detail"]) == (404, True)
    assert (await http.delete(f"{SUBSCRIBE}/A/B/C")).status_code == 404


async def test_a_coin_bought_under_one_name_is_sold_under_the_other(stack: Stack) -> None:
    await stack.fill("BTCUSD", 1, 20_000)
    await stack.fill("BTC/USD", -1, 30_000)
    assert await stack.row("BTC/USD") is None
    # Nothing else of this file has realized anything.
    assert (await stack.pnl())["total_realized"] == 10_000


@pytest.mark.parametrize("symbol", ["BTC/USD", "btc-usd", "T/USD", "BTCUSD"])
async def test_a_coin_pair_is_not_subscribed(stack: Stack, symbol: str) -> None:
    answer = await stack.market_data.http.post(SUBSCRIBE, json={"symbol": symbol})
    assert answer.status_code == 422
    assert "is a coin pair, which is held and valued, but not streamed" in answer.json()["detail"]
