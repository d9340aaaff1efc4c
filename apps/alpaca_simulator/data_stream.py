"""The market data WebSocket, `/v2/{feed}`: the upgrade, the conversation, the authentication timer, the farewell.

What is said is decided in `protocol.py`; this is the shell that carries it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from apps.alpaca_simulator.broadcast import Broadcaster
from apps.alpaca_simulator.config import SimulatorConfig
from apps.alpaca_simulator.connections import ConnectionSlots
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.points import Feed
from apps.alpaca_simulator.protocol import AUTHENTICATED, ControlMessage, ErrorCode, Session, error
from apps.alpaca_simulator.stream_connection import StreamConnection
from apps.alpaca_simulator.wire import Codec, UnreadableMessageError, decode_client_message

log = structlog.get_logger(__name__)

KEY_HEADER: Final = "APCA-API-KEY-ID"
SECRET_HEADER: Final = "APCA-API-SECRET-KEY"  # noqa: S105 - the name of a header, not a secret
_CLOSE_TIMEOUT_S: Final = 1.0
_ENDED: Final = frozenset({WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR})


class DataStream:
    """Serves every data path of one simulator."""

    def __init__(self, config: SimulatorConfig, broadcaster: Broadcaster, faults: Callable[[], Faults]) -> None:
        self.dials: list[float] = []
        """When each upgrade was asked for, refused ones included, in seconds of `time.monotonic()`."""
        self._config = config
        self._broadcaster = broadcaster
        self._faults = faults
        self._slots = ConnectionSlots(config.slot_hold_s)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from its upgrade to its end."""
        self.dials.append(time.monotonic())
        if (status := self._faults().upgrade_status) is not None:
            return web.Response(status=status, text="refused by the simulator")
        # Pings and close frames are answered here, so that a half-open connection can leave them unanswered.
        websocket = web.WebSocketResponse(
            autoping=False, autoclose=False, compress=self._config.compress, timeout=_CLOSE_TIMEOUT_S
        )
        await websocket.prepare(request)
        if request.transport is None:  # gone already
            return websocket
        connection = self._connect(request, websocket, request.transport)
        writer = asyncio.create_task(connection.write_outbox(), name=f"outbox-{connection.number}")
        is_clean = False
        try:
            is_clean = await self._converse(connection, request)
        finally:
            writer.cancel()
            self._slots.release(connection.number, time.monotonic(), clean=is_clean)
            self._broadcaster.remove(connection)
            log.info("client_left", connection=connection.number, clean=is_clean)
        return websocket

    def free_all_slots(self) -> None:
        """Forget who was connected, as a restarted server does."""
        self._slots.free_all()

    def _connect(
        self, request: web.Request, websocket: web.WebSocketResponse, transport: asyncio.Transport
    ) -> StreamConnection:
        feed = Feed(request.match_info["feed"])
        codec = Codec.of_content_type(request.headers.get("Content-Type"))
        session = Session(feed, self._config.rules, lambda key: self._claim(connection, key))
        connection = StreamConnection(
            websocket,
            transport,
            session,
            codec,
            self._faults,
            outbox_limit=self._config.outbox_limit,
            batch_limit=self._config.batch_limit,
        )
        self._broadcaster.add(connection)
        log.info("client_connected", connection=connection.number, feed=feed.value, codec=codec.value)
        return connection

    def _claim(self, connection: StreamConnection, key: str) -> bool:
        return self._slots.claim(connection.feed, key, connection.number, time.monotonic())

    async def _converse(self, connection: StreamConnection, request: web.Request) -> bool:
        """Talk until the connection ends; say whether it ended cleanly, by a close frame of either side."""
        connection.put_control(connection.session.welcome())
        if KEY_HEADER in request.headers:
            # What the server then says is not documented; "authenticated", unasked, is what the SDKs could live with.
            self._authenticate_by_headers(connection, request)
        self._restart_auth_timer(connection)
        while True:
            try:
                message = await connection.websocket.receive(_patience_s(connection))
            except TimeoutError:
                connection.put_control(error(ErrorCode.AUTH_TIMEOUT))
                await connection.close(WSCloseCode.OK)
                return True
            if message.type in _ENDED:
                return connection.closed_by_server
            if self._faults().half_open:
                if message.type is WSMsgType.CLOSE:
                    await connection.wait_lost()
                    return False
            elif await self._hears_goodbye(connection, message):
                return True

    async def _hears_goodbye(self, connection: StreamConnection, message: WSMessage) -> bool:
        """Answer one message; say whether it was the client's close frame."""
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                answer = self._answer(connection, message)
                connection.put_control(answer)
                if answer.get("code") == ErrorCode.CONNECTION_LIMIT_EXCEEDED:
                    # The Go client repeats its authentication for 47 s on the same socket: each try gets its time.
                    self._restart_auth_timer(connection)
            case WSMsgType.PING:
                await connection.websocket.pong(message.data)
            case WSMsgType.CLOSE:
                await connection.websocket.close(code=message.data or WSCloseCode.OK)
                return True
            case _:  # a pong
                pass
        return False

    def _restart_auth_timer(self, connection: StreamConnection) -> None:
        connection.auth_deadline_s = time.monotonic() + self._config.auth_timeout_s

    def _answer(self, connection: StreamConnection, message: WSMessage) -> ControlMessage:
        session = connection.session
        session.forced_auth_error = self._faults().auth_error
        try:
            decoded = decode_client_message(message.data, connection.codec)
        except UnreadableMessageError:
            return error(ErrorCode.INVALID_SYNTAX)
        answer = session.receive(decoded)
        self._broadcaster.subscriptions_changed()
        log.info("client_answered", connection=connection.number, answer=answer.get("msg") or answer["T"])
        return answer

    def _authenticate_by_headers(self, connection: StreamConnection, request: web.Request) -> None:
        session = connection.session
        session.forced_auth_error = self._faults().auth_error
        answer = session.authenticate(request.headers.get(KEY_HEADER), request.headers.get(SECRET_HEADER))
        connection.put_control(answer)
        if answer is AUTHENTICATED:
            log.info("client_authenticated_by_headers", connection=connection.number)


def _patience_s(connection: StreamConnection) -> float | None:
    """Return how long to wait for the next message; an authenticated client may be silent for ever."""
    if connection.session.is_authenticated:
        return None
    return max(0.001, connection.auth_deadline_s - time.monotonic())
