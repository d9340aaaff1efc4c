"""Decides what a caller may post as a fill, or as many: strict types, exact decimals, bounded sizes, aware times. Pure.

Every fault is found and named with its field and its remedy; nothing is coerced, nothing is dropped.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from libs.portfolio.fills import Fill, Side

MAX_FILL_ID_LENGTH: Final = 128
MAX_REASON_LENGTH: Final = 500
MAX_AHEAD: Final = timedelta(minutes=5)
"""How far ahead of our clock a broker's clock may be."""
EARLIEST_YEAR: Final = 1970
LIMIT: Final = Decimal(10) ** 12
"""Quantities, prices and fees stay below this, so that exact arithmetic on them stays affordable."""
MAX_PLACES: Final = 9

MAX_FILLS_AT_ONCE: Final = 10_000
"""The longest list that one import may bring: all of it is one transaction."""

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000

_REQUIRED_FILL_KEYS: Final = ("fill_id", "symbol", "side", "qty", "price", "filled_at")
_FILL_KEYS: Final = (*_REQUIRED_FILL_KEYS, "fee")
_IMPORT_KEYS: Final = ("fills",)
_VOID_KEYS: Final = ("reason",)
_MAX_NUMBER_LENGTH: Final = 64
_MAX_SHOWN: Final = 40

# Wider than what can be subscribed: pairs and options are listed and valued by other means.
_HELD_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./-]{0,31}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")

_T = TypeVar("_T")
_Fields = Mapping[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with one field of a request, and what would be right. `field` is empty for the body itself."""

    field: str
    message: str


class InvalidInputError(ValueError):
    """The request cannot be accepted as it is; asking again does not help. `faults` names every field at fault."""

    def __init__(self, *faults: FieldFault) -> None:
        self.faults = faults
        super().__init__(
            "; ".join(f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in faults)
        )


@dataclass(frozen=True, slots=True)
class MalformedFill:
    """What is wrong with one fill of a list: its `place`, from 0, and its id, None when that cannot be read."""

    place: int
    fill_id: str | None
    faults: tuple[FieldFault, ...]


@dataclass(frozen=True, slots=True)
class FillList:
    """A list of fills: those well-formed, `places` with the place of each in the list, and those that are not."""

    fills: tuple[Fill, ...]
    places: tuple[int, ...]
    malformed: tuple[MalformedFill, ...]


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

    Takes some 30 µs per fill. Raises InvalidInputError when there is no such list, or one that is too long.
    """
    written = _fields(body, _IMPORT_KEYS, _IMPORT_KEYS, "the body")["fills"]
    try:
        items = msgspec.json.decode(written, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(FieldFault("fills", f"expected a list, got {_shown(bytes(written))}")) from error
    if len(items) > MAX_FILLS_AT_ONCE:
        raise InvalidInputError(FieldFault("fills", f"expected at most {MAX_FILLS_AT_ONCE:,}, got {len(items):,}"))
    fills: dict[int, Fill] = {}
    malformed = []
    for place, item in enumerate(items):
        try:
            fills[place] = _fill(bytes(item), now, "the fill")
        except InvalidInputError as error:
            malformed.append(MalformedFill(place, _readable_id(item), error.faults))
    return FillList(tuple(fills.values()), tuple(fills), tuple(malformed))


def _fill(body: bytes, now: datetime, noun: str) -> Fill:
    fields = _fields(body, _FILL_KEYS, _REQUIRED_FILL_KEYS, noun)
    faults: list[FieldFault] = []

    def read(name: str, parse: Callable[[msgspec.Raw], _T]) -> _T | None:
        try:
            return parse(fields[name])
        except ValueError as error:
            faults.append(FieldFault(name, str(error)))
            return None

    fill_id = read("fill_id", _fill_id)
    symbol = read("symbol", _symbol)
    side = read("side", _side)
    qty = read("qty", _positive)
    price = read("price", _positive)
    fee = read("fee", _not_negative) if "fee" in fields else Decimal(0)
    filled_at = read("filled_at", lambda raw: _time(raw, now))
    if fill_id is None or symbol is None or side is None or qty is None or price is None or fee is None:
        raise InvalidInputError(*faults)
    if filled_at is None:
        raise InvalidInputError(*faults)
    return Fill(fill_id=fill_id, symbol=symbol, side=side, qty=qty, price=price, fee=fee, filled_at=filled_at)


def parse_void(body: bytes) -> str:
    """Return the reason in `{"reason":"typed the price of MSFT"}`. Raises InvalidInputError."""
    fields = _fields(body, _VOID_KEYS, _VOID_KEYS, "the body")
    try:
        return _reason(fields["reason"])
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
            faults.append(FieldFault("limit", f"expected a whole number from 1 to {MAX_PAGE}, got {_shown(limit)}"))
    if faults:
        raise InvalidInputError(*faults)
    return FillQuery(wanted, size, after or None)


def held_symbol(text: str) -> str:
    """Return the upper-cased symbol that a position may have: `btc/usd` gives `BTC/USD`. Raises ValueError."""
    symbol = text.upper()
    if not text.isascii() or _HELD_SYMBOL.fullmatch(symbol) is None:
        raise ValueError(
            f"expected a symbol of 1 to 32 letters, digits, '.', '/' or '-' such as AAPL or BTC/USD, got {_shown(text)}"
        )
    return symbol


def _readable_id(item: msgspec.Raw) -> str | None:
    try:
        return _fill_id(msgspec.json.decode(item, type=dict[str, msgspec.Raw])["fill_id"])
    except (msgspec.DecodeError, KeyError, ValueError, RecursionError):
        return None


def _fields(body: bytes, known: tuple[str, ...], required: tuple[str, ...], noun: str) -> _Fields:
    if not body.strip():
        raise InvalidInputError(FieldFault("", f"{noun} is empty: expected a JSON object with {', '.join(required)}"))
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise InvalidInputError(FieldFault("", f"{noun} is no JSON object: {error}")) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(FieldFault("", f"{noun} is not JSON: {error}")) from error
    faults = [FieldFault(name, "missing: this field is required") for name in required if name not in fields]
    faults += [
        FieldFault(_shown(name).strip("'\""), f"unknown field: known are {', '.join(known)}")
        for name in fields
        if name not in known
    ]
    if faults:
        raise InvalidInputError(*faults)
    return fields


def _text(raw: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a string, got {_shown(bytes(raw))}") from error


def _fill_id(raw: msgspec.Raw) -> str:
    text = _text(raw)
    if not 1 <= len(text) <= MAX_FILL_ID_LENGTH or not text.isprintable() or text != text.strip():
        raise ValueError(
            f"expected 1 to {MAX_FILL_ID_LENGTH} printable characters without spaces at the ends, got {_shown(text)}"
        )
    return text


def _reason(raw: msgspec.Raw) -> str:
    text = _text(raw).strip()
    if not 1 <= len(text) <= MAX_REASON_LENGTH or not text.isprintable():
        raise ValueError(f"expected 1 to {MAX_REASON_LENGTH} printable characters that say why, got {_shown(text)}")
    return text


def _symbol(raw: msgspec.Raw) -> str:
    return held_symbol(_text(raw))


def _side(raw: msgspec.Raw) -> Side:
    text = _text(raw)
    try:
        return Side(text)
    except ValueError:
        raise ValueError(f"expected 'buy' or 'sell', got {_shown(text)}") from None


def _positive(raw: msgspec.Raw) -> Decimal:
    number = _number(raw)
    if number <= 0:
        raise ValueError(f"expected a number above 0, got {number}")
    return number


def _not_negative(raw: msgspec.Raw) -> Decimal:
    number = _number(raw)
    if number < 0:
        raise ValueError(f"expected 0 or more, got {number}")
    return number


def _number(raw: msgspec.Raw) -> Decimal:
    """Return the decimal in a JSON number or string, digit for digit: it never passes through a float."""
    written = bytes(raw)
    text = _text(raw) if written[:1] == b'"' else written.decode("ascii", "replace")
    if len(text) > _MAX_NUMBER_LENGTH or _NUMBER.fullmatch(text) is None:
        raise ValueError(f'expected a decimal number such as 100 or "150.25", got {_shown(text)}')
    number = Decimal(text)
    if abs(number) >= LIMIT:
        raise ValueError(f"expected less than {LIMIT:f}, got {_shown(text)}")
    places = -int(number.normalize().as_tuple().exponent)
    if places > MAX_PLACES:
        raise ValueError(f"expected at most {MAX_PLACES} decimal places, got {places}")
    return number


def _time(raw: msgspec.Raw, now: datetime) -> datetime:
    text = _text(raw)
    try:
        time = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise ValueError(f"expected an ISO-8601 time such as 2025-10-19T14:30:15Z, got {_shown(text)}") from None
    if time.tzinfo is None:
        raise ValueError("expected a time with its zone, such as 2025-10-19T14:30:15Z or …-04:00")
    if time > now + MAX_AHEAD:
        raise ValueError("more than 5 minutes in the future: check the clock and the time zone")
    if time.year < EARLIEST_YEAR:
        raise ValueError(f"expected a time not before {EARLIEST_YEAR}")
    return time.astimezone(UTC)


def _shown(value: str | bytes) -> str:
    """Return the start of a caller's text, fit for a message."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return ascii(text[:_MAX_SHOWN]) + ("…" if len(text) > _MAX_SHOWN else "")
