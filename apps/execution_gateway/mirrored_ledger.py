"""Carries out in the ledger what the account's mirror decides, and answers what the mirror asks of the ledger.

Everything here may be repeated: fills, voids and adjustments are known by the broker's own ids.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

import structlog

from apps.execution_gateway.adjustment_ledger import RecordedAdjustment
from apps.execution_gateway.column_room import (
    has_room_for_adjustment,
    has_room_for_adjustment_id,
    has_room_for_fill,
    has_room_for_fill_id,
)
from apps.execution_gateway.ledger import Changes, Ledger, RecordedFill
from libs.broker.activity_results import ACTIVITY, CASH, Applied, HeldBefore, Known
from libs.broker.cash_journal import CashEntry, cash_entry, lacks_amount
from libs.broker.commands import Command, RecordActivity, RecordExecution, VoidExecution
from libs.broker.corporate_actions import apply_activities
from libs.broker.executions import Activity, Execution
from libs.broker.instruments import OPTION_MULTIPLIER, is_option
from libs.broker.known_executions import LedgerExecution, is_correction
from libs.broker.reconcile import OurPosition
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.days import day_start
from libs.portfolio.fills import EXACT, ZERO, Fill
from libs.portfolio.folding import News, Voiding, advance

log = structlog.get_logger(__name__)

RECONCILED: Final = "reconciled:"
"""How the ids of adjustments begin that took the broker at its word."""
_MOVING: Final = frozenset(
    {
        AdjustmentKind.SPLIT,
        AdjustmentKind.SYMBOL_CHANGE,
        AdjustmentKind.TRANSFER,
        AdjustmentKind.MOVE,
        AdjustmentKind.SPIN_OFF,
    }
)
_BOOKED_WITHIN: Final = timedelta(days=4)
"""A corporate action is in the positions at most this long before its activities are told."""
_SHOWN: Final = 99
"""How many letters of a name that does not fit are logged."""


class MirroredLedger:
    """The ledger of one mirrored account. Every method raises DatabaseUnavailableError; then repeat it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.executions = 0
        self.voids = 0
        self.adjustments = 0
        self._waiting: dict[str, Activity] = {}
        self._waited: frozenset[str] = frozenset()
        self.applied = Applied()
        """What the activities of the last round came to."""
        self.journal: dict[str, CashEntry] = {}
        """The account's cash as its activities name it, by activity."""
        self.unknown_cash: frozenset[str] = frozenset()
        """The activities that must have moved cash, and do not say how much."""

    async def open_journal(self) -> None:
        """Read the journal of the account's cash, as earlier runs have left it."""
        self.journal = await self._ledger.cash.load()

    async def carry_out(self, commands: Iterable[Command], adjustments: Iterable[Adjustment] = ()) -> set[str]:
        """Carry out commands and record adjustments, all at once; return the symbols whose positions may have changed.

        Activities are only collected: `apply_activities` works them out when a round is complete, for a split comes
        in two of them.
        """
        fills: list[Fill] = []
        voids: dict[str, str] = {}
        for command in commands:
            match command:
                case RecordExecution(execution=execution) if has_room_for_fill(fill := _fill(execution)):
                    fills.append(fill)
                case RecordExecution(execution=execution):
                    # It shows as a difference of the account, and the rest goes on.
                    log.error(
                        "execution_does_not_fit",
                        fill_id=execution.execution_id[:_SHOWN],
                        symbol=execution.symbol[:_SHOWN],
                    )
                case VoidExecution(execution_id=execution_id, reason=reason) if has_room_for_fill_id(execution_id):
                    voids.setdefault(execution_id, reason)
                case VoidExecution(execution_id=execution_id, reason=reason):
                    # Nor did the execution.
                    log.error("execution_void_does_not_fit", fill_id=execution_id[:_SHOWN], reason=reason)
                case RecordActivity(activity=activity):
                    self._waiting[activity.activity_id] = activity
        return await self._record(Changes(fills, voids, _fitting_adjustments(adjustments)))

    async def apply_activities(self) -> set[str]:
        """Record what the collected activities come to; return the symbols whose positions have changed."""
        if not self._waiting:
            return set()
        await self._keep_journal()
        applied = await self._work_out()
        changed = await self._record(
            Changes(
                adjustments=_fitting_adjustments(applied.adjustments),
                # One without room was never recorded.
                void_adjustments=dict.fromkeys(filter(has_room_for_adjustment_id, applied.undone), "taken back"),
                plain=applied.plain,
            )
        )
        for unhandled in applied.unhandled:
            if unhandled.activity.activity_id in self._waited:
                continue
            log.warning(
                "account_activity_unhandled",
                activity_id=unhandled.activity.activity_id,
                kind=unhandled.activity.kind,
                symbol=unhandled.activity.symbol,
                reason=unhandled.why,
            )
        self.applied = applied
        # What was not understood is tried again too: it stays named, and what it was short of may be reported later.
        left = [*applied.waiting, *(one.activity for one in applied.unhandled)]
        self._waiting = {one.activity_id: self._waiting[one.activity_id] for one in left}
        self._waited = frozenset(self._waiting)
        return changed

    async def _keep_journal(self) -> None:
        """Append to the journal what is new of the collected activities' cash, or is another amount now."""
        found = [entry for one in self._waiting.values() if (entry := cash_entry(one)) is not None]
        unknown = {one.activity_id for one in self._waiting.values() if lacks_amount(one)}
        self.unknown_cash = (self.unknown_cash - self._waiting.keys()) | unknown
        new = [entry for entry in found if self.journal.get(entry.activity_id) != entry]
        if new:
            await self._ledger.cash.append(new)
            self.journal = self.journal | {entry.activity_id: entry for entry in new}

    async def _work_out(self) -> Applied:
        """Return what the collected activities come to.

        Worked out on the book without the corrections that they explain: with these, shares and cost had moved before.
        """
        book = await self._ledger.book()
        symbols = {one.symbol for one in self._waiting.values() if one.symbol is not None}
        known = Known(self._waited, _adjustment_ids(book, symbols), _paid_by_actions(book, symbols))
        applied = apply_activities(self._waiting.values(), _held_in(book), known)
        new, standing = await self._ledger.adjustments.look_up(_fitting_adjustments(applied.adjustments))
        explained = _explained((), new, standing)
        if not explained:
            return applied
        gone = [one.adjustment for one in standing if one.adjustment.adjustment_id in explained]
        return apply_activities(self._waiting.values(), _held_in(_without(book, gone)), known)

    async def executions_since(self, moment: datetime) -> list[LedgerExecution]:
        """Return what is recorded of executions since `moment`, void ones included."""
        return [_seed(recorded) for recorded in await self._ledger.fills_since(moment)]

    async def book(self) -> Book:
        """Return the positions as recorded."""
        return await self._ledger.book()

    async def _record(self, changes: Changes) -> set[str]:
        """Record what is new, and take back what it explains: with it, that would count twice."""
        if not any((changes.fills, changes.void_fills, changes.adjustments, changes.void_adjustments)):
            return set()
        new = await self._ledger.record_changes(changes, _explained)
        self.executions += len(new.fills)
        self.voids += len(new.void_fills)
        self.adjustments += len(new.adjustments)
        for fill in new.fills:
            log.info("execution_recorded", fill_id=fill.fill_id, symbol=fill.symbol, side=fill.side, qty=str(fill.qty))
        for voided in new.void_fills:
            fill = voided.fill
            log.info("execution_voided", fill_id=fill.fill_id, symbol=fill.symbol, reason=voided.void_reason)
        for one in new.adjustments:
            log.info("account_adjustment", adjustment_id=one.adjustment_id, kind=one.kind, reason=one.reason)
        for taken_back in new.void_adjustments:
            adjustment_id = taken_back.adjustment.adjustment_id
            log.info("account_adjustment_taken_back", adjustment_id=adjustment_id, reason=taken_back.void_reason)
        # Executions that are told again may be of a writing whose answer was lost: nobody has heard of them yet.
        return new.symbols.union(fill.symbol for fill in changes.fills)


def our_positions(book: Book, now: datetime) -> dict[str, OurPosition]:
    """Return what the book holds, with cost by Alpaca's method beside the average."""
    theirs = book.alpaca_positions(now)
    return {
        position.symbol: OurPosition(position.qty, theirs[position.symbol].cost_basis, position.cost_basis)
        for position in book.open_positions
    }


def lately_appeared(book: Book, now: datetime) -> Mapping[str, Decimal]:
    """Return the cost of what was taken over from outside within the last days, by symbol, without any activity."""
    appeared: dict[str, Decimal] = {}
    for symbol, steps in book.steps.items():
        for step in reversed(steps):
            entry = step.entry
            if entry.at < now - _BOOKED_WITHIN:
                break
            if isinstance(entry, Adjustment) and entry.adjustment_id.startswith(RECONCILED) and entry.qty:
                appeared[symbol] = EXACT.add(appeared.get(symbol, ZERO), entry.amount or ZERO)
    return appeared


def _held_in(book: Book) -> HeldBefore:
    def held(symbol: str, day: date) -> OurPosition:
        position = book.position_before(symbol, day_start(day))
        return OurPosition(position.qty, position.cost_basis)

    return held


def _without(book: Book, adjustments: Iterable[Adjustment]) -> Book:
    """Return the book as it would be without some adjustments."""
    first = book.revision.adjustment_voids + 1
    voids = [Voiding(seq, one.adjustment_id, one.symbol) for seq, one in enumerate(adjustments, start=first)]
    return advance(book, News(adjustment_voids=voids))


def last_executions(book: Book) -> Mapping[str, datetime]:
    """Return of each symbol when it was last traded."""
    found = {}
    for symbol, steps in book.steps.items():
        traded_at = next((step.entry.at for step in reversed(steps) if isinstance(step.entry, Fill)), None)
        if traded_at is not None:
            found[symbol] = traded_at
    return found


def numbered(adjustments: Iterable[Adjustment], book: Book) -> list[Adjustment]:
    """Return reconciling adjustments under ids that name the state of the ledger they correct.

    Two gateways on one database see the same difference of the same ledger: it is corrected once.
    """
    revision = "-".join(str(part) for part in book.revision)
    return [
        Adjustment(
            f"{RECONCILED}{one.symbol}:{revision}", one.kind, one.symbol, one.effective_at, one.reason,
            qty=one.qty, amount=one.amount,
        )
        for one in adjustments
    ]  # fmt: skip


def _explained(
    fills: Sequence[Fill], adjustments: Sequence[Adjustment], standing: Sequence[RecordedAdjustment]
) -> set[str]:
    """Return the ids of the adjustments that took the broker at its word for want of what is told only now."""
    reconciled = [one for one in standing if one.adjustment.adjustment_id.startswith(RECONCILED)]
    told: dict[str, list[Fill]] = defaultdict(list)
    for fill in fills:
        if not is_correction(fill.fill_id):
            told[fill.symbol].append(fill)
    explained = [one for symbol, of_symbol in told.items() for one in _explained_by(symbol, of_symbol, reconciled)]
    for moving in adjustments:
        if moving.kind in _MOVING and not moving.adjustment_id.startswith(RECONCILED):
            explained += [
                one
                for one in reconciled
                if not set(moving.symbols).isdisjoint(one.adjustment.symbols)
                and timedelta() <= one.recorded_at - moving.effective_at < _BOOKED_WITHIN
            ]
    return {one.adjustment.adjustment_id for one in explained}


def _explained_by(
    symbol: str, told: Sequence[Fill], reconciled: Iterable[RecordedAdjustment]
) -> list[RecordedAdjustment]:
    """Return the adjustments of a symbol that were made for want of just these fills."""
    since = min(fill.filled_at for fill in told)
    standing = [one for one in reconciled if symbol in one.adjustment.symbols and one.recorded_at >= since]
    net = _sum(fill.signed_qty for fill in told)
    alone = [one for one in standing if one.adjustment.qty == net]
    if alone:
        return alone[:1]
    return standing if _sum(one.adjustment.qty or ZERO for one in standing) == net else []


def _fitting_adjustments(adjustments: Iterable[Adjustment]) -> list[Adjustment]:
    """Return the adjustments whose names fit. Of another the account will differ, and the rest goes on."""
    fitting = []
    for one in adjustments:
        if has_room_for_adjustment(one):
            fitting.append(one)
        else:
            log.error("adjustment_does_not_fit", adjustment_id=one.adjustment_id[:_SHOWN], symbol=one.symbol[:_SHOWN])
    return fitting


def _adjustment_ids(book: Book, symbols: Iterable[str | None]) -> frozenset[str]:
    """Return the ids of the adjustments that stand of these symbols."""
    entries = (step.entry for symbol in symbols if symbol is not None for step in book.steps.get(symbol, ()))
    return frozenset(entry.adjustment_id for entry in entries if isinstance(entry, Adjustment))


def _paid_by_actions(book: Book, symbols: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Return the kinds of activities, with the symbol, that have brought cash without shares."""
    entries = [step.entry for symbol in symbols for step in book.steps.get(symbol, ())]
    return frozenset(
        (entry.reason.partition(":")[0], entry.symbol)
        for entry in entries
        if isinstance(entry, Adjustment)
        and entry.kind is AdjustmentKind.CASH_IN_LIEU
        and entry.adjustment_id.startswith(ACTIVITY)
        and not entry.adjustment_id.endswith(CASH)
    )


def _fill(execution: Execution) -> Fill:
    price = execution.price
    if is_option(execution.symbol, execution.asset_class):
        price = EXACT.multiply(price, OPTION_MULTIPLIER)
    return Fill(
        execution.execution_id, execution.symbol, execution.side, execution.qty, price, ZERO, execution.executed_at
    )


def _seed(recorded: RecordedFill) -> LedgerExecution:
    fill = recorded.fill
    price = fill.price
    if is_option(fill.symbol):
        price = EXACT.divide(price, OPTION_MULTIPLIER)
    execution = Execution(fill.fill_id, None, fill.symbol, None, fill.side, fill.qty, price, None, fill.filled_at)
    return LedgerExecution(execution, recorded.voided_at is not None)


def _sum(quantities: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for qty in quantities:
        total = EXACT.add(total, qty)
    return total
