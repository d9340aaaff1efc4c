"""Positions and adjustments as plain lines, one thing each, every digit shown. Computes nothing.

Takes rows as `local_services.read_body` reads them: fractions are Decimal, unknown is None.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from libs.portfolio.adjustments import AdjustmentKind
from scripts.adjustment_arguments import moment
from scripts.people_time import UNKNOWN

Row = Mapping[str, Any]

_CENTS: Final = 2
_MONEY: Final = {
    "cost": "cost_basis",
    "realized": "realized_pnl",
    "fees": "fees",
    "income": "income",
}


def change_lines(symbols: Iterable[str], before: Mapping[str, Row], after: Mapping[str, Row]) -> list[str]:
    """Return what became of each of `symbols`, two lines each; positions by symbol, without those not held."""
    return [
        line
        for symbol in symbols
        for line in (
            f"{symbol} before: {position_line(before.get(symbol))}",
            f"{symbol} after:  {position_line(after.get(symbol))}",
        )
    ]


def position_line(row: Row | None) -> str:
    """Return one position: `qty=100 avg=120.00 cost=12,000.00 realized=0.00 fees=0.00 income=0.00`; None: not held."""
    if row is None:
        return "not held"
    money = [f"{name}={_number(row.get(field), _CENTS)}" for name, field in _MONEY.items()]
    return " ".join((f"qty={_number(row.get('qty'))}", f"avg={_number(row.get('avg_entry_price'), _CENTS)}", *money))


def adjustment_line(row: Row) -> str:
    """Return one adjustment: `2024-06-10 NVDA split 10 for 1 (ten for one) id=split:NVDA:2024-06-10`."""
    line = f"{_moment(row.get('effective_at'))} {row.get('symbol')} {_what(row)} ({row.get('reason')})"
    line = f"{line} id={row.get('adjustment_id')}"
    if row.get("voided_at") is None:
        return line
    return f"{line} VOID since {_moment(row.get('voided_at'))}: {row.get('void_reason')}"


def fault_lines(body: Row) -> list[str]:
    """Return the faults that a refusal lists, one for each field; none when it lists none."""
    errors = body.get("errors")
    listed = errors if isinstance(errors, list) else []
    return [f"{error.get('field')}: {error.get('problem')}" for error in listed if isinstance(error, Mapping)]


def _what(row: Row) -> str:
    kind, amount = row.get("kind"), _number(row.get("amount"), _CENTS)
    match kind:
        case AdjustmentKind.SPLIT:
            told = f"split {_number(row.get('ratio_new'))} for {_number(row.get('ratio_old'))}"
            return told if row.get("amount") is None else f"{told}, the rest paid at {amount}"
        case AdjustmentKind.SYMBOL_CHANGE:
            return f"renamed to {row.get('new_symbol')}"
        case AdjustmentKind.TRANSFER | AdjustmentKind.MOVE:
            return f"{kind} of {_number(row.get('qty'))} at a cost of {amount}"
        case AdjustmentKind.SPIN_OFF:
            part = f"{_number(row.get('ratio_new'))}/{_number(row.get('ratio_old'))}"
            return f"spin-off of {_number(row.get('qty'))} {row.get('new_symbol')} with {part} of the cost"
        case AdjustmentKind.CASH_IN_LIEU:
            return f"cash in lieu {amount}"
        case _:
            return f"{kind} {amount}"


def _moment(text: object) -> str:
    try:
        return moment(datetime.fromisoformat(str(text)))
    except ValueError:
        return UNKNOWN


def _number(value: object, least_places: int = 0) -> str:
    """Return a number with all its digits, grouped, and at least so many decimals."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return UNKNOWN
    places = max(least_places, -int(Decimal(value).normalize().as_tuple().exponent))
    return f"{Decimal(value):,.{places}f}"
