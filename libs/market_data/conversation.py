"""Carries out what one connection's `Session` decides: reads frames, acts on their events, sends the next request.

One object per connection. It ends by ConnectionEndedError, whoever of its parts notices first.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from libs.market_data.alpaca_connection import AlpacaConnection, ConnectionEndedError, ending_of
from libs.market_data.alpaca_messages import UnreadableMessage
from libs.market_data.channels import Channel
from libs.market_data.gaps import GapLog
from libs.market_data.halts import Halts, TradingStatus
from libs.market_data.link import Link
from libs.market_data.prices import LinkState
from libs.market_data.quote_intake import QuoteIntake
from libs.market_data.quotes import Quote
from libs.market_data.reconnect import Ending
from libs.market_data.session import (
    ErrorCode,
    FrameUnreadable,
    RequestRefused,
    Session,
    StreamErrorReceived,
    SubscriptionConfirmed,
    counted_code,
)
from libs.market_data.silence_watch import SilenceWatch
from libs.market_data.snapshots import SnapshotFetcher
from libs.market_data.subscriptions import Subscriptions
from libs.market_data.symbols import WILDCARD
from libs.market_data.trades import Trade, TradeCancel, TradeCorrection, TradesInterrupted

log = structlog.get_logger(__name__)

_ACK_TIMEOUT_S: Final = 10.0
_TRY_AGAIN_S: Final = 20.0
"""How long a refusal stands before one of the refused symbols is asked for again."""
_READER_TURN_S: Final = 0.002
"""After this long without a wait the reader lets others run: a full receive queue never yields by itself."""
_PERMANENT_IN_STREAM: Final = frozenset(
    {
        ErrorCode.NOT_AUTHENTICATED,
        ErrorCode.AUTH_FAILED,
        ErrorCode.AUTH_TIMEOUT,
        ErrorCode.CONNECTION_LIMIT,
        ErrorCode.SLOW_CLIENT,
        ErrorCode.INSUFFICIENT_SUBSCRIPTION,
        ErrorCode.INSUFFICIENT_SCOPE,
    }
)
"""Errors after which the connection is of no more use; any other is counted and the connection stays."""


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What all connections of one stream share."""

    subscriptions: Subscriptions
    intake: QuoteIntake
    link: Link
    halts: Halts
    gaps: GapLog
    snapshots: SnapshotFetcher
    trade_snapshots: SnapshotFetcher
    watch: SilenceWatch


class Conversation:
    """What is said over one connection. `last_frame_at` and `last_frame_at_s`: when the last frame came."""

    def __init__(self, connection: AlpacaConnection, session: Session, parts: StreamParts) -> None:
        self._connection = connection
        self._session = session
        self._subscriptions = parts.subscriptions
        self._intake = parts.intake
        self._link = parts.link
        self._halts = parts.halts
        self._gaps = parts.gaps
        self._snapshots = parts.snapshots
        self._trade_snapshots = parts.trade_snapshots
        self._watch = parts.watch
        self._wake = asyncio.Event()
        self.last_frame_at = _utc_now()
        self.last_frame_at_s = time.monotonic()
        self.converged_at_s = time.monotonic()
        self._try_again_at_s = time.monotonic() + _TRY_AGAIN_S

    @property
    def is_alive(self) -> bool:
        """Whether the socket is open and something was heard within the liveness window."""
        return self._connection.is_alive and not self._watch.awake.has_slept(_utc_now())

    def wanted_changed(self) -> None:
        """Look anew at what is wanted."""
        self._wake.set()

    async def read(self) -> None:
        """Read frames for ever, and wait for nothing else."""
        counts, receive = self._intake.counts, self._session.receive
        turn_began_s = time.monotonic()
        while True:
            frame = await self._connection.recv()
            now = _utc_now()
            self._watch.check_awake(now)
            received_at = now + self._watch.account_time.offset
            now_s = self.last_frame_at_s = time.monotonic()
            self.last_frame_at = now
            for event in receive(frame, received_at):
                if event.__class__ is Quote:
                    counts["quotes"] += 1
                    may_mark = self._intake.take_streamed(event)
                    if self._halts and may_mark and self._halts.quoted(event.symbol):
                        self._link.announce()
                else:
                    self._take_event(event, received_at)
            if now_s - turn_began_s > _READER_TURN_S:
                await asyncio.sleep(0)
                turn_began_s = time.monotonic()

    def _take_event(self, event: object, received_at: datetime) -> None:
        """Act on what is no quote. Raises ConnectionEndedError when the connection is of no more use."""
        counts = self._intake.counts
        match event:
            case Trade() | TradeCancel() | TradeCorrection():
                self._intake.take_trade(event)
            case SubscriptionConfirmed():
                self._take_confirmation(event)
            case RequestRefused():
                self._take_refusal(event)
            case TradingStatus():
                counts["trading_statuses"] += 1
                if self._halts.take(event, received_at):
                    log.warning("trading_status_changed", symbol=event.symbol, code=event.code, reason=event.reason)
                    self._link.announce()
            case StreamErrorReceived():
                counts[f"stream_error_{counted_code(event.code)}"] += 1
                log.warning("stream_error", code=event.code, reason=event.message)
                if event.code in _PERMANENT_IN_STREAM:
                    raise ConnectionEndedError(ending_of(event.code), event.message, code=event.code)
            case UnreadableMessage():
                self._intake.reject_malformed(event.symbol, event.kind, received_at)
            case FrameUnreadable():
                counts["unreadable_frames"] += 1

    def _take_confirmation(self, event: SubscriptionConfirmed) -> None:
        if event.added or event.removed:
            self._snapshots.want(event.added - {WILDCARD})
            log.info("subscription_confirmed", added=len(event.added), removed=len(event.removed))
            self._link.announce()
        if event.trades_removed:
            self._intake.take_trade(TradesInterrupted(event.trades_removed))
        if event.trades_added:
            self._trade_snapshots.want(event.trades_added - {WILDCARD})
        self._wake.set()

    def _take_refusal(self, event: RequestRefused) -> None:
        self._intake.counts[f"request_refused_{counted_code(event.code)}"] += 1
        tell = log.info if event.channel is Channel.STATUSES else log.warning
        tell(
            "subscription_refused",
            channel=event.channel.value,
            code=event.code,
            reason=event.message,
            symbols=len(event.symbols),
        )
        self._wake.set()
        self._link.announce()

    async def converge(self) -> None:
        """Send one request after another until confirmed is what is wanted, and again after every change."""
        while True:
            self._wake.clear()
            wanted = self._subscriptions.by_priority()
            if self._session.in_flight is None and (request := self._session.next_request(wanted)) is not None:
                await self._connection.send(request.message())
            if self._session.has_what_it_can(wanted):
                self._note_converged()
            await self._wait_for_news(wanted)

    def _note_converged(self) -> None:
        self.converged_at_s = time.monotonic()
        self._link.go(LinkState.STREAMING)
        for gap in self._gaps.regained(self._session.confirmed - self._watch.dead, _utc_now()):
            log.warning(
                "gap_closed",
                began_at=gap.began_at.isoformat(),
                seconds=round((_utc_now() - gap.began_at).total_seconds(), 3),
                symbols=len(gap.symbols),
                reason=gap.reason,
            )

    async def _wait_for_news(self, wanted: list[str]) -> None:
        in_flight = self._session.in_flight
        try:
            patience_s = _ACK_TIMEOUT_S if in_flight is not None else self._try_again_at_s - time.monotonic()
            async with asyncio.timeout(patience_s):
                await self._wake.wait()
        except TimeoutError:
            if in_flight is None:
                self._session.try_again(wanted)
                self._try_again_at_s = time.monotonic() + _TRY_AGAIN_S
            elif not self._session.give_up_side():
                raise ConnectionEndedError(
                    Ending.LOST, f"no acknowledgement of a subscription within {_ACK_TIMEOUT_S:.0f} s"
                ) from None


def _utc_now() -> datetime:
    return datetime.now(UTC)
