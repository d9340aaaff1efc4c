"""Reads single values of the trading API, where every number is a string and any field may be odd, null or absent."""

from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from libs.broker.instruments import canonical_symbol
from libs.market_data.wire_times import YEARS, usable_time
from libs.portfolio.fills import Side

Fields = dict[str, object]
"""One JSON object, its fractional numbers read as Decimal: see `decode`."""

_LONGEST: Final = 64
_LARGEST_EXPONENT: Final = 30


def _fraction(digits: str) -> Decimal | None:
    """Return the number, None for one that Decimal cannot hold: it costs its own field, not all that is around it."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        return None


_decoder: Final = msgspec.json.Decoder(float_hook=_fraction)


def decode(frame: bytes | str) -> object:
    """Return what the JSON says, fractional numbers as Decimal. Raises ValueError (msgspec.MsgspecError is one)."""
    return _decoder.decode(frame)


def decode_fields(frame: bytes | str | msgspec.Raw) -> Fields:
    """Return a JSON object. Raises ValueError (msgspec.MsgspecError is one) for anything else."""
    value = decode(bytes(frame) if isinstance(frame, msgspec.Raw) else frame)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - the text is wrong, not our type
    return value


def fields_of(value: object) -> Fields | None:
    """Return a nested object; None for anything else."""
    return value if isinstance(value, dict) else None


def text(value: object) -> str | None:
    """Return a text that says something, stripped; None for anything else."""
    return (value.strip() or None) if isinstance(value, str) else None


def asset_class_of(fields: Fields) -> str | None:
    """Return the broker's word for the kind of instrument, which may stand in a nested order; None when not told."""
    return text(fields.get("asset_class")) or text((fields_of(fields.get("order")) or {}).get("asset_class"))


def symbol_of(fields: Fields) -> str | None:
    """Return the symbol in the one form that it has here; None when not told."""
    found = text(fields.get("symbol"))
    return None if found is None else canonical_symbol(found, asset_class_of(fields))


def number(value: object) -> Decimal | None:
    """Return a finite number of sane size from a string or a number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        found = Decimal(value) if len(str(value)) <= _LONGEST else None
    except (InvalidOperation, ValueError):
        return None
    is_sane = found is not None and found.is_finite() and abs(found.adjusted()) <= _LARGEST_EXPONENT
    return found if is_sane else None


def positive(value: object) -> Decimal | None:
    """Return a number above zero; None for anything else."""
    found = number(value)
    return found if found is not None and found > 0 else None


def moment(value: object) -> datetime | None:
    """Return a time of a sane year in UTC, rounded to the microsecond; None for anything else."""
    try:
        return usable_time(msgspec.convert(value, datetime) if isinstance(value, str) else None)
    except (ValueError, OverflowError):
        return None


def day(value: object) -> date | None:
    """Return a date written `YYYY-MM-DD`, perhaps with a time behind it, of a sane year; None for anything else."""
    try:
        found = date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.year in YEARS else None


def side(value: object) -> Side | None:
    """Return which way shares went; `sell_short` and the like included. None for anything else."""
    word = text(value) or ""
    return next((found for found in Side if word.lower().startswith(found.value)), None)
