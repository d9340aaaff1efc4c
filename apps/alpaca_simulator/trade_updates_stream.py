"""The trading stream, `/stream`: who may connect, the conversation, and how events go out to those who listen.

What is said is decided in `trade_updates.py`; this is the shell that carries it, and loses it when the faults say so.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from apps.alpaca_simulator.dials import DialLog
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.protocol import Credentials
from apps.alpaca_simulator.trade_update_faults import UpdateFaults, odd_message
from apps.alpaca_simulator.trade_updates import FILLS, IN_STREAM_ERROR, NULL_DATA, TradeUpdatesSession, Update
from apps.alpaca_simulator.trade_updates_connection import TradeUpdatesConnection

log = structlog.get_logger(__name__)

HEARTBEAT: Final = b"\x01"
_CLOSE_TIMEOUT_S: Final = 1.0
_ENDED: Final = frozenset({WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR})
DropKind = Literal["tcp", "close", "error"]


class TradeUpdatesStream:
    """Serves `/stream` of one simulated account, to one client at a time."""

    def __init__(self, credentials: Credentials, faults: Callable[[], Faults]) -> None:
        self.dials = DialLog()
        self.connections: list[TradeUpdatesConnection] = []
        self.announced: Counter[str] = Counter()
        """How often each execution was written to a client, by its id."""
        self._credentials = credentials
        self._faults = faults
        self._update_faults = UpdateFaults()
        self._held_until_s = 0.0
        self._late: set[asyncio.TimerHandle] = set()
        self._heartbeat: asyncio.Task[None] | None = None
        self._is_running = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from its upgrade to its end."""
        self.dials.add(time.monotonic(), time.time())
        faults = self._faults()
        if faults.trading_upgrade_status is not None:
            return _refused(faults.trading_upgrade_status, faults.trading_retry_after_s)
        if self.connections or time.monotonic() < self._held_until_s:
            return _refused(429, None)
        # Pings and close frames are answered here, so that a half-open connection can leave them unanswered.
        websocket = web.WebSocketResponse(autoping=False, autoclose=False, timeout=_CLOSE_TIMEOUT_S)
        connection = self._connect(request, websocket)
        if connection is None:  # gone already
            return websocket
        try:
            await websocket.prepare(request)
            await self._serve(connection)
        finally:
            self.connections.remove(connection)
        return websocket

    def publish(self, update: Update, *, times: int = 1, delay_s: float = 0.0) -> None:
        """Send an event to those who listen, `times` times, after `delay_s`, and as the faults of the moment want."""
        faults = self._faults()
        deliveries = self._update_faults.deliveries(
            update,
            lose_every=faults.trading_lose_every,
            duplicate_every=faults.trading_duplicate_every,
            reorder_every=faults.trading_reorder_every,
            delay_s=faults.trading_delay_s,
        )
        for late_s in deliveries:
            for _ in range(times):
                self._send_later(update, delay_s + late_s)

    def faults_changed(self, before: Faults, faults: Faults) -> None:
        """Take over switches that must act at once."""
        if faults.trading_half_open and not before.trading_half_open:
            for connection in self.connections:
                connection.freeze()
        if faults.trading_heartbeat_s != before.trading_heartbeat_s:
            self._restart_heartbeat()

    def start(self) -> None:
        """Begin to beat, if the faults want it: from now on there is a loop."""
        self._is_running = True
        self._restart_heartbeat()

    async def drop_all(self, how: DropKind) -> int:
        """End every connection: by cutting TCP, with a close frame, or with an error before it. Return how many."""
        connections = list(self.connections)
        for connection in connections:
            if how == "tcp":
                connection.drop()
                continue
            if how == "error":
                connection.put(IN_STREAM_ERROR)
            await connection.close(WSCloseCode.GOING_AWAY)
        return len(connections)

    async def stop(self, *, clean: bool) -> None:
        """End everything, and forget what was to be sent later."""
        for handle in self._late:
            handle.cancel()
        self._late.clear()
        self._is_running = False
        self._restart_heartbeat()
        await self.drop_all("close" if clean else "tcp")
        self._held_until_s = 0.0

    def _connect(self, request: web.Request, websocket: web.WebSocketResponse) -> TradeUpdatesConnection | None:
        """Take the account's one place before anything is awaited."""
        if request.transport is None:
            return None
        connection = TradeUpdatesConnection(
            websocket,
            request.transport,
            TradeUpdatesSession(self._credentials),
            self._faults,
            self._wrote,
            is_msgpack=request.headers.get("Content-Type") == "application/msgpack",
        )
        self.connections.append(connection)
        return connection

    async def _serve(self, connection: TradeUpdatesConnection) -> None:
        log.info("trading_client_connected", connection=connection.number)
        writer = asyncio.create_task(connection.write_outbox(), name=f"trading-outbox-{connection.number}")
        is_clean = False
        try:
            is_clean = await self._converse(connection)
        finally:
            writer.cancel()
            if not is_clean:
                self._held_until_s = time.monotonic() + self._faults().trading_slot_hold_s
            log.info("trading_client_left", connection=connection.number, clean=is_clean)

    async def _converse(self, connection: TradeUpdatesConnection) -> bool:
        """Talk until the connection ends; say whether it ended cleanly, by a close frame of either side."""
        while True:
            message = await connection.websocket.receive()
            if message.type in _ENDED:
                return connection.closed_by_server
            if connection.is_half_open:
                if message.type is WSMsgType.CLOSE:
                    await connection.wait_lost()
                    return False
            elif await self._hears_goodbye(connection, message):
                return True

    async def _hears_goodbye(self, connection: TradeUpdatesConnection, message: WSMessage) -> bool:
        """Answer one message; say whether that was the end."""
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                return await self._answers_farewell(connection, message.data)
            case WSMsgType.PING:
                await connection.websocket.pong(message.data)
            case WSMsgType.CLOSE:
                await connection.websocket.close(code=message.data or WSCloseCode.OK)
                return True
            case _:  # a pong
                pass
        return False

    async def _answers_farewell(self, connection: TradeUpdatesConnection, data: bytes | str) -> bool:
        faults = self._faults()
        if faults.trading_no_auth_answer and not connection.session.is_authorized:
            return False
        reply = connection.session.receive(_decoded(data), refuses=faults.trading_unauthorized)
        log.info("trading_client_answered", connection=connection.number, answer=reply.message)
        connection.put(reply.message)
        if reply.closes:
            await connection.close(WSCloseCode.OK)
        return reply.closes

    def _send_later(self, update: Update, delay_s: float) -> None:
        if delay_s <= 0:
            self._send(update)
            return

        def send() -> None:
            self._late.discard(handle)
            self._send(update)

        handle = asyncio.get_running_loop().call_later(delay_s, send)
        self._late.add(handle)

    def _send(self, update: Update) -> None:
        faults = self._faults()
        if faults.trading_mute:
            return
        for connection in self.connections:
            if not connection.session.is_listening:
                continue
            if faults.trading_data_null:
                connection.put(NULL_DATA)
            else:
                connection.put(odd_message(update, faults.trading_oddities))

    def _wrote(self, update: Update) -> None:
        if update.execution_id is not None and update.data["event"] in FILLS:
            self.announced[update.execution_id] += 1

    def _restart_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        every_s = self._faults().trading_heartbeat_s
        if self._is_running and every_s:
            self._heartbeat = asyncio.create_task(self._beat(every_s), name="trading-heartbeat")

    async def _beat(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            for connection in self.connections:
                if connection.session.is_authorized:
                    connection.put(HEARTBEAT)


def _refused(status: int, retry_after_s: float | None) -> web.Response:
    # Not from `data_stream.py`: the acts know this module, and the config knows the acts.
    headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
    return web.Response(status=status, text="refused by the simulator", headers=headers)


def _decoded(data: bytes | str) -> Any:
    """Return a client's message; None when it cannot be read. A binary frame may be MessagePack or JSON."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(data)
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.msgpack.decode(data) if isinstance(data, bytes) else None
    return None
