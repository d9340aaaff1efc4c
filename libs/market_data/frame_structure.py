"""Finds where each message of a frame begins and ends without decoding any, for frames that no decoder takes whole.

A decoder gives up a frame in which one field is nested too deeply, or in which one JSON value is NaN. Its messages are
still told apart by their lengths (msgpack) or brackets and quotes (JSON). Nothing here recurses, and the work is
bounded: a frame of more than `MOST_STEPS` values or brackets is refused. Pure.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MOST_STEPS: Final = 250_000
"""Values of msgpack, or brackets, commas and texts of JSON, that one frame may hold here."""


class NoStructureError(ValueError):
    """The data is not one complete array or object: cut short, followed by more, or not well formed."""


def split_array(frame: bytes | str) -> list[bytes | str]:
    """Return the encoded elements of an array: msgpack when `frame` is binary, JSON when it is text.

    Raises NoStructureError.
    """
    if isinstance(frame, str):
        return list(_json_parts(frame, "[", "]"))
    return list(_parts(frame, *_open(frame, _ARRAYS)))


def split_object(text: str) -> dict[str, str]:
    """Return the encoded members of a JSON object by the text of their keys, as it is written between the quotes.

    Raises NoStructureError.
    """
    members = {}
    for part in _json_parts(text, "{", "}"):
        match = _MEMBER.match(part)
        if match is None:
            raise NoStructureError("a member without a key")
        members[match[1]] = part[match.end() :]
    return members


def nested_members(body: bytes, name: str) -> dict[str, str]:
    """Return the encoded members of the object that is the member `name` of a JSON object; none when it is null.

    Raises ValueError (NoStructureError is one) when there is none.
    """
    member = split_object(body.decode()).get(name, "").strip()
    return {} if member == "null" else split_object(member)


def texts_of(element: bytes | str, keys: frozenset[str]) -> dict[str, bytes | str]:
    """Return the encoded values of those members of one message whose keys are `keys`; none when it is no object."""
    try:
        if isinstance(element, str):
            return {key: value for key, value in split_object(element).items() if key in keys}
        parts = _parts(element, *_open(element, _MAPS))
    except NoStructureError:
        return {}
    wanted = {_short_text(key): key for key in keys}
    return {wanted[key]: value for key, value in zip(parts[::2], parts[1::2], strict=True) if key in wanted}


# --- msgpack: https://github.com/msgpack/msgpack/blob/master/spec.md ------------------------------------------------


class _Head(NamedTuple):
    """What a value's first byte says: `own` bytes of its own, `inner` values in it.

    Where the next `width` bytes (counted in `own`) hold a count, it is one of `each` values, or, with 0, of bytes.
    """

    own: int
    inner: int = 0
    width: int = 0
    each: int = 0


_ONE_BYTE: Final = (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100))
_HEADS: Final[dict[int, _Head]] = (
    {first: _Head(1) for first in _ONE_BYTE}
    | {0x80 + count: _Head(1, inner=2 * count) for count in range(16)}
    | {0x90 + count: _Head(1, inner=count) for count in range(16)}
    | {0xA0 + length: _Head(1 + length) for length in range(32)}
    | {0xCA: _Head(5), 0xCB: _Head(9)}  # floats
    | {base + n: _Head(1 + 2**n) for base in (0xCC, 0xD0) for n in range(4)}  # integers
    | {0xD4 + n: _Head(2 + 2**n) for n in range(5)}  # extensions of a fixed size
    | {0xC4 + n: _Head(1 + 2**n, width=2**n) for n in range(3)}  # binary
    | {0xC7 + n: _Head(2 + 2**n, width=2**n) for n in range(3)}  # other extensions
    | {0xD9 + n: _Head(1 + 2**n, width=2**n) for n in range(3)}  # texts
    | {0xDC + n: _Head(3 + 2 * n, width=2 + 2 * n, each=1) for n in range(2)}  # arrays
    | {0xDE + n: _Head(3 + 2 * n, width=2 + 2 * n, each=2) for n in range(2)}  # maps
)
_ARRAYS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})


def _open(data: bytes, kinds: frozenset[int]) -> tuple[int, int]:
    """Return where the first value in the outermost one begins, and how many there are."""
    if not data or data[0] not in kinds:
        raise NoStructureError("not an array, or not a map")
    at, count = _step(data, 0)
    if count > len(data):
        raise NoStructureError("cut short")
    return at, count


def _parts(data: bytes, at: int, count: int) -> list[bytes]:
    """Return the `count` values that begin at `at`, of which the last must end with the data."""
    parts = []
    steps = 0
    for _ in range(count):
        begin, unread = at, 1
        while unread:
            at, inner = _step(data, at)
            unread += inner - 1
            steps += 1
            if steps > MOST_STEPS:
                raise NoStructureError("too many values")
        parts.append(data[begin:at])
    if at != len(data):
        raise NoStructureError("cut short" if at > len(data) else "followed by more")
    return parts


def _step(data: bytes, at: int) -> tuple[int, int]:
    """Return where the value that begins at `at` goes on behind its own bytes, and how many values it holds."""
    if at >= len(data):
        raise NoStructureError("cut short")
    head = _HEADS.get(data[at])
    if head is None:
        raise NoStructureError(f"byte {data[at]:#04x} begins no value")
    if not head.width:
        return at + head.own, head.inner
    count = int.from_bytes(data[at + 1 : at + 1 + head.width], "big")
    return (at + head.own, head.each * count) if head.each else (at + head.own + count, 0)


def _short_text(text: str) -> bytes:
    encoded = text.encode()
    return bytes([0xA0 | len(encoded)]) + encoded


# --- JSON -----------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)
_MEMBER: Final = re.compile(r'\s*"([^"\\]*(?:\\.[^"\\]*)*)"\s*:', re.DOTALL)
_CLOSING: Final = {"[": "]", "{": "}"}


def _json_parts(text: str, opening: str, closing: str) -> Iterator[str]:
    """Yield what lies between the brackets and commas of the outermost array or object."""
    text = text.strip()
    if not (text.startswith(opening) and text.endswith(closing)):
        raise NoStructureError(f"not between {opening} and {closing}")
    begin = 1
    for at in _commas(text):
        yield text[begin:at]
        begin = at + 1
    if begin > 1 or text[begin:-1].strip():
        yield text[begin:-1]


def _commas(text: str) -> Iterator[int]:
    """Yield where the commas of the outermost array or object are, which must end with the text."""
    closers: list[str] = []
    for steps, token in enumerate(_TOKEN.finditer(text, 0, len(text) - 1)):
        mark = token[0]
        if steps > MOST_STEPS:
            raise NoStructureError("too many values")
        if mark in _CLOSING:
            closers.append(_CLOSING[mark])
        elif mark == '"':
            raise NoStructureError("a text without an end")
        elif mark in {"]", "}"} and (len(closers) == 1 or closers.pop() != mark):
            raise NoStructureError("brackets that do not match, or more behind the last")
        elif mark == "," and len(closers) == 1:
            yield token.start()
    if closers != [text[-1]]:
        raise NoStructureError("cut short")
