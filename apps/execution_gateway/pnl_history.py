"""Decides what of the P&L is kept as history, when a sample says something new, and where the series has gaps. Pure.

A sample stands until the next: `at` is when it was first seen, `until` when it was last seen unchanged. Between `until`
and the next `at` nothing is known; longer than a few samples, that is a gap: nobody looked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, TypeAlias

from apps.execution_gateway.pnl_report import RealtimePnl
from libs.market_data.freshness import PriceSource
from libs.market_data.prices import Mode

EXTEND_EVERY: Final = timedelta(seconds=30)
"""How far `until` may lag behind while nothing changes: an unchanged book costs two writes a minute."""
_SAMPLES_MISSED: Final = 3
"""A series goes on over a late or failed sample; what lasts this many is a gap."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Figures:
    """The totals of one look, USD. Two looks with equal figures are one point of the series.

    `unrealized` and `market_value` cover what is priced, and are None while nothing held is; `day_pnl` is None unless
    every row has one. `unpriced` and `stale` count the positions without a price, and those with an old one.
    """

    unrealized: Decimal | None
    realized: Decimal
    fees: Decimal
    day_pnl: Decimal | None
    market_value: Decimal | None
    complete: bool
    unpriced: int
    stale: int


@dataclass(frozen=True, slots=True)
class HistorySample:
    """What was seen at one moment, and whose money it was."""

    at: datetime
    mode: Mode
    figures: Figures


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A recorded sample and how long it stood. `gap` is the time before `at` when nobody looked, None for none."""

    slot_ms: int
    at: datetime
    until: datetime
    figures: Figures
    gap: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """That the point of a slot stood unchanged `at` some moment, which may be after its recorded `until`."""

    mode: Mode
    slot_ms: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Gap:
    """A span of time; in a series one in which nobody looked: the service was down, or its database was."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Extent:
    """From when to when a series is known: `began` is its first sample, `last_seen` when the newest still stood."""

    began: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Append:
    """Record the sample as a new point. `previous_until` is when the one before was last seen, if that has moved."""

    gap: timedelta | None
    previous_until: datetime | None


@dataclass(frozen=True, slots=True)
class Extend:
    """The point before still stands: move its `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing is to be written."""


Decision: TypeAlias = Append | Extend | Keep


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often to look. Samples of all gateways fall into slots of this length: each slot is recorded once."""

    every_ms: int

    @property
    def gap_after(self) -> timedelta:
        """How long nobody must have looked for it to be a gap."""
        return _SAMPLES_MISSED * self.every_ms * _MS

    @property
    def ends_after(self) -> timedelta:
        """How long ago the newest point must have been seen for the series to have ended there."""
        return EXTEND_EVERY + self.gap_after

    def has_ended(self, last_seen: datetime, seen_from: datetime) -> bool:
        """Say whether a series whose newest point was `last_seen` then has ended, as seen from another moment."""
        return seen_from - last_seen > self.ends_after

    def slot_ms(self, at: datetime) -> int:
        """Return the beginning of the slot that `at` falls into, in milliseconds since 1970."""
        return bucket_start_ms(at, self.every_ms)

    def until_next_s(self, now: datetime) -> float:
        """Return how many seconds are left of this slot; never 0."""
        return self.every_ms / 1000 - (now - _EPOCH) % (self.every_ms * _MS) / timedelta(seconds=1)


def epoch_ms(at: datetime) -> int:
    """Return whole milliseconds since 1970, rounded down."""
    return (at - _EPOCH) // _MS


def bucket_start_ms(at: datetime, length_ms: int) -> int:
    """Return the beginning of the bucket that `at` falls into; buckets are aligned to multiples of their length."""
    return epoch_ms(at) // length_ms * length_ms


def sample_of(pnl: RealtimePnl) -> HistorySample:
    """Return what the history keeps of a valued book."""
    rows, totals = pnl.report.rows, pnl.report.totals
    # A sum over nothing would draw a line at 0 while the first prices are on their way.
    is_unknown = bool(rows) and len(totals.unpriced) == len(rows)
    figures = Figures(
        unrealized=None if is_unknown else totals.total_unrealized,
        realized=totals.total_realized,
        fees=totals.total_fees,
        day_pnl=None if any(row.day_pnl is None for row in rows) else totals.total_day_pnl,
        market_value=None if is_unknown else totals.total_market_value,
        complete=totals.complete,
        unpriced=len(totals.unpriced),
        stale=sum(row.price_source is PriceSource.STALE for row in rows),
    )
    return HistorySample(pnl.calculated_at, pnl.mode, figures)


def decide(standing: HistoryPoint | None, sighting: Sighting | None, sample: HistorySample, rule: Sampling) -> Decision:
    """Return what is to be written for `sample`.

    `standing` is the newest point up to now, None for none; `sighting` is what this program saw last, None when it saw
    nothing: then only the recorded `until` is known, and after a program that was killed a gap begins too early by as
    much as it lagged behind.
    """
    if standing is None:
        return Append(gap=None, previous_until=None)
    if standing.slot_ms >= rule.slot_ms(sample.at):
        return Keep()
    seen = standing.until
    if sighting is not None and (sighting.mode, sighting.slot_ms) == (sample.mode, standing.slot_ms):
        seen = max(seen, sighting.at)
    moved = seen if seen > standing.until else None
    unseen = sample.at - seen
    if unseen > rule.gap_after:
        return Append(gap=unseen, previous_until=moved)
    if sample.figures != standing.figures:
        return Append(gap=None, previous_until=moved)
    return Extend(sample.at) if sample.at - standing.until >= EXTEND_EVERY else Keep()


def sighting_of(standing: HistoryPoint | None, sample: HistorySample) -> Sighting | None:
    """Return that `standing` stands, None when it does not: it has other figures than `sample`."""
    if standing is None or standing.figures != sample.figures:
        return None
    return Sighting(sample.mode, standing.slot_ms, sample.at)


def gaps_in(asked: Gap, told: Iterable[Gap], extent: Extent | None, rule: Sampling) -> list[Gap]:
    """Return the spans of `asked` in which nobody looked, in order and without overlap.

    `told` are those before single points; `extent` is the whole series, None while it has no point. Before its
    beginning nobody looked, nor after its end; it has ended when its newest point has not been seen for a while.
    """
    if extent is None:
        found = [asked]
    else:
        found = [*told, Gap(asked.since, extent.began)]
        if rule.has_ended(extent.last_seen, asked.until):
            found.append(Gap(extent.last_seen, asked.until))
    cut = (Gap(max(gap.since, asked.since), min(gap.until, asked.until)) for gap in found)
    return _joined(gap for gap in cut if gap.since < gap.until)


def _joined(gaps: Iterable[Gap]) -> list[Gap]:
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.since):
        # Those that only touch have a point between them.
        if joined and gap.since < joined[-1].until:
            joined[-1] = Gap(joined[-1].since, max(gap.until, joined[-1].until))
        else:
            joined.append(gap)
    return joined
