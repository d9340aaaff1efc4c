"""What the faults make of an event of the trading stream: lost, doubled, late, or with odd contents. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, assert_never

from apps.alpaca_simulator.trade_updates import Update
from libs.market_data.trading_sessions import NEW_YORK

OVERTAKEN_S: Final = 0.3
"""How late an event comes that others are to overtake."""


class Oddity(StrEnum):
    """What an event may have that a client did not expect."""

    UNKNOWN_EVENT = "unknown_event"
    UNKNOWN_STATUS = "unknown_status"
    UNKNOWN_ASSET_CLASS = "unknown_asset_class"
    OFFSET_TIMES = "offset_times"
    EXTRA_KEYS = "extra_keys"
    NULL_TIMES = "null_times"
    NUMBERS = "numbers"


class UpdateFaults:
    """Counts executions, to lose, double or delay every n-th of them."""

    def __init__(self) -> None:
        self._executions = 0

    def deliveries(
        self, update: Update, *, lose_every: int, duplicate_every: int, reorder_every: int, delay_s: float
    ) -> list[float]:
        """Return how often an event is to be sent, each time after how many seconds; none: it is lost."""
        if update.execution_id is None:
            return [delay_s]
        self._executions += 1
        if self._is_due(lose_every):
            return []
        late_s = OVERTAKEN_S if self._is_due(reorder_every) else 0.0
        return [delay_s + late_s] * (2 if self._is_due(duplicate_every) else 1)

    def _is_due(self, every: int) -> bool:
        return bool(every) and self._executions % every == 0


def odd_message(update: Update, oddities: frozenset[Oddity]) -> Update:
    """Return the event with these oddities in it."""
    changes: dict[str, Any] = {}
    for oddity in sorted(oddities):
        changes |= _changes(update, {**update.data, **changes}, oddity)
    return replace(update, data={**update.data, **changes}) if changes else update


def _changes(update: Update, data: Mapping[str, Any], oddity: Oddity) -> Mapping[str, Any]:
    """Return the fields of an event that an oddity changes."""
    order = data["order"]
    changes: dict[str, Any]
    match oddity:
        case Oddity.UNKNOWN_EVENT:
            changes = {"event": "quantum_fill"} if update.execution_id is None else {}
        case Oddity.UNKNOWN_STATUS:
            changes = {"order": {**order, "status": "entangled"}}
        case Oddity.UNKNOWN_ASSET_CLASS:
            changes = {"order": {**order, "asset_class": "lunar_equity"}}
        case Oddity.OFFSET_TIMES:
            changes = {name: _in_new_york(data[name]) for name in ("timestamp", "at")}
        case Oddity.EXTRA_KEYS:
            changes = {"new_thing": {"of": ["any", "kind"]}, "order": {**order, "hue": None}}
        case Oddity.NULL_TIMES:
            changes = {"order": {**order, "submitted_at": None, "updated_at": None}}
        case Oddity.NUMBERS:
            changes = {name: float(data[name]) for name in ("price", "qty", "position_qty") if name in data}
        case _:
            assert_never(oddity)
    return changes


def _in_new_york(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(NEW_YORK).isoformat()
