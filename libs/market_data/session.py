"""One authenticated connection's protocol state: frames in, events out; wanted symbols in, the next request out.

Moves the confirmed set towards the wanted one, one request in flight. Alpaca refuses a request whole when one symbol
is malformed (400) or when it would exceed the plan (405), so a refused request is halved until what fits streams and
the culprit is known. What rides along with the quotes is kept in `channels.py`. Pure: no socket, no clock.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never

from libs.market_data.alpaca_messages import (
    CancelMessage,
    CorrectionMessage,
    ErrorMessage,
    QuoteMessage,
    StatusMessage,
    SubscriptionMessage,
    SuccessMessage,
    TradeMessage,
    UnreadableFrameError,
    UnreadableMessage,
    cancel_from,
    correction_from,
    quote_from,
    read_frame,
    status_from,
    trade_from,
)
from libs.market_data.channels import Channel, Refusal, SideChannel
from libs.market_data.halts import TradingStatus
from libs.market_data.quotes import Quote
from libs.market_data.symbols import WILDCARD
from libs.market_data.trades import Trade, TradeCancel, TradeCorrection

_MOST_PER_REQUEST: Final = 100
"""Longer lists were seen to lose symbols (reports to Alpaca's C# client); chunks of a hundred were not."""


class ErrorCode:
    """The codes of `T:"error"` that decide something (docs: Streaming Market Data)."""

    INVALID_SYNTAX = 400
    NOT_AUTHENTICATED = 401
    AUTH_FAILED = 402
    AUTH_TIMEOUT = 404
    SYMBOL_LIMIT = 405
    CONNECTION_LIMIT = 406
    SLOW_CLIENT = 407
    INSUFFICIENT_SUBSCRIPTION = 409
    INVALID_SUBSCRIBE_ACTION = 410
    INSUFFICIENT_SCOPE = 411


_DOCUMENTED_CODES: Final = frozenset({400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 500})


def counted_code(code: int) -> str:
    """Return by what an error of `code` is counted: a documented code, else `other`. The wire may not add counters."""
    return str(code) if code in _DOCUMENTED_CODES else "other"


_SIDE_REFUSALS: Final = {
    ErrorCode.INVALID_SYNTAX: Refusal.MALFORMED,
    ErrorCode.SYMBOL_LIMIT: Refusal.OVER_LIMIT,
    ErrorCode.INVALID_SUBSCRIBE_ACTION: Refusal.NOT_OFFERED,
}


@dataclass(frozen=True, slots=True)
class SubscriptionConfirmed:
    """Alpaca has acknowledged; quotes of `added` are streamed from now on, of `removed` no longer; trades likewise."""

    added: frozenset[str]
    removed: frozenset[str]
    trades_added: frozenset[str] = frozenset()
    trades_removed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """Alpaca has refused a whole request. The session goes on with a smaller one."""

    code: int
    message: str
    symbols: tuple[str, ...]
    channel: Channel = Channel.QUOTES


@dataclass(frozen=True, slots=True)
class StreamErrorReceived:
    """An error that answers no request of ours."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class FrameUnreadable:
    """A frame that is no array of messages was dropped."""

    problem: str


Event = (
    Quote
    | Trade
    | TradeCancel
    | TradeCorrection
    | TradingStatus
    | SubscriptionConfirmed
    | RequestRefused
    | StreamErrorReceived
    | UnreadableMessage
    | FrameUnreadable
)


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """A message to send: `action` is `subscribe` or `unsubscribe`, of these symbols on one channel."""

    action: str
    symbols: tuple[str, ...]
    channel: Channel = Channel.QUOTES

    def message(self) -> dict[str, object]:
        """Return the message as Alpaca wants it, to be encoded."""
        return {"action": self.action, self.channel.value: list(self.symbols)}


@dataclass(slots=True)
class Session:
    """The state of one connection, from authentication to its end. `symbol_limit` None: none is known (yet).

    `sides`: what is to be asked for beside the quotes, the most important first.
    """

    symbol_limit: int | None = None
    sides: tuple[SideChannel, ...] = ()
    confirmed: frozenset[str] = frozenset()
    refused: dict[str, Refusal] = field(default_factory=dict)
    in_flight: SubscriptionRequest | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _chunk: int = _MOST_PER_REQUEST
    _plan_limit: int | None = field(init=False)
    _to_renew: frozenset[str] = frozenset()
    _is_trying_again: bool = False

    def __post_init__(self) -> None:
        self._plan_limit = self.symbol_limit

    def side(self, channel: Channel) -> SideChannel | None:
        """Return what is known of a channel beside the quotes; None when it is not to be asked for."""
        return next((side for side in self.sides if side.channel is channel), None)

    def receive(self, frame: bytes | str, received_at: datetime) -> list[Event]:  # noqa: C901 - a table
        """Take one frame; return what it says, in order. Never raises for what the frame contains."""
        try:
            messages = read_frame(frame)
        except UnreadableFrameError as error:
            self.counts["unreadable_frames"] += 1
            return [FrameUnreadable(str(error))]
        events: list[Event] = []
        for message in messages:
            match message:
                case QuoteMessage():
                    events.append(quote_from(message, received_at))
                case TradeMessage():
                    events.append(trade_from(message, received_at))
                case StatusMessage():
                    events.append(status_from(message))
                case CorrectionMessage():
                    events.append(correction_from(message, received_at))
                case CancelMessage():
                    events.append(cancel_from(message))
                case SubscriptionMessage():
                    events.append(self._acknowledge(message))
                case ErrorMessage():
                    events.append(self._take_error(message))
                case UnreadableMessage():
                    self.counts["unreadable_messages"] += 1
                    events.append(message)
                case SuccessMessage():
                    pass
                case _:
                    assert_never(message)
        return events

    # --- what the server answered ---------------------------------------------------------------------------------

    def _acknowledge(self, message: SubscriptionMessage) -> SubscriptionConfirmed:
        before, self.confirmed = self.confirmed, frozenset(message.quotes or ())
        said = {Channel.STATUSES: message.statuses, Channel.TRADES: message.trades}
        trades_before = self._confirmed_trades
        for side in self.sides:
            side.confirmed = frozenset(said.get(side.channel) or ())
        trades = self._confirmed_trades
        request, self.in_flight = self.in_flight, None
        if request is not None and request.action == "subscribe":
            self._note_accepted(request)
        return SubscriptionConfirmed(
            self.confirmed - before, before - self.confirmed, trades - trades_before, trades_before - trades
        )

    @property
    def _confirmed_trades(self) -> frozenset[str]:
        side = self.side(Channel.TRADES)
        return frozenset() if side is None else side.confirmed

    def _note_accepted(self, request: SubscriptionRequest) -> None:
        if (side := self.side(request.channel)) is not None:
            side.check_acknowledged(frozenset(request.symbols))
            return
        # An acknowledgement is the full set: what it leaves out will not stream, however often we ask.
        self._refuse((s for s in request.symbols if s not in self.confirmed), Refusal.NOT_CONFIRMED)
        self._chunk = min(_MOST_PER_REQUEST, self._chunk * 2)
        if self._is_trying_again and self.confirmed.issuperset(request.symbols):
            self._forgive()

    def _take_error(self, error: ErrorMessage) -> RequestRefused | StreamErrorReceived:
        self.counts[f"error_{counted_code(error.code)}"] += 1
        request = self.in_flight
        side_refusal = _SIDE_REFUSALS.get(error.code)
        if request is None or side_refusal is None:
            return StreamErrorReceived(error.code, error.msg)
        self.in_flight = None
        if request.action == "unsubscribe":
            return StreamErrorReceived(error.code, error.msg)
        if (side := self.side(request.channel)) is not None:
            side.refusal = side_refusal
        elif error.code != ErrorCode.SYMBOL_LIMIT or self._is_trying_again or not self._make_room():
            self._take_refusal(request, error.code)
        return RequestRefused(error.code, error.msg, request.symbols, request.channel)

    def _make_room(self) -> bool:
        """Pause what rides along, should the plan count it, the least important first; False when there is nothing."""
        for side in reversed(self.sides):
            if side.confirmed and not side.is_paused:
                side.is_paused = True
                return True
        return False

    def _take_refusal(self, request: SubscriptionRequest, code: int) -> None:
        self._is_trying_again = False
        if code == ErrorCode.INVALID_SUBSCRIBE_ACTION:
            self._refuse(request.symbols, Refusal.NOT_OFFERED)
        elif len(request.symbols) > 1:
            self._chunk = (len(request.symbols) + 1) // 2
        elif code == ErrorCode.INVALID_SYNTAX or request.symbols == (WILDCARD,):
            is_syntax = code == ErrorCode.INVALID_SYNTAX
            self._refuse(request.symbols, Refusal.MALFORMED if is_syntax else Refusal.OVER_LIMIT)
            self._chunk = _MOST_PER_REQUEST
        else:
            # One more symbol was one too many: what is confirmed is what the plan allows.
            self.symbol_limit = len(self.confirmed)

    def _refuse(self, symbols: Iterable[str], why: Refusal) -> None:
        for symbol in symbols:
            self.refused[symbol] = why

    # --- what refused us may pass ---------------------------------------------------------------------------------

    def try_again(self, wanted: Sequence[str]) -> None:
        """Have one symbol asked for again that the server has refused: plans change, and servers recover.

        When it is accepted, so may the others be: all refusals are forgotten. The configured limit stays.
        """
        left_out = [symbol for symbol in wanted if symbol not in self.confirmed]
        if self.in_flight is not None or not left_out:
            return
        if self.symbol_limit != self._plan_limit:
            self.symbol_limit, self._chunk, self._is_trying_again = self._plan_limit, 1, True
        elif refused := [symbol for symbol in left_out if symbol in self.refused]:
            # Another one each time: the refused go to the end of the line.
            symbol = min(refused, key=list(self.refused).index)
            del self.refused[symbol]
            self._chunk, self._is_trying_again = 1, True

    def _forgive(self) -> None:
        self.refused.clear()
        self.symbol_limit, self._is_trying_again = self._plan_limit, False

    def renew(self, symbols: Iterable[str]) -> None:
        """Have `symbols` unsubscribed and subscribed again: they are confirmed, and nothing comes."""
        self._to_renew |= self.confirmed.intersection(symbols)

    def give_up_side(self) -> bool:
        """Take the request in flight as never answered: its channel is not asked for any more.

        Return whether it was about one beside the quotes; the quotes cannot be given up.
        """
        side = None if self.in_flight is None else self.side(self.in_flight.channel)
        if side is None:
            return False
        self.in_flight, side.refusal = None, Refusal.NOT_CONFIRMED
        return True

    # --- what to ask for ------------------------------------------------------------------------------------------

    def streamable(self, wanted: Sequence[str]) -> list[str]:
        """Return those of `wanted` (the most important first) that this connection can be asked to stream."""
        candidates = [symbol for symbol in wanted if symbol not in self.refused]
        return candidates if self.symbol_limit is None else candidates[: self.symbol_limit]

    def next_request(self, wanted: Sequence[str]) -> SubscriptionRequest | None:
        """Return the next message to send on the way to `wanted`, and hold it as in flight.

        None while one is in flight, and when nothing is left to do. Symbols are given up before others are asked for,
        so that a full plan has room.
        """
        if self.in_flight is None:
            self.in_flight = self._next_of_quotes(self.streamable(wanted)) or self._next_of_sides()
            return self.in_flight
        return None

    def _next_of_quotes(self, target: Sequence[str]) -> SubscriptionRequest | None:
        leaving = self.confirmed.difference(target) | self._to_renew
        if leaving:
            chunk = tuple(sorted(leaving)[:_MOST_PER_REQUEST])
            self._to_renew -= frozenset(chunk)
            return SubscriptionRequest("unsubscribe", chunk)
        for side in self.sides:
            if surplus := side.surplus(self.confirmed):
                return SubscriptionRequest("unsubscribe", tuple(sorted(surplus)[:_MOST_PER_REQUEST]), side.channel)
        missing = [symbol for symbol in target if symbol not in self.confirmed]
        return SubscriptionRequest("subscribe", tuple(missing[: self._chunk])) if missing else None

    def _next_of_sides(self) -> SubscriptionRequest | None:
        for side in self.sides:
            side.is_paused = False
        for side in self.sides:
            if missing := side.missing(self.confirmed):
                return SubscriptionRequest("subscribe", tuple(sorted(missing)[:_MOST_PER_REQUEST]), side.channel)
        return None

    def has_what_it_can(self, wanted: Sequence[str]) -> bool:
        """Say whether the quotes of all of `wanted` that can be streamed are."""
        return self.confirmed == frozenset(self.streamable(wanted))

    def why_not_streamed(self, symbol: str, wanted: Sequence[str]) -> Refusal | None:
        """Return why `symbol` is not, and will not be, streamed; None when it is or soon will be."""
        if symbol in self.refused:
            return self.refused[symbol]
        return None if symbol in self.streamable(wanted) else Refusal.OVER_LIMIT
