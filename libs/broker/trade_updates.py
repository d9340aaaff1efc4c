"""The messages of the account's trading stream, and how one is read. Pure; `trading_stream.py` receives them.

Decides that an unknown event, status or asset class is no fault, and that a message which cannot be read but may have
told of an execution says so. Samples:

    {"stream":"authorization","data":{"status":"authorized","action":"authenticate"}}
    {"stream":"listening","data":{"streams":["trade_updates"]}}
    {"action":"error","data":{"error_message":"internal server error"}}
    {"stream":"trade_updates","data":{"event":"partial_fill","event_id":"01JJ3WE73W5PG672TC4XACXH5R",
     "execution_id":"2f63ea93-…","timestamp":"2026-02-20T15:30:00.695569506Z","price":"105.89","qty":"40",
     "position_qty":"140","order":{"id":"61e69015-…","symbol":"AAPL","asset_class":"us_equity","side":"buy",
     "qty":"100","filled_qty":"40","status":"partially_filled"}}}
    {"stream":"trade_updates","data":{"event":"trade_bust","execution_id":"df61d6ec-…","previous_execution_id":
     "aeb60660-…","price":"0.107703","qty":"-2","position_qty":"0","timestamp":"…","order":{…}}}
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from libs.broker.executions import Execution, Unreadable
from libs.broker.wire_values import (
    Fields,
    asset_class_of,
    decode_fields,
    fields_of,
    moment,
    number,
    positive,
    side,
    symbol_of,
    text,
)

TRADE_UPDATES: Final = "trade_updates"
_HEARTBEATS: Final = frozenset({b"", b"\x01"})


@dataclass(frozen=True, slots=True)
class Executed:
    """An order was filled, in whole or in part. `position_qty`: signed shares held afterwards, None when not told."""

    execution: Execution
    position_qty: Decimal | None
    is_partial: bool


@dataclass(frozen=True, slots=True)
class Busted:
    """The execution `execution_id` never happened, says the exchange."""

    execution_id: str
    order_id: str | None
    symbol: str | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Corrected:
    """The execution `execution_id` was really `execution`, which may carry an id of its own.

    `at` is when the broker said so; None when not told. `event_id` is the broker's id of the message.
    """

    execution_id: str
    execution: Execution
    at: datetime | None
    event_id: str | None


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """An order changed in another way than by an execution: accepted, canceled, or a word we do not know."""

    event: str
    order_id: str | None
    symbol: str | None


@dataclass(frozen=True, slots=True)
class Authorized:
    """The key was accepted."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The key was not accepted for `action`."""

    action: str


@dataclass(frozen=True, slots=True)
class Listening:
    """From now on the stream tells of `streams`, and of no others. Nothing that happened before is told again."""

    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamError:
    """The server failed and will close the connection."""

    message: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that says nothing of the account."""

    why: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream ended, for `reason`: what happens now is not told. Not a message; the stream's reader says it."""

    reason: str


Message = (
    Executed | Busted | Corrected | OrderEvent | Authorized | Refused | Listening | StreamError | Ignored | Unreadable
)
StreamEvent = Message | Disconnected


def read_message(frame: bytes | str) -> Message:
    """Return what one frame says. Never raises: a frame that cannot be read is `Unreadable`."""
    raw = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame
    if raw in _HEARTBEATS:
        return Ignored("heartbeat")
    try:
        fields = decode_fields(raw)
    except (ValueError, RecursionError) as error:
        return Unreadable(None, str(error)[:200], may_be_execution=True)
    data = fields_of(fields.get("data"))
    return _read_update(data) if fields.get("stream") == TRADE_UPDATES else _read_control(fields, data or {})


def _read_control(fields: Fields, data: Fields) -> Message:
    match fields.get("stream"), fields.get("action"):
        case "authorization", _:
            return _read_authorization(data)
        case "listening", _:
            return _read_listening(data)
        case _, "error":
            return StreamError(text(data.get("error_message")) or "unnamed error")
        case stream, action:
            return Ignored(f"stream {str(stream)[:40]}, action {str(action)[:40]}")


def _read_authorization(data: Fields) -> Message:
    if data.get("status") == "authorized":
        return Authorized()
    return Refused(text(data.get("action")) or "authenticate")


def _read_listening(data: Fields) -> Message:
    streams = data.get("streams")
    return Listening(tuple(str(stream) for stream in streams) if isinstance(streams, list) else ())


def _read_update(data: Fields | None) -> Message:
    # Alpaca has sent `"data":null` for days on end; what it stood for is not known, so it may have been a fill.
    if data is None:
        return Unreadable(None, "an update without data", may_be_execution=True)
    event, order = text(data.get("event")), fields_of(data.get("order")) or {}
    match event:
        case "fill" | "partial_fill":
            return _read_execution_event(data, order, is_partial=event == "partial_fill")
        case "trade_bust":
            return _read_bust(data, order)
        case "trade_correct":
            return _read_correction(data, order)
        case _:
            return _read_other(event, data, order)


def _read_execution_event(data: Fields, order: Fields, *, is_partial: bool) -> Message:
    execution = _read_execution(data, order)
    if isinstance(execution, Unreadable):
        return execution
    return Executed(execution, number(data.get("position_qty")), is_partial)


def _read_bust(data: Fields, order: Fields) -> Message:
    # `execution_id` is then the bust's own, and `previous_execution_id` names what it takes back.
    busted, symbol = text(data.get("previous_execution_id")) or text(data.get("execution_id")), symbol_of(order)
    if busted is None:
        return Unreadable(symbol, "a bust that names no execution", may_be_execution=True)
    return Busted(busted, text(order.get("id")), symbol, _time_of(data))


def _read_correction(data: Fields, order: Fields) -> Message:
    execution = _read_execution(data, order)
    if isinstance(execution, Unreadable):
        return execution
    corrected = text(data.get("previous_execution_id")) or execution.execution_id
    return Corrected(corrected, execution, _time_of(data), text(data.get("event_id")))


def _read_other(event: str | None, data: Fields, order: Fields) -> Message:
    symbol = symbol_of(order)
    if event is None or text(data.get("execution_id")) is not None:
        return Unreadable(symbol, f"the unknown event {event or '?':.40} may tell an execution", may_be_execution=True)
    return OrderEvent(event, text(order.get("id")), symbol)


def _read_execution(data: Fields, order: Fields) -> Execution | Unreadable:
    execution_id, symbol = text(data.get("execution_id")), symbol_of(order)
    way, qty, price = side(order.get("side")), positive(data.get("qty")), positive(data.get("price"))
    executed_at = moment(data.get("timestamp")) or moment(data.get("at"))
    if execution_id is None or symbol is None or way is None or qty is None or price is None or executed_at is None:
        why = f"execution {execution_id or '?':.80} lacks an id, symbol, side, quantity, price or time"
        return Unreadable(symbol, why, may_be_execution=True)
    return Execution(
        execution_id,
        text(order.get("id")),
        symbol,
        asset_class_of(order),
        way,
        qty,
        price,
        positive(order.get("filled_qty")),
        executed_at,
    )


def _time_of(data: Fields) -> datetime | None:
    return moment(data.get("at")) or moment(data.get("timestamp"))
