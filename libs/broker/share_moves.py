"""Reads renamings, transfers of shares, options that end, and shares that are paid for, from the activities. Pure.

Effective at the beginning of the New York date that the broker books it under.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Final

from libs.broker.activity_results import (
    NOTHING_KNOWN,
    Applied,
    HeldBefore,
    Known,
    Unhandled,
    adjustment_id_of,
    adjustment_of,
    cash_id_of,
)
from libs.broker.cash_activities import OUTSIDE, cash_of_action
from libs.broker.executions import Activity
from libs.broker.instruments import OPTION_MULTIPLIER, is_option
from libs.broker.reconcile import OurPosition
from libs.broker.removals import Removal, is_worthless, removal_of
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.days import day_start
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.positions import COST_STEP

_OPTION_ENDS: Final = frozenset({"OPEXP", "OPASN", "OPXRC", "OPEXC"})
"""An option is gone, and what it had cost is lost (or, written, earned); the shares behind it come as OPTRD."""


def read_renamings(entries: Sequence[Activity], held: HeldBefore) -> Applied:
    """Pair the entries of one date: as many shares as leave one symbol come in under another.

    What could be paired in several ways waits: each way would put the cost of one company to another.
    """
    adjustments: list[Adjustment] = []
    cash: list[Activity] = []
    left = list(entries)
    for are_alike in (_are_of_one_symbol, _are_of_one_event, _may_be_of_one_event):
        pairs = _clear_pairs(left, are_alike)
        for one, other in pairs:
            left = [entry for entry in left if entry not in (one, other)]
            old, new = _old_and_new(one, other, held)
            if old.symbol == new.symbol:
                cash += (old, new)  # another CUSIP, the same symbol: nothing for us
            else:
                adjustments.append(adjustment_of(old, AdjustmentKind.SYMBOL_CHANGE, new_symbol=new.symbol))
    return Applied(tuple(adjustments), tuple(cash), waiting=tuple(left))


def _clear_pairs(
    entries: Sequence[Activity], are_alike: Callable[[Activity, Activity], bool]
) -> list[tuple[Activity, Activity]]:
    """Return the entries that have one counterpart each, and are its only one."""
    fitting = {
        one.activity_id: [other for other in entries if _is_counterpart(one, other) and are_alike(one, other)]
        for one in entries
    }
    clear = {name: found[0] for name, found in fitting.items() if len(found) == 1}
    return [
        (one, other)
        for one in entries
        if (other := clear.get(one.activity_id)) is not None
        and clear.get(other.activity_id) is one
        and one.activity_id < other.activity_id
    ]


def _is_counterpart(one: Activity, other: Activity) -> bool:
    return (
        one is not other
        and one.qty is not None
        and other.qty is not None
        and bool(one.qty)
        and one.qty == other.qty.copy_negate()
        and one.symbol is not None
        and other.symbol is not None
    )


def _are_of_one_symbol(one: Activity, other: Activity) -> bool:
    return one.symbol == other.symbol


def _are_of_one_event(one: Activity, other: Activity) -> bool:
    return one.description == other.description and one.price == other.price


def _may_be_of_one_event(one: Activity, other: Activity) -> bool:
    """Say whether the descriptions are of the two entries rather than of two events."""
    is_told = all((entry.description or "").upper().startswith(("ADD", "REMOVE")) for entry in (one, other))
    return is_told and (one.price == other.price or one.price is None or other.price is None)


def _old_and_new(one: Activity, other: Activity, held: HeldBefore) -> tuple[Activity, Activity]:
    """Return the entry that takes the shares held away, and the one that brings them back."""
    for old, new in ((one, other), (other, one)):
        before = held(old.symbol or "", old.date).qty
        if before and old.qty is not None and (before > ZERO) != (old.qty > ZERO):
            return old, new
    return (one, other) if one.qty is not None and one.qty < ZERO else (other, one)


def read_moves(entries: Sequence[Activity], held: HeldBefore, known: Known = NOTHING_KNOWN) -> Applied:
    """Move shares in and out: transfers, options, and mergers for cash. What leaves takes its share of the cost along.

    Cash for shares that were taken away is realized against their cost. Beside shares that came in, and where no shares
    move, all of it is a gain: the cost is in the shares, or left with those of an earlier date.
    """
    both_ways = [one for one in entries if _is_paid_both_ways(one, held)]
    free = [one for one in entries if _is_without_cost(one, held)]
    booked = [one for one in free if adjustment_id_of(one) in known.recorded]
    moving = [replace(one, net_amount=None) if one in both_ways else one for one in entries if one.qty]
    moving = [one for one in moving if one not in free]
    paying = [one for one in entries if not one.qty and one.net_amount]
    nothing = [one for one in entries if not one.qty and not one.net_amount]
    adjustments = [adjustment for one in moving for adjustment in _move(one, held)]
    gains = both_ways
    if not moving or any(one.qty is not None and one.qty > ZERO for one in moving):
        gains, paying = [*both_ways, *paying], []
    paid = [adjustment for one in gains if (adjustment := cash_of_action(one)) is not None]
    nothing += [one for one in gains if not one.qty and cash_of_action(one) is None]
    if paying:
        gain = EXACT.add(_sum(one.net_amount for one in paying), _unrealized(moving, held))
        if gain:
            adjustments.append(adjustment_of(paying.pop(0), AdjustmentKind.CASH_IN_LIEU, amount=gain))
        nothing += paying
    plain = frozenset(one.adjustment_id for one in paid)
    nothing += booked
    unhandled = tuple(Unhandled(one, "shares without a cost") for one in free if one not in booked)
    return Applied((*adjustments, *paid), tuple(nothing), unhandled=unhandled, plain=plain)


def _is_paid_both_ways(activity: Activity, held: HeldBefore) -> bool:
    """Say whether an entry brings shares in and pays cash as well: what the shares cost then is not known."""
    qty, paid = activity.qty or ZERO, activity.net_amount or ZERO
    if not qty or not paid or (qty > ZERO) != (paid > ZERO):
        return False
    return not _closed(qty, held(activity.symbol or "", activity.date).qty)


def _unrealized(moving: Iterable[Activity], held: HeldBefore) -> Decimal:
    """Return the signed cost that entries without cash of their own have moved: in, or negative when out."""
    return _sum(_move(one, held)[0].amount for one in moving if _cash_of(one) is None)


def _move(activity: Activity, held: HeldBefore) -> list[Adjustment]:
    """Return the transfer of an entry's shares, and what they have realized when the entry itself is paid for them."""
    qty, cash = activity.qty or ZERO, _cash_of(activity)
    before = held(activity.symbol or "", activity.date)
    closed = _closed(qty, before.qty)
    if cash is None:
        return [_unpaid_move(activity, qty, held)]
    cost = EXACT.add(_cost_of_closed(before, closed), _cost_of_opened(cash, qty, closed))
    moved = [adjustment_of(activity, AdjustmentKind.MOVE, qty=qty, amount=cost)]
    gain = EXACT.add(cash, cost)
    if gain:
        realized = adjustment_of(activity, AdjustmentKind.CASH_IN_LIEU, amount=gain)
        moved.append(replace(realized, adjustment_id=cash_id_of(activity)))
    return moved


def _unpaid_move(activity: Activity, qty: Decimal, held: HeldBefore) -> Adjustment:
    """Return the transfer of shares that nobody paid for: across the account's edge, or within it."""
    symbol, day = activity.symbol or "", activity.date
    is_outside = removal_of(activity) is Removal.OUTSIDE
    before = held(symbol, day)
    if is_outside and _closed(qty, before.qty) != qty:
        # Bought on the day itself, perhaps: the day's end is the first moment at which all of them are there.
        later = held(symbol, day + timedelta(days=1))
        if _closed(qty, later.qty) == qty:
            cost = _cost_of_closed(later, qty)
            moved = adjustment_of(activity, AdjustmentKind.TRANSFER, qty=qty, amount=cost)
            return replace(moved, effective_at=day_start(day + timedelta(days=1)) - timedelta(microseconds=1))
    is_leaving = _closed(qty, before.qty) == qty
    cost = _cost_of_closed(before, qty) if is_leaving else EXACT.multiply(qty, _unit_price(activity))
    kind = AdjustmentKind.TRANSFER if is_outside else AdjustmentKind.MOVE
    return adjustment_of(activity, kind, qty=qty, amount=cost)


def _is_without_cost(activity: Activity, held: HeldBefore) -> bool:
    """Say whether shares come in, and nothing says what they had cost: never for nothing."""
    if not activity.qty or activity.price is not None or _cash_of(activity) is not None:
        return False
    return removal_of(activity) is Removal.OUTSIDE and not _takes_some(activity, held)


def _takes_some(activity: Activity, held: HeldBefore) -> bool:
    symbol, qty = activity.symbol or "", activity.qty or ZERO
    days = (activity.date, activity.date + timedelta(days=1))
    return any(_closed(qty, held(symbol, day).qty) == qty for day in days)


def _closed(qty: Decimal, before: Decimal) -> Decimal:
    """Return the part of `qty` that takes shares held away, with its sign."""
    if not before or (before > ZERO) == (qty > ZERO):
        return ZERO
    return qty if abs(qty) <= abs(before) else before.copy_negate()


def _cost_of_closed(before: OurPosition, closed: Decimal) -> Decimal:
    """Return the cost that moves with `closed`: negative when shares leave."""
    if not closed:
        return ZERO
    return EXACT.divide(EXACT.multiply(before.cost, closed), before.qty).quantize(COST_STEP, context=EXACT)


def _cost_of_opened(cash: Decimal, qty: Decimal, closed: Decimal) -> Decimal:
    """Return the cost of what comes in, or is sold short, beyond what `closed` took: its part of the cash."""
    if not closed:
        return cash.copy_negate()
    opened = EXACT.subtract(closed, qty)
    return EXACT.divide(EXACT.multiply(cash, opened), qty).quantize(COST_STEP, context=EXACT)


def _cash_of(activity: Activity) -> Decimal | None:
    """Return the signed cash that an entry's own shares were paid with; None when they only moved."""
    kind, qty = activity.kind.partition(".")[0], activity.qty or ZERO
    if activity.net_amount and kind not in OUTSIDE:  # what a transfer of shares names is what they are worth
        return activity.net_amount
    if kind == "OPTRD" and activity.price is not None:
        return EXACT.multiply(qty.copy_negate(), _unit_price(activity))
    is_ended = kind in _OPTION_ENDS and is_option(activity.symbol or "")
    return ZERO if is_ended or is_worthless(activity) else None


def _unit_price(activity: Activity) -> Decimal:
    """Return what one unit costs, in USD: an option's price is told per share."""
    price = activity.price or ZERO
    return EXACT.multiply(price, OPTION_MULTIPLIER) if is_option(activity.symbol or "") else price


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount or ZERO)
    return total
