"""How to make texts of the formats that the gateway's schema names, for rules that JSON Schema has no words for."""

import math
from datetime import UTC, date, datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st

from apps.execution_gateway.page_cursor import encode_cursor

PLACES = 9

_times = st.integers(31_536_000, 1_760_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
_printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=100)

schemathesis.openapi.format("printable", _printable)
schemathesis.openapi.format("cursor", st.builds(encode_cursor, _times, st.integers(0, 2**63 - 1)))
schemathesis.openapi.format("date-time", _times.map(datetime.isoformat))
schemathesis.openapi.format("date", st.dates(date(1971, 1, 1), date(2025, 10, 19)).map(date.isoformat))


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Write numbers with the decimals that quantities and prices may have: a schema could only say so in floats."""
    if isinstance(body, dict):
        return {name: map_body(_context, value) for name, value in body.items()}
    if isinstance(body, list):
        return [map_body(_context, value) for value in body]
    return _shortened(body) if isinstance(body, float) and math.isfinite(body) else body


def _shortened(number: float) -> float:
    """Return `number` to nine decimals; what is not zero stays so."""
    return round(number, PLACES) or math.copysign(10.0**-PLACES, number) if number else number
