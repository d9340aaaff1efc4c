"""Carries out in the ledger what the account's mirror decides, and answers what the mirror asks of the ledger.

Everything here may be repeated: fills, voids and adjustments are known by the broker's own ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

import structlog

from apps.execution_gateway.adjustment_ledger import AdjustmentNotFoundError, RecordedAdjustment
from apps.execution_gateway.column_room import has_room_for_adjustment, has_room_for_fill, has_room_for_fill_id
from apps.execution_gateway.ledger import FillNotFoundError, Ledger, RecordedFill
from libs.broker.activity_results import Applied, Known
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

log = structlog.get_logger(__name__)

RECONCILED: Final = "reconciled:"
"""How the ids of adjustments begin that took the broker at its word."""
_MOVING: Final = frozenset({AdjustmentKind.SPLIT, AdjustmentKind.SYMBOL_CHANGE, AdjustmentKind.TRANSFER})
_BOOKED_WITHIN: Final = timedelta(days=2)
"""A corporate action is in the positions at most this long before its activities are told."""
_MOST_TAKEN_BACK: Final = 20
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

    async def carry_out(self, commands: Sequence[Command]) -> set[str]:
        """Carry out commands in their order; return the symbols whose positions may have changed.

        Activities are only collected: `apply_activities` works them out when a round is complete, for a split comes
        in two of them.
        """
        changed: set[str] = set()
        fills: list[Fill] = []
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
                case VoidExecution(execution_id=execution_id, reason=reason):
                    changed |= await self._record(fills)
                    fills = []
                    changed |= await self._void(execution_id, reason)
                case RecordActivity(activity=activity):
                    self._waiting[activity.activity_id] = activity
        return changed | await self._record(fills)

    async def apply_activities(self) -> set[str]:
        """Record what the collected activities come to; return the symbols whose positions have changed."""
        if not self._waiting:
            return set()
        book = await self._ledger.book()

        def held(symbol: str, day: date) -> OurPosition:
            position = book.position_before(symbol, day_start(day))
            return OurPosition(position.qty, position.cost_basis)

        known = Known(self._waited, _adjustment_ids(book, {one.symbol for one in self._waiting.values()}))
        applied = apply_activities(self._waiting.values(), held, known)
        changed = await self.record_adjustments(applied.adjustments)
        for adjustment_id in applied.undone:
            try:
                changed.update((await self._ledger.adjustments.void(adjustment_id, "taken back")).adjustment.symbols)
            except AdjustmentNotFoundError:
                continue  # taken back before it was ever told
        for unhandled in applied.unhandled:
            log.warning(
                "account_activity_unhandled",
                activity_id=unhandled.activity.activity_id,
                kind=unhandled.activity.kind,
                symbol=unhandled.activity.symbol,
                reason=unhandled.why,
            )
        self.applied = applied
        self._waiting = {one.activity_id: one for one in applied.waiting}
        self._waited = frozenset(self._waiting)
        return changed

    async def record_adjustments(self, adjustments: Sequence[Adjustment]) -> set[str]:
        """Record adjustments that are new and fit; return the symbols whose positions have changed."""
        new = await self._ledger.adjustments.record_unknown(_fitting_adjustments(adjustments))
        for one in new:
            log.info("account_adjustment", adjustment_id=one.adjustment_id, kind=one.kind, reason=one.reason)
        self.adjustments += len(new)
        changed = {symbol for one in new for symbol in one.symbols}
        for one in new:
            if one.kind in _MOVING and not one.adjustment_id.startswith(RECONCILED):
                for symbol in one.symbols:
                    standing = await self._reconciled(symbol, one.effective_at)
                    changed |= await self._take_back(
                        [each for each in standing if each.recorded_at - one.effective_at < _BOOKED_WITHIN]
                    )
        return changed

    async def executions_since(self, moment: datetime) -> list[LedgerExecution]:
        """Return what is recorded of executions since `moment`, void ones included."""
        return [_seed(recorded) for recorded in await self._ledger.fills_since(moment)]

    async def book(self) -> Book:
        """Return the positions as recorded."""
        return await self._ledger.book()

    async def _record(self, fills: Sequence[Fill]) -> set[str]:
        new = await self._ledger.record_unknown_fills(fills)
        self.executions += len(new)
        for fill in new:
            log.info("execution_recorded", fill_id=fill.fill_id, symbol=fill.symbol, side=fill.side, qty=str(fill.qty))
        changed = {fill.symbol for fill in new}
        for symbol in sorted(changed):
            told = [fill for fill in new if fill.symbol == symbol and not is_correction(fill.fill_id)]
            if told:
                changed |= await self._take_back(await self._explained_by(symbol, told))
        return changed

    async def _explained_by(self, symbol: str, told: Sequence[Fill]) -> list[RecordedAdjustment]:
        """Return the adjustments that were made for want of just these fills, which are told only now."""
        net = _sum(fill.signed_qty for fill in told)
        standing = await self._reconciled(symbol, min(fill.filled_at for fill in told))
        alone = [one for one in standing if one.adjustment.qty == net]
        if alone:
            return alone[:1]
        return standing if _sum(one.adjustment.qty or ZERO for one in standing) == net else []

    async def _reconciled(self, symbol: str, since: datetime) -> list[RecordedAdjustment]:
        """Return the newest adjustments of `symbol` that stand, and took the broker at its word after `since`."""
        page = await self._ledger.adjustments.page(_MOST_TAKEN_BACK, symbol)
        return [
            one
            for one in page.adjustments
            if one.voided_at is None
            and one.recorded_at >= since
            and one.adjustment.adjustment_id.startswith(RECONCILED)
        ]

    async def _take_back(self, explained: Iterable[RecordedAdjustment]) -> set[str]:
        """Void adjustments that are explained by now: with what explains them they would count twice."""
        changed: set[str] = set()
        for one in explained:
            await self._ledger.adjustments.void(one.adjustment.adjustment_id, "explained")
            log.info("account_adjustment_taken_back", adjustment_id=one.adjustment.adjustment_id)
            changed.update(one.adjustment.symbols)
        return changed

    async def _void(self, execution_id: str, reason: str) -> set[str]:
        if not has_room_for_fill_id(execution_id):
            log.error("execution_void_does_not_fit", fill_id=execution_id[:_SHOWN], reason=reason)
            return set()  # nor did the execution
        try:
            voided = await self._ledger.void_fill(execution_id, reason)
        except FillNotFoundError:
            return set()  # never recorded here: it never counted
        self.voids += 1
        log.info("execution_voided", fill_id=execution_id, symbol=voided.fill.symbol, reason=reason)
        return {voided.fill.symbol}


def our_positions(book: Book, now: datetime) -> dict[str, OurPosition]:
    """Return what the book holds, with cost by Alpaca's method beside the average."""
    theirs = book.alpaca_positions(now)
    return {
        position.symbol: OurPosition(position.qty, theirs[position.symbol].cost_basis, position.cost_basis)
        for position in book.open_positions
    }


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
