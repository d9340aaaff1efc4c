"""Gathers from the book and the journal of cash what a comparison with the account as a whole needs. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from libs.broker.account_messages import AccountPosition
from libs.broker.account_parity import LedgerDay, LedgerTotals
from libs.broker.cash_activities import FEES
from libs.broker.cash_journal import CashEntry, total_of
from libs.broker.reconcile import Reason
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.days import day_start
from libs.portfolio.fills import EXACT, ZERO

_RECONCILED: Final = "reconciled:"
_OF_SPLIT: Final = "activity:split:"


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """The totals of a book; which shares and which cash came from outside; and the journal of the account's cash."""

    totals: LedgerTotals
    shares: tuple[Adjustment, ...]
    cash: tuple[Adjustment, ...]
    unclassified: tuple[Adjustment, ...]
    journal: tuple[CashEntry, ...]


@dataclass(frozen=True, slots=True)
class DayFacts:
    """What is known of the day: its session, the one before, what closed positions gained, and closes by symbol."""

    session: date
    previous_session: date
    closed_gain: Decimal | None
    previous_close: Callable[[str], Decimal | None]


def ledger_facts(book: Book, journal: Iterable[CashEntry]) -> LedgerFacts:
    """Gather them. Takes as long as the ledger is: in an event loop call `asyncio.to_thread`."""
    entries = tuple(journal)
    traded, outside, unclassified = book.entry_cash()
    adjustments = [step.entry for steps in book.steps.values() for step in steps if isinstance(step.entry, Adjustment)]
    shares = tuple(one for one in adjustments if _is_from_outside(one))
    earned = ZERO
    for position in book.positions.values():
        gained = EXACT.subtract(EXACT.add(position.realized_pnl, position.income), position.fees)
        earned = EXACT.add(earned, gained)
    outside = EXACT.add(outside, total_of(one for one in entries if one.is_outside))
    totals = LedgerTotals(EXACT.add(traded, total_of(entries)), earned, outside, unclassified, _amounts(shares))
    cash = tuple(one for one in adjustments if one.kind is AdjustmentKind.CASH)
    return LedgerFacts(totals, shares, cash, book.unclassified, entries)


def ledger_day(
    facts: LedgerFacts, day: DayFacts, positions: Mapping[str, AccountPosition], snapshot: date | None
) -> LedgerDay:
    """Return what belongs to the day, `snapshot` being the date of the account's last equity (None: not known)."""
    since = snapshot or day.previous_session
    begin, following = day_start(day.session), day_start(since + timedelta(days=1))
    inside = [one for one in facts.journal if not one.is_outside]
    fees = [one for one in inside if one.kind in FEES and one.booked_on == since]
    return LedgerDay(
        day.previous_session,
        day.closed_gain,
        EXACT.add(
            total_of(one for one in facts.journal if one.is_outside and one.booked_on > since),
            _amounts(one for one in facts.cash if one.effective_at >= following),
        ),
        total_of(one for one in inside if since < one.booked_on < day.session),
        _amounts(one for one in facts.unclassified if one.effective_at >= begin),
        total_of(fees).copy_negate(),
        _shares_at_close([one for one in facts.shares if one.effective_at >= begin], day, positions),
    )


def _shares_at_close(
    moved: Iterable[Adjustment], day: DayFacts, positions: Mapping[str, AccountPosition]
) -> Decimal | None:
    value = ZERO
    for one in moved:
        theirs = positions.get(one.symbol)
        close = day.previous_close(one.symbol) if theirs is None else theirs.lastday_price
        if close is None:
            return None
        value = EXACT.add(value, EXACT.multiply(one.qty or ZERO, close))
    return value


def _is_from_outside(adjustment: Adjustment) -> bool:
    """Say whether shares came from outside, or went there, by the broker's word; not where we took over a difference.

    What the account held when it was first read had come from outside of the ledger.
    """
    if adjustment.kind is not AdjustmentKind.TRANSFER or not adjustment.qty:
        return False
    if adjustment.adjustment_id.startswith(_RECONCILED):
        return adjustment.reason == Reason.OPENING_BALANCE
    return not adjustment.adjustment_id.startswith(_OF_SPLIT)


def _amounts(adjustments: Iterable[Adjustment]) -> Decimal:
    total = ZERO
    for one in adjustments:
        total = EXACT.add(total, one.amount or ZERO)
    return total
