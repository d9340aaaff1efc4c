"""Alpaca's market-data messages as they stand on the wire, and how a frame of them is read.

One unreadable message costs one message, one unreadable frame one frame: a frame is decoded typed and whole (fast), and
only when that fails element by element, which `frame_structure.py` tells apart if no decoder can. A sample of what
comes in, as JSON (msgpack in the same shape):

    [{"T":"success","msg":"connected"}]
    [{"T":"error","code":406,"msg":"connection limit exceeded"}]
    [{"T":"subscription","trades":[],"quotes":["AMD"],"bars":[],"statuses":[]}]
    [{"T":"q","S":"AMD","bx":"U","bp":87.66,"bs":100,"ax":"Q","ap":87.68,"as":400,"c":["R"],"z":"C","t":"2026-02-20T15:51:45.335689322Z"}]
    [{"T":"s","S":"AAPL","sc":"H","sm":"Trading Halt","rc":"T12","rm":"","t":"2021-02-22T19:15:00Z","z":"C"}]
    [{"T":"t","i":96921,"S":"AAPL","x":"D","p":126.55,"s":1,"t":"2021-02-22T15:51:44.208Z","c":["@","I"],"z":"C"}]
    [{"T":"c","S":"EEM","x":"M","oi":52983525033527,"op":39.1582,"os":440000,"oc":[" ","7"],"ci":52983525034326,
      "cp":39.1809,"cs":440000,"cc":[" ","7"],"z":"B","t":"2023-04-06T14:25:06.542305024Z"}]
    [{"T":"x","S":"GOOGL","i":465,"x":"D","p":105.31,"s":300,"a":"C","z":"C","t":"2023-04-06T13:15:42.83540958Z"}]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from libs.market_data.frame_structure import NoStructureError, split_array, texts_of
from libs.market_data.halts import TradingStatus
from libs.market_data.quotes import Quote, QuoteOrigin
from libs.market_data.trades import Trade, TradeCancel, TradeCorrection
from libs.market_data.wire_times import usable_time


class QuoteMessage(msgspec.Struct, tag_field="T", tag="q", gc=False):
    """`T:"q"`: best bid and offer. Every field but the symbol may be absent or null."""

    S: str
    bp: float | None = None
    ap: float | None = None
    bs: float | None = None
    as_: float | None = msgspec.field(default=None, name="as")
    bx: str | None = None
    ax: str | None = None
    c: list[str] | str | None = None
    z: str | None = None
    t: datetime | None = None


class SuccessMessage(msgspec.Struct, tag_field="T", tag="success"):
    """`T:"success"`: `connected` or `authenticated`."""

    msg: str = ""


class ErrorMessage(msgspec.Struct, tag_field="T", tag="error"):
    """`T:"error"`: a numbered refusal or fault."""

    code: int = 0
    msg: str = ""


class SubscriptionMessage(msgspec.Struct, tag_field="T", tag="subscription"):
    """`T:"subscription"`: the complete set now subscribed, after every change of it."""

    quotes: list[str] | None = None
    statuses: list[str] | None = None
    trades: list[str] | None = None


class StatusMessage(msgspec.Struct, tag_field="T", tag="s"):
    """`T:"s"`: the venue's word on whether a symbol trades. The meaning of `sc` depends on the tape `z`."""

    S: str
    sc: str = ""
    sm: str | None = None
    rc: str | None = None
    rm: str | None = None
    t: datetime | None = None
    z: str | None = None


class TradeMessage(msgspec.Struct, tag_field="T", tag="t", gc=False):
    """`T:"t"`: one trade. Every field but the symbol may be absent or null."""

    S: str
    i: int | None = None
    x: str | None = None
    p: float | None = None
    s: float | None = None
    c: list[str] | str | None = None
    z: str | None = None
    t: datetime | None = None


class CorrectionMessage(msgspec.Struct, tag_field="T", tag="c"):
    """`T:"c"`: a trade that was reported wrongly (`o…`), and what it should have been (`c…`)."""

    S: str
    oi: int
    x: str | None = None
    ci: int | None = None
    cp: float | None = None
    cs: float | None = None
    cc: list[str] | str | None = None
    z: str | None = None
    t: datetime | None = None


class CancelMessage(msgspec.Struct, tag_field="T", tag="x"):
    """`T:"x"`: a trade that is none: cancelled (`a` is C) or an error (E)."""

    S: str
    i: int
    x: str | None = None


Message = (
    QuoteMessage
    | TradeMessage
    | SuccessMessage
    | ErrorMessage
    | SubscriptionMessage
    | StatusMessage
    | CorrectionMessage
    | CancelMessage
)


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """One message that could not be read. `kind` is its `T` when it had one, `symbol` its `S`."""

    kind: str | None
    symbol: str | None
    problem: str


class UnreadableFrameError(ValueError):
    """The frame is no array of messages at all: truncated, or not ours."""


_MSGPACK: Final = msgspec.msgpack.Decoder(list[Message])
_JSON: Final = msgspec.json.Decoder(list[Message])
_MSGPACK_LOOSE: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_JSON_LOOSE: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MSGPACK_ONE: Final = msgspec.msgpack.Decoder(Message)
_JSON_ONE: Final = msgspec.json.Decoder(Message)

# Data that we did not ask for but may be sent: known, and passed over without a complaint.
_OTHER_KINDS: Final = frozenset({"b", "u", "d", "l", "i"})
_NAMING: Final = frozenset({"T", "S"})


def read_frame(frame: bytes | str) -> Sequence[Message | UnreadableMessage]:
    """Decode one frame: msgpack when it is binary, JSON when it is text.

    Raises UnreadableFrameError when it is no array of messages.
    """
    try:
        return _JSON.decode(frame) if isinstance(frame, str) else _MSGPACK.decode(frame)
    except Exception:  # noqa: BLE001 - whatever a decoder meets in a frame, its messages are then read one by one
        return _read_one_by_one(frame)


def _read_one_by_one(frame: bytes | str) -> list[Message | UnreadableMessage]:
    messages: list[Message | UnreadableMessage] = []
    for element in _elements(frame):
        try:
            messages.append(_JSON_ONE.decode(element) if isinstance(element, str) else _MSGPACK_ONE.decode(element))
        except Exception as error:  # noqa: BLE001 - the border at which one bad message costs itself
            unreadable = _describe(element, str(error))
            if unreadable.kind not in _OTHER_KINDS:
                messages.append(unreadable)
    return messages


def _elements(frame: bytes | str) -> Sequence[bytes | str]:
    """Return the encoded messages of a frame, as long as they can be told apart at all."""
    try:
        if isinstance(frame, str):
            return [bytes(element).decode() for element in _JSON_LOOSE.decode(frame)]
        return [bytes(element) for element in _MSGPACK_LOOSE.decode(frame)]
    except Exception:  # noqa: BLE001 - one message nested too deeply, or one NaN, must not cost those beside it
        try:
            return split_array(frame)
        except NoStructureError as error:
            raise UnreadableFrameError(str(error)) from error


def _describe(element: bytes | str, problem: str) -> UnreadableMessage:
    named = texts_of(element, _NAMING)
    return UnreadableMessage(_text(named.get("T")), _text(named.get("S")), problem)


def _text(value: bytes | str | None) -> str | None:
    if value is None:
        return None
    try:
        return (
            msgspec.json.decode(value, type=str) if isinstance(value, str) else msgspec.msgpack.decode(value, type=str)
        )
    except (ValueError, RecursionError):
        return None


def quote_from(message: QuoteMessage, received_at: datetime, origin: QuoteOrigin = QuoteOrigin.STREAM) -> Quote:
    """Turn the wire's quote into ours. Alpaca sends times in UTC; one without a zone is none, nor is an absurd one."""
    flags = message.c
    return Quote(
        message.S,
        message.bp,
        message.ap,
        message.bs,
        message.as_,
        message.bx,
        message.ax,
        tuple(flags) if flags.__class__ is list else () if not flags else (str(flags),),
        message.z,
        usable_time(message.t),
        received_at,
        origin,
    )


def trade_from(message: TradeMessage, received_at: datetime) -> Trade:
    """Turn the wire's trade into ours."""
    return Trade(
        message.S,
        message.i,
        message.x,
        message.p,
        message.s,
        conditions_of(message.c),
        message.z,
        usable_time(message.t),
        received_at,
    )


def correction_from(message: CorrectionMessage, received_at: datetime) -> TradeCorrection:
    """Turn the wire's correction into ours. Without an id of its own, the corrected trade keeps the original's."""
    corrected = Trade(
        message.S,
        message.oi if message.ci is None else message.ci,
        message.x,
        message.cp,
        message.cs,
        conditions_of(message.cc),
        message.z,
        usable_time(message.t),
        received_at,
    )
    return TradeCorrection(message.oi, corrected)


def cancel_from(message: CancelMessage) -> TradeCancel:
    """Turn the wire's cancel, or error, into ours."""
    return TradeCancel(message.S, message.i, message.x)


def conditions_of(flags: list[str] | str | None) -> tuple[str, ...]:
    """Return flags as they come: a list, one text (seen in mocks), or nothing at all."""
    return tuple(flags) if flags.__class__ is list else () if not flags else (str(flags),)


def status_from(message: StatusMessage) -> TradingStatus:
    """Turn the wire's trading status into ours. The reason is the text if there is one, else the code."""
    reason = message.rm or message.sm or message.rc or ""
    return TradingStatus(message.S, message.sc, reason, message.z, usable_time(message.t))
