"""Decides which part of the P&L history a caller may ask for: zoned times, a step of whole buckets, bounded. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from apps.execution_gateway.input_fields import EARLIEST_YEAR, FieldFault, InvalidInputError, given_parameters
from apps.execution_gateway.pnl_history import Sampling, bucket_start_ms, epoch_ms
from libs.market_data.prices import Mode

DEFAULT_SPAN: Final = timedelta(hours=24)
DEFAULT_POINTS: Final = 2_000
"""Without a step, one is chosen that gives at most this many points."""
MAX_POINTS: Final = 20_000

_PARAMETERS: Final = ("from", "to", "step", "mode")
_STEP: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")
_LATEST_YEAR: Final = 9998
"""A day later must still be a time."""


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which part of the series is asked for. `mode` None: that of the newest point."""

    since: datetime
    until: datetime
    step_ms: int
    mode: Mode | None


def parse_history_query(parameters: Iterable[tuple[str, str]], now: datetime, sampling: Sampling) -> HistoryQuery:
    """Return what the query parameters ask for; an empty parameter counts as left out.

    `from` and `to` are ISO-8601 times with a zone (default: the last 24 hours), `step` is in seconds.
    Raises InvalidInputError with every fault.
    """
    faults: list[FieldFault] = []
    given = given_parameters(parameters, _PARAMETERS, faults)
    to = _time("to", given.get("to"), faults) or now
    since = _time("from", given.get("from"), faults) or to - DEFAULT_SPAN
    step_ms = _step_ms(given.get("step"), sampling, faults)
    mode = _mode(given.get("mode"), faults)
    if not faults and since >= to:
        faults.append(FieldFault("from", f"expected a time before `to`, which is {to.isoformat()}"))
    if faults:
        raise InvalidInputError(*faults)
    step_ms = step_ms or default_step_ms(since, to, sampling)
    points = point_count(since, to, step_ms)
    if points > MAX_POINTS:
        detail = f"expected at most {MAX_POINTS:,} points, this asks for {points:,}: ask for a longer step or less time"
        raise InvalidInputError(FieldFault("step", detail))
    return HistoryQuery(since, to, step_ms, mode)


def default_step_ms(since: datetime, until: datetime, sampling: Sampling) -> int:
    """Return the shortest step, a multiple of the samples' own, that gives no more than the default of points."""
    # Two fewer, because the range begins and ends inside a bucket.
    samples = (epoch_ms(until) - epoch_ms(since)) // sampling.every_ms + 1
    return -(-samples // (DEFAULT_POINTS - 2)) * sampling.every_ms


def point_count(since: datetime, until: datetime, step_ms: int) -> int:
    """Return how many buckets `since` to `until` touches."""
    return (bucket_start_ms(until, step_ms) - bucket_start_ms(since, step_ms)) // step_ms + 1


def _time(name: str, text: str | None, faults: list[FieldFault]) -> datetime | None:
    if not text:
        return None
    try:
        time = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        hint = " (write + as %2B in an address)" if " " in text else ""
        faults.append(FieldFault(name, f"expected an ISO-8601 time such as 2025-10-19T14:30:15Z{hint}"))
        return None
    if time.tzinfo is None:
        faults.append(FieldFault(name, "expected a time with its zone, such as 2025-10-19T14:30:15Z or …-04:00"))
        return None
    if not EARLIEST_YEAR < time.year <= _LATEST_YEAR:
        faults.append(FieldFault(name, f"expected a year from {EARLIEST_YEAR + 1} to {_LATEST_YEAR}"))
        return None
    return time.astimezone(UTC)


def _step_ms(text: str | None, sampling: Sampling, faults: list[FieldFault]) -> int | None:
    if not text:
        return None
    step_ms = int(Decimal(text) * 1000) if _STEP.fullmatch(text) else 0
    if step_ms < sampling.every_ms:
        shortest = f"{sampling.every_ms / 1000:g}"
        faults.append(FieldFault("step", f"expected a number of seconds, at least {shortest}: samples are no closer"))
        return None
    return step_ms


def _mode(text: str | None, faults: list[FieldFault]) -> Mode | None:
    if not text:
        return None
    try:
        return Mode(text)
    except ValueError:
        faults.append(FieldFault("mode", f"expected one of {', '.join(Mode)}"))
        return None
