"""Sets our figures beside the account's own and gives every cent of the difference a reason. Pure.

The account marks at its last trade and counts cost by its own method; its intraday profit knows no fees, no dividends
and only shares that are held still. Each of these is worked out exactly; what is left over is unexplained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from libs.broker.account_messages import AccountPosition
from libs.broker.reconcile import Difference, Reason
from libs.portfolio.alpaca_cost import AlpacaHolding
from libs.portfolio.days import DayActivity, day_gain
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.positions import Position

CENT: Final = Decimal("0.01")


class Cause(StrEnum):
    """What makes a part of a difference."""

    MARK = "mark"
    COST_METHOD = "cost_method"
    TIMING = "timing"
    CORPORATE_ACTION = "corporate_action"
    FEE = "fee"
    INCOME = "income"
    PREVIOUS_CLOSE = "previous_close"
    SOLD_TODAY = "sold_today"
    ROUNDING = "rounding"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class OurFigures:
    """What a comparison needs of ours, in exact USD. None: unknown, and then not compared.

    `mark` and `previous_close` per share, `overnight_value` what the overnight shares were worth at the latter.
    """

    position: Position
    holding: AlpacaHolding
    day: DayActivity
    mark: Decimal | None
    previous_close: Decimal | None
    overnight_value: Decimal | None


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of ours beside the account's, and what the difference (ours - theirs) is made of, in exact USD.

    `parts` add up to the difference. None: one of the two is unknown.
    """

    ours: Decimal | None
    theirs: Decimal | None
    parts: Mapping[Cause, Decimal]

    @property
    def difference(self) -> Decimal | None:
        """Ours - theirs."""
        return None if self.ours is None or self.theirs is None else EXACT.subtract(self.ours, self.theirs)

    @property
    def unexplained(self) -> Decimal:
        """The part that nothing explains."""
        return self.parts.get(Cause.UNEXPLAINED, ZERO)


@dataclass(frozen=True, slots=True)
class PositionParity:
    """One symbol of either side. `ours` and `theirs` None: only the other side holds it."""

    symbol: str
    ours: OurFigures | None
    theirs: AccountPosition | None
    unrealized: Compared
    day: Compared
    reason: Reason | None

    @property
    def is_explained(self) -> bool:
        """Say whether nothing of either difference is unexplained."""
        return not (self.unrealized.unexplained or self.day.unexplained)


def compare_position(
    symbol: str, ours: OurFigures | None, theirs: AccountPosition | None, found: Difference | None
) -> PositionParity:
    """Compare one symbol. `found` is how quantity or cost differ, as the reconciliation found; None: they do not."""
    if ours is None or theirs is None:
        unrealized, day = _one_sided(ours, theirs, found)
    else:
        unrealized, day = _unrealized(ours, theirs, found), _day(ours, theirs, found)
    return PositionParity(symbol, ours, theirs, unrealized, day, None if found is None else found.reason)


def _one_sided(
    ours: OurFigures | None, theirs: AccountPosition | None, found: Difference | None
) -> tuple[Compared, Compared]:
    """Compare with nothing: a holding that only one side knows is a difference as a whole."""
    if found is not None and found.reason is Reason.UNREADABLE_HOLDING:
        return Compared(None, None, {}), Compared(None, None, {})
    gains = (None, None) if ours is None else (_our_unrealized(ours), _our_day(ours))
    told = (None, None) if theirs is None else (theirs.unrealized_pl, theirs.unrealized_intraday_pl)
    both = []
    for gain, reported in zip(gains, told, strict=True):
        mine, account = (gain, ZERO) if theirs is None else (ZERO, reported)
        if mine is None or account is None:
            both.append(Compared(mine, account, {}))
        else:
            both.append(Compared(mine, account, _with_rest({}, EXACT.subtract(mine, account), found)))
    return both[0], both[1]


def _unrealized(ours: OurFigures, theirs: AccountPosition, found: Difference | None) -> Compared:
    price, reported = theirs.current_price, theirs.unrealized_pl
    if ours.mark is None or price is None or reported is None:
        return Compared(_our_unrealized(ours), reported, {})
    parts = _marked(ours, theirs, price, found)
    parts[Cause.COST_METHOD] = EXACT.subtract(ours.holding.cost, ours.position.cost_basis)
    expected = EXACT.subtract(EXACT.multiply(theirs.qty, price), ours.holding.cost)
    return Compared(_our_unrealized(ours), reported, _with_rest(parts, EXACT.subtract(expected, reported), found))


def _day(ours: OurFigures, theirs: AccountPosition, found: Difference | None) -> Compared:
    price, close, reported = theirs.current_price, theirs.lastday_price, theirs.unrealized_intraday_pl
    gain, overnight = _our_day(ours), ours.overnight_value
    if ours.mark is None or gain is None or overnight is None or price is None or close is None or reported is None:
        return Compared(gain, reported, {})
    day, holding = ours.day, ours.holding
    parts = _marked(ours, theirs, price, found)
    parts[Cause.FEE] = day.fees.copy_negate()
    parts[Cause.INCOME] = day.income
    # Ours counts from our close, theirs from its own.
    at_theirs = EXACT.multiply(day.overnight_qty, close)
    parts[Cause.PREVIOUS_CLOSE] = EXACT.subtract(at_theirs, overnight)
    # Ours keeps what was sold today in the day's profit; theirs is over the shares still held.
    held_base = EXACT.add(EXACT.multiply(holding.overnight_left, close), holding.opened_cost)
    parts[Cause.SOLD_TODAY] = EXACT.subtract(held_base, EXACT.add(at_theirs, day.net_cost))
    expected = EXACT.subtract(EXACT.multiply(theirs.qty, price), held_base)
    return Compared(gain, reported, _with_rest(parts, EXACT.subtract(expected, reported), found))


def _marked(
    ours: OurFigures, theirs: AccountPosition, price: Decimal, found: Difference | None
) -> dict[Cause, Decimal]:
    """Return what another mark and another quantity make."""
    mark = ours.mark if ours.mark is not None else price
    missing = EXACT.subtract(ours.position.qty, theirs.qty)
    cause = Cause.CORPORATE_ACTION if _is_corporate(found) else Cause.TIMING
    return {
        Cause.MARK: EXACT.multiply(ours.position.qty, EXACT.subtract(mark, price)),
        cause: EXACT.multiply(missing, price),
    }


def _with_rest(parts: dict[Cause, Decimal], rest: Decimal, found: Difference | None) -> Mapping[Cause, Decimal]:
    """Add what is left over: a cent of rounding, what the reconciliation could explain, or unexplained."""
    if abs(rest) <= CENT:
        cause = Cause.ROUNDING
    elif _is_corporate(found):
        cause = Cause.CORPORATE_ACTION
    elif found is not None and found.is_explained and found.reason in _EXPLAINED:
        cause = _EXPLAINED[found.reason]
    else:
        cause = Cause.UNEXPLAINED
    parts[cause] = EXACT.add(parts.get(cause, ZERO), rest)
    return {one: amount for one, amount in parts.items() if amount}


_EXPLAINED: Final = {Reason.TIMING: Cause.TIMING, Reason.COST_METHOD: Cause.COST_METHOD}


def _is_corporate(found: Difference | None) -> bool:
    return found is not None and found.reason is Reason.CORPORATE_ACTION


def _our_unrealized(ours: OurFigures) -> Decimal | None:
    if ours.mark is None:
        return None
    return EXACT.subtract(EXACT.multiply(ours.position.qty, ours.mark), ours.position.cost_basis)


def _our_day(ours: OurFigures) -> Decimal | None:
    if ours.mark is None or ours.overnight_value is None or ours.previous_close is None:
        return None
    return day_gain(ours.day, EXACT.multiply(ours.position.qty, ours.mark), ours.overnight_value)
