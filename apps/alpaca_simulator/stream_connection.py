"""One client's WebSocket with its outbox: what is waiting for it, how it is batched into frames, when it is too slow.

The outbox is bounded. A client that lets it fill is told 407 and dropped, as Alpaca does.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import cast

import structlog
from aiohttp import WSMsgType, web

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.points import Feed
from apps.alpaca_simulator.protocol import ControlMessage, ErrorCode, Session, error
from apps.alpaca_simulator.wire import Codec, encode_control, join_points

log = structlog.get_logger(__name__)

_SLOW_CLIENT_GRACE_S = 1.0
_FAREWELL_S = 1.0
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A whole frame, sent exactly as it is."""

    data: bytes
    is_text: bool


class StreamConnection:
    """A client on one data path. `put_…` never waits; a task of its own does the writing."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        session: Session,
        codec: Codec,
        faults: Callable[[], Faults],
        *,
        outbox_limit: int,
        batch_limit: int,
    ) -> None:
        self.number = next(_numbers)
        self.session = session
        self.codec = codec
        self.websocket = websocket
        self.closed_by_server = False
        self.sent_points = 0
        self.auth_deadline_s = 0.0
        """When it must have authenticated, in seconds of `time.monotonic()`."""
        self._transport = transport
        self._faults = faults
        self._outbox: deque[bytes | _Frame] = deque()
        self._outbox_limit = outbox_limit
        self._batch_limit = batch_limit
        self._data_frames = 0
        self._is_too_slow = False
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()

    @property
    def feed(self) -> Feed:
        """The feed whose path the client dialled."""
        return self.session.feed

    @property
    def has_room(self) -> bool:
        """Whether a producer without a pace of its own should go on."""
        return len(self._outbox) < self._batch_limit

    def put_point(self, point: bytes) -> None:
        """Queue one encoded point; it may share its frame with its neighbours."""
        if self._is_too_slow:
            return
        if len(self._outbox) >= self._outbox_limit:
            self._give_up()
            return
        self._enqueue(point)

    def put_control(self, message: ControlMessage) -> None:
        """Queue a control message, which travels alone."""
        self.put_frame(encode_control(message, self.codec), is_text=self.codec is Codec.JSON)

    def put_frame(self, data: bytes, *, is_text: bool) -> None:
        """Queue a frame exactly as given."""
        self._enqueue(_Frame(data, is_text))

    async def write_outbox(self) -> None:
        """Send what is queued, for as long as the connection lives."""
        try:
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                while self._outbox:
                    await self._write_next_frame()
                    # A producer that fills the outbox as fast as it empties must not starve everybody else.
                    await asyncio.sleep(0)
                self._is_idle.set()
        except ConnectionError:
            self._is_idle.set()

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a close frame, after what is queued has been sent."""
        self.closed_by_server = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._is_idle.wait()
        await self.websocket.close(code=code, message=reason.encode())

    def drop(self) -> None:
        """Cut the TCP connection without a close frame."""
        self._transport.abort()

    async def wait_lost(self) -> None:
        """Return once the TCP connection is gone, whoever ended it."""
        while not self._transport.is_closing():  # noqa: ASYNC110 - the transport has no event to wait for
            await asyncio.sleep(0.02)

    async def _write_next_frame(self) -> None:
        first = self._outbox.popleft()
        frame = first if isinstance(first, _Frame) else await self._data_frame(first)
        if not self._faults().half_open:
            await self.websocket.send_frame(frame.data, WSMsgType.TEXT if frame.is_text else WSMsgType.BINARY)

    async def _data_frame(self, first: bytes) -> "_Frame":
        """Return a frame of `first` and the points waiting behind it, spoiled if the faults say so."""
        points = [first]
        while self._outbox and len(points) < self._batch_limit:
            if isinstance(self._outbox[0], _Frame):
                break
            points.append(cast("bytes", self._outbox.popleft()))
        self.sent_points += len(points)
        self._data_frames += 1
        data = join_points(points, self.codec)
        faults = self._faults()
        if faults.frame_delay_s:
            await asyncio.sleep(faults.frame_delay_s)
        if faults.malformed_every and self._data_frames % faults.malformed_every == 0:
            data = data[: len(data) // 2]
        return _Frame(data, self.codec is Codec.JSON)

    def _enqueue(self, item: "bytes | _Frame") -> None:
        self._outbox.append(item)
        self._is_idle.clear()
        self._has_work.set()

    def _give_up(self) -> None:
        log.warning("slow_client_dropped", connection=self.number, waiting=len(self._outbox))
        self._is_too_slow = True
        self._outbox.clear()
        self.put_control(error(ErrorCode.SLOW_CLIENT))
        asyncio.get_running_loop().call_later(_SLOW_CLIENT_GRACE_S, self.drop)
