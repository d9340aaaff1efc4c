"""Reads a stock split from its activities: a ratio from shares, and the fraction that was paid in cash. Pure.

Effective at the beginning of the New York date that the broker books it under, or of the next: the broker names a date
without a time, often that of the day before. The shares that it names tell on which side of the day's fills a split is.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from typing import Final

from libs.broker.activity_results import Applied, HeldBefore, Known, Unhandled, adjustment_of
from libs.broker.executions import Activity
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.days import day_start
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.positions import COST_STEP

_FROM_QTY: Final = re.compile(r"\bfrom qty:\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)", re.IGNORECASE)
_DISAGREE: Final = "the shares before the split are not those that were held on that day"
_SHARE_STEP: Final = Decimal("1e-9")
_DENOMINATORS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 20, 25, 50, 100, 1000, 10_000)
_ROUND: Final = (1000, 500, 100, 50, 10, 5, 1)

IsCut = Callable[[str, date], bool]
"""Says whether cash was paid in lieu of a fraction of a symbol's shares on a date: what is left may be whole shares."""


def split_ids_of(activity: Activity) -> tuple[str, ...]:
    """Return the ledger's ids of the split that an entry belongs to, of its fraction, and of what that realized.

    A symbol has one split on a date. It may have been read of one entry alone before, under a name of its own.
    """
    split = f"activity:split:{activity.symbol}:{activity.date}"
    return split, *_fraction_ids_of(split), *_lone_ids_of(split)


def _lone_ids_of(split_id: str) -> tuple[str, str, str]:
    return f"{split_id}:added", *_fraction_ids_of(f"{split_id}:added")


def _fraction_ids_of(split_id: str) -> tuple[str, str]:
    return f"{split_id}:fraction", f"{split_id}:cash"


def read_split(entries: Sequence[Activity], held: HeldBefore, is_cut: IsCut, known: Known) -> Applied:
    """Read one symbol's split of one date: two entries (old shares out, new in) or one (the shares added).

    One alone may be half of two: it is read as the whole when a later round has not brought another.
    """
    first = entries[0]
    symbol, quantities = first.symbol or "", [one.qty for one in entries if one.qty]
    before = held(symbol, first.date)
    undone: tuple[str, ...] = ()
    split_id = split_ids_of(first)[0]
    match quantities:
        case [one, other]:
            undone = tuple(name for name in _lone_ids_of(split_id) if name in known.recorded)
            # What leaves has the sign that the holding has not.
            removed, new = sorted((one, other), reverse=before.qty < ZERO)
            old = removed.copy_negate()
        case [added] if _is_half(first, added, before.qty) or not known.have_waited(entries):
            return Applied(waiting=tuple(entries))
        case [added]:
            old = _old_of(added, before.qty, held(symbol, _next(first.date)).qty)
            new = EXACT.add(old, added)
            if split_id not in known.recorded:
                split_id = _lone_ids_of(split_id)[0]
        case _:
            old = new = ZERO
    cut = whole_split_ratio(old, new) if is_cut(symbol, first.date) else None
    ratio = cut or split_ratio(old, new)
    if ratio is None or ratio == 1:
        return Applied(unhandled=tuple(Unhandled(one, "no split ratio explains these shares") for one in entries))
    side = _side_of_fills(entries, old, before.qty, held(symbol, _next(first.date)).qty)
    if side is None:
        return Applied(unhandled=tuple(Unhandled(one, _DISAGREE) for one in entries))
    split = replace(_named_split(entries, ratio, split_id), effective_at=day_start(side))
    if side != first.date:
        before = held(symbol, side)
    if cut is None or split.adjustment_id in known.recorded or before.qty != old:
        return Applied(
            (split,), undone=undone
        )  # recorded without a fraction, or of other shares: the comparison shows it
    fraction = EXACT.subtract(_cut(old, cut), new)
    taken = _fraction(split, fraction, before.cost, EXACT.divide(fraction, _cut(old, cut)))
    return Applied((split, *taken), undone=undone)


def _next(day: date) -> date:
    return day + timedelta(days=1)


def _side_of_fills(entries: Sequence[Activity], old: Decimal, morning: Decimal, evening: Decimal) -> date | None:
    """Return the date at whose beginning the split counts; None when the shares named were not held either way."""
    day = entries[0].date
    named = {qty for one in entries if (qty := _from_qty(one)) is not None}
    if named and named != {old.copy_abs()}:
        return None
    if morning in {old, evening}:
        return day
    return _next(day) if old == evening else None


def _from_qty(entry: Activity) -> Decimal | None:
    """Return how many shares before the split an entry's description names; its sign is that of their leaving."""
    found = _FROM_QTY.search(entry.description or "")
    return None if found is None else Decimal(found[1].replace(",", "")).copy_abs()


def _old_of(added: Decimal, morning: Decimal, evening: Decimal) -> Decimal:
    """Return the shares that `added` were added to: before the day's fills or after, whichever makes a plain ratio."""
    plain = [old for old in (morning, evening) if _is_plain(split_ratio(old, EXACT.add(old, added)))]
    return evening if plain == [evening] else morning


def _is_plain(ratio: Fraction | None) -> bool:
    return ratio is not None and 1 in (ratio.numerator, ratio.denominator)


def split_ratio(old_qty: Decimal, new_qty: Decimal) -> Fraction | None:
    """Return the simplest ratio that makes `new_qty` of `old_qty` shares, cut to nine decimals; None: there is none."""
    if not old_qty or not new_qty or (old_qty > ZERO) != (new_qty > ZERO):
        return None
    wanted = Fraction(new_qty) / Fraction(old_qty)
    for denominator in _DENOMINATORS:
        # A reverse split is the simpler the other way round: 1 for 8, not 0.125.
        for near in (wanted.limit_denominator(denominator), _inverse(1 / wanted, denominator)):
            if near and _cut(old_qty, near) == new_qty:
                return near
    return None


def whole_split_ratio(old_qty: Decimal, new_qty: Decimal) -> Fraction | None:
    """Return the likeliest ratio that makes `new_qty` whole shares and a fraction, paid in cash, of `old_qty`.

    None: there is none, or `new_qty` is not whole. A guess where many ratios would do: the roundest, 1 for 10 before 1
    for 8.
    """
    if not old_qty or not new_qty or (old_qty > ZERO) != (new_qty > ZERO) or new_qty != new_qty.to_integral_value():
        return None
    old, new = abs(Fraction(old_qty)), abs(Fraction(new_qty))
    if new < old:
        inverse = _roundest_between(old / (new + 1), old / new)
        return None if inverse is None else 1 / inverse
    return _roundest_between(new / old, (new + 1) / old)


def _named_split(entries: Sequence[Activity], ratio: Fraction, split_id: str) -> Adjustment:
    """Return the split under a name that it has whichever of its entries are known: it is recorded once."""
    split = adjustment_of(
        _earliest(entries),
        AdjustmentKind.SPLIT,
        ratio_new=Decimal(ratio.numerator),
        ratio_old=Decimal(ratio.denominator),
    )
    return replace(split, adjustment_id=split_id)


def _fraction(split: Adjustment, fraction: Decimal, cost_before: Decimal, share: Decimal) -> list[Adjustment]:
    """Return what takes the fraction that was paid in cash out of what is held, and realizes its `share` of the cost.

    The cash itself is an activity of its own.
    """
    if not fraction:
        return []
    cost = EXACT.multiply(cost_before, share).quantize(COST_STEP, context=EXACT)
    taken_id, realized_id = _fraction_ids_of(split.adjustment_id)
    taken = Adjustment(
        taken_id, AdjustmentKind.TRANSFER, split.symbol, split.effective_at, "fraction of a split",
        qty=fraction.copy_negate(), amount=cost.copy_negate(),
    )  # fmt: skip
    if not cost:
        return [taken]
    realized = Adjustment(
        realized_id, AdjustmentKind.CASH_IN_LIEU, split.symbol, split.effective_at, "cost of the fraction of a split",
        amount=cost.copy_negate(),
    )  # fmt: skip
    return [taken, realized]


def _is_half(entry: Activity, added: Decimal, before: Decimal) -> bool:
    """Say whether a single entry is one of two: the broker says so, or it takes away all that was held."""
    is_said = (entry.description or "").upper().startswith(("ADD", "REMOVE"))
    return is_said or before == added.copy_negate()


def _earliest(entries: Sequence[Activity]) -> Activity:
    """Return the entry that gives a group its name, whichever order they came in."""
    return min(entries, key=lambda one: one.activity_id)


def _roundest_between(low: Fraction, high: Fraction) -> Fraction | None:
    """Return the fraction above `low` and below `high` with the least denominator, and of those the roundest."""
    for denominator in _DENOMINATORS:
        for step in _ROUND:
            numerator = (low * denominator // step + 1) * step
            if numerator < high * denominator:
                return Fraction(numerator, denominator)
    return None


def _inverse(fraction: Fraction, denominator: int) -> Fraction:
    near = fraction.limit_denominator(denominator)
    return 1 / near if near else Fraction(0)


def _cut(qty: Decimal, ratio: Fraction) -> Decimal:
    """Return `qty` times `ratio` without what is beyond nine decimals, as the broker pays that in cash."""
    exact = EXACT.divide(EXACT.multiply(qty, Decimal(ratio.numerator)), Decimal(ratio.denominator))
    return exact.quantize(_SHARE_STEP, rounding=ROUND_DOWN, context=EXACT)
