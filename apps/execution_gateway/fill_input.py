"""Decides what a caller may post as a fill, or as many: strict types, exact decimals, bounded sizes, aware times. Pure.

Every fault is found and named with its field and its remedy; nothing is coerced, nothing is dropped.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from apps.execution_gateway.input_fields import (
    MAX_FAULTS,
    FieldFault,
    InvalidInputError,
    held_symbol,
    read_fields,
    read_id,
    read_not_negative,
    read_positive,
    read_reason,
    read_symbol,
    read_text,
    read_time,
    repeated_field,
    shown,
    unknown_field,
)
from apps.execution_gateway.json_list import EmptyList, Member, NoList, UnreadableBodyError, list_pieces
from libs.portfolio.fills import Fill, Side

MAX_FILLS_AT_ONCE: Final = 10_000
"""The longest list that one import may bring: all of it is one transaction."""

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000

_REQUIRED_FILL_KEYS: Final = ("fill_id", "symbol", "side", "qty", "price", "filled_at")
_FILL_KEYS: Final = (*_REQUIRED_FILL_KEYS, "fee")
_FILLS: Final = "fills"
_LOOKED_AT: Final = 1_024
_IMPORT_KEYS: Final = (_FILLS,)
_VOID_KEYS: Final = ("reason",)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class MalformedFill:
    """What is wrong with one fill of a list: its `place`, from 0, and its id, None when that cannot be read.

    `others` is the number of faults that `faults` leaves out.
    """

    place: int
    fill_id: str | None
    faults: tuple[FieldFault, ...]
    others: int = 0


@dataclass(frozen=True, slots=True)
class FillList:
    """A list of fills: those well-formed, `places` with the place of each in the list, and those that are not.

    `malformed` are the first of these, at most MAX_FAULTS; `malformed_fills` and `malformed_faults` count all of them.
    """

    fills: tuple[Fill, ...]
    places: tuple[int, ...]
    malformed: tuple[MalformedFill, ...]
    malformed_fills: int = 0
    malformed_faults: int = 0


@dataclass(frozen=True, slots=True)
class FillQuery:
    """Which page of the ledger is asked for. `symbol` None: all symbols; `after` None: from the newest."""

    symbol: str | None
    limit: int
    after: str | None


def parse_fill(body: bytes, now: datetime) -> Fill:
    """Return the fill that `body` describes.

    Sample: `{"fill_id":"f-1","symbol":"AAPL","side":"buy","qty":100,"price":"150.00","fee":0.35,
    "filled_at":"2025-10-19T14:30:15.123456Z"}`. Raises InvalidInputError.
    """
    return _fill(body, now, "the body")


def parse_fills(body: bytes, now: datetime) -> FillList:
    """Return the fills in `{"fills":[…]}`, each as `parse_fill` reads it; one that it refuses costs no other.

    Takes some 40 µs per fill, in steps of less than a millisecond: run it in a thread.
    Raises InvalidInputError when there is no such list, or one that is too long.
    """
    fills: dict[int, Fill] = {}
    malformed: list[MalformedFill] = []
    malformed_fills = malformed_faults = 0
    for place, item in enumerate(_items(body)):
        try:
            fills[place] = _fill(item, now, "the fill")
        except InvalidInputError as error:
            malformed_fills += 1
            malformed_faults += len(error.faults) + error.others
            if len(malformed) < MAX_FAULTS:
                malformed.append(MalformedFill(place, _readable_id(item), error.faults, error.others))
    return FillList(tuple(fills.values()), tuple(fills), tuple(malformed), malformed_fills, malformed_faults)


def _items(body: bytes) -> list[bytes]:
    """Return the elements of the list of fills, as written. Raises InvalidInputError."""
    items: list[bytes] = []
    faults: list[FieldFault] = []
    others, has_list = 0, False
    try:
        for piece in list_pieces(body, _FILLS):
            has_list = has_list or not isinstance(piece, Member)
            match piece:
                case bytes():
                    items.append(piece)
                    if len(items) > MAX_FILLS_AT_ONCE:
                        raise InvalidInputError(FieldFault(_FILLS, f"expected at most {MAX_FILLS_AT_ONCE:,}, got more"))
                case EmptyList():
                    pass
                case _ if len(faults) < MAX_FAULTS:
                    faults.append(_fault_of(piece))
                case _:
                    others += 1
    except UnreadableBodyError as error:
        begin = body[:_LOOKED_AT].lstrip()[:1]
        what = {b"": "is empty", b"{": "is not JSON"}.get(begin, "is not a JSON object")
        expected = "; expected a JSON object with fills" if begin != b"{" else ""
        raise InvalidInputError(FieldFault("", f"the body {what}: {error}{expected}")) from error
    if not has_list:
        faults.insert(0, FieldFault(_FILLS, "missing: this field is required"))
    if faults:
        raise InvalidInputError(*faults, others=others)
    return items


def _fault_of(piece: Member | NoList) -> FieldFault:
    match piece:
        case NoList(value):
            return FieldFault(_FILLS, f"expected a list, got {shown(value)}")
        case Member(_, is_list_again=True):
            return repeated_field(_FILLS)
        case Member(name):
            return unknown_field(name, _IMPORT_KEYS)


def _fill(body: bytes, now: datetime, noun: str) -> Fill:
    fields = read_fields(body, _FILL_KEYS, _REQUIRED_FILL_KEYS, noun)
    faults: list[FieldFault] = []

    def read(name: str, parse: Callable[[msgspec.Raw], _T]) -> _T | None:
        try:
            return parse(fields[name])
        except ValueError as error:
            faults.append(FieldFault(name, str(error)))
            return None

    fill_id = read("fill_id", read_id)
    symbol = read("symbol", read_symbol)
    side = read("side", _side)
    qty = read("qty", read_positive)
    price = read("price", read_positive)
    fee = read("fee", read_not_negative) if "fee" in fields else Decimal(0)
    filled_at = read("filled_at", lambda raw: read_time(raw, now))
    if fill_id is None or symbol is None or side is None or qty is None or price is None or fee is None:
        raise InvalidInputError(*faults)
    if filled_at is None:
        raise InvalidInputError(*faults)
    return Fill(fill_id=fill_id, symbol=symbol, side=side, qty=qty, price=price, fee=fee, filled_at=filled_at)


def parse_void(body: bytes) -> str:
    """Return the reason in `{"reason":"typed the price of MSFT"}`. Raises InvalidInputError."""
    fields = read_fields(body, _VOID_KEYS, _VOID_KEYS, "the body")
    try:
        return read_reason(fields["reason"])
    except ValueError as error:
        raise InvalidInputError(FieldFault("reason", str(error))) from error


def parse_query(symbol: str | None, limit: str | None, after: str | None) -> FillQuery:
    """Return the page that the query parameters ask for; an empty parameter counts as left out.

    Raises InvalidInputError.
    """
    faults = []
    wanted = None
    size = DEFAULT_PAGE
    if symbol:
        try:
            wanted = held_symbol(symbol)
        except ValueError as error:
            faults.append(FieldFault("symbol", str(error)))
    if limit:
        if re.fullmatch(r"[0-9]{1,6}", limit) and 1 <= int(limit) <= MAX_PAGE:
            size = int(limit)
        else:
            faults.append(FieldFault("limit", f"expected a whole number from 1 to {MAX_PAGE}, got {shown(limit)}"))
    if faults:
        raise InvalidInputError(*faults)
    return FillQuery(wanted, size, after or None)


def _readable_id(item: bytes) -> str | None:
    try:
        return read_id(msgspec.json.decode(item, type=dict[str, msgspec.Raw])["fill_id"])
    except (msgspec.DecodeError, KeyError, ValueError, RecursionError):
        return None


def _side(raw: msgspec.Raw) -> Side:
    text = read_text(raw)
    try:
        return Side(text)
    except ValueError:
        raise ValueError(f"expected 'buy' or 'sell', got {shown(text)}") from None
