"""One client's WebSocket with its outbox: what is waiting for it, how it is batched into frames, when it is too slow.

The outbox is bounded. A client that lets it fill is told 407 and dropped, as Alpaca does.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import structlog
from aiohttp import WSMsgType, web

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.frame_faults import Frame, bad_frame, fault_in_turn
from apps.alpaca_simulator.points import Feed, Quote
from apps.alpaca_simulator.protocol import ControlMessage, ErrorCode, Session, error
from apps.alpaca_simulator.sent_record import SentRecord
from apps.alpaca_simulator.wire import Codec, encode_control, join_points

log = structlog.get_logger(__name__)

Element = tuple[bytes, Quote | None]
"""One encoded point, and what it says for the record of what was sent: None for what is not to be remembered.

A bare tuple: a flood makes as many as there are points.
"""

_SLOW_CLIENT_GRACE_S = 1.0
_FAREWELL_S = 1.0
_numbers = count(1)


class StreamConnection:
    """A client on one data path. `put_…` never waits; a task of its own does the writing."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        session: Session,
        codec: Codec,
        faults: Callable[[], Faults],
        record: SentRecord,
        *,
        outbox_limit: int,
        batch_limit: int,
    ) -> None:
        self.number = next(_numbers)
        self.session = session
        self.codec = codec
        self.websocket = websocket
        self.closed_by_server = False
        self.is_half_open = False
        self.since_unix_s = time.time()
        self.sent_points = 0
        self.auth_deadline_s = 0.0
        """When it must have authenticated, in seconds of `time.monotonic()`."""
        self._transport = transport
        self._faults = faults
        self._record = record
        self._outbox: deque[Element | Frame] = deque()
        self._held: deque[Element] = deque()
        self._takes_no_points = faults().hold_data
        self._outbox_limit = outbox_limit
        self._batch_limit = batch_limit
        self._data_frames = 0
        self._bad_frames = 0
        self._is_too_slow = False
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def feed(self) -> Feed:
        """The feed whose path the client dialled."""
        return self.session.feed

    @property
    def has_room(self) -> bool:
        """Whether a producer without a pace of its own should go on."""
        return len(self._outbox) + len(self._held) < self._batch_limit

    def put_point(self, point: Element) -> None:
        """Queue one point; it may share its frame with its neighbours."""
        if self._takes_no_points:
            self._keep_back(point)
        elif len(self._outbox) >= self._outbox_limit:
            self.give_up(with_message=True)
        else:
            self._enqueue(point)

    def put_control(self, message: ControlMessage) -> None:
        """Queue a control message, which travels alone."""
        self.put_frame(encode_control(message, self.codec), is_text=self.codec is Codec.JSON)

    def put_frame(self, data: bytes, *, is_text: bool) -> None:
        """Queue a frame exactly as given."""
        if not self.is_half_open:
            self._enqueue(Frame(data, is_text))

    def hold(self, is_holding: bool) -> None:
        """Keep points back from now on, or let go of those that were kept."""
        self._takes_no_points = is_holding or self._is_too_slow or self.is_half_open
        if not is_holding and self._held:
            for point in self._held:
                self._enqueue(point)
            self._held.clear()

    def freeze(self) -> None:
        """Become half-open for good: nothing is read, answered, written or closed any more."""
        self.is_half_open = True
        self._takes_no_points = True
        self._outbox.clear()
        self._held.clear()
        self._is_idle.set()

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
        """Close with a close frame, after what is queued has been sent; a half-open connection is only cut."""
        if self.is_half_open:
            self.drop()
            return
        self.closed_by_server = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._is_idle.wait()
        await self.websocket.close(code=code, message=reason.encode())

    def drop(self) -> None:
        """Cut the TCP connection without a close frame."""
        self._transport.abort()

    def give_up(self, *, with_message: bool) -> None:
        """Treat the client as too slow: drop it, at once or after it has been told."""
        log.warning("slow_client_dropped", connection=self.number, waiting=len(self._outbox) + len(self._held))
        self._is_too_slow = True
        self._takes_no_points = True
        self._outbox.clear()
        self._held.clear()
        if not with_message or self.is_half_open:
            self.drop()
            return
        self.put_control(error(ErrorCode.SLOW_CLIENT))
        asyncio.get_running_loop().call_later(_SLOW_CLIENT_GRACE_S, self.drop)

    async def wait_lost(self) -> None:
        """Return once the TCP connection is gone, whoever ended it."""
        while not self._transport.is_closing():  # noqa: ASYNC110 - the transport has no event to wait for
            await asyncio.sleep(0.02)

    def _keep_back(self, point: Element) -> None:
        """Hold a point while data is held back; a client that is lost or too slow gets nothing more."""
        if self._is_too_slow or self.is_half_open:
            return
        if len(self._held) + len(self._outbox) >= self._outbox_limit:
            self.give_up(with_message=True)
        else:
            self._held.append(point)

    async def _write_next_frame(self) -> None:
        first = self._outbox.popleft()
        if isinstance(first, Frame):
            await self._send(first)
        else:
            await self._write_data(first)

    async def _write_data(self, first: Element) -> None:
        """Write a frame of `first` and the points waiting behind it, spoiled if the faults say so."""
        points = self._next_points(first)
        faults = self._faults()
        if faults.frame_delay_s:
            await asyncio.sleep(faults.frame_delay_s)
            faults = self._faults()
        if faults.mute or self.is_half_open:
            return
        self._data_frames += 1
        data = join_points([encoded for encoded, _ in points], self.codec)
        is_whole = not faults.malformed_every or self._data_frames % faults.malformed_every != 0
        await self._send(Frame(data if is_whole else data[: len(data) // 2], self.codec is Codec.JSON))
        self.sent_points += len(points)
        if is_whole and not self.is_half_open:
            self._record.wrote([quote for _, quote in points], time.time())
        if faults.bad_frames and self._data_frames % faults.bad_frame_every == 0:
            self._bad_frames += 1
            await self._send(bad_frame(fault_in_turn(faults.bad_frames, self._bad_frames), data, self.codec))

    def _next_points(self, first: Element) -> list[Element]:
        points = [first]
        outbox = self._outbox
        while outbox and len(points) < self._batch_limit:
            waiting = outbox[0]
            if isinstance(waiting, Frame):
                break
            points.append(waiting)
            outbox.popleft()
        return points

    async def _send(self, frame: Frame) -> None:
        if not self.is_half_open:
            await self.websocket.send_frame(frame.data, WSMsgType.TEXT if frame.is_text else WSMsgType.BINARY)

    def _enqueue(self, item: Element | Frame) -> None:
        self._outbox.append(item)
        self._is_idle.clear()
        self._has_work.set()
