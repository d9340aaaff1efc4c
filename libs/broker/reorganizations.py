"""Reads spin-offs, mergers and removals: the cost of the shares that leave goes to those that come in. Pure.

The broker names what each holding cost before and costs after. Only the proportion of that is taken over: it is our
cost that moves, all of it, so that nothing is gained or lost on the way. Entries of one event may come in any order and
in separate rounds; until they make a whole they wait.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import combinations
from typing import Final

from libs.broker.activity_results import (
    Applied,
    HeldBefore,
    Known,
    Unhandled,
    adjustment_id_of,
    adjustment_of,
    cash_id_of,
)
from libs.broker.cash_activities import cash_of_action
from libs.broker.executions import Activity
from libs.broker.removals import WORTHLESS_REMOVAL, Removal, is_worthless, removal_of
from libs.broker.share_moves import read_moves
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.fills import EXACT, ZERO

REORGANIZATIONS: Final = frozenset({"SPIN", "SSO", "MA", "REORG", "REO", "VOF"})
_SPIN_OFFS: Final = frozenset({"SPIN", "SSO"})
_PRICE_STEP: Final = Decimal("0.0001")
"""The broker rounds its average prices to this."""
_MOST_PARTS: Final = 10


@dataclass(frozen=True, slots=True)
class _Event:
    """Entries of one kind that belong together. `side` is 1 for holdings that are long, -1 for short ones."""

    entries: tuple[Activity, ...]
    side: int

    @property
    def outs(self) -> list[Activity]:
        """The entries that take shares away."""
        return [one for one in self.entries if one.qty and (one.qty > ZERO) != (self.side > 0)]

    @property
    def ins(self) -> list[Activity]:
        """The entries that bring shares in."""
        return [one for one in self.entries if one.qty and (one.qty > ZERO) == (self.side > 0)]

    @property
    def kind(self) -> str:
        return self.entries[0].kind.partition(".")[0]

    @property
    def is_whole(self) -> bool:
        """Say whether nothing more has to come: shares leave and others come in, and a spin-off's costs add up."""
        if not self.outs or not self.ins:
            return False
        return self.kind not in _SPIN_OFFS or _lacking(self.entries) == ZERO

    @property
    def lacks_a_fraction(self) -> bool:
        """Say whether a spin-off lacks less cost than that of one new share: the fraction is paid in cash."""
        parents = {one.symbol for one in self.outs}
        prices = [one.price for one in self.ins if one.symbol not in parents and one.price is not None]
        lacking = _lacking(self.entries)
        has_both = parents <= {one.symbol for one in self.ins}
        return bool(has_both and prices and lacking is not None and lacking.copy_abs() < min(prices))


def read_reorganizations(entries: Iterable[Activity], held: HeldBefore, known: Known) -> Applied:
    """Read the entries of all reorganizations, whatever their kinds and dates."""
    groups: dict[tuple[str, date], list[Activity]] = defaultdict(list)
    for one in entries:
        groups[one.kind.partition(".")[0], one.date].append(one)
    parts = _with_later_cash([part for group in groups.values() for part in _events(group, held)])
    results = [_read_event(_Event(tuple(part), _side(part, held)), held, known) for part in parts]
    return Applied(
        tuple(one for result in results for one in result.adjustments),
        tuple(one for result in results for one in result.cash),
        tuple(one for result in results for one in result.waiting),
        unhandled=tuple(one for result in results for one in result.unhandled),
        plain=frozenset(name for result in results for name in result.plain),
    )


# --- which entries belong together ----------------------------------------------------------------------------------


def _events(entries: Sequence[Activity], held: HeldBefore) -> list[list[Activity]]:
    """Part the entries of one kind and date into events: by symbol, by description, and by the cost that is missing."""
    parts = _linked(entries)
    whole = [part for part in parts if _is_whole(part, held)]
    open_ones = [part for part in parts if part not in whole]
    parents = [part for part in open_ones if _has_out(part, held)]
    children = [part for part in open_ones if part not in parents and any(one.qty for one in part)]
    others = [part for part in open_ones if part not in parents and part not in children]
    for parent in parents:
        found = _completing(parent, children)
        if not found and len(parents) == 1:
            found = [child for child in children if _may_be_of(parent, child)]
        children = [child for child in children if child not in found]
        whole.append([one for part in (parent, *found) for one in part])
    return [*whole, *children, *others]


def symbols_awaiting_cost(waiting: Iterable[Activity]) -> frozenset[str]:
    """Return the symbols of shares that a reorganization moved while the rest of it has not been reported."""
    return frozenset(
        one.symbol
        for one in waiting
        if one.symbol is not None and one.qty and one.kind.partition(".")[0] in REORGANIZATIONS
    )


def _linked(entries: Sequence[Activity]) -> list[list[Activity]]:
    """Put together what has a symbol or a description in common."""
    parts: list[list[Activity]] = []
    for one in entries:
        mine = [part for part in parts if any(_are_linked(one, other) for other in part)]
        parts = [part for part in parts if part not in mine]
        parts.append([*(other for part in mine for other in part), one])
    return parts


def _are_linked(one: Activity, other: Activity) -> bool:
    is_described = one.description is not None and one.description == other.description
    return one.symbol == other.symbol or (is_described and not _is_about_the_entry(one))


def _is_about_the_entry(one: Activity) -> bool:
    """Say whether a description is of the entry rather than of the event, and may be another event's too."""
    is_removal = removal_of(one) in {Removal.WORTHLESS, Removal.OUTSIDE}
    return is_removal or (one.description or "").upper().startswith(("ADD", "REMOVE"))


def _may_be_of(parent: Sequence[Activity], child: Sequence[Activity]) -> bool:
    """Say whether shares may come of those that left: the event is not described as another one."""
    if parent[0].kind.partition(".")[0] in _SPIN_OFFS:
        return True
    names = [{one.description for one in part if one.qty and not _is_about_the_entry(one)} for part in (parent, child)]
    return any(None in described or not described for described in names) or bool(names[0] & names[1])


def _has_out(part: Sequence[Activity], held: HeldBefore) -> bool:
    """Say whether a part takes away shares that were held, or has shares both come and go."""
    is_both_ways = len({one.qty > ZERO for one in part if one.qty}) > 1
    return is_both_ways or any(_takes_away(one, held) for one in part)


def _takes_away(one: Activity, held: HeldBefore) -> bool:
    before = held(one.symbol or "", one.date).qty
    return bool(one.qty and before and (one.qty > ZERO) != (before > ZERO))


def _is_whole(part: Sequence[Activity], held: HeldBefore) -> bool:
    return _Event(tuple(part), _side(part, held)).is_whole


def _completing(parent: Sequence[Activity], children: Sequence[list[Activity]]) -> Sequence[list[Activity]]:
    """Return the children that have just the cost that the parent lacks; none when that is ambiguous."""
    some = children[:_MOST_PARTS]
    subsets = (subset for size in range(1, len(some) + 1) for subset in combinations(some, size))
    fitting = [subset for subset in subsets if _lacking([*parent, *(one for part in subset for one in part)]) == ZERO]
    return fitting[0] if len(fitting) == 1 else ()


def _lacking(entries: Iterable[Activity]) -> Decimal | None:
    """Return how much more cost leaves than comes in, 0 within the broker's rounding of prices; None: unknown."""
    total, tolerance = ZERO, _PRICE_STEP
    for one in entries:
        if one.qty and one.price is None:
            return None
        total = EXACT.add(total, EXACT.multiply(one.qty or ZERO, one.price or ZERO))
        tolerance = EXACT.add(tolerance, EXACT.multiply((one.qty or ZERO).copy_abs(), _PRICE_STEP))
    return ZERO if total.copy_abs() <= tolerance else total.copy_negate()


def _with_later_cash(parts: list[list[Activity]]) -> list[list[Activity]]:
    """Put the cash for shares beside the shares, though it is booked on a later date."""
    paid = [part for part in parts if not any(one.qty for one in part) and any(one.net_amount for one in part)]
    kept = [part for part in parts if part not in paid]
    for cash in paid:
        gone = next((part for part in kept if _is_cash_for(cash, part)), None)
        if gone is None:
            kept.append(cash)
        else:
            gone += cash
    return kept


def _is_cash_for(cash: Sequence[Activity], part: Sequence[Activity]) -> bool:
    return part[0].kind.partition(".")[0] == cash[0].kind.partition(".")[0] and any(
        one.qty and (one.symbol == other.symbol or _are_linked(one, other)) for one in part for other in cash
    )


def _side(part: Sequence[Activity], held: HeldBefore) -> int:
    """Return 1 where the shares that leave were held long, -1 where they were short."""
    for one in part:
        before = held(one.symbol or "", one.date).qty
        if before and one.qty:
            return 1 if before > ZERO else -1
    return 1


# --- what an event comes to -----------------------------------------------------------------------------------------


def _read_event(event: _Event, held: HeldBefore, known: Known) -> Applied:
    moving = [one for one in event.entries if one.qty]
    if not event.ins or not event.outs:
        return _read_one_way(event, moving, held, known)
    if not event.is_whole and not (event.lacks_a_fraction and known.have_waited(moving)):
        return Applied(waiting=event.entries)
    alone = [one for one in event.entries if _was_read_alone(one, event, known)]
    if alone:
        return _read_rest(event, alone, held)
    if len({one.symbol for one in event.outs}) > 1:
        return _unhandled(event, "shares of several symbols leave at once")
    values = _values(event)
    if values is None:
        return _unhandled(event, "no price says how the cost is divided")
    cash = _cash(event)
    adjustments = [*_spin_offs(event, values, held), *_change_of_parent(event, held), *cash]
    named = {one.adjustment_id for one in adjustments}
    others = tuple(one for one in event.entries if named.isdisjoint((adjustment_id_of(one), cash_id_of(one))))
    return Applied(tuple(adjustments), others, plain=frozenset(one.adjustment_id for one in cash))


def _read_one_way(event: _Event, moving: Sequence[Activity], held: HeldBefore, known: Known) -> Applied:
    """Read shares that only leave, or only come in, and cash."""
    is_paid = any(one.net_amount for one in event.entries)
    if not moving:
        # The shares that it is for may leave only now.
        is_held = any(held(one.symbol or "", one.date).qty for one in event.entries if one.net_amount)
        is_early = is_held and event.kind not in _SPIN_OFFS and not known.have_waited(event.entries)
        is_known = not is_early
    elif event.ins:
        # Bought, or for nothing; what else comes in takes its cost from shares that are still to leave.
        is_known = all(_is_bought(one) or (not is_paid and one.price == ZERO) for one in moving)
    elif is_paid or any((event.kind, one.symbol) in known.paid for one in event.outs):
        return _paid_out(event, held)
    else:
        is_known = _is_clear(moving[0], known)
    return read_moves(event.entries, held, known) if is_known else Applied(waiting=event.entries)


def _is_clear(removed: Activity, known: Known) -> bool:
    """Say whether the broker says why shares left for nothing; what it does not say may still be reported."""
    match removal_of(removed):
        case Removal.WORTHLESS | Removal.OUTSIDE:
            return True
        case Removal.UNSAID:
            return is_worthless(removed) and known.have_waited([removed])
        case Removal.UNKNOWN:
            return False


def _paid_out(event: _Event, held: HeldBefore) -> Applied:
    """Realize what shares had cost, and the cash for them, from the date on which they left."""
    without = [replace(one, net_amount=ZERO, sub_kind=WORTHLESS_REMOVAL) for one in event.outs if not one.net_amount]
    left = read_moves([*(one for one in event.outs if one.net_amount), *without], held)
    begins = left.adjustments[0].effective_at
    cash = [replace(one, effective_at=begins) for one in _cash(_Event(tuple(_alone(event)), event.side))]
    nothing = tuple(one for one in event.entries if not one.qty and not one.net_amount)
    plain = frozenset(one.adjustment_id for one in cash)
    return Applied((*left.adjustments, *cash), nothing, unhandled=left.unhandled, plain=plain)


def _was_read_alone(one: Activity, event: _Event, known: Known) -> bool:
    """Say whether an entry's shares were bought or sold for cash before the rest of its event was reported."""
    if one in event.outs:
        return not one.net_amount and cash_id_of(one) in known.recorded
    is_recorded = adjustment_id_of(one) in known.recorded
    return _is_bought(one) and is_recorded and cash_id_of(one) not in known.recorded


def _read_rest(event: _Event, alone: Sequence[Activity], held: HeldBefore) -> Applied:
    """Read what came after a part of the event was read alone, so that no cost is lost or counts twice.

    The cost of shares that are gone is realized; shares that come in have none, for it has been realized, or paid.
    """
    rest = [one for one in event.entries if one not in alone]
    outs = [one for one in rest if one in event.outs]
    gone = [replace(one, net_amount=one.net_amount or ZERO, sub_kind=WORTHLESS_REMOVAL) for one in outs]
    left = read_moves(gone, held)
    ins = [one for one in rest if one in event.ins]
    came = [adjustment_of(one, AdjustmentKind.MOVE, qty=one.qty, amount=ZERO) for one in ins]
    cash = _cash(_Event(tuple(one for one in rest if one not in outs), event.side))
    others = (*alone, *(one for one in rest if not one.qty and not one.net_amount))
    plain = frozenset(one.adjustment_id for one in cash)
    return Applied((*left.adjustments, *came, *cash), others, unhandled=left.unhandled, plain=plain)


def _alone(event: _Event) -> list[Activity]:
    return [one for one in event.entries if not one.qty]


def _is_bought(one: Activity) -> bool:
    """Say whether an entry's own cash was paid for its shares (or received for shares sold short)."""
    return bool(one.qty and one.net_amount and (one.qty > ZERO) != (one.net_amount > ZERO))


def _unhandled(event: _Event, why: str) -> Applied:
    return Applied(unhandled=tuple(Unhandled(one, why) for one in event.entries))


def _values(event: _Event) -> Mapping[str, Decimal] | None:
    """Return the broker's cost of what comes in, by symbol, without a sign; None when it does not say."""
    values: dict[str, Decimal] = defaultdict(Decimal)
    symbols = {one.symbol for one in event.ins}
    for one in event.ins:
        value = EXACT.multiply(one.qty or ZERO, one.price or ZERO).copy_abs()
        values[one.symbol or ""] = EXACT.add(values[one.symbol or ""], value)
    if len(symbols) == 1:
        return dict.fromkeys(values, Decimal(1))
    is_priced = all(one.price is not None for one in event.ins) and any(values.values())
    return values if is_priced else None


def _spin_offs(event: _Event, values: Mapping[str, Decimal], held: HeldBefore) -> list[Adjustment]:
    """Move the parent's cost to the other symbols, each its part of what is left of it."""
    parent = event.outs[0].symbol or ""
    before, leaving = held(parent, event.outs[0].date).qty.copy_abs(), _shares(event.outs).copy_abs()
    left = ZERO
    for value in values.values():
        left = EXACT.add(left, value)
    unit = Decimal(1)
    if leaving < before:
        # The shares that stay keep their cost.
        left, unit = EXACT.multiply(left, before), leaving
    adjustments = []
    for symbol, value in values.items():
        part = EXACT.multiply(value, unit)
        if symbol == parent or not part:
            continue
        entries = [one for one in event.ins if one.symbol == symbol]
        spun = adjustment_of(
            Activity(entries[0].activity_id, event.kind, event.outs[0].date, parent, description=_description(entries)),
            AdjustmentKind.SPIN_OFF,
            new_symbol=symbol,
            qty=_shares(entries),
            ratio_new=part,
            ratio_old=left,
        )
        adjustments.append(spun)
        left = EXACT.subtract(left, part)
    return adjustments


def _change_of_parent(event: _Event, held: HeldBefore) -> list[Adjustment]:
    """Return what changes the number of the parent's shares, and not their cost."""
    first = event.outs[0]
    back = [one for one in event.ins if one.symbol == first.symbol]
    leaving, coming = _shares(event.outs), _shares(back)
    change = EXACT.add(leaving, coming)
    if not change:
        return []
    if back and held(first.symbol or "", first.date).qty == leaving.copy_negate():
        ratio_new, ratio_old = coming.copy_abs(), leaving.copy_abs()
        return [adjustment_of(first, AdjustmentKind.SPLIT, ratio_new=ratio_new, ratio_old=ratio_old)]
    return [adjustment_of(first, AdjustmentKind.MOVE, qty=change, amount=ZERO)]


def _cash(event: _Event) -> list[Adjustment]:
    """Return the cash that is paid beside shares, all of it a gain: the cost is in the new shares, or realized."""
    return [paid for one in event.entries if (paid := cash_of_action(one)) is not None]


def _shares(entries: Iterable[Activity]) -> Decimal:
    total = ZERO
    for one in entries:
        total = EXACT.add(total, one.qty or ZERO)
    return total


def _description(entries: Sequence[Activity]) -> str | None:
    return next((one.description for one in entries if one.description), None)
