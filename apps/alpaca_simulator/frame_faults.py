"""Frames as no good venue sends them: what goes out between two good ones. Pure."""

from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from typing import Final, NamedTuple, assert_never

from apps.alpaca_simulator.points import Quote
from apps.alpaca_simulator.protocol import ErrorCode, error
from apps.alpaca_simulator.wire import Codec, encode_control, encode_element, encode_point, join_points

_HUGE_BYTES: Final = 4 * 1024 * 1024
_STRANGERS: Final = 500
"""How many symbols that nobody asked for a huge frame speaks of."""
_DEPTH: Final = 1_000
"""As deep as no decoder goes that calls itself."""
_ABSURD_TIMES: Final = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
"""Times that are valid, but not in UTC."""
_GARBAGE: Final = b"\xc1\xff\x00\xde\xad\xbe\xef" * 9


class FrameFault(StrEnum):
    """What may be wrong with a frame."""

    UNKNOWN_TYPE = "unknown_type"
    TEXT_FRAME = "text_frame"
    TRUNCATED = "truncated"
    EMPTY_ARRAY = "empty_array"
    HUGE = "huge"
    NOT_AN_ARRAY = "not_an_array"
    BINARY_GARBAGE = "binary_garbage"
    ERROR_IN_STREAM = "error_in_stream"
    DEEPLY_NESTED = "deeply_nested"
    ABSURD_TIMES = "absurd_times"


class Frame(NamedTuple):
    """A whole WebSocket message, sent exactly as it is."""

    data: bytes
    is_text: bool


def fault_in_turn(kinds: Iterable[FrameFault], turn: int) -> FrameFault:
    """Return the kind whose turn it is, so that every kind comes. `kinds` must not be empty."""
    in_order = sorted(kinds)
    return in_order[turn % len(in_order)]


def bad_frame(fault: FrameFault, good: bytes, codec: Codec) -> Frame:  # noqa: C901, PLR0911 - a table
    """Return the bad frame that follows the frame `good`."""
    is_json = codec is Codec.JSON
    match fault:
        case FrameFault.UNKNOWN_TYPE:
            return Frame(encode_control({"T": "zz", "S": "AAPL", "value": [1, {"a": None}]}, codec), is_json)
        case FrameFault.TEXT_FRAME:
            return Frame(b'[{"T":"text"}]', is_text=True) if not is_json else Frame(b"[]", is_text=False)
        case FrameFault.TRUNCATED:
            return Frame(good[: len(good) // 2], is_json)
        case FrameFault.EMPTY_ARRAY:
            return Frame(join_points([], codec), is_json)
        case FrameFault.HUGE:
            return Frame(_huge(codec), is_json)
        case FrameFault.NOT_AN_ARRAY:
            return Frame(encode_element({"T": "q", "S": "AAPL"}, codec), is_json)
        case FrameFault.BINARY_GARBAGE:
            return Frame(_GARBAGE, is_text=False)
        case FrameFault.ERROR_IN_STREAM:
            return Frame(encode_control(error(ErrorCode.INTERNAL_ERROR), codec), is_json)
        case FrameFault.DEEPLY_NESTED:
            return Frame(_deeply_nested(codec), is_json)
        case FrameFault.ABSURD_TIMES:
            return Frame(join_points(_absurdly_timed(codec), codec), is_json)
        case _:
            assert_never(fault)


def _deeply_nested(codec: Codec) -> bytes:
    if codec is Codec.JSON:
        return b'[{"T":"q","S":"AAPL","x":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}]"
    return b"\x91\x83\xa1T\xa1q\xa1S\xa4AAPL\xa1x" + b"\x91" * _DEPTH + b"\xc0"


def _absurdly_timed(codec: Codec) -> list[bytes]:
    quote = {"T": "q", "S": "AAPL", "bp": 1.25, "bs": 100, "bx": "V", "ap": 1.5, "as": 100, "ax": "V"}
    trade = {"T": "t", "S": "AAPL", "i": 1, "p": 1.25, "s": 100, "x": "V", "z": "C"}
    return [encode_element({**each, "t": time}, codec) for time in _ABSURD_TIMES for each in (quote, trade)]


@cache
def _huge(codec: Codec) -> bytes:
    """Return a readable frame of about 4 MiB: quotes of symbols that nobody asked for."""
    round_of = [
        encode_point(Quote(f"ZZ{n:03}", 1.25, 100, "V", 1.5, 100, "V", 1_700_000_000_000_000_000 + n), codec)
        for n in range(_STRANGERS)
    ]
    return join_points(round_of * (_HUGE_BYTES // sum(map(len, round_of))), codec)
