"""Sets the ledger beside the account's cash and equity, which cannot be argued with. Pure.

Four comparisons, each ours - the account's. `cash`: what all activities and executions have paid. `equity`: the
account's cash and our shares at its own prices. `day_change`: our day's P&L, and by how much its equity has moved.
`total`: our P&L over the whole ledger, and its equity. What is no P&L (cash and shares from outside, the opening
balance) and what counts differently (marks, previous closes, timing) are parts with a name; the rest is unexplained.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Final

from libs.broker.account_messages import AccountPosition, AccountSummary
from libs.broker.parity import CENT, OurFigures
from libs.portfolio.days import day_gain
from libs.portfolio.fills import EXACT, ZERO

CURRENCY: Final = "USD"


class AccountPart(StrEnum):
    """What makes a part of a difference between the ledger and the account as a whole."""

    OPENING_BALANCE = "opening_balance"
    CASH_FROM_OUTSIDE = "cash_from_outside"
    SHARES_FROM_OUTSIDE = "shares_from_outside"
    UNCLASSIFIED = "unclassified"
    MARK = "mark"
    PREVIOUS_CLOSE = "previous_close"
    FEE = "fee"
    TIMING = "timing"
    ROUNDING = "rounding"


Parts = dict[AccountPart, Decimal]


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """What the whole ledger comes to, in exact USD.

    `paid`: by executions and activities, whatever they are booked as. `earned`: realized and income less fees.
    `outside`, `unclassified`: cash of these kinds. `shares_outside`: the cost of shares that came from outside.
    """

    paid: Decimal
    earned: Decimal
    outside: Decimal = ZERO
    unclassified: Decimal = ZERO
    shares_outside: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class LedgerDay:
    """What belongs to the day beside the figures of what is held, in exact USD; None: not known.

    `previous_session`: whose close the day begins with. `closed_gain`: of what is no longer held. `outside`, `earlier`
    and `unclassified`: cash from outside since the account's last snapshot, other cash since then from before the day
    began, cash of the day that is not classified. `late_fees`: those booked on the day of the snapshot, maybe after it.
    `shares_outside`: what came from outside today, at the previous close.
    """

    previous_session: date
    closed_gain: Decimal | None = ZERO
    outside: Decimal = ZERO
    earlier: Decimal = ZERO
    unclassified: Decimal = ZERO
    late_fees: Decimal = ZERO
    shares_outside: Decimal | None = ZERO


@dataclass(frozen=True, slots=True)
class AccountCircumstances:
    """What else bears on a comparison.

    `is_complete`: all activities since the account's beginning are known. `opening_cash`: what none of them names, in
    USD; None: not fixed yet. `is_settling`: executions or halves of corporate actions are under way. `drift`: by how
    much the account's equity moved while it was asked, in USD.
    """

    is_complete: bool
    opening_cash: Decimal | None
    is_settling: bool = False
    drift: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class ComparedAccount:
    """One figure of ours beside the account's, in exact USD; `parts` and `unexplained` add up to the difference.

    None is unknown. `unexplained` is None too when the history is incomplete.
    """

    ours: Decimal | None
    theirs: Decimal | None
    parts: Mapping[AccountPart, Decimal]
    unexplained: Decimal | None

    @property
    def difference(self) -> Decimal | None:
        """Ours - theirs."""
        return None if self.ours is None or self.theirs is None else EXACT.subtract(self.ours, self.theirs)


@dataclass(frozen=True, slots=True)
class AccountParity:
    """The four comparisons."""

    cash: ComparedAccount
    equity: ComparedAccount
    day_change: ComparedAccount
    total: ComparedAccount

    def by_name(self) -> dict[str, ComparedAccount]:
        """Return them under the names that the report gives them."""
        return {"cash": self.cash, "equity": self.equity, "day_change": self.day_change, "total": self.total}

    @property
    def unexplained(self) -> tuple[str, ...]:
        """The names of the comparisons of which some part is unexplained."""
        return tuple(name for name, compared in self.by_name().items() if compared.unexplained)


def compare_account(
    totals: LedgerTotals,
    day: LedgerDay,
    figures: Mapping[str, OurFigures],
    summary: AccountSummary,
    positions: Mapping[str, AccountPosition],
    circumstances: AccountCircumstances,
) -> AccountParity:
    """Compare the ledger with the account. `figures` and `positions` are ours and theirs of what is held, by symbol.

    An account in another currency is not compared: every amount here is in USD.
    """
    if summary.currency not in {None, CURRENCY}:
        nothing = ComparedAccount(None, None, {}, None)
        return AccountParity(nothing, nothing, nothing, nothing)
    ours = _Ours(totals, day, figures, positions, circumstances)
    return AccountParity(
        ours.cash(summary),
        ours.equity(summary),
        ours.day_change(summary),
        ours.total(summary),
    )


@dataclass(frozen=True, slots=True)
class _Ours:
    totals: LedgerTotals
    day: LedgerDay
    figures: Mapping[str, OurFigures]
    positions: Mapping[str, AccountPosition]
    circumstances: AccountCircumstances

    def cash(self, theirs: AccountSummary) -> ComparedAccount:
        opening = self.circumstances.opening_cash
        parts = {AccountPart.OPENING_BALANCE: (opening or ZERO).copy_negate()}
        is_known = self.circumstances.is_complete and opening is not None
        return self._compared(
            self.totals.paid, theirs.cash, parts, [theirs.pending_fees], is_known=is_known, drift=ZERO
        )

    def equity(self, theirs: AccountSummary) -> ComparedAccount:
        value = self._value_at_theirs()
        ours = None if value is None or theirs.cash is None else EXACT.add(theirs.cash, value)
        return self._compared(ours, theirs.equity, {}, [])

    def day_change(self, theirs: AccountSummary) -> ComparedAccount:
        day, gain = self.day, self._day_gain()
        moved = None
        if theirs.equity is not None and theirs.last_equity is not None:
            moved = EXACT.subtract(theirs.equity, theirs.last_equity)
        mark, close = self._mark(), self._previous_close()
        # An equity of another evening than our previous close is no beginning of the same day.
        is_same_day = theirs.balance_asof in {None, day.previous_session}
        if mark is None or close is None or day.shares_outside is None:
            return ComparedAccount(gain, moved, {}, None)
        parts = {
            AccountPart.CASH_FROM_OUTSIDE: day.outside.copy_negate(),
            AccountPart.SHARES_FROM_OUTSIDE: day.shares_outside.copy_negate(),
            AccountPart.UNCLASSIFIED: day.unclassified.copy_negate(),
            AccountPart.TIMING: day.earlier.copy_negate(),
            AccountPart.MARK: mark,
            AccountPart.PREVIOUS_CLOSE: close,
        }
        return self._compared(gain, moved, parts, [day.late_fees, theirs.pending_fees], is_known=is_same_day)

    def total(self, theirs: AccountSummary) -> ComparedAccount:
        totals, opening = self.totals, self.circumstances.opening_cash
        unrealized, mark = self._unrealized(), self._mark()
        ours = None if unrealized is None else EXACT.add(unrealized, totals.earned)
        if mark is None:
            return ComparedAccount(ours, theirs.equity, {}, None)
        parts = {
            AccountPart.OPENING_BALANCE: (opening or ZERO).copy_negate(),
            AccountPart.CASH_FROM_OUTSIDE: totals.outside.copy_negate(),
            AccountPart.SHARES_FROM_OUTSIDE: totals.shares_outside.copy_negate(),
            AccountPart.UNCLASSIFIED: totals.unclassified.copy_negate(),
            AccountPart.MARK: mark,
        }
        is_known = self.circumstances.is_complete and opening is not None
        return self._compared(ours, theirs.equity, parts, [theirs.pending_fees], is_known=is_known)

    def _compared(
        self,
        ours: Decimal | None,
        theirs: Decimal | None,
        parts: Parts,
        pending_fees: list[Decimal | None],
        *,
        is_known: bool = True,
        drift: Decimal | None = None,
    ) -> ComparedAccount:
        """Name what is left over: a fee that one side knows earlier, what is under way, a moved price, a cent."""
        named = {part: amount for part, amount in parts.items() if amount}
        if ours is None or theirs is None or not is_known:
            return ComparedAccount(ours, theirs, named, None)
        rest = EXACT.subtract(EXACT.subtract(ours, theirs), _sum(named.values()))
        moved = self.circumstances.drift if drift is None else drift
        if abs(rest) <= CENT:
            part = AccountPart.ROUNDING
        elif any(fee and abs(EXACT.subtract(rest, fee)) <= CENT for fee in pending_fees):
            part = AccountPart.FEE
        elif self.circumstances.is_settling:
            part = AccountPart.TIMING
        elif abs(rest) <= moved:
            part = AccountPart.MARK
        else:
            return ComparedAccount(ours, theirs, named, rest)
        if rest:
            named[part] = EXACT.add(named.get(part, ZERO), rest)
        return ComparedAccount(ours, theirs, named, ZERO)

    def _price(self, symbol: str) -> Decimal | None:
        """Return the account's price of a share that we hold; ours where the account does not list it."""
        theirs = self.positions.get(symbol)
        return self.figures[symbol].mark if theirs is None else theirs.current_price

    def _value_at_theirs(self) -> Decimal | None:
        """Return what we hold at the account's prices."""
        return _sum_known(_times(ours.position.qty, self._price(symbol)) for symbol, ours in self.figures.items())

    def _unrealized(self) -> Decimal | None:
        values = [_times(one.position.qty, one.mark) for one in self.figures.values()]
        value = _sum_known(values)
        cost = _sum(one.position.cost_basis for one in self.figures.values())
        return None if value is None else EXACT.subtract(value, cost)

    def _day_gain(self) -> Decimal | None:
        gains = [_day_gain(one) for one in self.figures.values()]
        return _sum_known([*gains, self.day.closed_gain])

    def _mark(self) -> Decimal | None:
        """Return what other marks than the account's make."""
        at_theirs = self._value_at_theirs()
        at_ours = _sum_known(_times(one.position.qty, one.mark) for one in self.figures.values())
        return None if at_theirs is None or at_ours is None else EXACT.subtract(at_ours, at_theirs)

    def _previous_close(self) -> Decimal | None:
        """Return what other previous closes than the account's make of what is held still."""
        parts: list[Decimal | None] = []
        for symbol, ours in self.figures.items():
            theirs = self.positions.get(symbol)
            if theirs is None or not ours.day.overnight_qty:
                continue
            at_theirs = _times(ours.day.overnight_qty, theirs.lastday_price)
            overnight = ours.overnight_value
            parts.append(None if at_theirs is None or overnight is None else EXACT.subtract(at_theirs, overnight))
        return _sum_known(parts)


def _day_gain(ours: OurFigures) -> Decimal | None:
    if ours.mark is None or ours.overnight_value is None:
        return None
    return day_gain(ours.day, EXACT.multiply(ours.position.qty, ours.mark), ours.overnight_value)


def _times(qty: Decimal, price: Decimal | None) -> Decimal | None:
    return None if price is None else EXACT.multiply(qty, price)


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def _sum_known(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum; None when one is unknown."""
    total = ZERO
    for amount in amounts:
        if amount is None:
            return None
        total = EXACT.add(total, amount)
    return total
