"""What the gateway's /openapi.json says of what may be sent. The rules themselves are those of `*_input.py`.

`printable` (text without control characters), `cursor` (the `next` of a page) and times that are not in the future are
rules that JSON Schema has no words for: a format names them.
"""

from typing import Any, Final

from apps.execution_gateway.adjustment_input import CLASSES
from apps.execution_gateway.fill_input import MAX_FILLS_AT_ONCE, MAX_PAGE
from apps.execution_gateway.input_fields import LIMIT, MAX_ID_LENGTH, MAX_PLACES, MAX_REASON_LENGTH
from libs.market_data.prices import Mode
from libs.portfolio.adjustments import FIELDS, REQUIRED, AdjustmentKind, misplaced

JSON: Final = "application/json"

_Schema = dict[str, Any]

_SYMBOL_TEXT: Final = r"[A-Za-z0-9][A-Za-z0-9./-]{0,31}"
_DIGITS: Final = rf"[0-9]{{1,12}}(\.[0-9]{{1,{MAX_PLACES}}})?"
_NOT_ZERO: Final = r"(?=.*[1-9])"
_BELOW: Final = f"up to {MAX_PLACES} decimals, below 1e12; as text it keeps every digit"

ID: Final[_Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH, "format": "printable"}
REASON: Final[_Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_REASON_LENGTH, "format": "printable"}
SYMBOL: Final[_Schema] = {"type": "string", "pattern": f"^{_SYMBOL_TEXT}$", "examples": ["AAPL"]}
TIME: Final[_Schema] = {"type": "string", "format": "date-time", "description": "with its zone; not in the future"}
DATE: Final[_Schema] = {"type": "string", "format": "date", "description": "a New York date; not in the future"}


def _number(sign: str, **bounds: float) -> _Schema:
    """Return a decimal as a JSON number or as text. `sign` is what may stand before the digits, as a pattern."""
    limits = {"exclusiveMaximum": int(LIMIT), **bounds}
    text = {"type": "string", "pattern": f"^{sign}{_DIGITS}$", "maxLength": 24}
    return {"anyOf": [{"type": "number", **limits}, text], "description": _BELOW}


POSITIVE: Final = _number(_NOT_ZERO, minimum=10**-MAX_PLACES)
NOT_NEGATIVE: Final = _number("", minimum=0)
SIGNED: Final = _number("-?", exclusiveMinimum=-int(LIMIT))
NOT_ZERO: Final = {**_number(f"{_NOT_ZERO}-?", exclusiveMinimum=-int(LIMIT)), "not": {"const": 0}}

FILL: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["fill_id", "symbol", "side", "qty", "price", "filled_at"],
    "properties": {
        "fill_id": ID,
        "symbol": SYMBOL,
        "side": {"enum": ["buy", "sell"]},
        "qty": POSITIVE,
        "price": POSITIVE,
        "fee": NOT_NEGATIVE,
        "filled_at": TIME,
    },
}
FILL_LIST: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["fills"],
    "properties": {"fills": {"type": "array", "maxItems": MAX_FILLS_AT_ONCE, "items": FILL}},
}
VOID: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reason"],
    "properties": {"reason": REASON},
}

CLASSIFICATION: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["as"],
    "properties": {"as": {"enum": list(CLASSES)}},
}
OPENING_BALANCE: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["amount"],
    "properties": {"amount": SIGNED},
}

_OF_A_DATE: Final = (AdjustmentKind.SPLIT, AdjustmentKind.SYMBOL_CHANGE)
_OWN: Final = {"ratio_new": POSITIVE, "ratio_old": POSITIVE, "new_symbol": SYMBOL, "qty": SIGNED, "amount": NOT_ZERO}
_OTHER_AMOUNTS: Final = {AdjustmentKind.SPLIT: NOT_NEGATIVE, AdjustmentKind.TRANSFER: SIGNED}


def _adjustment(kind: AdjustmentKind, when: str) -> _Schema:
    """Return what an adjustment of one kind looks like, its time given as `effective_at` or as `date`."""
    refused = {fault.field for fault in misplaced(kind, FIELDS)}
    own = {name: _OWN[name] for name in FIELDS if name not in refused}
    if kind in _OTHER_AMOUNTS:
        own["amount"] = _OTHER_AMOUNTS[kind]
    always = {"adjustment_id": ID, "kind": {"const": kind.value}, "symbol": SYMBOL, "reason": REASON}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [*always, when, *sorted(REQUIRED[kind])],
        "properties": {**always, when: TIME if when == "effective_at" else DATE, **own},
    }


ADJUSTMENT: Final[_Schema] = {
    "oneOf": [_adjustment(kind, "date") for kind in AdjustmentKind]
    + [_adjustment(kind, "effective_at") for kind in AdjustmentKind if kind not in _OF_A_DATE]
}


def body(schema: _Schema) -> _Schema:
    """Return the part of an operation that says what is posted."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def _or_empty(schema: _Schema) -> _Schema:
    return {"anyOf": [schema, {"type": "string", "maxLength": 0}]}


def _parameter(name: str, schema: _Schema, text: str) -> _Schema:
    return {"name": name, "in": "query", "description": text, "allowEmptyValue": True, "schema": _or_empty(schema)}


PAGE: Final[_Schema] = {
    "parameters": [
        _parameter("symbol", SYMBOL, "only this symbol's"),
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}, "how many at most; default: 100"),
        _parameter("after", {"type": "string", "format": "cursor"}, "`next` of the page before"),
    ]
}
HISTORY: Final[_Schema] = {
    "parameters": [
        _parameter("from", {"type": "string", "format": "date-time"}, "default: 24 hours before `to`"),
        _parameter("to", {"type": "string", "format": "date-time"}, "default: now"),
        _parameter(
            "step",
            {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,3})?$"},
            "seconds between points, of each step the last sample, no shorter than the samples are apart; "
            "default: at most 2,000 points",
        ),
        _parameter("mode", {"enum": [mode.value for mode in Mode]}, "whose money; default: that of the newest point"),
    ]
}
