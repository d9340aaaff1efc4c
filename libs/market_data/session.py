"""One authenticated connection's protocol state: frames in, events out; wanted symbols in, the next request out.

Moves the confirmed set towards the wanted one, one request in flight. Alpaca refuses a request whole when one symbol
is malformed (400) or when it would exceed the plan (405), so a refused request is halved until what fits streams and
the culprit is known. Pure: no socket, no clock.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from libs.market_data.alpaca_messages import (
    ErrorMessage,
    QuoteMessage,
    SubscriptionMessage,
    SuccessMessage,
    UnreadableFrameError,
    UnreadableMessage,
    quote_from,
    read_frame,
)
from libs.market_data.quotes import Quote
from libs.market_data.symbols import WILDCARD

_MOST_PER_REQUEST: Final = 100
"""Longer lists were seen to lose symbols (reports to Alpaca's C# client); chunks of a hundred were not."""


class Refusal(StrEnum):
    """Why Alpaca does not stream a symbol that is wanted."""

    MALFORMED = "malformed"
    OVER_LIMIT = "over_limit"
    NOT_OFFERED = "not_offered"
    NOT_CONFIRMED = "not_confirmed"


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


@dataclass(frozen=True, slots=True)
class SubscriptionConfirmed:
    """Alpaca has acknowledged; `added` are streamed from now on, `removed` no longer."""

    added: frozenset[str]
    removed: frozenset[str]


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """Alpaca has refused a whole request. The session goes on with a smaller one."""

    code: int
    message: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamErrorReceived:
    """An error that answers no request of ours."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class FrameUnreadable:
    """A frame that is no array of messages was dropped."""

    problem: str


Event = Quote | SubscriptionConfirmed | RequestRefused | StreamErrorReceived | UnreadableMessage | FrameUnreadable


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """A message to send: `action` is `subscribe` or `unsubscribe`, of the quotes of these symbols."""

    action: str
    symbols: tuple[str, ...]

    def message(self) -> dict[str, object]:
        """Return the message as Alpaca wants it, to be encoded."""
        return {"action": self.action, "quotes": list(self.symbols)}


@dataclass(slots=True)
class Session:
    """The state of one connection, from authentication to its end. `symbol_limit` None: none is known (yet)."""

    symbol_limit: int | None = None
    confirmed: frozenset[str] = frozenset()
    refused: dict[str, Refusal] = field(default_factory=dict)
    in_flight: SubscriptionRequest | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _chunk: int = _MOST_PER_REQUEST

    def receive(self, frame: bytes | str, received_at: datetime) -> list[Event]:
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
                case SubscriptionMessage():
                    events.append(self._acknowledge(frozenset(message.quotes or ())))
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

    def _acknowledge(self, now_confirmed: frozenset[str]) -> SubscriptionConfirmed:
        before, self.confirmed = self.confirmed, now_confirmed
        request, self.in_flight = self.in_flight, None
        if request is not None and request.action == "subscribe":
            # An acknowledgement is the full set: what it leaves out will not stream, however often we ask.
            self._refuse((s for s in request.symbols if s not in now_confirmed), Refusal.NOT_CONFIRMED)
            self._chunk = min(_MOST_PER_REQUEST, self._chunk * 2)
        return SubscriptionConfirmed(now_confirmed - before, before - now_confirmed)

    def _take_error(self, error: ErrorMessage) -> RequestRefused | StreamErrorReceived:
        self.counts[f"error_{error.code}"] += 1
        request = self.in_flight
        answers_request = error.code in {
            ErrorCode.INVALID_SYNTAX,
            ErrorCode.SYMBOL_LIMIT,
            ErrorCode.INVALID_SUBSCRIBE_ACTION,
        }
        if request is None or not answers_request:
            return StreamErrorReceived(error.code, error.msg)
        self.in_flight = None
        if request.action == "unsubscribe":
            return StreamErrorReceived(error.code, error.msg)
        if error.code == ErrorCode.INVALID_SUBSCRIBE_ACTION:
            self._refuse(request.symbols, Refusal.NOT_OFFERED)
        elif len(request.symbols) > 1:
            self._chunk = (len(request.symbols) + 1) // 2
        elif error.code == ErrorCode.INVALID_SYNTAX or request.symbols == (WILDCARD,):
            is_syntax = error.code == ErrorCode.INVALID_SYNTAX
            self._refuse(request.symbols, Refusal.MALFORMED if is_syntax else Refusal.OVER_LIMIT)
            self._chunk = _MOST_PER_REQUEST
        else:
            # One more symbol was one too many: what is confirmed is what the plan allows.
            self.symbol_limit = len(self.confirmed)
        return RequestRefused(error.code, error.msg, request.symbols)

    def _refuse(self, symbols: Iterable[str], why: Refusal) -> None:
        for symbol in symbols:
            self.refused[symbol] = why

    def streamable(self, wanted: Sequence[str]) -> list[str]:
        """Return those of `wanted` (the most important first) that this connection can be asked to stream."""
        candidates = [symbol for symbol in wanted if symbol not in self.refused]
        return candidates if self.symbol_limit is None else candidates[: self.symbol_limit]

    def next_request(self, wanted: Sequence[str]) -> SubscriptionRequest | None:
        """Return the next message to send on the way to `wanted`, and hold it as in flight.

        None while one is in flight, and when nothing is left to do. Symbols are given up before others are asked for,
        so that a full plan has room.
        """
        if self.in_flight is not None:
            return None
        target = self.streamable(wanted)
        leaving = self.confirmed.difference(target)
        if leaving:
            self.in_flight = SubscriptionRequest("unsubscribe", tuple(sorted(leaving)[:_MOST_PER_REQUEST]))
            return self.in_flight
        missing = [symbol for symbol in target if symbol not in self.confirmed]
        if missing:
            self.in_flight = SubscriptionRequest("subscribe", tuple(missing[: self._chunk]))
        return self.in_flight

    def why_not_streamed(self, symbol: str, wanted: Sequence[str]) -> Refusal | None:
        """Return why `symbol` is not, and will not be, streamed; None when it is or soon will be."""
        if symbol in self.refused:
            return self.refused[symbol]
        return None if symbol in self.streamable(wanted) else Refusal.OVER_LIMIT
