"""Compares our positions with the account's, gives every difference a reason, and decides when the broker is right.

Pure. A difference becomes an adjustment of the ledger only when two reads in a row saw the same one, with a catch-up
in between and no execution of that symbol: nothing that is merely late is ever adjusted. A cent or less never is. What
is one event (`cost_events.py`) is adjusted at once, or not at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import combinations
from typing import Final

from libs.broker.account_messages import AccountPosition, PositionsAnswer
from libs.broker.commands import VoidExecution
from libs.broker.cost_events import CostEvents, find_cost_events
from libs.broker.executions import Execution
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.days import NEW_YORK, day_start
from libs.portfolio.fills import EXACT, ZERO, Side

CENT: Final = Decimal("0.01")
SYNC_WINDOW: Final = (time(2, 15), time(2, 45))
"""New York time in which the account's books change under us: the morning sync, 02:15 to 02:30, and some grace."""

_LARGEST_SPLIT_DENOMINATOR: Final = 20
_MOST_CANDIDATES: Final = 10
_SPLIT_PATIENCE: Final = timedelta(minutes=15)
"""The parts of one corporate action have been booked ten minutes apart."""


class Reason(StrEnum):
    """Why ours and theirs differ, as far as we can tell."""

    MISSED_EXECUTION = "missed_execution"
    UNKNOWN_EXECUTION = "unknown_execution"
    BUSTED_EXECUTION = "busted_execution"
    CORPORATE_ACTION = "corporate_action"
    OPENING_BALANCE = "opening_balance"
    TRANSFER = "transfer"
    ROUNDING = "rounding"
    COST_METHOD = "cost_method"
    TIMING = "timing"
    UNREADABLE_HOLDING = "unreadable_holding"


@dataclass(frozen=True, slots=True)
class OurPosition:
    """What our ledger holds: signed shares, signed USD of cost by Alpaca's method, and by average cost if known."""

    qty: Decimal
    cost: Decimal
    average_cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else is known at the time of a read, at `now`.

    `caught_up_at`: when the last complete catch-up was begun, None: never one; `is_opening`: this account has never
    been in the ledger; `opening`: symbols that it held then and that could not be settled yet. `unsettled`, `absent`:
    see `Mirror`. `unhandled`: symbols with activities that we could not apply. `awaiting_cost`: those of them whose
    shares came by a reorganization of which the rest is not reported yet. `appeared`: what shares cost, by symbol, that
    lately were taken over from outside. `last_execution_at`: of each symbol, by the broker's clock.
    """

    now: datetime
    caught_up_at: datetime | None
    is_opening: bool = False
    opening: frozenset[str] = frozenset()
    unsettled: frozenset[str] = frozenset()
    absent: tuple[Execution, ...] = ()
    unhandled: frozenset[str] = frozenset()
    awaiting_cost: frozenset[str] = frozenset()
    appeared: Mapping[str, Decimal] = field(default_factory=dict)
    last_execution_at: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """Ours and the account's figures of one symbol: signed shares, signed USD of cost. 0 shares: not held.

    `theirs_qty` and `theirs_cost` are None for a holding that could not be read. `is_explained`: it is no fault of
    either side, and goes away by itself or stays a cent.
    """

    symbol: str
    ours_qty: Decimal
    theirs_qty: Decimal | None
    ours_cost: Decimal
    theirs_cost: Decimal | None
    reason: Reason
    is_explained: bool

    @property
    def missing_qty(self) -> Decimal:
        """Signed shares that would have to come in to agree; 0 when theirs is not known."""
        return ZERO if self.theirs_qty is None else EXACT.subtract(self.theirs_qty, self.ours_qty)

    @property
    def missing_cost(self) -> Decimal:
        """Signed USD of cost that would have to come in to agree; 0 when theirs is not known."""
        return ZERO if self.theirs_cost is None else EXACT.subtract(self.theirs_cost, self.ours_cost)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one read showed, and what the ledger has to do: adjustments (transfers), and executions to void."""

    differences: tuple[Difference, ...]
    adjustments: tuple[Adjustment, ...] = ()
    voids: tuple[VoidExecution, ...] = ()

    @property
    def wants_catch_up(self) -> bool:
        """Whether something is unexplained: a deep catch-up may explain it before the next read."""
        return any(not difference.is_explained for difference in self.differences)


def compare(
    ours: Mapping[str, OurPosition], answer: PositionsAnswer, circumstances: Circumstances
) -> tuple[Difference, ...]:
    """Return every difference, by symbol. Equal to the last digit is no difference."""
    theirs = {position.symbol: position for position in answer.positions}
    named = {one.symbol for one in answer.unreadable}
    found: list[Difference] = []
    for symbol in sorted(ours.keys() | theirs.keys() | (named - {None}), key=str):
        if symbol is None:
            continue
        mine = ours.get(symbol)
        is_unreadable = symbol in named or (None in named and symbol not in theirs and mine is not None and mine.qty)
        if is_unreadable:
            qty, cost = (mine.qty, mine.cost) if mine is not None else (ZERO, ZERO)
            found.append(Difference(symbol, qty, None, cost, None, Reason.UNREADABLE_HOLDING, is_explained=True))
        elif (difference := _difference(symbol, mine, theirs.get(symbol), circumstances)) is not None:
            found.append(difference)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A difference as first seen, and when: our shares and cost, and what is missing of each."""

    figures: tuple[Decimal, Decimal, Decimal, Decimal]
    first_at: datetime


class Reconciler:
    """Remembers the differences of the read before. One for each account.

    `patience` is for how long a difference must have stood besides; longer, when REST is known to lag.
    """

    def __init__(self, patience: timedelta = timedelta()) -> None:
        self._patience = patience
        self._seen: dict[str, _Sighting] = {}

    def take(self, ours: Mapping[str, OurPosition], answer: PositionsAnswer, circumstances: Circumstances) -> Outcome:
        """Compare one read of the account with `ours` as the ledger stood when the answer came."""
        differences = compare(ours, answer, circumstances)
        open_ones = {one.symbol: one for one in differences if not one.is_explained}
        self._seen = {symbol: self._sighted(one, circumstances.now) for symbol, one in open_ones.items()}
        events = find_cost_events([one for one in open_ones.values() if _may_be_an_event(one)], circumstances.appeared)
        settled = [
            one
            for symbol, one in open_ones.items()
            if _is_settled(one, self._seen[symbol], circumstances, self._patience)
        ]
        adjustments: list[Adjustment] = []
        voids: list[VoidExecution] = []
        for difference in _ready(settled, events):
            del self._seen[difference.symbol]
            if difference.reason is Reason.BUSTED_EXECUTION:
                voids += _voids(difference, circumstances)
            else:
                is_event = events.event_of(difference.symbol) is not None
                adjustments.append(_adjustment(difference, circumstances, is_event=is_event))
        for event in events.events:
            adjustments = _balanced(adjustments, event)
        return Outcome(differences, tuple(adjustments), tuple(voids))

    def _sighted(self, difference: Difference, now: datetime) -> _Sighting:
        """Return when a difference was first seen as it is."""
        sighting = self._seen.get(difference.symbol)
        # Ours too: two executions missed one after the other may lack the same shares.
        figures = (
            difference.ours_qty, difference.ours_cost, difference.missing_qty, difference.missing_cost,
        )  # fmt: skip
        return sighting if sighting is not None and sighting.figures == figures else _Sighting(figures, now)


def is_sync_window(now: datetime) -> bool:
    """Say whether the account's books are being rewritten: nothing read now can be compared."""
    begins, ends = SYNC_WINDOW
    return begins <= now.astimezone(NEW_YORK).time() < ends


def _difference(
    symbol: str, mine: OurPosition | None, theirs: AccountPosition | None, circumstances: Circumstances
) -> Difference | None:
    ours_qty, ours_cost = (mine.qty, mine.cost) if mine is not None else (ZERO, ZERO)
    theirs_qty, theirs_cost = (theirs.qty, theirs.cost_basis) if theirs is not None else (ZERO, ZERO)
    if ours_qty == theirs_qty and ours_cost == theirs_cost:
        return None
    reason, is_explained = _reason(symbol, mine, theirs_qty, theirs_cost, circumstances)
    return Difference(symbol, ours_qty, theirs_qty, ours_cost, theirs_cost, reason, is_explained)


def _reason(
    symbol: str, mine: OurPosition | None, qty: Decimal, cost: Decimal, circumstances: Circumstances
) -> tuple[Reason, bool]:
    """Return why the account's `qty` and `cost` are not ours, and whether that explains it all."""
    ours_qty = mine.qty if mine is not None else ZERO
    ours_cost = mine.cost if mine is not None else ZERO
    is_cost_only = ours_qty == qty
    if is_cost_only and _is_about(ours_cost, cost):
        return Reason.ROUNDING, True
    if is_sync_window(circumstances.now) or symbol in circumstances.unsettled:
        return Reason.TIMING, True
    if symbol in circumstances.unhandled:
        return Reason.CORPORATE_ACTION, False
    if circumstances.is_opening or symbol in circumstances.opening:
        return Reason.OPENING_BALANCE, False
    if is_cost_only:
        average = mine.average_cost if mine is not None else None
        return Reason.COST_METHOD, average is not None and _is_about(average, cost)
    return _reason_of_qty(symbol, mine, qty, cost, circumstances), False


def _reason_of_qty(
    symbol: str, mine: OurPosition | None, qty: Decimal, cost: Decimal, circumstances: Circumstances
) -> Reason:
    # First, for the busted execution may be the one that had closed the position.
    ours_qty = mine.qty if mine is not None else ZERO
    if _busted(circumstances.absent, symbol, EXACT.subtract(ours_qty, qty)):
        return Reason.BUSTED_EXECUTION
    if mine is None:
        return Reason.TRANSFER
    if _is_like_a_split(mine, qty, cost):
        return Reason.CORPORATE_ACTION
    return Reason.MISSED_EXECUTION if abs(qty) > abs(mine.qty) else Reason.UNKNOWN_EXECUTION


def _is_like_a_split(mine: OurPosition, qty: Decimal, cost: Decimal) -> bool:
    """Say whether the shares changed by a small ratio while the cost stayed."""
    if not (mine.qty and qty and (mine.qty > ZERO) == (qty > ZERO) and _is_about(mine.cost, cost)):
        return False
    ratio = Fraction(qty) / Fraction(mine.qty)
    near = ratio.limit_denominator(_LARGEST_SPLIT_DENOMINATOR) if ratio >= 1 else 1 / ratio
    near = near.limit_denominator(_LARGEST_SPLIT_DENOMINATOR)
    exact = ratio if ratio >= 1 else 1 / ratio
    return near != 1 and abs(exact - near) < Fraction(1, 10**6)


def _may_be_an_event(difference: Difference) -> bool:
    """Say whether a difference may be part of an event that moves cost between symbols."""
    return difference.reason not in {Reason.OPENING_BALANCE, Reason.BUSTED_EXECUTION}


def _ready(settled: Iterable[Difference], events: CostEvents) -> list[Difference]:
    """Return what to adjust now: of an event all or none, and no cost while it is unclear which shares took it."""
    by_symbol = {one.symbol: one for one in settled}
    held_back = {
        symbol
        for symbol in events.ambiguous & by_symbol.keys()
        if not (by_symbol[symbol].missing_qty and by_symbol[symbol].ours_qty)
    }
    for event in events.events:
        if not event <= by_symbol.keys():
            held_back |= event
    return [one for symbol, one in by_symbol.items() if symbol not in held_back]


def _balanced(adjustments: list[Adjustment], event: frozenset[str]) -> list[Adjustment]:
    """Return the adjustments with as much cost coming in by `event` as leaves: the shares that moved take it all."""
    members = [one for one in adjustments if one.symbol in event]
    moved = next((one for one in members if one.qty), None)
    if moved is None or len(members) < len(event):
        return adjustments
    rest = ZERO
    for one in members:
        rest = EXACT.add(rest, one.amount or ZERO)
    whole = replace(moved, amount=EXACT.subtract(moved.amount or ZERO, rest))
    return [whole if one is moved else one for one in adjustments]


def _is_settled(difference: Difference, sighting: _Sighting, circumstances: Circumstances, patience: timedelta) -> bool:
    """Say whether the difference has stood long enough to be believed."""
    now, caught_up_at = circumstances.now, circumstances.caught_up_at
    if caught_up_at is None:
        return False
    if difference.reason is Reason.OPENING_BALANCE:
        return True
    is_cost_only = not difference.missing_qty
    if is_cost_only and difference.symbol in circumstances.awaiting_cost:
        return False  # what the rest of the event will say of the cost is not guessed
    if is_cost_only or difference.symbol in circumstances.unhandled:
        patience = max(patience, _SPLIT_PATIENCE)
    executed_at = circumstances.last_execution_at.get(difference.symbol)
    return (
        sighting.first_at < caught_up_at
        and now - sighting.first_at >= patience
        and (executed_at is None or executed_at <= sighting.first_at)
    )


def _adjustment(difference: Difference, circumstances: Circumstances, *, is_event: bool) -> Adjustment:
    """Return what makes ours equal to the account's.

    Shares that came or went unexplained count as having crossed the account's edge: neither cash nor gain is known.
    What was bought, or became other shares, counts at its cost.
    """
    now = circumstances.now
    is_more = difference.theirs_qty is not None and difference.theirs_qty.copy_abs() > difference.ours_qty.copy_abs()
    has_no_source = is_more and difference.symbol in circumstances.awaiting_cost and not is_event
    return Adjustment(
        adjustment_id=f"reconciled:{difference.symbol}:{now.astimezone(NEW_YORK):%Y%m%dT%H%M%S.%f%z}",
        kind=AdjustmentKind.MOVE if is_event or has_no_source or _is_within(difference) else AdjustmentKind.TRANSFER,
        symbol=difference.symbol,
        effective_at=_effective_at(difference, circumstances, is_event=is_event),
        reason=Reason.CORPORATE_ACTION.value if is_event else difference.reason.value,
        qty=difference.missing_qty,
        # What they cost is still in the symbol that they came of.
        amount=ZERO if has_no_source else difference.missing_cost,
    )


def _is_within(difference: Difference) -> bool:
    """Say whether shares were bought, or became more or fewer of the same cost."""
    if not difference.missing_qty:
        return False
    is_split = difference.reason is Reason.CORPORATE_ACTION and _is_about(difference.missing_cost, ZERO)
    return is_split or difference.reason is Reason.MISSED_EXECUTION


def _effective_at(difference: Difference, circumstances: Circumstances, *, is_event: bool) -> datetime:
    """Return now; the night before for what moved no shares today: an opening balance, another cost of the same shares.

    Not where there were trades today: those would then have been of other shares, or at another cost.
    """
    now = circumstances.now
    today = day_start(now.astimezone(NEW_YORK).date())
    executed_at = circumstances.last_execution_at.get(difference.symbol)
    is_overnight = executed_at is None or executed_at < today - timedelta(seconds=1)
    is_no_move = difference.reason is Reason.OPENING_BALANCE or (not difference.missing_qty and not is_event)
    if is_no_move and is_overnight:
        return today - timedelta(seconds=1)
    return now


def _voids(difference: Difference, circumstances: Circumstances) -> list[VoidExecution]:
    too_many = difference.missing_qty.copy_negate()
    busted = _busted(circumstances.absent, difference.symbol, too_many)
    return [VoidExecution(one.execution_id, Reason.BUSTED_EXECUTION.value) for one in busted]


def _busted(absent: Iterable[Execution], symbol: str, too_many: Decimal) -> tuple[Execution, ...]:
    """Return those absent executions without which `too_many` signed shares are gone; none when that is ambiguous."""
    candidates = [one for one in absent if one.symbol == symbol]
    if candidates and _net(candidates) == too_many:
        return tuple(candidates)
    if len(candidates) > _MOST_CANDIDATES:
        return ()
    subsets = (subset for size in range(1, len(candidates)) for subset in combinations(candidates, size))
    fitting = [subset for subset in subsets if _net(subset) == too_many]
    return fitting[0] if len(fitting) == 1 else ()


def _net(executions: Iterable[Execution]) -> Decimal:
    """Return the signed shares that the executions brought."""
    net = ZERO
    for one in executions:
        net = EXACT.add(net, one.qty) if one.side is Side.BUY else EXACT.subtract(net, one.qty)
    return net


def _is_about(one: Decimal, other: Decimal) -> bool:
    return abs(EXACT.subtract(one, other)) <= CENT
