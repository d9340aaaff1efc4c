"""A bare client of the trading side: a WebSocket that says what it is told, and HTTP with a key."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx2
from websockets.asyncio.client import connect

from tests.support.simulator import running_simulator

HEADERS = {"APCA-API-KEY-ID": "K", "APCA-API-SECRET-KEY": "S"}
AUTHENTICATE = {"action": "authenticate", "data": {"key_id": "K", "secret_key": "S"}}
AUTHORIZED = {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}}
UNAUTHORIZED = {"stream": "authorization", "data": {"status": "unauthorized", "action": "authenticate"}}
LISTEN = {"action": "listen", "data": {"streams": ["trade_updates"]}}
LISTENING = {"stream": "listening", "data": {"streams": ["trade_updates"]}}


class Line:
    def __init__(self, websocket):
        self.websocket = websocket

    async def say(self, message):
        await self.websocket.send(json.dumps(message))

    async def hear(self):
        async with asyncio.timeout(5):
            return json.loads(await self.websocket.recv())

    async def ask(self, message):
        await self.say(message)
        return await self.hear()

    async def event(self):
        """Return the data of the next event."""
        message = await self.hear()
        assert message["stream"] == "trade_updates"
        return message["data"]

    async def executed(self, count=1):
        """Return the data of the next events of executions, others passed over."""
        found = []
        while len(found) < count:
            data = await self.event()
            if "execution_id" in data:
                found.append(data)
        return found


@asynccontextmanager
async def dialled(sim, **options):
    async with connect(sim.trading_stream_url, close_timeout=1, **options) as websocket:
        yield Line(websocket)


@asynccontextmanager
async def listening(sim, **options):
    async with dialled(sim, **options) as line:
        assert await line.ask(AUTHENTICATE) == AUTHORIZED
        assert await line.ask(LISTEN) == LISTENING
        yield line


class Broker:
    """The REST calls and the control endpoint."""

    def __init__(self, http):
        self.http = http

    async def get(self, path, *, expects=200, **query):
        answer = await self.http.get(f"/v2/{path}", params=query)
        assert answer.status_code == expects, answer.text
        return answer.json()

    async def act(self, name, *, expects=200, **fields):
        answer = await self.http.post(f"/control/{name}", json=fields)
        assert answer.status_code == expects, answer.text
        return answer.json()

    async def fill(self, symbol, side, qty, price, **fields):
        told = await self.act("fill", symbol=symbol, side=side, qty=str(qty), price=str(price), **fields)
        return told["execution_ids"]

    async def truth(self):
        return (await self.http.get("/control/account")).json()


@asynccontextmanager
async def trading(**config):
    """Run a simulator without quotes of its own, with a client of its REST calls."""
    config.setdefault("rate", 0)
    async with (
        running_simulator(**config) as sim,
        httpx2.AsyncClient(base_url=sim.base_url, headers=HEADERS, timeout=10) as http,
    ):
        yield sim, Broker(http)
