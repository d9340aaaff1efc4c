"""Turns the account's activities that are no trades into adjustments of the ledger. Pure.

Decides by the broker's activity type, and for splits and renamings by the pair of entries that make one: old shares
out, new shares in, under one date. Nothing is dropped: what moves cash alone is read in `cash_activities.py`, what
comes in halves waits, what we do not understand is returned.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
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
    fee_id_of,
)
from libs.broker.cash_activities import cash_of_action, fee_in_coins, read_cash
from libs.broker.executions import Activity, Standing, standing_of
from libs.broker.option_changes import read_option_changes
from libs.broker.reorganizations import REORGANIZATIONS, read_reorganizations
from libs.broker.share_moves import read_moves, read_renamings
from libs.broker.splits import read_split, split_ids_of
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.fills import EXACT, ZERO

_SPLITS: Final = frozenset({"SPLIT", "SSP", "FSPLIT", "RSPLIT"})
_RENAMINGS: Final = frozenset({"NC", "SC"})
_TRANSFERS: Final = REORGANIZATIONS | {"ACATS", "JNLS", "OPEXP", "OPASN", "OPXRC", "OPEXC", "OPTRD"}
_OPTION_CHANGES: Final = "OPCA"
_STOCK_DIVIDEND: Final = "SDIV"
_HALF_A_CENT: Final = Decimal("0.005")


def apply_activities(activities: Iterable[Activity], held: HeldBefore, known: Known = NOTHING_KNOWN) -> Applied:
    """Return what `activities` do to the ledger, each at most once however often it is given."""
    sorted_out = _Sorted()
    for activity in {one.activity_id: one for one in activities}.values():
        sorted_out.put(activity)
    parts = [_one_by_one(sorted_out.single)]
    parts += [read_split(entries, held, sorted_out.is_cut, known) for entries in sorted_out.splits.values()]
    parts += [read_renamings(entries, held) for entries in sorted_out.renamings.values()]
    parts += [read_moves(entries, held, known) for entries in sorted_out.moves.values()]
    parts += [read_option_changes(entries, held, known) for entries in sorted_out.option_changes.values()]
    parts += [_fee_in_coins(one, held) for one in sorted_out.coins]
    parts.append(_paid_beside(sorted_out))
    parts.append(read_reorganizations(sorted_out.reorganizations, held, known))
    return Applied(
        tuple(one for part in parts for one in part.adjustments),
        tuple(one for part in parts for one in part.cash),
        (*sorted_out.not_yet, *(one for part in parts for one in part.waiting)),
        (*sorted_out.undone_ids(), *(name for part in parts for name in part.undone)),
        tuple(one for part in parts for one in part.unhandled),
        frozenset(name for part in parts for name in part.plain),
    )


class _Sorted:
    """Activities by what has to be done with them; entries that belong together side by side."""

    def __init__(self) -> None:
        self.single: list[Activity] = []
        self.splits: dict[tuple[str, date], list[Activity]] = defaultdict(list)
        self.renamings: dict[date, list[Activity]] = defaultdict(list)
        self.moves: dict[tuple[str, str, date], list[Activity]] = defaultdict(list)
        self.option_changes: dict[date, list[Activity]] = defaultdict(list)
        self.coins: list[Activity] = []
        self.reorganizations: list[Activity] = []
        self.not_yet: list[Activity] = []
        self.undone: list[Activity] = []

    def put(self, activity: Activity) -> None:
        kind, standing = activity.kind.partition(".")[0], standing_of(activity)
        if standing is Standing.UNDONE:
            self.undone.append(activity)
        elif standing is Standing.PENDING:
            self.not_yet.append(activity)
        elif kind in _SPLITS and activity.symbol is not None:
            self.splits[activity.symbol, activity.date].append(activity)
        elif kind in _RENAMINGS:
            self.renamings[activity.date].append(activity)
        elif fee_in_coins(activity) is not None:
            self.coins.append(activity)
        elif kind in REORGANIZATIONS and activity.symbol is not None:
            self.reorganizations.append(activity)
        elif kind == _OPTION_CHANGES and activity.symbol is not None:
            self.option_changes[activity.date].append(activity)
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
            if kind in _SPLITS | _RENAMINGS | _TRANSFERS | {_OPTION_CHANGES} or fee_in_coins(activity) is not None:
                ids[cash_id_of(activity)] = None
            if fee_in_coins(activity) is not None:
                ids[fee_id_of(activity)] = None
            if kind in _SPLITS and (activity.symbol, activity.date) not in self.splits:
                ids |= dict.fromkeys(split_ids_of(activity))
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
                if result.kind is AdjustmentKind.UNCLASSIFIED and activity.qty:
                    unhandled.append(Unhandled(activity, "unknown kind of activity that may move shares"))
            case Unhandled():
                unhandled.append(result)
            case None:
                cash.append(activity)
    plain = frozenset(one.adjustment_id for one in adjustments)
    return Applied(tuple(adjustments), tuple(cash), unhandled=tuple(unhandled), plain=plain)


def _single(activity: Activity) -> Adjustment | Unhandled | None:
    """Return what an activity that stands alone does; None when it moves cash or nothing."""
    kind, amount = activity.kind, activity.net_amount
    if _is_in_shares(activity):
        return adjustment_of(activity, AdjustmentKind.MOVE, qty=activity.qty, amount=ZERO)
    if kind.partition(".")[0] in _SPLITS | _TRANSFERS | {_OPTION_CHANGES} and not amount:
        return Unhandled(activity, "no symbol")
    return read_cash(activity)


def _is_in_shares(activity: Activity) -> bool:
    """Say whether a dividend is paid in shares, which come at no cost.

    A cash dividend names its shares too, and what each is paid; its amount may round to nothing. A stock dividend has a
    rate as well, and no amount at all.
    """
    qty, rate = activity.qty, activity.per_share_amount
    if not activity.kind.startswith("DIV") or not qty or activity.net_amount or activity.symbol is None:
        return False
    sub_kind = activity.sub_kind or activity.kind.partition(".")[2]
    if sub_kind:
        return sub_kind == _STOCK_DIVIDEND
    if rate is None:
        return True
    return activity.net_amount is not None and EXACT.multiply(qty, rate).copy_abs() >= _HALF_A_CENT


def _fee_in_coins(activity: Activity, held: HeldBefore) -> Applied:
    """Pay a fee with coins: they are sold at the price that the broker names, and the fee is what that brings."""
    fee = fee_in_coins(activity) or ZERO
    sold = read_moves([replace(activity, net_amount=fee)], held)
    paid = adjustment_of(activity, AdjustmentKind.FEE, amount=fee)
    return replace(sold, adjustments=(*sold.adjustments, replace(paid, adjustment_id=fee_id_of(activity))))


def _paid_beside(sorted_out: _Sorted) -> Applied:
    """Book the cash that entries of splits and renamings pay beside the shares that they move."""
    entries = [one for group in (*sorted_out.splits.values(), *sorted_out.renamings.values()) for one in group]
    paid = [
        replace(adjustment, adjustment_id=cash_id_of(one))
        for one in entries
        if (adjustment := cash_of_action(one)) is not None
    ]
    return Applied(tuple(paid), plain=frozenset(one.adjustment_id for one in paid))
