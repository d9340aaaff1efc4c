"""AlpacaMarketDataStream: keeps one connection to Alpaca alive, converges its subscriptions, hands quotes to handlers.

The shell that dials, and dials again: `conversation.py` serves a connection, `silence_watch.py` doubts it,
`subscriptions.py` says who wants what, `reconnect.py` when to dial. It knows no Redis and no HTTP: main.py registers
the writer with `add_handler`, and passes the functions that fetch latest quotes by REST and tell the market's hours.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import structlog

from libs.market_data.account_time import AccountTime
from libs.market_data.alpaca_connection import AlpacaConnection, ConnectionEndedError
from libs.market_data.channels import Channel, Refusal, SideChannel
from libs.market_data.conversation import Conversation, StreamParts
from libs.market_data.gaps import GapLog
from libs.market_data.halts import Halt, Halts
from libs.market_data.link import Link, LinkFault
from libs.market_data.prices import LinkState
from libs.market_data.quote_intake import QuoteHandler, QuoteIntake, RejectionHandler, TradeHandler
from libs.market_data.quote_records import SymbolRecord
from libs.market_data.quotes import Quote, QuoteOrigin
from libs.market_data.reconnect import DialBudget, Ending, ReconnectPolicy
from libs.market_data.rest_polling import QuotePoller
from libs.market_data.session import Session
from libs.market_data.silence import Silence
from libs.market_data.silence_watch import SilenceWatch
from libs.market_data.snapshots import FetchLatestQuotes, SnapshotFetcher
from libs.market_data.subscriptions import Owner, Subscriptions
from libs.market_data.symbols import WILDCARD, is_symbol
from libs.market_data.trades import Trade, TradesInterrupted

FetchLatestTrades = Callable[[Sequence[str]], Awaitable[Sequence[Trade]]]

log = structlog.get_logger(__name__)


class AlpacaMarketDataStream:
    """Streams the quotes of the wanted symbols from Alpaca, for as long as `start` runs.

    `url` is the data WebSocket, path included. Quotes that may mark a position go to every handler, in order of
    arrival; the others are counted by reason. `symbol_limit` None: the plan has none, or it shows when it is reached.
    `is_market_open` says whether quotes are to be expected now. `wants_trades` has the trades of the streamed symbols
    subscribed too; all that is told of them goes to the trade handlers. `account_time` corrects the times at which
    quotes are received. Only one event loop may use it.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        api_key: str,
        secret_key: str,
        *,
        url: str = "wss://stream.data.alpaca.markets/v2/iex",
        symbol_limit: int | None = None,
        max_spread_pct: float = 10.0,
        max_reconnect_attempts: int = 0,
        fetch_latest_quotes: FetchLatestQuotes | None = None,
        wants_trades: bool = False,
        fetch_latest_trades: FetchLatestTrades | None = None,
        is_market_open: Callable[[], bool] = lambda: True,
        is_late_by_design: Callable[[], bool] = lambda: False,
        account_time: AccountTime | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._credentials = (api_key, secret_key)
        self._url = url
        self._symbol_limit = symbol_limit
        self._policy = ReconnectPolicy(dice, max_reconnect_attempts)
        self._budget = DialBudget()
        self._session = Session(symbol_limit)
        self._conversation: Conversation | None = None
        self._subscriptions = Subscriptions()
        self._acted_on_revision = 0
        self._intake = QuoteIntake(self._is_wanted, max_spread_pct)
        self._halts = Halts()
        self._snapshots = SnapshotFetcher(fetch_latest_quotes, self._intake.take_snapshot)
        self._wants_trades = wants_trades
        self._fetch_latest_trades = fetch_latest_trades
        self._trade_snapshots = SnapshotFetcher(
            None if fetch_latest_trades is None else self._fetch_last_trades, self._intake.take_snapshot
        )
        self.link = Link(now=_utc_now)
        self.gaps = GapLog()
        self.poller = QuotePoller(fetch_latest_quotes, lambda: self.polled, self._intake.take_fetched, is_market_open)
        self.watch = SilenceWatch(
            self._intake,
            self._halts,
            self.gaps,
            fetch_latest_quotes,
            is_market_open,
            self.link.announce,
            is_late_by_design,
            account_time,
        )
        self._parts = StreamParts(
            self._subscriptions,
            self._intake,
            self.link,
            self._halts,
            self.gaps,
            self._snapshots,
            self._trade_snapshots,
            self.watch,
        )
        self._redial = asyncio.Event()
        self._is_stopping = False
        self._standby_reason: str | None = None
        self._finished = asyncio.Event()
        self._finished.set()
        self.response_headers: Mapping[str, str] = {}
        self.first_attempt_ended = False

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
        if self._subscriptions.revision == self._acted_on_revision:
            return
        self._acted_on_revision = self._subscriptions.revision
        self._intake.records.forget_unwanted()
        if WILDCARD not in self._subscriptions:
            wanted = frozenset(self._subscriptions.by_priority())
            self.watch.keep_only(wanted)
            self.gaps.keep_only(wanted)
            self._halts.keep_only(wanted)
        if self._conversation is not None:
            self._conversation.wanted_changed()

    def _is_wanted(self, symbol: str) -> bool:
        # What `*` brings becomes a key of its own: only what is a symbol may.
        return symbol in self._subscriptions or (WILDCARD in self._subscriptions and is_symbol(symbol))

    @property
    def subscribed_symbols(self) -> list[str]:
        """The wanted symbols, the most important first."""
        return self._subscriptions.by_priority()

    @property
    def confirmed(self) -> frozenset[str]:
        """The symbols that Alpaca has acknowledged on the present connection; empty without one."""
        return self._session.confirmed if self._conversation is not None else frozenset()

    def owners(self, symbol: str) -> list[Owner]:
        """Return on whose behalf `symbol` is wanted."""
        return self._subscriptions.owners(symbol)

    def why_not_streamed(self, symbol: str) -> Refusal | None:
        """Return why Alpaca will not stream `symbol` on this connection; None when it does or is about to."""
        return self._session.why_not_streamed(symbol, self._subscriptions.by_priority())

    @property
    def not_streamed(self) -> dict[str, Refusal]:
        """The wanted symbols that Alpaca does not stream on this connection, and why."""
        wanted = self._subscriptions.by_priority()
        streamable = frozenset(self._session.streamable(wanted))
        refused = self._session.refused
        return {s: refused.get(s, Refusal.OVER_LIMIT) for s in wanted if s not in streamable}

    @property
    def polled(self) -> frozenset[str]:
        """The symbols that REST prices, because the stream does not."""
        if self.is_standing_by:
            return frozenset()
        return (frozenset(self.not_streamed) | self.watch.dead) - {WILDCARD}

    @property
    def diverged_for_s(self) -> float:
        """Seconds for which wanted and confirmed have differed, symbols that are refused or over the limit left out."""
        conversation = self._conversation
        if conversation is None or self._session.has_what_it_can(self._subscriptions.by_priority()):
            return 0.0
        return time.monotonic() - conversation.converged_at_s

    def record(self, symbol: str) -> SymbolRecord:
        """Return what was seen of `symbol`."""
        return self._intake.records.of(symbol)

    @property
    def counts(self) -> Counter[str]:
        """Quotes streamed, and everything odd, by kind."""
        return self._intake.counts

    @property
    def rejected(self) -> Mapping[str, int]:
        """How many quotes could not mark, by reason, over all symbols."""
        return self._intake.records.rejected

    @property
    def snapshot_faults(self) -> int:
        """How often fetching latest quotes failed."""
        return self._snapshots.faults

    @property
    def last_snapshot_fault(self) -> str | None:
        """Why the last fetch of latest quotes failed; None when it went well."""
        return self._snapshots.last_fault

    # --- what may be said of the symbols --------------------------------------------------------------------------

    def epoch_of(self, symbol: str) -> str | None:
        """Return the connection to which a quote of `symbol` taken now belongs; None when it streams none of it."""
        confirmed = self.confirmed
        return self.link.epoch if symbol in confirmed or WILDCARD in confirmed else None

    @property
    def halted(self) -> frozenset[str]:
        """The symbols whose trading the venue has halted."""
        return self._halts.symbols

    def halt_of(self, symbol: str) -> Halt | None:
        """Return the halt of `symbol`; None when it trades."""
        return self._halts.of(symbol)

    @property
    def knows_halts(self) -> bool:
        """Whether the venue tells of halts on this connection."""
        side = self._session.side(Channel.STATUSES)
        return side is not None and side.is_offered

    @property
    def confirmed_trades(self) -> frozenset[str]:
        """The symbols of which Alpaca streams trades on the present connection; empty without one."""
        side = self._session.side(Channel.TRADES) if self._conversation is not None else None
        return frozenset() if side is None else side.confirmed

    @property
    def why_no_trades(self) -> Refusal | None:
        """Why Alpaca streams no trades on this connection; None when it does, or none were asked for yet."""
        side = self._session.side(Channel.TRADES)
        return None if side is None else side.refusal

    @property
    def trade_counts(self) -> Counter[str]:
        """Trade messages by kind, and trades that could not be the last price by reason."""
        return self._intake.trades

    @property
    def trade_snapshot_faults(self) -> int:
        """How often fetching latest trades failed."""
        return self._trade_snapshots.faults

    @property
    def last_trade_snapshot_fault(self) -> str | None:
        """Why the last fetch of latest trades failed; None when it went well."""
        return self._trade_snapshots.last_fault

    @property
    def late_by_s(self) -> float | None:
        """Seconds by which the stream is late, while that makes nothing live; None while it is in time."""
        return self.watch.lag_s if self.watch.is_late else None

    @property
    def doubted(self) -> frozenset[str]:
        """The wanted symbols of which the newest quote may well be missing; `*` for all there are."""
        if self.watch.silence is not Silence.NONE:
            return frozenset(self._subscriptions.by_priority())
        return self.watch.dead | self._halts.unquoted

    # --- quotes ---------------------------------------------------------------------------------------------------

    def add_handler(self, handler: QuoteHandler) -> None:
        """Have `handler(quote)` called for every quote that may mark a position.

        It must not wait (the socket waits with it): hand over to a queue or a map. It may return an Unmarkable, which
        is then counted for the symbol. Raises TypeError for a coroutine function.
        """
        self._intake.add_handler(handler)

    def add_rejection_handler(self, handler: RejectionHandler) -> None:
        """Have `handler(rejection)` called for every quote that may not mark, whichever way it came. It must not wait.

        Raises TypeError for a coroutine function.
        """
        self._intake.add_rejection_handler(handler)

    def add_trade_handler(self, handler: TradeHandler) -> None:
        """Have `handler(event)` called for every trade, correction, cancel and interruption, in order of arrival.

        It must not wait. It may return an Ineligible, which is then counted. Raises TypeError for a coroutine function.
        """
        self._intake.add_trade_handler(handler)

    async def _fetch_last_trades(self, symbols: Sequence[str]) -> Sequence[Quote]:
        """Fetch the latest trades and take them in; there are no quotes to hand on."""
        if self._fetch_latest_trades is not None:
            for trade in await self._fetch_latest_trades(symbols):
                # Meanwhile it may have ceased to be streamed: nobody would tell if it was cancelled.
                if trade.symbol in self.confirmed_trades or WILDCARD in self.confirmed_trades:
                    self._intake.take_trade(trade)
        return ()

    async def _handle_quote(self, quote: Quote) -> None:
        """Count one quote and hand it to the handlers if it may mark. Never waits, never raises for what it holds."""
        if quote.origin is QuoteOrigin.REST:
            self._intake.take_fetched(quote)
        else:
            self._intake.take_streamed(quote)

    # --- the connection -------------------------------------------------------------------------------------------

    def is_connected(self) -> bool:
        """Say whether the socket is open, authenticated, and something was heard within the liveness window."""
        return self._conversation is not None and self._conversation.is_alive

    @property
    def last_frame_at_s(self) -> float | None:
        """When the present connection's last frame came, by the monotonic clock; None without a connection."""
        return None if self._conversation is None else self._conversation.last_frame_at_s

    async def start(self) -> None:
        """Connect and stream until `stop`; after a refusal wait for `reconnect`. Raises only for faults of our own."""
        self._is_stopping = False
        self._finished.clear()
        try:
            async with asyncio.TaskGroup() as group:
                polling = group.create_task(self.poller.run(), name="alpaca-poll")
                await self._keep_connected()
                polling.cancel()
        finally:
            self.link.go(LinkState.STOPPED, "stopped")
            self._finished.set()

    async def _keep_connected(self) -> None:
        while not self._is_stopping:
            await self._wait_to_lead()
            await self._wait_for_dial_budget()
            if not self._is_stopping and self._standby_reason is None:
                self._redial.clear()
                ended = await self._connect_and_stream()
                await self._rest_after(ended)

    async def stop(self) -> None:
        """Close the connection with a close frame and end `start`."""
        self._is_stopping = True
        self._redial.set()
        await self._finished.wait()

    def reconnect(self) -> None:
        """Drop the connection and dial again now, within the dial budget. Leaves `refused` and `stopped`."""
        self._policy.forgive()
        self._redial.set()

    def stand_by(self, reason: str) -> None:
        """Close the connection and make none until `take_over`: another instance has the feed."""
        self._standby_reason = reason
        self._redial.set()

    def take_over(self) -> None:
        """Connect: the feed is ours."""
        if self._standby_reason is not None:
            self._standby_reason = None
            self.reconnect()

    @property
    def is_standing_by(self) -> bool:
        """Whether another instance has the feed."""
        return self._standby_reason is not None

    async def _wait_to_lead(self) -> None:
        while (reason := self._standby_reason) is not None and not self._is_stopping:
            self.link.go(LinkState.STANDBY, reason)
            self._redial.clear()
            await self._redial.wait()

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
        conversation = self._begin(connection)
        ended = _requested()
        try:
            ended = await self._serve(conversation)
        finally:
            self._policy.connection_proven(
                lasted_s=time.monotonic() - began_s, delivered_data=self.counts["quotes"] > quotes_before
            )
            self.gaps.lost(self.confirmed, conversation.last_frame_at, ended.message)
            self._conversation = None
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

    def _begin(self, connection: AlpacaConnection) -> Conversation:
        channels = (Channel.STATUSES, Channel.TRADES) if self._wants_trades else (Channel.STATUSES,)
        self._session = Session(self._symbol_limit, tuple(SideChannel(channel) for channel in channels))
        self._snapshots.forget()
        self._trade_snapshots.forget()
        if self._wants_trades:
            self._intake.take_trade(TradesInterrupted())
        self._halts.question()
        self.watch.begin()
        self._conversation = Conversation(connection, self._session, self._parts)
        self.response_headers = {name.lower(): value for name, value in connection.response_headers.raw_items()}
        self.link.epoch = uuid4().hex
        self.link.connections += 1
        self.link.go(LinkState.SUBSCRIBING)
        log.info("stream_connected", url=self._url, connections=self.link.connections)
        return self._conversation

    def _note_end(self, ended: ConnectionEndedError) -> ConnectionEndedError:
        self.link.attempts_ended += 1
        if ended.ending is not Ending.REQUESTED:
            self.link.last_fault = LinkFault(_utc_now(), ended.message, ended.code, ended.ending)
            log.warning("stream_ended", reason=ended.message, code=ended.code, ending=ended.ending.name.lower())
        return ended

    async def _serve(self, conversation: Conversation) -> ConnectionEndedError:
        """Run the connection's parts until one of them ends it."""
        parts = [
            asyncio.create_task(conversation.read(), name="alpaca-read"),
            asyncio.create_task(conversation.converge(), name="alpaca-converge"),
            asyncio.create_task(self._snapshots.run(), name="alpaca-snapshots"),
            asyncio.create_task(self._trade_snapshots.run(), name="alpaca-trade-snapshots"),
            asyncio.create_task(self.watch.watch(self._session, conversation.wanted_changed), name="alpaca-watch"),
            asyncio.create_task(self.watch.probe(self._session), name="alpaca-probe"),
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


def _requested() -> ConnectionEndedError:
    return ConnectionEndedError(Ending.REQUESTED, "a new connection was asked for")


def _utc_now() -> datetime:
    return datetime.now(UTC)
