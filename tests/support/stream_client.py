"""A bare WebSocket client of Alpaca's data stream: sends what it is told, decodes what it gets, assumes nothing."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from websockets.asyncio.client import ClientConnection, connect

MSGPACK = "application/msgpack"
JSON = "application/json"


class StreamClient:
    def __init__(self, websocket: ClientConnection, content_type: str) -> None:
        self.websocket = websocket
        self._content_type = content_type

    async def send(self, message: Any) -> None:
        is_msgpack = self._content_type == MSGPACK
        await self.websocket.send(msgpack.packb(message) if is_msgpack else json.dumps(message))

    async def receive(self) -> list[dict[str, Any]]:
        """Return the next frame, decoded."""
        data = await self.websocket.recv()
        if self._content_type == MSGPACK:
            assert isinstance(data, bytes)
            return msgpack.unpackb(data)
        assert isinstance(data, str)
        return json.loads(data)

    async def ask(self, message: Any) -> dict[str, Any]:
        """Send a message and return the control message that answers it; data in between is passed over."""
        await self.send(message)
        while True:
            frame = await self.receive()
            if frame[0]["T"] in {"success", "error", "subscription"}:
                assert len(frame) == 1, "a control message travels alone"
                return frame[0]

    async def authenticate(self, key: str = "K", secret: str = "S") -> dict[str, Any]:  # noqa: S107 - made up
        return await self.ask({"action": "auth", "key": key, "secret": secret})

    async def points(self, count: int) -> list[dict[str, Any]]:
        """Return at least `count` data points."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found += await self.receive()
        return found


@asynccontextmanager
async def dialled(url: str, content_type: str = MSGPACK, **options: Any) -> AsyncIterator[StreamClient]:
    """Dial and take the welcome."""
    headers = {"Content-Type": content_type} | options.pop("headers", {})
    options.setdefault("close_timeout", 1)
    async with connect(url, additional_headers=headers, **options) as websocket:
        client = StreamClient(websocket, content_type)
        assert await client.receive() == [{"T": "success", "msg": "connected"}]
        yield client


@asynccontextmanager
async def authenticated(url: str, content_type: str = MSGPACK, **options: Any) -> AsyncIterator[StreamClient]:
    """Dial, take the welcome and authenticate with a made-up key pair."""
    async with dialled(url, content_type, **options) as client:
        assert await client.authenticate() == {"T": "success", "msg": "authenticated"}
        yield client
