"""Cuts the one list of a JSON object into its elements without decoding them, in steps of bounded size. Pure.

A decoder takes a body in one step, in which no other thread runs, and builds all of it before anything can be refused.
Here a step takes at most `_STEP` bytes. What an element says, and whether it is JSON at all, its reader decides.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

MAX_ELEMENT_BYTES: Final = 16_384
"""The longest element: a fill takes a few hundred bytes."""
MAX_MEMBERS: Final = 100_000
"""The most fields that are looked at beside the list."""

_STEP: Final = 65_536
_MAX_NAME_BYTES: Final = 1_024
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRUCTURAL: Final = re.compile(rb'["{}\[\]]')
_STRING_STOP: Final = re.compile(rb'["\\]')
_SCALAR: Final = re.compile(rb'[^ \t\r\n,:"{}\[\]]+')


class UnreadableBodyError(ValueError):
    """The body is not a JSON object, or not one with such a list. The text says where."""


@dataclass(frozen=True, slots=True)
class Member:
    """Another field of the object: its name as written, without the quotes, and whether it is the list's name again."""

    name: bytes
    is_list_again: bool


@dataclass(frozen=True, slots=True)
class NoList:
    """The field that should hold the list holds something else: `value`, at most its beginning."""

    value: bytes


@dataclass(frozen=True, slots=True)
class EmptyList:
    """The list is there and has no element."""


Piece = bytes | Member | NoList | EmptyList


def list_pieces(body: bytes, name: str) -> Iterator[Piece]:
    """Yield each element of the list in the field `name` of the object `body`, and every other field.

    Raises UnreadableBodyError where it cannot be read on.
    """
    has_list = False
    at = _expect(body, _space(body, 0), b"{")
    at = _space(body, at)
    members = 0
    while body[at : at + 1] != b"}":
        if members:
            at = _space(body, _expect(body, at, b","))
        members += 1
        if members > MAX_MEMBERS:
            raise UnreadableBodyError(f"more than {MAX_MEMBERS:,} fields")
        end = _string_end(body, at)
        written = body[at + 1 : min(end - 1, at + 1 + _MAX_NAME_BYTES)]
        is_list = end - at <= _MAX_NAME_BYTES and _is_named(body[at:end], name)
        at = _space(body, _expect(body, _space(body, end), b":"))
        if is_list and not has_list and body[at : at + 1] == b"[":
            has_list = True
            at = yield from _elements(body, at)
        elif is_list and not has_list:
            has_list = True
            end = _value_end(body, at)
            yield NoList(body[at : min(end, at + _MAX_NAME_BYTES)])
            at = end
        else:
            at = _value_end(body, at)
            yield Member(written, is_list)
        at = _space(body, at)
    if _space(body, at + 1) != len(body):
        raise _unreadable(body, at + 1)


def _elements(body: bytes, at: int) -> Generator[bytes | EmptyList, None, int]:
    """Yield the elements of the list that begins at `at`; return where it ends."""
    at = _space(body, at + 1)
    number = 0
    while body[at : at + 1] != b"]":
        if number:
            at = _space(body, _expect(body, at, b","))
        end = _value_end(body, at, MAX_ELEMENT_BYTES, number)
        yield body[at:end]
        at = _space(body, end)
        number += 1
    if not number:
        yield EmptyList()
    return at + 1


def _value_end(body: bytes, at: int, longest: int | None = None, number: int = 0) -> int:
    """Return the place after the value that begins at `at`. Brackets are counted, not matched."""
    if body[at : at + 1] not in (b'"', b"{", b"["):
        return _scalar_end(body, at)
    begin, depth = at, 0
    while True:
        if longest is not None and at - begin > longest:
            raise UnreadableBodyError(f"element {number} of the list, counted from 0, is longer than {longest:,} bytes")
        found = _STRUCTURAL.search(body, at, at + _STEP)
        if found is None:
            at += _STEP
            if at >= len(body):
                raise UnreadableBodyError("it ends in the middle of a value")
            continue
        at = found.end()
        match found[0]:
            case b'"':
                at = _string_end(body, at - 1)
            case b"{" | b"[":
                depth += 1
            case _:
                depth -= 1
        if depth <= 0:
            return at


def _scalar_end(body: bytes, at: int) -> int:
    """Return the place after the number or word that begins at `at`."""
    found = _SCALAR.match(body, at, at + _MAX_NAME_BYTES)
    if found is None:
        raise _unreadable(body, at)
    if found.end() == at + _MAX_NAME_BYTES:
        raise UnreadableBodyError(f"a number of more than {_MAX_NAME_BYTES:,} characters at byte {at}")
    return found.end()


def _string_end(body: bytes, at: int) -> int:
    """Return the place after the string that begins at `at`."""
    at = _expect(body, at, b'"')
    while True:
        found = _STRING_STOP.search(body, at, at + _STEP)
        if found is None:
            at += _STEP
        elif found[0] == b'"':
            return found.end()
        else:
            at = found.end() + 1
        if at >= len(body):
            raise UnreadableBodyError("it ends in the middle of a string")


def _space(body: bytes, at: int) -> int:
    """Return the place of the next character that is not blank."""
    while True:
        found = _SPACE.match(body, at, at + _STEP)
        end = at if found is None else found.end()
        if end < at + _STEP:
            return end
        at = end


def _expect(body: bytes, at: int, character: bytes) -> int:
    if body[at : at + 1] != character:
        raise _unreadable(body, at, character)
    return at + 1


def _unreadable(body: bytes, at: int, character: bytes | None = None) -> UnreadableBodyError:
    if at >= len(body):
        return UnreadableBodyError("it ends too early")
    expected = "" if character is None else f", where {character.decode()} is expected"
    return UnreadableBodyError(f"unexpected {chr(body[at])!a} at byte {at}{expected}")


def _is_named(written: bytes, name: str) -> bool:
    try:
        return msgspec.json.decode(written, type=str) == name
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
