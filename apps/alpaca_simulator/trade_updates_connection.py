"""One client's WebSocket on the trading stream: what is waiting for it, and how it is written. `put` never waits."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.trade_updates import TradeUpdatesSession, Update

_FAREWELL_S: Final = 1.0
_OUTBOX_LIMIT: Final = 100_000
_numbers = count(1)

Outgoing = Update | Mapping[str, Any] | bytes
"""An event, another message, or a frame exactly as it is."""


class TradeUpdatesConnection:
    """A client. Frames are binary with JSON in them, as those of the paper host, unless the faults want text."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        session: TradeUpdatesSession,
        faults: Callable[[], Faults],
        wrote: Callable[[Update], None],
        *,
        is_msgpack: bool,
    ) -> None:
        self.number = next(_numbers)
        self.websocket = websocket
        self.session = session
        self.is_half_open = False
        self.closed_by_server = False
        self._transport = transport
        self._faults = faults
        self._wrote = wrote
        self._is_msgpack = is_msgpack
        self._outbox: deque[Outgoing] = deque()
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def put(self, outgoing: Outgoing) -> None:
        """Queue something to be sent; a client that lets very much wait is dropped."""
        if self.is_half_open:
            return
        if len(self._outbox) >= _OUTBOX_LIMIT:
            self.drop()
            return
        self._outbox.append(outgoing)
        self._is_idle.clear()
        self._has_work.set()

    def freeze(self) -> None:
        """Become half-open for good: nothing is read, answered, written or closed any more."""
        self.is_half_open = True
        self._outbox.clear()
        self._is_idle.set()

    async def write_outbox(self) -> None:
        """Send what is queued, for as long as the connection lives."""
        try:
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                while self._outbox and not self.is_half_open:
                    await self._write(self._outbox.popleft())
                self._is_idle.set()
        except ConnectionError:
            self._is_idle.set()

    async def close(self, code: int) -> None:
        """Close with a close frame, after what is queued has been sent; a half-open connection is only cut."""
        if self.is_half_open:
            self.drop()
            return
        self.closed_by_server = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._is_idle.wait()
        await self.websocket.close(code=code)

    def drop(self) -> None:
        """Cut the TCP connection without a close frame."""
        self._transport.abort()

    async def wait_lost(self) -> None:
        """Return once the TCP connection is gone, whoever ended it."""
        while not self._transport.is_closing():  # noqa: ASYNC110 - the transport has no event to wait for
            await asyncio.sleep(0.02)

    async def _write(self, outgoing: Outgoing) -> None:
        if isinstance(outgoing, bytes):
            await self.websocket.send_frame(outgoing, WSMsgType.BINARY)
            return
        message = outgoing.message if isinstance(outgoing, Update) else outgoing
        is_text = self._faults().trading_text_frames and not self._is_msgpack
        data = msgspec.msgpack.encode(message) if self._is_msgpack else msgspec.json.encode(message)
        await self.websocket.send_frame(data, WSMsgType.TEXT if is_text else WSMsgType.BINARY)
        if isinstance(outgoing, Update):
            self._wrote(outgoing)
