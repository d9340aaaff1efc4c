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


class Frame(NamedTuple):
    """A whole WebSocket message, sent exactly as it is."""

    data: bytes
    is_text: bool


def fault_in_turn(kinds: Iterable[FrameFault], turn: int) -> FrameFault:
    """Return the kind whose turn it is, so that every kind comes. `kinds` must not be empty."""
    in_order = sorted(kinds)
    return in_order[turn % len(in_order)]


def bad_frame(fault: FrameFault, good: bytes, codec: Codec) -> Frame:  # noqa: PLR0911 - a table
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
        case _:
            assert_never(fault)


@cache
def _huge(codec: Codec) -> bytes:
    """Return a readable frame of about 4 MiB: quotes of symbols that nobody asked for."""
    round_of = [
        encode_point(Quote(f"ZZ{n:03}", 1.25, 100, "V", 1.5, 100, "V", 1_700_000_000_000_000_000 + n), codec)
        for n in range(_STRANGERS)
    ]
    return join_points(round_of * (_HUGE_BYTES // sum(map(len, round_of))), codec)
