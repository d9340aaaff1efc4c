"""What is said on the trading stream, `/stream`: the conversation with one client, and what an event looks like. Pure.

Unlike the market data stream it greets nobody, every message is one object, and numbers are strings:
{"stream":"trade_updates","data":{"event":"fill","execution_id":"...","price":"105.89","qty":"40","order":{...}}}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from apps.alpaca_simulator.account_entries import Execution
from apps.alpaca_simulator.orders import Order
from apps.alpaca_simulator.protocol import Credentials
from apps.alpaca_simulator.wire_text import moment_text, number_text

TRADE_UPDATES: Final = "trade_updates"
FILLS: Final = frozenset({"fill", "partial_fill"})
"""The events of an execution that has just happened."""
IN_STREAM_ERROR: Final[Mapping[str, Any]] = {"action": "error", "data": {"error_message": "internal server error"}}
NULL_DATA: Final[Mapping[str, Any]] = {"stream": TRADE_UPDATES, "data": None}
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TIME_CHARACTERS: Final = 10
_COUNT_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one message, and whether the server then closes."""

    message: Mapping[str, Any]
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """One event for those who listen; `execution_id` is None when nothing was executed."""

    data: Mapping[str, Any]
    execution_id: str | None = None

    @property
    def message(self) -> Mapping[str, Any]:
        """The event as it is sent."""
        return {"stream": TRADE_UPDATES, "data": self.data}


@dataclass(slots=True)
class TradeUpdatesSession:
    """One client's conversation."""

    credentials: Credentials
    is_authorized: bool = False
    streams: list[str] = field(default_factory=list)

    @property
    def is_listening(self) -> bool:
        """Whether events are to be sent to it."""
        return TRADE_UPDATES in self.streams

    def receive(self, message: object, *, refuses: bool = False) -> Reply:
        """Answer a message. With `refuses` every authentication is turned down."""
        if not isinstance(message, dict):
            return Reply(IN_STREAM_ERROR, closes=True)
        match message.get("action"):
            case "authenticate":
                data = message.get("data")
                found = data if isinstance(data, dict) else {}
                return self._authenticate(found.get("key_id"), found.get("secret_key"), refuses=refuses)
            case "auth":
                return self._authenticate(message.get("key"), message.get("secret"), refuses=refuses)
            case "listen":
                return self._listen(message.get("data"))
            case _:
                return Reply(IN_STREAM_ERROR, closes=True)

    def _authenticate(self, key: object, secret: object, *, refuses: bool) -> Reply:
        self.is_authorized = not refuses and self.credentials.accept(_text(key), _text(secret))
        status = "authorized" if self.is_authorized else "unauthorized"
        return Reply(_authorization(status, "authenticate"), closes=not self.is_authorized)

    def _listen(self, data: object) -> Reply:
        """Take the list of streams in place of the one before; those that are not known are left out."""
        if not self.is_authorized:
            return Reply(_authorization("unauthorized", "listen"))
        asked = data.get("streams") if isinstance(data, dict) else None
        self.streams = [TRADE_UPDATES] if isinstance(asked, list) and TRADE_UPDATES in asked else []
        return Reply({"stream": "listening", "data": {"streams": self.streams}})


class EventIds:
    """Makes event ids that sort as they were made: milliseconds since 1970 and a count, written like a ULID."""

    def __init__(self) -> None:
        self._last_ms = 0
        self._count = 0

    def next(self, now: datetime) -> str:
        """Return the next id, 26 characters."""
        self._last_ms = max(self._last_ms, round(now.timestamp() * 1000))
        self._count += 1
        return _base32(self._last_ms, _TIME_CHARACTERS) + _base32(self._count, _COUNT_CHARACTERS)


def order_update(event: str, order: Order, now: datetime, event_id: str) -> Update:
    """Return what is told of an order to which nothing was executed: `new`, `canceled`."""
    return Update({**_envelope(event, now, now, event_id), "order": order.body()})


def execution_update(
    event: str, execution: Execution, order: Order, position_qty: Decimal, now: datetime, *, event_id: str
) -> Update:
    """Return what is told of an execution that happened: `fill` or `partial_fill`.

    `position_qty` is the signed position after it.
    """
    data = {
        **_envelope(event, execution.at, now, event_id),
        "execution_id": execution.execution_id,
        "price": number_text(execution.price),
        "qty": number_text(abs(execution.qty)),
        "position_qty": number_text(position_qty),
        "order": order.body(),
    }
    return Update(data, execution.execution_id)


def amended_update(update: Update, own_id: str | None) -> Update:
    """Return what is told when the execution of `update` was busted or corrected: `trade_bust`, `trade_correct`.

    The event has an id of its own and names the execution's as the previous one, and a bust's quantity is negative:
    so it is in the broker API's samples. None as `own_id`: the execution's id alone, and the plain quantity. Which of
    the two this stream sends is not documented.
    """
    if own_id is None:
        return update
    sign = "-" if update.data["event"] == "trade_bust" else ""
    data = {
        **update.data,
        "execution_id": own_id,
        "previous_execution_id": update.execution_id,
        "qty": sign + update.data["qty"],
    }
    return Update(data, update.execution_id)


def _envelope(event: str, happened: datetime, now: datetime, event_id: str) -> dict[str, Any]:
    return {"at": moment_text(now), "event_id": event_id, "event": event, "timestamp": moment_text(happened)}


def _authorization(status: str, action: str) -> Mapping[str, Any]:
    return {"stream": "authorization", "data": {"status": status, "action": action}}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _base32(number: int, length: int) -> str:
    return "".join(_CROCKFORD[(number >> 5 * place) & 31] for place in reversed(range(length)))
