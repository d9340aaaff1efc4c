"""Trades, corrections and cancels over real sockets, as they are asked for by the control endpoint."""

import httpx2
import pytest

from tests.support.simulator import running_simulator
from tests.support.stream_client import JSON, MSGPACK, authenticated


@pytest.mark.parametrize("content_type", [MSGPACK, JSON])
async def test_trades_go_out_as_given_and_what_is_said_of_them_follows(content_type):
    async with (
        running_simulator(rate=0) as sim,
        authenticated(sim.stream_url(), content_type) as client,
        httpx2.AsyncClient(base_url=sim.base_url, trust_env=False) as http,
    ):

        async def act(name, **fields):
            answer = await http.post(f"/control/{name}", json=fields)
            assert answer.status_code == 200, answer.text
            return answer.json()

        given = {"symbol": "AAPL", "price": 152.01, "trade_id": 7, "exchange": "Q", "conditions": ["@", "F"]}
        assert await act("trades", trades=[given]) == {"queued": 0}
        acknowledged = await client.ask({"action": "subscribe", "trades": ["AAPL"]})
        assert acknowledged["corrections"] == acknowledged["cancelErrors"] == ["AAPL"]
        assert await act("trades", trades=[given, {"symbol": "KO", "price": 1}]) == {"queued": 1}
        assert await act("correct-trade", symbol="AAPL", trade_id=7, price=152.5, size=3) == {"told": 1}
        assert await act("cancel-trade", symbol="AAPL") == {"told": 1}
        assert await act("cancel-trade", symbol="AAPL", trade_id=99) == {"told": 0}
        assert await act("correct-trade", symbol="AAPL", trade_id=99) == {"told": 0}
        trade, correction, cancel = await client.points(3)
        assert (trade["T"], trade["i"], trade["x"], trade["p"], trade["c"]) == ("t", 7, "Q", 152.01, ["@", "F"])
        assert (correction["T"], correction["oi"], correction["op"], correction["x"]) == ("c", 7, 152.01, "Q")
        assert (correction["ci"], correction["cp"], correction["cs"]) == (1_000_000_007, 152.5, 3)
        assert (cancel["T"], cancel["i"], cancel["p"], cancel["a"]) == ("x", 1_000_000_007, 152.5, "C")


async def test_the_walks_trades_lie_inside_its_quotes_and_can_be_taken_back():
    async with running_simulator(rate=500) as sim, authenticated(sim.stream_url()) as client:
        await client.ask({"action": "subscribe", "quotes": ["AAPL"], "trades": ["AAPL"]})
        points = [point for point in await client.points(400) if point["T"] in "qt"]
        quote, trades = None, 0
        for point in points:
            if point["T"] == "q":
                quote = point
            elif quote is not None:
                trades += 1
                assert quote["bp"] <= point["p"] <= quote["ap"]
                assert point["x"] == "V"
        assert trades > 10
        assert sim.cancel_trade("AAPL") == 1
        while not (cancels := [point for point in await client.points(1) if point["T"] == "x"]):
            pass
        assert cancels[0]["x"] == "V"
