"""Spoils messages as wires, venues and enemies do: by field, by type, by nesting and by byte. Seeded, so repeatable.

A message is a list of pairs, because a wire may repeat a key. `encode_msgpack` and `encode_json` also write what no
honest encoder would: NaN in JSON, texts that are not UTF-8, integers of any size.
"""

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

Pairs = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Nested:
    """A list in a list in a list …, or the same with objects."""

    depth: int
    is_object: bool = False


@dataclass(frozen=True)
class Extension:
    """A msgpack extension; in JSON a text."""

    kind: int
    content: bytes


def timestamp(seconds: int, nanoseconds: int = 0) -> Extension:
    """Return msgpack's own time, in the form that reaches every year."""
    return Extension(-1, struct.pack(">Iq", nanoseconds % 2**32, seconds))


TIMES: Final = (
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
    "1969-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "2200-12-31T23:59:59-23:59", "1970-01-01T00:00:00+14:00",
    "2026-11-20T17:00:00", "2026-11-20", "2026-02-30T00:00:00Z", "2026-11-20T24:00:00Z", "2026-11-20T17:00:60Z",
    "2026-11-20T17:00:00.1234567890123Z", "12026-11-20T17:00:00Z", "-001-11-20T17:00:00Z", "now", "",
)  # fmt: skip
NUMBERS: Final = (
    0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**40, -(10**400), 10**5000, 0.0, -0.0, 1e-320,
    1e-9, 1e-6, 150.26, 1e9, 1.0000000001e9, 1e12, 1e18, 1e308, -1e308, math.nan, math.inf, -math.inf,
)  # fmt: skip
TEXTS: Final = (
    "", "\x00", "A" * 2_000, "\ud800", "\U0001f4a5", "\u202e", "NaN", "Infinity", "1e999999999", "-1", "150.26", "*",
    "AAPL", "../..", "A\nB", "null", "aapl", "ß", "BRK/B", "É",
)  # fmt: skip
OTHERS: Final = (
    None, True, False, [], [[]], [()], [("a", [("b", 1)])], ["R", None], [1], ["R"] * 300, b"", b"\xff\xfe",
    Extension(5, b"x"), Extension(-1, b"xyz"), timestamp(0), timestamp(2**40), timestamp(-(2**62)),
    timestamp(1_795_194_000, 2**32 - 1), Nested(3), Nested(60), Nested(970), Nested(1_000),
    Nested(1_001, is_object=True), Nested(3_000), Nested(5_000, is_object=True),
)  # fmt: skip


def any_value(dice: Random) -> Any:
    """Return a value that some field, somewhere, does not expect."""
    return dice.choice(dice.choice((TIMES, NUMBERS, TEXTS, OTHERS)))


# --- by field ---------------------------------------------------------------------------------------------------------


def spoil_fields(message: Pairs, dice: Random) -> Any:
    """Return `message` with one to three changes; what is no message at all now and then."""
    spoiled: Any = list(message)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        if not is_pairs(spoiled):
            break
        spoiled = dice.choice(_CHANGES)(spoiled, dice)
    return spoiled


def _replace(message: Pairs, dice: Random) -> Any:
    at = dice.randrange(len(message))
    return [*message[:at], (message[at][0], any_value(dice)), *message[at + 1 :]]


def _swap(message: Pairs, dice: Random) -> Any:
    at = dice.randrange(len(message))
    return [*message[:at], (message[at][0], dice.choice(message)[1]), *message[at + 1 :]]


def _drop(message: Pairs, dice: Random) -> Any:
    at = dice.randrange(len(message))
    return [*message[:at], *message[at + 1 :]]


def _repeat(message: Pairs, dice: Random) -> Any:
    return [*message, (dice.choice(message)[0], any_value(dice))]


def _add(message: Pairs, dice: Random) -> Any:
    return [*message, (dice.choice(("new", "", "tt", "T\x00", "price")), any_value(dice))]


def _odd_key(message: Pairs, dice: Random) -> Any:
    at = dice.randrange(len(message))
    return [*message[:at], (dice.choice((None, 5, 1.5, b"S", [], "\ud800")), message[at][1]), *message[at + 1 :]]


def _no_message(_message: Pairs, dice: Random) -> Any:
    return any_value(dice)


_CHANGES: Final[Sequence[Callable[[Pairs, Random], Any]]] = (
    *(_replace,) * 8, _swap, _swap, _drop, _repeat, _repeat, _add, _add, _odd_key, _no_message,
)  # fmt: skip


# --- by byte ----------------------------------------------------------------------------------------------------------


def spoil_bytes(frame: bytes, other: bytes, dice: Random) -> bytes:
    """Return `frame` with flipped bits, cut, with a piece missing or twice, or with a piece of `other` in it."""
    if not frame:
        return other
    kind = dice.randrange(6)
    begin, end = sorted((dice.randrange(len(frame) + 1), dice.randrange(len(frame) + 1)))
    if kind <= 1:
        spoiled = bytearray(frame)
        for _ in range(dice.choice((1, 1, 2, 8))):
            spoiled[dice.randrange(len(spoiled))] ^= 1 << dice.randrange(8)
        return bytes(spoiled)
    if kind == 2:
        return frame[:begin]
    if kind == 3:
        return frame[:begin] + frame[end:]
    if kind == 4:
        return frame[:end] + frame[begin:]
    return frame[:begin] + other[dice.randrange(len(other) + 1) :] + frame[end:]


# --- encoding ---------------------------------------------------------------------------------------------------------


def is_pairs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, tuple) and len(each) == 2 for each in value)


def encode_msgpack(value: Any) -> bytes:
    """Return `value` as msgpack. A list of pairs is a map."""
    if is_pairs(value):
        return _count(0x80, 0xDF, len(value)) + b"".join(encode_msgpack(each) for pair in value for each in pair)
    if isinstance(value, list | tuple):
        return msgpack_array([encode_msgpack(each) for each in value])
    if isinstance(value, Nested):
        return (b"\x81\xa1a" if value.is_object else b"\x91") * value.depth + b"\xc0"
    if isinstance(value, Extension):
        return b"\xc7" + bytes([len(value.content)]) + struct.pack("b", value.kind) + value.content
    return _msgpack_scalar(value)


def msgpack_array(elements: Sequence[bytes]) -> bytes:
    """Return the array of elements that are encoded already."""
    return _count(0x90, 0xDD, len(elements)) + b"".join(elements)


def _count(short: int, long: int, count: int) -> bytes:
    return bytes([short | count]) if count < 16 else bytes([long]) + struct.pack(">I", count)


def _msgpack_scalar(value: float | str | bytes | None) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, str):
        content = value.encode("utf-8", "surrogatepass")
        head = bytes([0xA0 | len(content)]) if len(content) < 32 else b"\xdb" + struct.pack(">I", len(content))
        return head + content
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    return b"\xcb" + struct.pack(">d", value if abs(value) < 10**300 or isinstance(value, float) else math.inf)


def encode_json(value: Any) -> str:
    """Return `value` as what passes for JSON. A list of pairs is an object; bytes are the text of their digits."""
    if is_pairs(value):
        return "{" + ",".join(f"{encode_json(key)}:{encode_json(each)}" for key, each in value) + "}"
    if isinstance(value, list | tuple):
        return json_array([encode_json(each) for each in value])
    if isinstance(value, Nested):
        before, after = ('{"a":', "}") if value.is_object else ("[", "]")
        return before * value.depth + "null" + after * value.depth
    if isinstance(value, int) and abs(value) > 10**4000:
        return "9" * 5_000
    content = value.content if isinstance(value, Extension) else value
    return json.dumps(content.hex() if isinstance(content, bytes) else content)


def json_array(elements: Sequence[str]) -> str:
    """Return the array of elements that are encoded already."""
    return "[" + ",".join(elements) + "]"
