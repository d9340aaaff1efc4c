"""Decides whether a price of the day that a split is booked under is one before the split or after it. Pure.

The broker's date has no time. What tells is the jump of prices: against the session before, which was before the split,
and against what came later.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from math import log
from typing import Final

from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.book import Step
from libs.portfolio.days import day_start
from libs.portfolio.fills import EXACT, Fill

DATED_SPLIT: Final = "activity:split:"
"""How the ids of splits begin that an account's activities reported, with a date and no time."""
_CLEAR: Final = 0.4
"""A price is on one side when it is off by less than this part of the way to the other, in logarithms."""
_LEAST_JUMP: Final = log(1.2)
"""A smaller split (21 for 20, a stock dividend) moves the price no further than any day may: that tells nothing."""


class SplitSide(StrEnum):
    """In which shares a price is: those before the split, those after it, or it cannot be told."""

    BEFORE = "before"
    AFTER = "after"
    UNCLEAR = "unclear"


def undecided_split(steps: Iterable[Step], session: date) -> Adjustment | None:
    """Return the split booked under `session` of which no fill of that day tells the side; None: there is none."""
    begins, ends = day_start(session), day_start(session + timedelta(days=1))
    found = None
    for step in steps:
        if begins <= step.entry.at < ends:
            if isinstance(step.entry, Fill):
                return None
            if step.entry.kind is AdjustmentKind.SPLIT and step.entry.adjustment_id.startswith(DATED_SPLIT):
                found = step.entry
    return found


def new_per_old(split: Adjustment) -> Decimal:
    """Return how many shares one became."""
    return EXACT.divide(split.ratio_new or Decimal(1), split.ratio_old or Decimal(1))


def side_of(price: Decimal, after: Decimal, ratio: Decimal) -> SplitSide:
    """Compare a price with `after`, another of shares after the split; `ratio` is how many shares one became."""
    whole = log(float(ratio))
    if abs(whole) < _LEAST_JUMP or price <= 0 or after <= 0:
        return SplitSide.UNCLEAR
    way = log(float(price / after)) / whole
    if abs(way) <= _CLEAR:
        return SplitSide.AFTER
    return SplitSide.BEFORE if abs(way - 1) <= _CLEAR else SplitSide.UNCLEAR
