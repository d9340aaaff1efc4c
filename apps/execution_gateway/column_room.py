"""Says which texts the ledger's columns have room for. What a broker sends may be of any length.

PostgreSQL refuses the others, and would refuse them for ever: to try again does not help.
"""

from typing import Any

from sqlalchemy import Column, String

from apps.execution_gateway.tables import ADJUSTMENTS, CASH_JOURNAL, FILLS
from libs.broker.cash_journal import CashEntry
from libs.portfolio.adjustments import Adjustment
from libs.portfolio.fills import Fill


def has_room_for_fill_id(fill_id: str) -> bool:
    """Say whether a fill may have this id."""
    return _has_room(FILLS.c.fill_id, fill_id)


def has_room_for_fill(fill: Fill) -> bool:
    """Say whether there is room for a fill's names."""
    return has_room_for_fill_id(fill.fill_id) and _has_room(FILLS.c.symbol, fill.symbol)


def has_room_for_adjustment_id(adjustment_id: str) -> bool:
    """Say whether an adjustment may have this id."""
    return _has_room(ADJUSTMENTS.c.adjustment_id, adjustment_id)


def has_room_for_adjustment(adjustment: Adjustment) -> bool:
    """Say whether there is room for an adjustment's names and its reason."""
    return (
        has_room_for_adjustment_id(adjustment.adjustment_id)
        and _has_room(ADJUSTMENTS.c.symbol, adjustment.symbol)
        and _has_room(ADJUSTMENTS.c.new_symbol, adjustment.new_symbol or "")
        and _has_room(ADJUSTMENTS.c.reason, adjustment.reason)
    )


def has_room_for_cash_entry(entry: CashEntry) -> bool:
    """Say whether there is room for an entry's names."""
    columns = CASH_JOURNAL.c
    return (
        _has_room(columns.activity_id, entry.activity_id)
        and _has_room(columns.kind, entry.kind)
        and _has_room(columns.symbol, entry.symbol or "")
    )


def _has_room(column: Column[Any], text: str) -> bool:
    """PostgreSQL counts letters, as Python does, and has no letter of the code zero."""
    longest = column.type.length if isinstance(column.type, String) else None
    return "\0" not in text and (longest is None or len(text) <= longest)
