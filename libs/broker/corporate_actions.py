"""Turns the account's activities that are no trades into adjustments of the ledger. Pure.

Decides by the broker's activity type, and for splits and renamings by the pair of entries that make one: old shares
out, new shares in, under one date. Nothing is dropped: what moves cash alone is counted, what comes in halves waits,
what we do not understand is returned. Effective at the beginning of the New York date that the broker books it under.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from typing import Final

from libs.broker.executions import Activity
from libs.broker.instruments import OPTION_MULTIPLIER, is_option
from libs.broker.reconcile import OurPosition
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.days import day_start
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.positions import COST_STEP

ACCOUNT_WIDE: Final = "ACCOUNT"
"""Stands for the symbol of a fee or dividend that names none. Too long for a symbol, so it can be nobody's."""

_SHARE_STEP: Final = Decimal("1e-9")
_DENOMINATORS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 20, 25, 50, 100, 1000, 10_000)
_ROUND: Final = (1000, 500, 100, 50, 10, 5, 1)
_FEES: Final = frozenset({"FEE", "CFEE", "PTC", "PTR", "TAF", "REG", "CAT"})
_SPLITS: Final = frozenset({"SPLIT", "SSP", "FSPLIT", "RSPLIT"})
_RENAMINGS: Final = frozenset({"NC", "SC"})
_TRANSFERS: Final = frozenset(
    {"SPIN", "SSO", "MA", "REORG", "ACATS", "JNLS", "VOF", "OPEXP", "OPASN", "OPXRC", "OPEXC", "OPTRD", "OPCA"}
)
_OPTION_ENDS: Final = frozenset({"OPEXP", "OPASN", "OPXRC", "OPEXC"})
"""An option is gone, and what it had cost is lost (or, written, earned); the shares behind it come as OPTRD."""
_CASH: Final = frozenset({"INT", "INTNRA", "INTTW", "CSD", "CSW", "TRANS", "JNL", "JNLC", "ACATC"})
_UNDONE: Final = frozenset({"canceled", "cancelled", "rejected", "reversed"})
_NOT_YET: Final = frozenset({"pending", "queued", "sent_to_clearing"})

HeldBefore = Callable[[str, date], OurPosition]
"""Returns what the ledger held of a symbol as a New York date began, before that date's corporate actions."""


IsCut = Callable[[str, date], bool]
"""Says whether cash was paid in lieu of a fraction of a symbol's shares on a date: what is left may be whole shares."""


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier rounds came to: ids of the activities that have `waited`, and of adjustments that are `recorded`."""

    waited: Container[str] = ()
    recorded: Container[str] = ()

    def have_waited(self, activities: Iterable[Activity]) -> bool:
        """Say whether all of them were given before."""
        return all(one.activity_id in self.waited for one in activities)


NOTHING_KNOWN: Final = Known()


@dataclass(frozen=True, slots=True)
class Unhandled:
    """An activity that changed nothing in the ledger although it may have had to; `why` is for people."""

    activity: Activity
    why: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What a set of activities comes to. Every activity given is in exactly one of these.

    `cash` moves money alone: outside of P&L. `waiting` wants to be passed again together with what comes later.
    `undone` are ids of adjustments that the broker has taken back.
    """

    adjustments: tuple[Adjustment, ...] = ()
    cash: tuple[Activity, ...] = ()
    waiting: tuple[Activity, ...] = ()
    undone: tuple[str, ...] = ()
    unhandled: tuple[Unhandled, ...] = ()

    @property
    def doubtful_symbols(self) -> frozenset[str]:
        """Symbols whose positions may be wrong because of what waits or was not understood."""
        activities = [*self.waiting, *(one.activity for one in self.unhandled)]
        return frozenset(one.symbol for one in activities if one.symbol is not None)


def adjustment_id_of(activity: Activity) -> str:
    """Return the ledger's id of what `activity` brings about; the same for ever."""
    return f"activity:{activity.activity_id}"


def _cash_id_of(activity: Activity) -> str:
    """Return the ledger's id of what an activity realizes that moves shares too."""
    return f"{adjustment_id_of(activity)}:cash"


def _split_id_of(activity: Activity) -> str:
    """Return the ledger's id of the split that an entry belongs to: a symbol has one on a date."""
    return f"activity:split:{activity.symbol}:{activity.date}"


def apply_activities(activities: Iterable[Activity], held: HeldBefore, known: Known = NOTHING_KNOWN) -> Applied:
    """Return what `activities` do to the ledger, each at most once however often it is given."""
    sorted_out = _Sorted()
    for activity in {one.activity_id: one for one in activities}.values():
        sorted_out.put(activity)
    parts = [_one_by_one(sorted_out.single)]
    parts += [_split(entries, held, sorted_out.is_cut, known) for entries in sorted_out.splits.values()]
    parts += [_renamings(entries, held) for entries in sorted_out.renamings.values()]
    parts += [_moves(entries, held) for entries in sorted_out.moves.values()]
    return Applied(
        tuple(one for part in parts for one in part.adjustments),
        tuple(one for part in parts for one in part.cash),
        (*sorted_out.not_yet, *(one for part in parts for one in part.waiting)),
        sorted_out.undone_ids(),
        tuple(one for part in parts for one in part.unhandled),
    )


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


class _Sorted:
    """Activities by what has to be done with them; entries that belong together side by side."""

    def __init__(self) -> None:
        self.single: list[Activity] = []
        self.splits: dict[tuple[str, date], list[Activity]] = defaultdict(list)
        self.renamings: dict[date, list[Activity]] = defaultdict(list)
        self.moves: dict[tuple[str, str, date], list[Activity]] = defaultdict(list)
        self.not_yet: list[Activity] = []
        self.undone: list[Activity] = []

    def put(self, activity: Activity) -> None:
        kind, status = activity.kind.partition(".")[0], (activity.status or "").lower()
        if status in _UNDONE:
            self.undone.append(activity)
        elif status in _NOT_YET:
            self.not_yet.append(activity)
        elif kind in _SPLITS and activity.symbol is not None:
            self.splits[activity.symbol, activity.date].append(activity)
        elif kind in _RENAMINGS:
            self.renamings[activity.date].append(activity)
        elif kind in _TRANSFERS and activity.symbol is not None:
            self.moves[kind, activity.description or activity.symbol, activity.date].append(activity)
        else:
            self.single.append(activity)

    def is_cut(self, symbol: str, day: date) -> bool:
        """Say whether cash in lieu of shares is paid, or will be."""
        told = (*self.single, *self.not_yet)
        return any((one.kind, one.symbol, one.date) == ("CIL", symbol, day) for one in told)

    def undone_ids(self) -> tuple[str, ...]:
        """Return every id that an activity taken back may have had; a split only when no entries of it stand."""
        ids: dict[str, None] = {}
        for activity in self.undone:
            kind = activity.kind.partition(".")[0]
            ids[adjustment_id_of(activity)] = None
            if kind in _TRANSFERS:
                ids[_cash_id_of(activity)] = None
            if kind in _SPLITS and (activity.symbol, activity.date) not in self.splits:
                split = _split_id_of(activity)
                ids |= dict.fromkeys((split, f"{split}:fraction", f"{split}:cash"))
        return tuple(ids)


def _one_by_one(activities: Iterable[Activity]) -> Applied:
    adjustments: list[Adjustment] = []
    cash: list[Activity] = []
    unhandled: list[Unhandled] = []
    for activity in activities:
        result = _single(activity)
        match result:
            case Adjustment():
                adjustments.append(result)
            case Unhandled():
                unhandled.append(result)
            case None:
                cash.append(activity)
    return Applied(tuple(adjustments), tuple(cash), unhandled=tuple(unhandled))


def _single(activity: Activity) -> Adjustment | Unhandled | None:
    """Return what an activity that stands alone does; None when it moves cash or nothing."""
    kind, amount = activity.kind, activity.net_amount
    if kind in _CASH:
        return None
    is_in_cash = amount or activity.per_share_amount is not None
    if kind.startswith("DIV") and not is_in_cash and activity.qty and activity.symbol is not None:
        # A stock dividend: shares at no cost. A cash dividend names its shares too, but also what each is paid.
        return _adjustment(activity, AdjustmentKind.TRANSFER, qty=activity.qty, amount=ZERO)
    if kind.startswith("DIV") or kind in _FEES or kind == "CIL":
        if amount is None:
            return Unhandled(activity, "no amount")
        return _income(activity, amount) if amount else None
    return Unhandled(activity, "unknown kind of activity" if kind not in _SPLITS | _TRANSFERS else "no symbol")


def _income(activity: Activity, amount: Decimal) -> Adjustment:
    if activity.kind in _FEES:
        return _adjustment(activity, AdjustmentKind.FEE, amount=amount.copy_negate())
    kind = AdjustmentKind.CASH_IN_LIEU if activity.kind == "CIL" else AdjustmentKind.DIVIDEND
    return _adjustment(activity, kind, amount=amount)


def _split(entries: Sequence[Activity], held: HeldBefore, is_cut: IsCut, known: Known) -> Applied:
    """Read one symbol's split of one date: two entries (old shares out, new in) or one (the shares added).

    One alone may be half of two: it is read as the whole when a later round has not brought another.
    """
    first = entries[0]
    symbol, quantities = first.symbol or "", [one.qty for one in entries if one.qty]
    before = held(symbol, first.date)
    match quantities:
        case [one, other]:
            # What leaves has the sign that the holding has not.
            removed, new = sorted((one, other), reverse=before.qty < ZERO)
            old = removed.copy_negate()
        case [added] if _is_half(first, added, before.qty) or not known.have_waited(entries):
            return Applied(waiting=tuple(entries))
        case [added]:
            old, new = before.qty, EXACT.add(before.qty, added)
        case _:
            old = new = ZERO
    cut = whole_split_ratio(old, new) if is_cut(symbol, first.date) else None
    ratio = cut or split_ratio(old, new)
    if ratio is None or ratio == 1:
        return Applied(unhandled=tuple(Unhandled(one, "no split ratio explains these shares") for one in entries))
    split = _named_split(entries, ratio)
    if cut is None or split.adjustment_id in known.recorded or before.qty != old:
        return Applied((split,))  # recorded without a fraction, or of other shares: the comparison shows it
    fraction = EXACT.subtract(_cut(old, cut), new)
    return Applied((split, *_fraction(split, fraction, before.cost, EXACT.divide(fraction, _cut(old, cut)))))


def _named_split(entries: Sequence[Activity], ratio: Fraction) -> Adjustment:
    """Return the split under a name that it has whichever of its entries are known: it is recorded once."""
    split = _adjustment(
        _earliest(entries),
        AdjustmentKind.SPLIT,
        ratio_new=Decimal(ratio.numerator),
        ratio_old=Decimal(ratio.denominator),
    )
    return replace(split, adjustment_id=_split_id_of(entries[0]))


def _fraction(split: Adjustment, fraction: Decimal, cost_before: Decimal, share: Decimal) -> list[Adjustment]:
    """Return what takes the fraction that was paid in cash out of what is held, and realizes its `share` of the cost.

    The cash itself is an activity of its own.
    """
    if not fraction:
        return []
    cost = EXACT.multiply(cost_before, share).quantize(COST_STEP, context=EXACT)
    name, at = split.adjustment_id, split.effective_at
    taken = Adjustment(
        f"{name}:fraction", AdjustmentKind.TRANSFER, split.symbol, at, "fraction of a split",
        qty=fraction.copy_negate(), amount=cost.copy_negate(),
    )  # fmt: skip
    if not cost:
        return [taken]
    realized = Adjustment(
        f"{name}:cash", AdjustmentKind.CASH_IN_LIEU, split.symbol, at, "cost of the fraction of a split",
        amount=cost.copy_negate(),
    )  # fmt: skip
    return [taken, realized]


def _is_half(entry: Activity, added: Decimal, before: Decimal) -> bool:
    """Say whether a single entry is one of two: the broker says so, or it takes away all that was held."""
    is_said = (entry.description or "").upper().startswith(("ADD", "REMOVE"))
    return is_said or before == added.copy_negate()


def _renamings(entries: Sequence[Activity], held: HeldBefore) -> Applied:
    """Pair the entries of one date: as many shares as leave one symbol come in under another."""
    adjustments: list[Adjustment] = []
    cash: list[Activity] = []
    left = list(entries)
    for one in entries:
        other = next((other for other in left if one in left and _is_counterpart(one, other)), None)
        if other is None:
            continue
        left.remove(one)
        left.remove(other)
        old, new = _old_and_new(one, other, held)
        if old.symbol == new.symbol:
            cash += (old, new)  # another CUSIP, the same symbol: nothing for us
        else:
            adjustments.append(_adjustment(old, AdjustmentKind.SYMBOL_CHANGE, new_symbol=new.symbol))
    return Applied(tuple(adjustments), tuple(cash), waiting=tuple(left))


def _is_counterpart(one: Activity, other: Activity) -> bool:
    return (
        one is not other
        and one.qty is not None
        and other.qty is not None
        and bool(one.qty)
        and one.qty == other.qty.copy_negate()
        and one.symbol is not None
        and other.symbol is not None
        and one.description == other.description
    )


def _old_and_new(one: Activity, other: Activity, held: HeldBefore) -> tuple[Activity, Activity]:
    """Return the entry that takes the shares held away, and the one that brings them back."""
    for old, new in ((one, other), (other, one)):
        before = held(old.symbol or "", old.date).qty
        if before and old.qty is not None and (before > ZERO) != (old.qty > ZERO):
            return old, new
    return (one, other) if one.qty is not None and one.qty < ZERO else (other, one)


def _moves(entries: Sequence[Activity], held: HeldBefore) -> Applied:
    """Move shares in and out: spin-offs, mergers, transfers, options. What leaves takes its share of the cost along.

    Cash for shares that were taken away is realized against their cost; beside shares that came in it is unhandled.
    """
    unhandled = [Unhandled(one, "cash of a corporate action") for one in entries if _is_paid_both_ways(one, held)]
    moving = [one for one in entries if one.qty and not any(one is other.activity for other in unhandled)]
    paying = [one for one in entries if not one.qty and one.net_amount]
    nothing = [one for one in entries if not one.qty and not one.net_amount]
    adjustments = [adjustment for one in moving for adjustment in _move(one, held)]
    if paying and (not moving or any(one.qty is not None and one.qty > ZERO for one in moving)):
        unhandled += [Unhandled(one, "cash of a corporate action") for one in paying]
    elif paying:
        gain = EXACT.add(_sum(one.net_amount for one in paying), _unrealized(moving, held))
        if gain:
            adjustments.append(_adjustment(paying.pop(0), AdjustmentKind.CASH_IN_LIEU, amount=gain))
        nothing += paying
    return Applied(tuple(adjustments), tuple(nothing), unhandled=tuple(unhandled))


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
        is_leaving = closed == qty
        cost = _cost_of_closed(before, qty) if is_leaving else EXACT.multiply(qty, _unit_price(activity))
        return [_adjustment(activity, AdjustmentKind.TRANSFER, qty=qty, amount=cost)]
    cost = EXACT.add(_cost_of_closed(before, closed), _cost_of_opened(cash, qty, closed))
    moved = [_adjustment(activity, AdjustmentKind.TRANSFER, qty=qty, amount=cost)]
    gain = EXACT.add(cash, cost)
    if gain:
        realized = _adjustment(activity, AdjustmentKind.CASH_IN_LIEU, amount=gain)
        moved.append(replace(realized, adjustment_id=_cash_id_of(activity)))
    return moved


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
    if activity.net_amount:
        return activity.net_amount
    if kind == "OPTRD" and activity.price is not None:
        return EXACT.multiply(qty.copy_negate(), _unit_price(activity))
    is_ended = kind in _OPTION_ENDS and is_option(activity.symbol or "")
    return ZERO if is_ended else None


def _unit_price(activity: Activity) -> Decimal:
    """Return what one unit costs, in USD: an option's price is told per share."""
    price = activity.price or ZERO
    return EXACT.multiply(price, OPTION_MULTIPLIER) if is_option(activity.symbol or "") else price


def _adjustment(
    activity: Activity,
    kind: AdjustmentKind,
    *,
    ratio_new: Decimal | None = None,
    ratio_old: Decimal | None = None,
    new_symbol: str | None = None,
    qty: Decimal | None = None,
    amount: Decimal | None = None,
) -> Adjustment:
    return Adjustment(
        adjustment_id=adjustment_id_of(activity),
        kind=kind,
        symbol=activity.symbol or ACCOUNT_WIDE,
        effective_at=day_start(activity.date),
        reason=activity.kind if activity.description is None else f"{activity.kind}: {activity.description}"[:200],
        ratio_new=ratio_new,
        ratio_old=ratio_old,
        new_symbol=new_symbol,
        qty=qty,
        amount=amount,
    )


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount or ZERO)
    return total


def _negated(amount: Decimal | None) -> Decimal:
    return (amount or ZERO).copy_negate()


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
