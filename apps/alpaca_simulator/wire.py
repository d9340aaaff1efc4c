"""How messages look on the wire: MessagePack or JSON, `T` first, times exact to the nanosecond.

The clause and the byte-exact samples: Alpaca's "Streaming Market Data" page; the Go client decodes
by position.
A quote in JSON (the sample is also a test):
[{"T":"q","S":"FAKEPACA","bx":"O","bp":133.85,"bs":4,"ax":"R","ap":135.77,"as":5,"c":["R"],"z":"A",
"t":"2024-07-24T07:56:53.639713735Z"}]
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, assert_never

import msgspec

from apps.alpaca_simulator.points import Bar, Point, Quote, Status, Trade, TradeCancel, TradeCorrection

NS_PER_S: Final = 1_000_000_000
TIMESTAMP_EXTENSION: Final = -1

_FIX_ARRAY_MAX: Final = 15
_ARRAY_16_MAX: Final = 0xFFFF
_to_msgpack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode

WireTime = msgspec.msgpack.Ext | str


class Codec(StrEnum):
    """How a connection writes its messages, chosen by the Content-Type header of its upgrade request."""

    MSGPACK = "application/msgpack"
    JSON = "application/json"

    @classmethod
    def of_content_type(cls, content_type: str | None) -> "Codec":
        """Return the codec that the header asks for; without one Alpaca writes JSON."""
        named = (content_type or "").partition(";")[0].strip().lower()
        return cls.MSGPACK if named == cls.MSGPACK else cls.JSON


_MSGPACK: Final = Codec.MSGPACK  # of a member looked up in its class every time, a flood would feel the price


class UnreadableMessageError(ValueError):
    """A client's message is not valid in its codec. Sending it again does not help."""


class QuoteMessage(msgspec.Struct, tag_field="T", tag="q", rename={
    "symbol": "S", "bid_exchange": "bx", "bid_price": "bp", "bid_size": "bs", "ask_exchange": "ax", "ask_price": "ap",
    "ask_size": "as", "conditions": "c", "tape": "z", "time": "t",
}):  # fmt: skip
    """`T: "q"`; the order of the fields is the order on the wire."""

    symbol: str
    bid_exchange: str
    bid_price: float
    bid_size: int
    ask_exchange: str
    ask_price: float
    ask_size: int
    conditions: tuple[str, ...]
    tape: str
    time: WireTime


class TradeMessage(msgspec.Struct, tag_field="T", tag="t", rename={
    "trade_id": "i", "symbol": "S", "exchange": "x", "price": "p", "size": "s", "conditions": "c", "time": "t",
    "tape": "z",
}):  # fmt: skip
    """`T: "t"`; the order of the fields is the order on the wire."""

    trade_id: int
    symbol: str
    exchange: str
    price: float
    size: int
    conditions: tuple[str, ...]
    time: WireTime
    tape: str


class CorrectionMessage(msgspec.Struct, tag_field="T", tag="c", rename={
    "symbol": "S", "exchange": "x", "original_id": "oi", "original_price": "op", "original_size": "os",
    "original_conditions": "oc", "corrected_id": "ci", "corrected_price": "cp", "corrected_size": "cs",
    "corrected_conditions": "cc", "tape": "z", "time": "t",
}):  # fmt: skip
    """`T: "c"`; the order of the fields is the order on the wire."""

    symbol: str
    exchange: str
    original_id: int
    original_price: float
    original_size: int
    original_conditions: tuple[str, ...]
    corrected_id: int
    corrected_price: float
    corrected_size: int
    corrected_conditions: tuple[str, ...]
    tape: str
    time: WireTime


class CancelMessage(msgspec.Struct, tag_field="T", tag="x", rename={
    "symbol": "S", "trade_id": "i", "exchange": "x", "price": "p", "size": "s", "action": "a", "tape": "z",
    "time": "t",
}):  # fmt: skip
    """`T: "x"`; the order of the fields is the order on the wire."""

    symbol: str
    trade_id: int
    exchange: str
    price: float
    size: int
    action: str
    tape: str
    time: WireTime


class BarMessage(msgspec.Struct, tag_field="T", tag="b", rename={
    "symbol": "S", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "time": "t", "trade_count": "n",
    "vwap": "vw",
}):  # fmt: skip
    """`T: "b"`; the order of the fields is the order on the wire."""

    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: int
    time: WireTime
    trade_count: int
    vwap: float


class StatusMessage(msgspec.Struct, tag_field="T", tag="s", rename={
    "symbol": "S", "status_code": "sc", "status_message": "sm", "reason_code": "rc", "reason_message": "rm",
    "time": "t", "tape": "z",
}):  # fmt: skip
    """`T: "s"`; the order of the fields is the order on the wire."""

    symbol: str
    status_code: str
    status_message: str
    reason_code: str
    reason_message: str
    time: WireTime
    tape: str


def wire_time(time_ns: int, codec: Codec) -> WireTime:
    """Return a time as the codec writes it: extension -1 for MessagePack, RFC 3339 for JSON."""
    return timestamp_extension(time_ns) if codec is _MSGPACK else rfc3339(time_ns)


@lru_cache(maxsize=64)  # points made together carry the same time
def timestamp_extension(time_ns: int) -> msgspec.msgpack.Ext:
    """Return MessagePack's standard timestamp: 4 bytes for whole seconds, else 8 (nanoseconds << 34 | seconds)."""
    seconds, nanos = divmod(time_ns, NS_PER_S)
    if nanos == 0 and seconds < 1 << 32:
        return msgspec.msgpack.Ext(TIMESTAMP_EXTENSION, seconds.to_bytes(4, "big"))
    return msgspec.msgpack.Ext(TIMESTAMP_EXTENSION, (nanos << 34 | seconds).to_bytes(8, "big"))


def rfc3339(time_ns: int) -> str:
    """Return UTC with up to nine digits of fraction, trailing zeros dropped: `2021-02-22T15:51:44.208Z`."""
    seconds, nanos = divmod(time_ns, NS_PER_S)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanos:09d}".rstrip("0") + "Z" if nanos else f"{whole}Z"


def encode_point(point: Point, codec: Codec) -> bytes:
    """Return one point as an element of a data frame; `join_points` makes the frame."""
    encode = _to_msgpack if codec is _MSGPACK else _to_json
    time = wire_time(point.time_ns, codec)
    match point:
        case Quote():
            return encode(_quote_message(point, time))
        case Trade():
            return encode(_trade_message(point, time))
        case TradeCorrection():
            return encode(_correction_message(point, time))
        case TradeCancel():
            return encode(_cancel_message(point, time))
        case Bar():
            return encode(_bar_message(point, time))
        case Status():
            return encode(_status_message(point, time))
        case _:
            assert_never(point)


def encode_element(message: Mapping[str, Any], codec: Codec) -> bytes:
    """Return any message as an element of a data frame. JSON has no NaN and no infinity: they become null."""
    return _to_msgpack(message) if codec is Codec.MSGPACK else _to_json(message)


def join_points(points: Sequence[bytes], codec: Codec) -> bytes:
    """Return one data frame, an array of already encoded points."""
    if codec is Codec.JSON:
        return b"[" + b",".join(points) + b"]"
    return _array_header(len(points)) + b"".join(points)


def encode_control(message: Mapping[str, Any], codec: Codec) -> bytes:
    """Return a control message as it is sent: alone, in an array of length one."""
    return _to_msgpack([message]) if codec is Codec.MSGPACK else _to_json([message])


def decode_client_message(data: bytes | str, codec: Codec) -> object:
    """Return what a client sent, an object of the codec's types.

    Raises UnreadableMessageError for anything else, a text frame on a MessagePack connection included.
    """
    try:
        if codec is Codec.JSON:
            return msgspec.json.decode(data)
        if isinstance(data, str):
            raise UnreadableMessageError("text where MessagePack is expected")
        return msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise UnreadableMessageError(str(fault)) from fault


def _array_header(length: int) -> bytes:
    if length <= _FIX_ARRAY_MAX:
        return bytes((0x90 | length,))
    if length <= _ARRAY_16_MAX:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def _quote_message(quote: Quote, time: WireTime) -> QuoteMessage:
    return QuoteMessage(
        quote.symbol,
        quote.bid_exchange,
        quote.bid_price,
        quote.bid_size,
        quote.ask_exchange,
        quote.ask_price,
        quote.ask_size,
        quote.conditions,
        quote.tape,
        time,
    )


def _trade_message(trade: Trade, time: WireTime) -> TradeMessage:
    return TradeMessage(
        trade.trade_id, trade.symbol, trade.exchange, trade.price, trade.size, trade.conditions, time, trade.tape
    )


def _correction_message(correction: TradeCorrection, time: WireTime) -> CorrectionMessage:
    return CorrectionMessage(
        correction.symbol,
        correction.exchange,
        correction.original_id,
        correction.original_price,
        correction.original_size,
        correction.original_conditions,
        correction.corrected_id,
        correction.corrected_price,
        correction.corrected_size,
        correction.corrected_conditions,
        correction.tape,
        time,
    )


def _cancel_message(cancel: TradeCancel, time: WireTime) -> CancelMessage:
    return CancelMessage(
        cancel.symbol, cancel.trade_id, cancel.exchange, cancel.price, cancel.size, cancel.action, cancel.tape, time
    )


def _bar_message(bar: Bar, time: WireTime) -> BarMessage:
    return BarMessage(bar.symbol, bar.open, bar.high, bar.low, bar.close, bar.volume, time, bar.trade_count, bar.vwap)


def _status_message(status: Status, time: WireTime) -> StatusMessage:
    return StatusMessage(
        status.symbol,
        status.status_code,
        status.status_message,
        status.reason_code,
        status.reason_message,
        time,
        status.tape,
    )
