"""Keeps one connection to the account's trading stream alive and hands over what it says, in order of arrival.

The shell that dials, and dials again: `reconnect.py` says when, `trade_updates.py` what a message means. Nothing is
told again after a gap: whoever takes the events asks REST, after every `Listening` at the latest.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from libs.broker.executions import Unreadable
from libs.broker.trade_updates import (
    TRADE_UPDATES,
    Authorized,
    Disconnected,
    Listening,
    Refused,
    StreamError,
    StreamEvent,
    read_message,
)
from libs.broker.trade_updates_connection import LIVENESS_WINDOW_S, StreamEndedError, TradeUpdatesConnection
from libs.market_data.link import Link, LinkFault
from libs.market_data.prices import LinkState
from libs.market_data.reconnect import DialBudget, Ending, ReconnectPolicy

log = structlog.get_logger(__name__)

_ANSWER_TIMEOUT_S: Final = 10.0
_READER_TURN_S: Final = 0.002
"""After this long without a wait the reader lets others run: a full receive queue never yields by itself."""

TakeEvent = Callable[[StreamEvent], None]


class TradingStream:
    """Hands every event to `take`, which must not wait; `Disconnected` is said once after every `Listening`.

    `url` is the whole address, see `stream_url`. `take` is called on the event loop's thread; what it raises ends
    `run`. `link` shows state, since when, the last fault and the reconnects. `max_attempts` 0: never give up.
    """

    def __init__(
        self,
        url: str,
        key: str,
        secret: str,
        take: TakeEvent,
        *,
        max_attempts: int = 0,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._url = url
        self._credentials = (key, secret)
        self._take = take
        self._policy = ReconnectPolicy(dice, max_attempts)
        self._budget = DialBudget()
        self._redial = asyncio.Event()
        self._connection: TradeUpdatesConnection | None = None
        self._last_frame_at_s: float | None = None
        self._is_listening = False
        self.link = Link(now=_utc_now)
        self.counts: Counter[str] = Counter()
        """Messages by kind of event, and everything odd."""

    @property
    def is_listening(self) -> bool:
        """Whether the stream tells us everything now: acknowledged, and something heard within the liveness window."""
        connection = self._connection
        return self._is_listening and connection is not None and connection.silent_for_s < LIVENESS_WINDOW_S

    @property
    def last_frame_age_s(self) -> float | None:
        """Seconds since the last message, which may be long ago on a quiet account; None before the first."""
        return None if self._last_frame_at_s is None else time.monotonic() - self._last_frame_at_s

    async def run(self) -> None:
        """Connect and listen for ever; after a refusal wait for `reconnect`. Cancel it to stop: it closes cleanly."""
        try:
            while True:
                await self._wait_for_dial_budget()
                self._redial.clear()
                await self._rest_after(await self._connect_and_listen())
        finally:
            self.link.go(LinkState.STOPPED, "stopped")

    def reconnect(self) -> None:
        """Drop the connection and dial again now, within the dial budget. Leaves `refused` and `stopped`."""
        self._policy.forgive()
        self._redial.set()

    async def _wait_for_dial_budget(self) -> None:
        while wait_s := self._budget.wait_s(time.monotonic()):
            self.link.go(LinkState.BACKING_OFF, "dial budget")
            await asyncio.sleep(wait_s)

    async def _rest_after(self, ended: StreamEndedError) -> None:
        """Wait as the policy says; a person's `reconnect` ends the wait."""
        delay_s = self._policy.delay_after(ended.ending, retry_after_s=ended.retry_after_s)
        if ended.ending is Ending.REQUESTED:
            return
        if delay_s is None:
            is_refused = ended.ending is Ending.REFUSED
            self.link.go(LinkState.REFUSED if is_refused else LinkState.STOPPED, ended.message)
            log.error("trading_stream_gave_up", reason=ended.message)
        else:
            self.link.go(LinkState.BACKING_OFF, ended.message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._redial.wait()

    async def _connect_and_listen(self) -> StreamEndedError:
        """Make one connection and serve it to its end; return why it ended."""
        conversation = asyncio.create_task(self._converse(), name="trading-stream")
        redial = asyncio.create_task(self._redial.wait(), name="trading-stream-redial")
        try:
            await asyncio.wait({conversation, redial}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            redial.cancel()
            conversation.cancel()
            await asyncio.gather(redial, conversation, return_exceptions=True)
        if conversation.cancelled():
            return self._note_end(StreamEndedError(Ending.REQUESTED, "a new connection was asked for"))
        return self._note_end(conversation.result())

    async def _converse(self) -> StreamEndedError:
        self._budget.record(time.monotonic())
        self.link.go(LinkState.CONNECTING)
        began_s: float | None = None
        ended = StreamEndedError(Ending.REQUESTED, "stopped")
        try:
            self._connection = await TradeUpdatesConnection.dial(self._url)
            await self._shake_hands(self._connection)
            began_s = time.monotonic()
            await self._read(self._connection)
        except StreamEndedError as error:
            ended = error
        finally:
            if began_s is not None:
                # The account may be quiet for days: that the server keeps listening is proof enough.
                self._policy.connection_proven(lasted_s=time.monotonic() - began_s, delivered_data=True)
            await self._leave(ended)
        return ended

    async def _leave(self, ended: StreamEndedError) -> None:
        connection, self._connection = self._connection, None
        if self._is_listening:
            self._is_listening = False
            self._take(Disconnected(ended.message))
        if connection is not None:
            await connection.close()

    async def _shake_hands(self, connection: TradeUpdatesConnection) -> None:
        """Authenticate and listen. Raises StreamEndedError when the server does not play along."""
        key, secret = self._credentials
        self.link.go(LinkState.AUTHENTICATING)
        await connection.send({"action": "authenticate", "data": {"key_id": key, "secret_key": secret}})
        await self._await_answer(connection, Authorized)
        self.link.go(LinkState.SUBSCRIBING)
        await connection.send({"action": "listen", "data": {"streams": [TRADE_UPDATES]}})
        await self._await_answer(connection, Listening)
        self._is_listening = True
        self.link.connections += 1
        self.link.go(LinkState.STREAMING)
        log.info("trading_stream_listening", url=self._url, connections=self.link.connections)

    async def _await_answer(self, connection: TradeUpdatesConnection, wanted: type[Authorized | Listening]) -> None:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                while not isinstance(await self._take_next(connection), wanted):
                    pass
        except TimeoutError:
            raise StreamEndedError(
                Ending.LOST, f"no answer to the {wanted.__name__.lower()} request within {_ANSWER_TIMEOUT_S:.0f} s"
            ) from None

    async def _read(self, connection: TradeUpdatesConnection) -> None:
        """Read for ever, and wait for nothing else."""
        turn_began_s = time.monotonic()
        while True:
            await self._take_next(connection)
            if time.monotonic() - turn_began_s > _READER_TURN_S:
                await asyncio.sleep(0)
                turn_began_s = time.monotonic()

    async def _take_next(self, connection: TradeUpdatesConnection) -> StreamEvent:
        """Hand over one message and return it. Raises StreamEndedError when it ends the connection."""
        event = read_message(await connection.recv())
        self._last_frame_at_s = time.monotonic()
        self.counts[type(event).__name__.lower()] += 1
        match event:
            case Refused(action=action):
                message = f"the key was refused (unauthorized, {action}); correct ALPACA_API_KEY and ALPACA_SECRET_KEY"
                raise StreamEndedError(Ending.REFUSED, message)
            case StreamError(message=message):
                raise StreamEndedError(Ending.LOST, f"the server failed: {message}")
            case Listening(streams=streams) if TRADE_UPDATES not in streams:
                raise StreamEndedError(Ending.LOST, "the server does not offer trade_updates")
            case Unreadable(why=why):
                log.warning("trading_stream_message_unreadable", reason=why, may_be_execution=event.may_be_execution)
            case _:
                pass
        self._take(event)
        return event

    def _note_end(self, ended: StreamEndedError) -> StreamEndedError:
        self.link.attempts_ended += 1
        if ended.ending is not Ending.REQUESTED:
            self.link.last_fault = LinkFault(_utc_now(), ended.message, ended.code, ended.ending)
            log.warning("trading_stream_ended", reason=ended.message, code=ended.code, ending=ended.ending.name.lower())
        return ended


def _utc_now() -> datetime:
    return datetime.now(UTC)
