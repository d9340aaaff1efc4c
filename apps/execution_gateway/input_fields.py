"""Reads the fields of what a caller posts: strict types, exact decimals, bounded sizes, aware times. Pure.

Every reader takes one field as it was written and raises ValueError, whose text says what would be right.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from libs.market_data.symbols import normal_symbol

MAX_ID_LENGTH: Final = 128
MAX_REASON_LENGTH: Final = 500
MAX_AHEAD: Final = timedelta(minutes=5)
"""How far ahead of our clock a broker's clock may be."""
EARLIEST_YEAR: Final = 1970
LIMIT: Final = Decimal(10) ** 12
"""Quantities, prices and amounts stay below this, so that exact arithmetic on them stays affordable."""
MAX_PLACES: Final = 9
MAX_FAULTS: Final = 20
"""How many faults an answer lists; of the others it says how many they are."""

_MAX_NUMBER_LENGTH: Final = 64
_MAX_SHOWN: Final = 40

# Wider than what can be subscribed: pairs and options are listed and valued by other means.
_HELD_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./-]{0,31}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
_CURRENCY: Final = re.compile(r"[$€£¥]|\b[A-Z]{3}\b")
_SEPARATED: Final = re.compile(r"[0-9][,'\u2019_\s][0-9]")

# Numbers stay as they are written: there may be thousands of digits.
_PAIRS: Final = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str, strict=False)

Fields = Mapping[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with one field of a request, and what would be right. `field` is empty for the body itself."""

    field: str
    message: str


class InvalidInputError(ValueError):
    """The request cannot be accepted as it is; asking again does not help.

    `faults` names the fields at fault, at most MAX_FAULTS of them; `others` is the number of those left out.
    """

    def __init__(self, *faults: FieldFault, others: int = 0) -> None:
        self.faults = faults[:MAX_FAULTS]
        self.others = others + len(faults) - len(self.faults)
        named = [f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in self.faults]
        super().__init__("; ".join([*named, *([f"and {self.others:,} more"] if self.others else [])]))


def given_parameters(
    parameters: Iterable[tuple[str, str]], known: tuple[str, ...], faults: list[FieldFault]
) -> dict[str, str]:
    """Return the query parameters of a request by name; add to `faults` any that is not `known` or comes twice.

    One misspelt or contradicted must be refused, not ignored: the answer would be to another question.
    """
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in known:
            told = f"known are {', '.join(known)}" if known else "none is known here"
            faults.append(FieldFault(name[:_MAX_SHOWN], f"unknown parameter: {told}"))
        elif name in given:
            faults.append(FieldFault(name[:_MAX_SHOWN], "given more than once"))
        else:
            given[name] = value
    return given


def read_fields(body: bytes, known: tuple[str, ...], required: tuple[str, ...], noun: str) -> Fields:
    """Return the fields of a JSON object: none but the `known`, all that are `required`, each once.

    Raises InvalidInputError.
    """
    if not body.strip():
        raise InvalidInputError(FieldFault("", f"{noun} is empty: expected a JSON object with {', '.join(required)}"))
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise InvalidInputError(FieldFault("", f"{noun} is no JSON object: {error}")) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(FieldFault("", f"{noun} is not JSON: {error}")) from error
    missing = [name for name in required if name not in fields]
    unknown = [name for name in fields if name not in known]
    repeated = _repeated_names(body, fields)
    faults = [FieldFault(name, "missing: this field is required") for name in missing]
    faults += [unknown_field(name, known) for name in unknown[:MAX_FAULTS]]
    faults += [repeated_field(name) for name in repeated[:MAX_FAULTS]]
    if faults:
        raise InvalidInputError(*faults, others=len(missing) + len(unknown) + len(repeated) - len(faults))
    return fields


def unknown_field(name: str | bytes, known: Sequence[str]) -> FieldFault:
    """Return the fault of a field that nobody knows."""
    return FieldFault(shown(name).strip("'\""), f"unknown field: known are {', '.join(known)}")


def repeated_field(name: str) -> FieldFault:
    """Return the fault of a field that an object has more than once."""
    return FieldFault(shown(name).strip("'\""), "given more than once: which is meant?")


def _repeated_names(body: bytes, fields: Fields) -> list[str]:
    """Return the names that an object has more than once: our decoder takes the last of them without a word."""
    try:
        names = Counter(name for name, _ in _PAIRS.decode(body.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return list(fields)  # two decoders that differ about what is written: nobody can say what is meant
    return sorted(name for name, times in names.items() if times > 1)


def read_text(raw: msgspec.Raw) -> str:
    """Return a string."""
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a string, got {shown(bytes(raw))}") from error


def read_id(raw: msgspec.Raw) -> str:
    """Return an id: printable, bounded, without spaces at the ends."""
    text = read_text(raw)
    if not 1 <= len(text) <= MAX_ID_LENGTH or not text.isprintable() or text != text.strip():
        raise ValueError(
            f"expected 1 to {MAX_ID_LENGTH} printable characters without spaces at the ends, got {shown(text)}"
        )
    return text


def read_reason(raw: msgspec.Raw) -> str:
    """Return a sentence that says why."""
    text = read_text(raw).strip()
    if not 1 <= len(text) <= MAX_REASON_LENGTH or not text.isprintable():
        raise ValueError(f"expected 1 to {MAX_REASON_LENGTH} printable characters that say why, got {shown(text)}")
    return text


def read_symbol(raw: msgspec.Raw) -> str:
    """Return the symbol of a position in its normal form."""
    return held_symbol(read_text(raw))


def held_symbol(text: str) -> str:
    """Return the normal form of the symbol of a position: `btc/usd` gives `BTC/USD`, `brk/b` `BRK.B`.

    Raises ValueError.
    """
    symbol = normal_symbol(text)
    if _HELD_SYMBOL.fullmatch(symbol) is None:
        raise ValueError(
            f"expected a symbol of 1 to 32 letters, digits, '.', '/' or '-' such as AAPL or BTC/USD, got {shown(text)}"
        )
    return symbol


def read_positive(raw: msgspec.Raw) -> Decimal:
    """Return a decimal above 0."""
    number = read_number(raw)
    if number <= 0:
        raise ValueError(f"expected a number above 0, got {number}")
    return number


def read_not_negative(raw: msgspec.Raw) -> Decimal:
    """Return a decimal, 0 or above."""
    number = read_number(raw)
    if number < 0:
        raise ValueError(f"expected 0 or more, got {number}: write what was paid as a positive number")
    return number


def read_number(raw: msgspec.Raw) -> Decimal:
    """Return the decimal in a JSON number or string, digit for digit: it never passes through a float."""
    written = bytes(raw)
    text = read_text(raw) if written[:1] == b'"' else written.decode("ascii", "replace")
    if len(text) > _MAX_NUMBER_LENGTH or _NUMBER.fullmatch(text) is None:
        raise ValueError(f'expected a decimal number such as 100 or "150.25", got {shown(text)}{_hint(text)}')
    number = Decimal(text)
    if abs(number) >= LIMIT:
        raise ValueError(f"expected less than {LIMIT:f}, got {shown(text)}")
    places = -int(number.normalize().as_tuple().exponent)
    if places > MAX_PLACES:
        raise ValueError(f"expected at most {MAX_PLACES} decimal places, got {places}")
    return number


def _hint(text: str) -> str:
    """Return how to write an amount that a broker's or a spreadsheet's file writes for people; empty for others."""
    if len(text) > _MAX_NUMBER_LENGTH or not any(digit in text for digit in "0123456789"):
        return ""
    has_currency = _CURRENCY.search(text) is not None
    has_separators = _SEPARATED.search(text) is not None
    remedies = [
        *(["no $ or other currency"] if has_currency else []),
        *(["no thousands separators, and a point before the decimals"] if has_separators else []),
        *(["a minus sign instead of brackets"] if text.startswith("(") and text.endswith(")") else []),
        *(["no + sign"] if text.startswith("+") else []),
        *(["no spaces"] if text != text.strip() else []),
    ]
    return f": write {'; '.join(remedies)}" if remedies else ""


def read_time(raw: msgspec.Raw, now: datetime) -> datetime:
    """Return an instant in UTC, not after `now` by more than clocks may differ."""
    text = read_text(raw)
    try:
        time = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise ValueError(f"expected an ISO-8601 time such as 2025-10-19T14:30:15Z, got {shown(text)}") from None
    if time.tzinfo is None:
        raise ValueError("expected a time with its zone, such as 2025-10-19T14:30:15Z or …-04:00")
    if time > now + MAX_AHEAD:
        raise ValueError("more than 5 minutes in the future: check the clock and the time zone")
    if time.year < EARLIEST_YEAR:
        raise ValueError(f"expected a time not before {EARLIEST_YEAR}")
    return time.astimezone(UTC)


def shown(value: str | bytes) -> str:
    """Return the start of a caller's text, fit for a message."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return ascii(text[:_MAX_SHOWN]) + ("…" if len(text) > _MAX_SHOWN else "")
