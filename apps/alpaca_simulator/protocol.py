"""One data connection as the server sees it: a client's message in, the server's one answer out. No I/O, no clock.

The order of calls: `welcome()`, then `receive()` for every message. States, texts and codes are those of Alpaca's
"Streaming Market Data" page; what the page leaves open is said where it is decided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from apps.alpaca_simulator.points import Channel, Feed
from libs.market_data.symbols import WILDCARD, is_symbol

ControlMessage = Mapping[str, Any]

CONNECTED: Final[ControlMessage] = {"T": "success", "msg": "connected"}
AUTHENTICATED: Final[ControlMessage] = {"T": "success", "msg": "authenticated"}

TEST_CHANNELS: Final = (Channel.TRADES, Channel.QUOTES, Channel.BARS)
_LIMITED_CHANNELS: Final = (Channel.TRADES, Channel.QUOTES)
_NO_CHANNELS: Final = frozenset({"action", "corrections", "cancelErrors"})
"""The last two follow the trades; whether asking for them is an error is not documented."""


class ErrorCode(IntEnum):
    """The stream's error codes; `text` is the exact `msg`."""

    INVALID_SYNTAX = 400
    NOT_AUTHENTICATED = 401
    AUTH_FAILED = 402
    ALREADY_AUTHENTICATED = 403
    AUTH_TIMEOUT = 404
    SYMBOL_LIMIT_EXCEEDED = 405
    CONNECTION_LIMIT_EXCEEDED = 406
    SLOW_CLIENT = 407
    V2_NOT_ENABLED = 408
    INSUFFICIENT_SUBSCRIPTION = 409
    INVALID_SUBSCRIBE_ACTION = 410
    INSUFFICIENT_SCOPE = 411
    INTERNAL_ERROR = 500

    @property
    def text(self) -> str:
        """The message that goes with the code."""
        if self is ErrorCode.INVALID_SUBSCRIBE_ACTION:
            return "invalid subscribe action for this feed"
        return self.name.replace("_", " ").lower()


def action_of(message: object) -> object:
    """Return what a decoded message asks for, None for one that asks for nothing."""
    return message.get("action") if isinstance(message, Mapping) else None


def error(code: ErrorCode) -> ControlMessage:
    """Return the error message: `{"T":"error","code":406,"msg":"connection limit exceeded"}`."""
    return {"T": "error", "code": int(code), "msg": code.text}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Which key pair is accepted; None accepts any text that is not empty."""

    key: str | None = None
    secret: str | None = field(default=None, repr=False)

    def accept(self, key: object, secret: object) -> bool:
        """Say whether this pair may come in."""
        if not (isinstance(key, str) and isinstance(secret, str) and key and secret):
            return False
        return (self.key is None or key == self.key) and (self.secret is None or secret == self.secret)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the plan behind the keys allows."""

    credentials: Credentials = Credentials()
    symbol_limit: int | None = None
    """How many pairs of symbol and channel, over trades and quotes; the page counts "symbols", users report pairs."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What the server refuses just now, whatever the plan allows; the default refuses nothing.

    `auth` answers every authentication, `subscribe` every subscribe request, `statuses` one that names that channel.
    One that names any of `symbols` is refused with 400. `symbol_limit` stands in for the plan's.
    """

    auth: ErrorCode | None = None
    subscribe: ErrorCode | None = None
    statuses: ErrorCode | None = None
    symbols: frozenset[str] = frozenset()
    symbol_limit: int | None = None


class Session:
    """The state of one connection. `refusals` may be replaced before any message.

    `claim_slot(key)` takes the connection slot of that key, or answers False; it is called once per accepted key.
    """

    def __init__(self, feed: Feed, rules: Rules, claim_slot: Callable[[str], bool]) -> None:
        self.feed = feed
        self.key: str | None = None
        self.refusals = Refusals()
        self._rules = rules
        self._claim_slot = claim_slot
        self._channels = TEST_CHANNELS if feed is Feed.TEST else tuple(Channel)
        self._subscribed: dict[Channel, dict[str, None]] = {channel: {} for channel in self._channels}

    @property
    def is_authenticated(self) -> bool:
        """Whether data may flow."""
        return self.key is not None

    def welcome(self) -> ControlMessage:
        """Return what the server says first, unasked."""
        return CONNECTED

    def wants(self, channel: Channel, symbol: str) -> bool:
        """Say whether a point of this channel and symbol goes to this client."""
        subscribed = self._subscribed.get(channel)
        return subscribed is not None and (symbol in subscribed or WILDCARD in subscribed)

    def symbols(self, channel: Channel) -> frozenset[str]:
        """Return the subscribed symbols of a channel, the wildcard included."""
        return frozenset(self._subscribed.get(channel, ()))

    def receive(self, message: object) -> ControlMessage:
        """Return the server's answer to one decoded message; the session has changed accordingly."""
        if not isinstance(message, Mapping):
            return error(ErrorCode.INVALID_SYNTAX)
        action = message.get("action")
        if action == "auth":
            return self.authenticate(message.get("key"), message.get("secret"))
        if not self.is_authenticated:
            return error(ErrorCode.NOT_AUTHENTICATED)
        match action:
            case "subscribe":
                return self._subscribe(message)
            case "unsubscribe":
                return self._unsubscribe(message)
            case _:
                return error(ErrorCode.INVALID_SYNTAX)

    def authenticate(self, key: object, secret: object) -> ControlMessage:
        """Return the answer to a key pair, which may come as a message or in the headers of the upgrade."""
        if self.is_authenticated:
            return error(ErrorCode.ALREADY_AUTHENTICATED)
        if self.refusals.auth is not None:
            return error(self.refusals.auth)
        if not self._rules.credentials.accept(key, secret):
            return error(ErrorCode.AUTH_FAILED)
        if not self._claim_slot(str(key)):
            return error(ErrorCode.CONNECTION_LIMIT_EXCEEDED)
        self.key = str(key)
        return AUTHENTICATED

    def acknowledgement(self) -> ControlMessage:
        """Return the complete current set, every channel present."""
        answer: dict[str, Any] = {"T": "subscription"}
        answer.update({channel.value: list(symbols) for channel, symbols in self._subscribed.items()})
        if self.feed is not Feed.TEST:
            # Managed by the server: they follow the trades.
            answer["corrections"] = answer["cancelErrors"] = answer[Channel.TRADES]
        return answer

    def _subscribe(self, message: Mapping[str, Any]) -> ControlMessage:
        asked = self._read_channels(message)
        if isinstance(asked, ErrorCode):
            return error(asked)
        if (refusal := self._refusal(asked)) is not None:
            return error(refusal)
        subscribed = self._with(asked)
        if self._exceeds_limit(subscribed):
            return error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
        self._subscribed = subscribed
        return self.acknowledgement()

    def _unsubscribe(self, message: Mapping[str, Any]) -> ControlMessage:
        """Take symbols away, which no limit forbids: not even one that has shrunk below what is left."""
        asked = self._read_channels(message)
        if isinstance(asked, ErrorCode):
            return error(asked)
        self._subscribed = self._without(asked)
        return self.acknowledgement()

    def _refusal(self, asked: dict[Channel, Sequence[str]]) -> ErrorCode | None:
        refusals = self.refusals
        if refusals.subscribe is not None:
            return refusals.subscribe
        if refusals.symbols and any(not refusals.symbols.isdisjoint(symbols) for symbols in asked.values()):
            return ErrorCode.INVALID_SYNTAX
        return refusals.statuses if Channel.STATUSES in asked else None

    def _read_channels(self, message: Mapping[str, Any]) -> dict[Channel, Sequence[str]] | ErrorCode:
        """Return the named symbols by channel, or the error that refuses the whole request."""
        asked: dict[Channel, Sequence[str]] = {}
        for name, symbols in message.items():
            if name in _NO_CHANNELS or (not symbols and isinstance(symbols, list | None)):
                continue
            if name not in self._channels:
                # A key that is no channel of this stream is the test feed's 410; elsewhere nobody has told.
                return ErrorCode.INVALID_SUBSCRIBE_ACTION
            if not isinstance(symbols, list) or not all(map(_may_be_subscribed, symbols)):
                return ErrorCode.INVALID_SYNTAX
            asked[Channel(name)] = symbols
        return asked or ErrorCode.INVALID_SYNTAX

    def _with(self, asked: dict[Channel, Sequence[str]]) -> dict[Channel, dict[str, None]]:
        return {
            channel: symbols | dict.fromkeys(asked.get(channel, ())) for channel, symbols in self._subscribed.items()
        }

    def _without(self, asked: dict[Channel, Sequence[str]]) -> dict[Channel, dict[str, None]]:
        return {
            channel: {symbol: None for symbol in symbols if symbol not in asked.get(channel, ())}
            for channel, symbols in self._subscribed.items()
        }

    def _exceeds_limit(self, subscribed: dict[Channel, dict[str, None]]) -> bool:
        limit = self._rules.symbol_limit if self.refusals.symbol_limit is None else self.refusals.symbol_limit
        if limit is None:
            return False
        limited = [subscribed.get(channel, {}) for channel in _LIMITED_CHANNELS]
        return any(WILDCARD in symbols for symbols in limited) or sum(map(len, limited)) > limit


def _may_be_subscribed(symbol: object) -> bool:
    return isinstance(symbol, str) and (symbol == WILDCARD or is_symbol(symbol))
