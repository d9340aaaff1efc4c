"""Decides what a caller may post as an adjustment: the fields that its kind has, and no others. Pure.

Every fault is found and named with its field and its remedy; nothing is coerced, nothing is dropped.
"""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from apps.execution_gateway.input_fields import (
    EARLIEST_YEAR,
    FieldFault,
    InvalidInputError,
    read_fields,
    read_id,
    read_number,
    read_positive,
    read_reason,
    read_symbol,
    read_text,
    read_time,
    shown,
)
from libs.portfolio.adjustments import Adjustment, AdjustmentKind, InvalidAdjustmentError, misplaced
from libs.portfolio.days import NEW_YORK, day_start
from libs.portfolio.fills import EXACT

_REQUIRED_KEYS: Final = ("adjustment_id", "kind", "symbol", "reason")
_TIME_KEYS: Final = ("effective_at", "date")
_OWN_KEYS: Final = ("ratio_new", "ratio_old", "new_symbol", "qty", "amount")
MAX_SPLIT: Final = Decimal(10) ** 6
"""More than any company has done; without a limit a few splits would make quantities that cannot be counted."""
KEYS: Final = (*_REQUIRED_KEYS, *_TIME_KEYS, *_OWN_KEYS)


CLASSES: Final = {
    "income": AdjustmentKind.INCOME,
    "fee": AdjustmentKind.FEE,
    "realized": AdjustmentKind.CASH_IN_LIEU,
    "outside": AdjustmentKind.CASH,
}
"""What unclassified cash may be classified as; outside: it is none of the P&L."""


def parse_adjustment(body: bytes, now: datetime) -> Adjustment:
    """Return the adjustment that `body` describes. `date` stands for the beginning of that day in New York.

    Sample: `{"adjustment_id":"nvda-2024","kind":"split","symbol":"NVDA","date":"2024-06-10","reason":"10 for 1",
    "ratio_new":10,"ratio_old":1}`. Raises InvalidInputError.
    """
    fields = read_fields(body, KEYS, _REQUIRED_KEYS, "the body")
    faults: list[FieldFault] = []
    if sum(name in fields for name in _TIME_KEYS) != 1:
        faults.append(FieldFault("effective_at", "give either effective_at, a time with its zone, or date"))
    values: dict[str, Any] = {}
    for name, raw in fields.items():
        try:
            values["effective_at" if name == "date" else name] = _READERS[name](raw, now)
        except ValueError as error:
            faults.append(FieldFault(name, str(error)))
    if "kind" in values:
        faults += [_fault(error) for error in misplaced(values["kind"], fields.keys())]
    if faults:
        raise InvalidInputError(*faults)
    return _adjustment(values)


def _adjustment(values: dict[str, Any]) -> Adjustment:
    try:
        adjustment = Adjustment(**values)
    except InvalidAdjustmentError as error:
        raise InvalidInputError(_fault(error)) from error
    new, old = adjustment.ratio_new, adjustment.ratio_old
    if new is not None and old is not None and not 1 / MAX_SPLIT <= EXACT.divide(new, old) <= MAX_SPLIT:
        raise InvalidInputError(
            FieldFault("ratio_new", f"expected at most {MAX_SPLIT:,} for 1, or 1 for {MAX_SPLIT:,}")
        )
    is_of_a_date = adjustment.kind in {AdjustmentKind.SPLIT, AdjustmentKind.SYMBOL_CHANGE}
    if is_of_a_date and adjustment.effective_at != day_start(adjustment.effective_at.astimezone(NEW_YORK).date()):
        # A day in the middle of which shares change has no one close.
        raise InvalidInputError(
            FieldFault("effective_at", "must be the beginning of a New York date: give date, the first day it holds")
        )
    return adjustment


def parse_classification(body: bytes) -> AdjustmentKind:
    """Return what cash is to be booked as. Sample: `{"as":"income"}`. Raises InvalidInputError."""
    fields = read_fields(body, ("as",), ("as",), "the body")
    try:
        text = read_text(fields["as"])
    except ValueError as error:
        raise InvalidInputError(FieldFault("as", str(error))) from error
    if text not in CLASSES:
        raise InvalidInputError(FieldFault("as", f"expected one of {', '.join(CLASSES)}, got {shown(text)}"))
    return CLASSES[text]


def parse_amount(body: bytes) -> Decimal:
    """Return the USD in `{"amount":100000}`. Raises InvalidInputError."""
    fields = read_fields(body, ("amount",), ("amount",), "the body")
    try:
        return read_number(fields["amount"])
    except ValueError as error:
        raise InvalidInputError(FieldFault("amount", str(error))) from error


def _fault(error: InvalidAdjustmentError) -> FieldFault:
    return FieldFault(error.field, f"must be {error.requirement}")


def _kind(raw: msgspec.Raw) -> AdjustmentKind:
    text = read_text(raw)
    try:
        return AdjustmentKind(text)
    except ValueError:
        raise ValueError(f"expected one of {', '.join(AdjustmentKind)}, got {shown(text)}") from None


def _date(raw: msgspec.Raw, now: datetime) -> datetime:
    text = read_text(raw)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a date such as 2024-06-10, got {shown(text)}") from None
    begin = day_start(day)
    if begin > now:
        raise ValueError("in the future: record it when the day has come")
    if day.year < EARLIEST_YEAR:
        raise ValueError(f"expected a date not before {EARLIEST_YEAR}")
    return begin


def _positive_ratio(raw: msgspec.Raw, _now: datetime) -> Decimal:
    return read_positive(raw)


_READERS: Final[dict[str, Callable[[msgspec.Raw, datetime], object]]] = {
    "adjustment_id": lambda raw, _: read_id(raw),
    "kind": lambda raw, _: _kind(raw),
    "symbol": lambda raw, _: read_symbol(raw),
    "reason": lambda raw, _: read_reason(raw),
    "effective_at": read_time,
    "date": _date,
    "ratio_new": _positive_ratio,
    "ratio_old": _positive_ratio,
    "new_symbol": lambda raw, _: read_symbol(raw),
    "qty": lambda raw, _: read_number(raw),
    "amount": lambda raw, _: read_number(raw),
}
