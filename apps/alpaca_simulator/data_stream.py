"""The market data WebSocket, `/v2/{feed}`: the upgrade, the conversation, the authentication timer, the farewell.

What is said is decided in `protocol.py`; this is the shell that carries it.
"""

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Final

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from apps.alpaca_simulator.broadcast import Broadcaster
from apps.alpaca_simulator.config import SimulatorConfig
from apps.alpaca_simulator.connections import ConnectionSlots
from apps.alpaca_simulator.dials import DialLog
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.points import Feed
from apps.alpaca_simulator.protocol import AUTHENTICATED, ControlMessage, ErrorCode, Session, action_of, error
from apps.alpaca_simulator.sent_record import SentRecord
from apps.alpaca_simulator.stream_connection import StreamConnection
from apps.alpaca_simulator.wire import Codec, UnreadableMessageError, decode_client_message

log = structlog.get_logger(__name__)

KEY_HEADER: Final = "APCA-API-KEY-ID"
SECRET_HEADER: Final = "APCA-API-SECRET-KEY"  # noqa: S105 - the name of a header, not a secret
_CLOSE_TIMEOUT_S: Final = 1.0
_ENDED: Final = frozenset({WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR})


class DataStream:
    """Serves every data path of one simulator. What it writes to its clients is told to `record`."""

    def __init__(
        self, config: SimulatorConfig, broadcaster: Broadcaster, faults: Callable[[], Faults], record: SentRecord
    ) -> None:
        self.dials = DialLog()
        self._config = config
        self._record = record
        self._broadcaster = broadcaster
        self._faults = faults
        self._slots = ConnectionSlots()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from its upgrade to its end."""
        self.dials.add(time.monotonic(), time.time())
        faults = self._faults()
        if faults.upgrade_status is not None:
            headers = retry_after(faults.retry_after_s)
            return web.Response(status=faults.upgrade_status, text="refused by the simulator", headers=headers)
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
            self._slots.release(connection.number, time.monotonic(), hold_s=0.0 if is_clean else self._slot_hold_s())
            self._broadcaster.remove(connection)
            log.info("client_left", connection=connection.number, clean=is_clean)
        return websocket

    def free_all_slots(self) -> None:
        """Forget who was connected, as a restarted server does."""
        self._slots.free_all()

    @property
    def slot_held_until_unix_s(self) -> float | None:
        """When the last slot of a client that is lost will be free, in seconds since 1970; None when none is held."""
        now_s = time.monotonic()
        until_s = self._slots.held_until_s(now_s)
        return None if until_s is None else time.time() + until_s - now_s

    def _slot_hold_s(self) -> float:
        told_s = self._faults().slot_hold_s
        return self._config.slot_hold_s if told_s is None else told_s

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
            self._record,
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
        if not await self._greets(connection, request):
            return True
        while True:
            try:
                message = await connection.websocket.receive(_patience_s(connection))
            except TimeoutError:
                if connection.is_half_open:
                    continue
                connection.put_control(error(ErrorCode.AUTH_TIMEOUT))
                await connection.close(WSCloseCode.OK)
                return True
            if message.type in _ENDED:
                return connection.closed_by_server
            if connection.is_half_open:
                if message.type is WSMsgType.CLOSE:
                    await connection.wait_lost()
                    return False
            elif await self._hears_goodbye(connection, message):
                return True

    async def _greets(self, connection: StreamConnection, request: web.Request) -> bool:
        """Begin the conversation; False when there is to be none."""
        faults = self._faults()
        if faults.error_before_welcome is not None:
            connection.put_control(error(faults.error_before_welcome))
            await connection.close(WSCloseCode.OK)
            return False
        if not faults.no_welcome:
            connection.put_control(connection.session.welcome())
        if KEY_HEADER in request.headers:
            # What the server then says is not documented; "authenticated", unasked, is what the SDKs could live with.
            self._authenticate_by_headers(connection, request)
        self._restart_auth_timer(connection)
        if faults.no_welcome:
            connection.auth_deadline_s = inf
        return True

    async def _hears_goodbye(self, connection: StreamConnection, message: WSMessage) -> bool:
        """Answer one message; say whether that was the end."""
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                return await self._answers_farewell(connection, message)
            case WSMsgType.PING:
                await connection.websocket.pong(message.data)
            case WSMsgType.CLOSE:
                await connection.websocket.close(code=message.data or WSCloseCode.OK)
                return True
            case _:  # a pong
                pass
        return False

    async def _answers_farewell(self, connection: StreamConnection, message: WSMessage) -> bool:
        """Answer what the client asks; say whether the server hung up over it."""
        answer = self._answer(connection, message)
        if answer is None:
            log.info("client_ignored", connection=connection.number)
            return False
        connection.put_control(answer)
        match answer.get("code"):
            case ErrorCode.CONNECTION_LIMIT_EXCEEDED:
                # The Go client repeats its authentication for 47 s on the same socket: each try gets its time.
                self._restart_auth_timer(connection)
            case ErrorCode.AUTH_TIMEOUT:
                await connection.close(WSCloseCode.OK)
                return True
        return False

    def _restart_auth_timer(self, connection: StreamConnection) -> None:
        connection.auth_deadline_s = time.monotonic() + self._config.auth_timeout_s

    def _answer(self, connection: StreamConnection, message: WSMessage) -> ControlMessage | None:
        """Return the answer to one message, None for one that is ignored."""
        session, faults = connection.session, self._faults()
        session.refusals = faults.refusals
        try:
            decoded = decode_client_message(message.data, connection.codec)
        except UnreadableMessageError:
            return error(ErrorCode.INVALID_SYNTAX)
        if faults.no_auth_answer and action_of(decoded) == "auth":
            connection.auth_deadline_s = inf
            return None
        if faults.no_ack and action_of(decoded) == "subscribe":
            return None
        answer = session.receive(decoded)
        self._broadcaster.sessions_changed()
        log.info("client_answered", connection=connection.number, answer=answer.get("msg") or answer["T"])
        return answer

    def _authenticate_by_headers(self, connection: StreamConnection, request: web.Request) -> None:
        session = connection.session
        session.refusals = self._faults().refusals
        answer = session.authenticate(request.headers.get(KEY_HEADER), request.headers.get(SECRET_HEADER))
        connection.put_control(answer)
        if answer is AUTHENTICATED:
            self._broadcaster.sessions_changed()
            log.info("client_authenticated_by_headers", connection=connection.number)


def retry_after(seconds: float | None) -> dict[str, str]:
    """Return the header that asks a client to wait; none for None."""
    return {} if seconds is None else {"Retry-After": f"{seconds:g}"}


def _patience_s(connection: StreamConnection) -> float | None:
    """Return how long to wait for the next message; an authenticated or forgotten client may be silent for ever."""
    if connection.session.is_authenticated or connection.is_half_open or connection.auth_deadline_s == inf:
        return None
    return max(0.001, connection.auth_deadline_s - time.monotonic())
