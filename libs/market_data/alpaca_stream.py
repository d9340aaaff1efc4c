"""AlpacaMarketDataStream: keeps one connection to Alpaca alive, converges its subscriptions, hands quotes to handlers.

The shell around `session.py` (protocol), `subscriptions.py` (who wants what) and `reconnect.py` (when to dial again).
It knows no Redis and no HTTP: main.py registers the writer with `add_handler` and passes the function that fetches
latest quotes by REST.
"""

import asyncio
import contextlib
import inspect
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import uuid4

import structlog

from libs.market_data.alpaca_connection import AlpacaConnection, ConnectionEndedError, ending_of
from libs.market_data.alpaca_messages import UnreadableMessage
from libs.market_data.link import Link, LinkFault
from libs.market_data.prices import LinkState
from libs.market_data.quote_records import QuoteRecords, SymbolRecord
from libs.market_data.quotes import Quote, Unmarkable, why_unmarkable
from libs.market_data.reconnect import DialBudget, Ending, ReconnectPolicy
from libs.market_data.session import (
    ErrorCode,
    FrameUnreadable,
    Refusal,
    RequestRefused,
    Session,
    StreamErrorReceived,
    SubscriptionConfirmed,
)
from libs.market_data.snapshots import FetchLatestQuotes, SnapshotFetcher
from libs.market_data.subscriptions import Owner, Subscriptions
from libs.market_data.symbols import WILDCARD

log = structlog.get_logger(__name__)

QuoteHandler = Callable[[Quote], object]

_ACK_TIMEOUT_S: Final = 10.0
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


class AlpacaMarketDataStream:
    """Streams the quotes of the wanted symbols from Alpaca, for as long as `start` runs.

    `url` is the data WebSocket, path included. Quotes that may mark a position go to every handler, in order of
    arrival; the others are counted by reason. `symbol_limit` None: the plan has none, or it shows when it is reached.
    Only one event loop may use it.
    """

    def __init__(
        self,
        api_key: str,
        secret_key: str,
        *,
        url: str = "wss://stream.data.alpaca.markets/v2/iex",
        symbol_limit: int | None = None,
        max_spread_pct: float = 10.0,
        max_reconnect_attempts: int = 0,
        fetch_latest_quotes: FetchLatestQuotes | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._credentials = (api_key, secret_key)
        self._url = url
        self._symbol_limit = symbol_limit
        self._max_spread_pct = max_spread_pct
        self._policy = ReconnectPolicy(dice, max_reconnect_attempts)
        self._budget = DialBudget()
        self._subscriptions = Subscriptions()
        self._handlers: list[QuoteHandler] = []
        self._connection: AlpacaConnection | None = None
        self._session = Session(symbol_limit)
        self._records = QuoteRecords(self._is_wanted)
        self._snapshots = SnapshotFetcher(fetch_latest_quotes, self._handle_quote)
        self._wake = asyncio.Event()
        self._redial = asyncio.Event()
        self._is_stopping = False
        self._finished = asyncio.Event()
        self._finished.set()
        self.link = Link(now=_utc_now)
        self.counts: Counter[str] = Counter()
        self.response_headers: Mapping[str, str] = {}
        self.last_frame_at_s: float | None = None
        self.first_attempt_ended = False
        self._converged_at_s = time.monotonic()

    # --- what is wanted -------------------------------------------------------------------------------------------

    async def subscribe_symbols(self, symbols: Iterable[str]) -> None:
        """Want `symbols` (upper case, checked) by hand. Returns at once; the server's word shows in `confirmed`."""
        self._subscriptions.subscribe(symbols)
        self._wanted_changed()

    async def unsubscribe_symbols(self, symbols: Iterable[str]) -> None:
        """Give up the manual ownership of `symbols`. What positions hold stays."""
        self._subscriptions.unsubscribe(symbols)
        self._wanted_changed()

    def want_positions(self, cost_basis: Mapping[str, Decimal]) -> None:
        """Want exactly these symbols for positions; the signed cost in USD says which matter most."""
        self._subscriptions.replace_positions(cost_basis)
        self._wanted_changed()

    def _wanted_changed(self) -> None:
        self._records.forget_unwanted()
        self._wake.set()

    def _is_wanted(self, symbol: str) -> bool:
        return symbol in self._subscriptions or WILDCARD in self._subscriptions

    @property
    def subscribed_symbols(self) -> list[str]:
        """The wanted symbols, the most important first."""
        return self._subscriptions.by_priority()

    @property
    def confirmed(self) -> frozenset[str]:
        """The symbols that Alpaca has acknowledged on the present connection; empty without one."""
        return self._session.confirmed if self._connection is not None else frozenset()

    def owners(self, symbol: str) -> list[Owner]:
        """Return on whose behalf `symbol` is wanted."""
        return self._subscriptions.owners(symbol)

    def why_not_streamed(self, symbol: str) -> Refusal | None:
        """Return why Alpaca will not stream `symbol` on this connection; None when it does or is about to."""
        return self._session.why_not_streamed(symbol, self._subscriptions.by_priority())

    @property
    def diverged_for_s(self) -> float:
        """Seconds for which wanted and confirmed have differed, symbols that are refused or over the limit left out."""
        if self._is_converged():
            self._converged_at_s = time.monotonic()
        return time.monotonic() - self._converged_at_s

    def _is_converged(self) -> bool:
        return set(self._session.streamable(self._subscriptions.by_priority())) == self.confirmed

    def record(self, symbol: str) -> SymbolRecord:
        """Return what was seen of `symbol`."""
        return self._records.of(symbol)

    @property
    def rejected(self) -> Mapping[str, int]:
        """How many quotes could not mark, by reason, over all symbols."""
        return self._records.rejected

    @property
    def snapshot_faults(self) -> int:
        """How often fetching latest quotes failed."""
        return self._snapshots.faults

    @property
    def last_snapshot_fault(self) -> str | None:
        """Why the last fetch of latest quotes failed; None when it went well."""
        return self._snapshots.last_fault

    # --- quotes ---------------------------------------------------------------------------------------------------

    def add_handler(self, handler: QuoteHandler) -> None:
        """Have `handler(quote)` called for every quote that may mark a position.

        It must not wait (the socket waits with it): hand over to a queue or a map. It may return an Unmarkable, which
        is then counted for the symbol. Raises TypeError for a coroutine function.
        """
        if inspect.iscoroutinefunction(handler):
            raise TypeError("a quote handler must not wait: register a plain function that hands the quote over")
        self._handlers.append(handler)

    async def _handle_quote(self, quote: Quote) -> None:
        """Count one quote and hand it to the handlers if it may mark. Never waits, never raises for what it holds."""
        self._take_quote(quote)

    def _take_quote(self, quote: Quote) -> None:
        record = self._records.begin(quote.symbol)
        if record is None:
            # A few points may still arrive after an unsubscribe: they must not bring a dropped symbol back.
            self.counts["quotes_unwanted"] += 1
            return
        record.quotes += 1
        record.last_quote_at = quote.received_at
        refusal = why_unmarkable(quote, self._max_spread_pct)
        if refusal is None:
            for handler in self._handlers:
                try:
                    outcome = handler(quote)
                except Exception:
                    self.counts["handler_errors"] += 1
                    log.exception("quote_handler_failed", symbol=quote.symbol)
                else:
                    if isinstance(outcome, Unmarkable):
                        self._records.reject(record, outcome)
        else:
            self._records.reject(record, refusal)

    # --- the connection -------------------------------------------------------------------------------------------

    def is_connected(self) -> bool:
        """Say whether the socket is open, authenticated, and something was heard within the liveness window."""
        return self._connection is not None and self._connection.is_alive

    async def start(self) -> None:
        """Connect and stream until `stop`; after a refusal wait for `reconnect`. Raises only for faults of our own."""
        self._is_stopping = False
        self._finished.clear()
        try:
            while not self._is_stopping:
                await self._wait_for_dial_budget()
                if not self._is_stopping:
                    self._redial.clear()
                    ended = await self._connect_and_stream()
                    await self._rest_after(ended)
        finally:
            self.link.go(LinkState.STOPPED, "stopped")
            self._finished.set()

    async def stop(self) -> None:
        """Close the connection with a close frame and end `start`."""
        self._is_stopping = True
        self._redial.set()
        await self._finished.wait()

    def reconnect(self) -> None:
        """Drop the connection and dial again now, within the dial budget. Leaves `refused` and `stopped`."""
        self._policy.forgive()
        self._redial.set()

    async def _wait_for_dial_budget(self) -> None:
        while (wait_s := self._budget.wait_s(time.monotonic())) and not self._is_stopping:
            self.link.go(LinkState.BACKING_OFF, "dial budget")
            await asyncio.sleep(min(wait_s, 0.5))

    async def _rest_after(self, ended: ConnectionEndedError) -> None:
        """Wait as the policy says; a person's `reconnect`, or `stop`, ends the wait."""
        delay_s = self._policy.delay_after(ended.ending, retry_after_s=ended.retry_after_s)
        if ended.ending is Ending.REQUESTED:
            return
        if delay_s is None:
            is_refused = ended.ending is Ending.REFUSED
            self.link.go(LinkState.REFUSED if is_refused else LinkState.STOPPED, ended.message)
            log.error(
                "stream_gave_up",
                reason=ended.message,
                remedy="POST /api/v1/market-data/reconnect, or restart",
            )
        else:
            self.link.go(LinkState.BACKING_OFF, ended.message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._redial.wait()

    async def _connect_and_stream(self) -> ConnectionEndedError:
        """Make one connection and serve it to its end; return why it ended."""
        self._budget.record(time.monotonic())
        self.link.go(LinkState.CONNECTING)
        dial = asyncio.create_task(
            AlpacaConnection.dial(
                self._url, *self._credentials, on_welcomed=lambda: self.link.go(LinkState.AUTHENTICATING)
            ),
            name="alpaca-dial",
        )
        try:
            await self._unless_redialled(dial)
            connection = dial.result()
        except ConnectionEndedError as failed:
            return self._note_end(failed)
        finally:
            self.first_attempt_ended = True
        began_s = time.monotonic()
        quotes_before = self.counts["quotes"]
        self._begin_session(connection)
        try:
            ended = await self._serve(connection)
        finally:
            self._policy.connection_proven(
                lasted_s=time.monotonic() - began_s, delivered_data=self.counts["quotes"] > quotes_before
            )
            self._connection = None
            await connection.close()
        return self._note_end(ended)

    async def _unless_redialled(self, task: asyncio.Task[AlpacaConnection]) -> None:
        """Wait for `task`, or cancel it and raise REQUESTED when a person or `stop` wants otherwise."""
        redial = asyncio.create_task(self._redial.wait())
        try:
            await asyncio.wait({task, redial}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            redial.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            raise _requested()

    def _begin_session(self, connection: AlpacaConnection) -> None:
        self._connection = connection
        self._session = Session(self._symbol_limit)
        self._snapshots.forget()
        self.response_headers = {name.lower(): value for name, value in connection.response_headers.raw_items()}
        self.link.epoch = uuid4().hex
        self.link.connections += 1
        self.last_frame_at_s = time.monotonic()
        self.link.go(LinkState.SUBSCRIBING)
        log.info("stream_connected", url=self._url, connections=self.link.connections)
        self._wake.set()

    def _note_end(self, ended: ConnectionEndedError) -> ConnectionEndedError:
        self.link.attempts_ended += 1
        if ended.ending is not Ending.REQUESTED:
            self.link.last_fault = LinkFault(_utc_now(), ended.message, ended.code, ended.ending)
            log.warning("stream_ended", reason=ended.message, code=ended.code, ending=ended.ending.name.lower())
        return ended

    async def _serve(self, connection: AlpacaConnection) -> ConnectionEndedError:
        """Run the connection's parts until one of them ends it."""
        parts = [
            asyncio.create_task(self._read(connection), name="alpaca-read"),
            asyncio.create_task(self._converge(connection), name="alpaca-converge"),
            asyncio.create_task(self._snapshots.run(), name="alpaca-snapshots"),
            asyncio.create_task(self._redial.wait(), name="alpaca-redial"),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        for part in done:
            error = part.exception()
            if isinstance(error, ConnectionEndedError):
                return error
            if error is not None:
                raise error
        return _requested()

    async def _read(self, connection: AlpacaConnection) -> None:
        turn_began_s = time.monotonic()
        while True:
            frame = await connection.recv()
            now_s = self.last_frame_at_s = time.monotonic()
            for event in self._session.receive(frame, _utc_now()):
                if event.__class__ is Quote:
                    self.counts["quotes"] += 1
                    self._take_quote(event)
                else:
                    self._take_event(event)
            if now_s - turn_began_s > _READER_TURN_S:
                await asyncio.sleep(0)
                turn_began_s = time.monotonic()

    def _take_event(self, event: object) -> None:
        """Act on what is no quote. Raises ConnectionEndedError when the connection is of no more use."""
        match event:
            case SubscriptionConfirmed():
                self._take_confirmation(event)
            case RequestRefused():
                log.warning("subscription_refused", code=event.code, reason=event.message, symbols=len(event.symbols))
                self._wake.set()
                self.link.announce()
            case StreamErrorReceived():
                self.counts[f"stream_error_{event.code}"] += 1
                log.warning("stream_error", code=event.code, reason=event.message)
                if event.code in _PERMANENT_IN_STREAM:
                    raise ConnectionEndedError(ending_of(event.code), event.message, code=event.code)
            case UnreadableMessage():
                self.counts["unreadable_messages"] += 1
                if event.symbol is not None and (record := self._records.begin(event.symbol)):
                    self._records.reject(record, Unmarkable.MALFORMED)
            case FrameUnreadable():
                self.counts["unreadable_frames"] += 1

    def _take_confirmation(self, event: SubscriptionConfirmed) -> None:
        self._snapshots.want(event.added - {WILDCARD})
        log.info("subscription_confirmed", added=len(event.added), removed=len(event.removed))
        self._wake.set()
        self.link.announce()

    async def _converge(self, connection: AlpacaConnection) -> None:
        """Send one request after another until confirmed is what is wanted, and again after every change."""
        while True:
            self._wake.clear()
            request = None
            if self._session.in_flight is None:
                request = self._session.next_request(self._subscriptions.by_priority())
            if request is not None:
                await connection.send(request.message())
            elif self._session.in_flight is None:
                self._converged_at_s = time.monotonic()
                self.link.go(LinkState.STREAMING)
            try:
                async with asyncio.timeout(_ACK_TIMEOUT_S if self._session.in_flight is not None else None):
                    await self._wake.wait()
            except TimeoutError:
                raise ConnectionEndedError(
                    Ending.LOST, f"no acknowledgement of a subscription within {_ACK_TIMEOUT_S:.0f} s"
                ) from None


def _requested() -> ConnectionEndedError:
    return ConnectionEndedError(Ending.REQUESTED, "a new connection was asked for")


def _utc_now() -> datetime:
    return datetime.now(UTC)
