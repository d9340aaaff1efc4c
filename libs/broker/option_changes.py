"""Reads what a corporate action makes of option contracts: the cost of those that leave goes to the new ones. Pure.

An adjusted contract keeps its expiry and its right, and the order of the strikes stays. What has no counterpart waits.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from libs.broker.activity_results import Applied, HeldBefore, Known, adjustment_of, cash_id_of
from libs.broker.executions import Activity
from libs.broker.instruments import is_option
from libs.broker.removals import WORTHLESS_REMOVAL, Removal, removal_of
from libs.broker.share_moves import read_moves
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.fills import ZERO

_EXPIRY_AND_RIGHT: Final = slice(-15, -8)
_STRIKE: Final = slice(-8, None)
_EXPLAINED: Final = frozenset({Removal.WORTHLESS, Removal.OUTSIDE})


def read_option_changes(entries: Iterable[Activity], held: HeldBefore, known: Known) -> Applied:
    """Read the entries of one date. Of contracts that a dividend is paid on, the number is told and moves nothing."""
    series: dict[str, list[Activity]] = defaultdict(list)
    for one in entries:
        series[_series_of(one)].append(replace(one, qty=None) if _is_paid_on_contracts(one) else one)
    parts = [_read_series(some, held, known) for some in series.values()]
    return Applied(
        tuple(one for part in parts for one in part.adjustments),
        tuple(one for part in parts for one in part.cash),
        tuple(one for part in parts for one in part.waiting),
        unhandled=tuple(one for part in parts for one in part.unhandled),
        plain=frozenset(name for part in parts for name in part.plain),
    )


def _series_of(one: Activity) -> str:
    symbol = one.symbol or ""
    return symbol[_EXPIRY_AND_RIGHT] if is_option(symbol) else symbol


def _is_paid_on_contracts(one: Activity) -> bool:
    what = one.sub_kind or one.kind.partition(".")[2]
    return bool(one.net_amount) and what.startswith("DIV") and not what.endswith("SDIV")


def _read_series(entries: Sequence[Activity], held: HeldBefore, known: Known) -> Applied:
    """Read the contracts of one expiry and right: the lowest strike that leaves becomes the lowest that comes in."""
    moved = [one for one in entries if one.qty and not one.net_amount and removal_of(one) not in _EXPLAINED]
    others = [one for one in entries if one not in moved]
    outs = sorted((one for one in moved if _takes_away(one, held)), key=_strike_of)
    ins = sorted((one for one in moved if one not in outs), key=_strike_of)
    rest = read_moves(others, held)
    if outs and not ins and all(_is_paid_for(one, others, known) for one in outs):
        if not known.have_waited(outs):
            return replace(rest, waiting=tuple(outs))
        sold = read_moves([replace(one, net_amount=ZERO, sub_kind=WORTHLESS_REMOVAL) for one in outs], held)
        return replace(rest, adjustments=(*sold.adjustments, *rest.adjustments))
    if len(outs) != len(ins) or any(_has_other_side(out, come) for out, come in zip(outs, ins, strict=True)):
        return replace(rest, waiting=tuple(moved))
    left = read_moves(outs, held).adjustments
    came = [
        adjustment_of(come, AdjustmentKind.MOVE, qty=come.qty, amount=_cost_for(out, gone, known))
        for out, gone, come in zip(outs, left, ins, strict=True)
    ]
    return replace(rest, adjustments=(*left, *came, *rest.adjustments))


def _cost_for(out: Activity, gone: Adjustment, known: Known) -> Decimal:
    """Return the cost that comes in for what left: none where it was realized before the new contracts were told."""
    return ZERO if cash_id_of(out) in known.recorded else (gone.amount or ZERO).copy_negate()


def _is_paid_for(out: Activity, others: Iterable[Activity], known: Known) -> bool:
    """Say whether cash alone is told of a contract that left: now, or in an earlier round."""
    is_told = any(one.symbol == out.symbol and one.net_amount and not one.qty for one in others)
    return is_told or (out.kind.partition(".")[0], out.symbol or "") in known.paid


def _takes_away(one: Activity, held: HeldBefore) -> bool:
    before = held(one.symbol or "", one.date).qty
    return bool(one.qty and before and (one.qty > ZERO) != (before > ZERO))


def _strike_of(one: Activity) -> str:
    return (one.symbol or "")[_STRIKE]


def _has_other_side(out: Activity, come: Activity) -> bool:
    """Say whether contracts that were long would become short, or the other way round."""
    return ((out.qty or ZERO) > ZERO) == ((come.qty or ZERO) > ZERO)
