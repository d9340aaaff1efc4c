"""What one New York day did to a symbol: the difference between the position as the day began and as it is. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.positions import Position

NEW_YORK: Final = ZoneInfo("America/New_York")


class Held(NamedTuple):
    """Shares held as a day began, under the name and in the units of that night.

    None: what now has the name had another that night, which nobody knows, so no close is its.
    """

    symbol: str | None
    qty: Decimal


class Crossed(NamedTuple):
    """Shares that came from outside of the account since a day began, or left it (negative), and their cost in USD.

    In the units of the night before: the day counts them as if they had crossed then, at the market of that close.
    """

    shares: tuple[Held, ...] = ()
    cost: Decimal = ZERO


NONE_CROSSED: Final = Crossed()


@dataclass(frozen=True, slots=True)
class DayActivity:
    """What a day did to a symbol, in exact USD. `overnight` is what was held before it: usually one holding or none.

    Shares that crossed the account's edge on this day (transfers) count as if they had done so the night before.

    `overnight_qty` is the same in today's shares, after this day's splits. `net_cost` is what the day's trades (and
    moves) cost: positive when more was bought than sold. `realized` (before fees), `fees` and `income` are the
    day's own.
    """

    overnight: tuple[Held, ...] = ()
    overnight_qty: Decimal = ZERO
    net_cost: Decimal = ZERO
    fees: Decimal = ZERO
    income: Decimal = ZERO
    realized: Decimal = ZERO

    @property
    def net_cash(self) -> Decimal:
        """What the day brought in cash: sales less purchases less fees plus income."""
        return EXACT.subtract(EXACT.subtract(self.income, self.fees), self.net_cost)

    @property
    def is_idle(self) -> bool:
        """Say whether nothing was held overnight and nothing happened."""
        return not (self.overnight or self.net_cost or self.fees or self.income or self.realized)


def day_between(
    starts: Sequence[Position], position: Position, overnight_qty: Decimal, crossed: Crossed = NONE_CROSSED
) -> DayActivity:
    """Return the day that led from `starts` to `position`; several when another symbol was renamed to this one.

    `overnight_qty` is theirs in today's shares. What was paid for shares is what became cost or was realized, so
    net cost = change of cost basis - realized, less the cost of what `crossed` the account's edge.
    """
    cost = EXACT.subtract(position.cost_basis, _sum([start.cost_basis for start in starts]))
    realized = EXACT.subtract(position.realized_pnl, _sum([start.realized_pnl for start in starts]))
    return DayActivity(
        _held([*(Held(start.symbol, start.qty) for start in starts), *crossed.shares]),
        overnight_qty,
        EXACT.subtract(EXACT.subtract(cost, realized), crossed.cost),
        EXACT.subtract(position.fees, _sum([start.fees for start in starts])),
        EXACT.subtract(position.income, _sum([start.income for start in starts])),
        realized,
    )


def _held(holdings: Sequence[Held]) -> tuple[Held, ...]:
    """Return the holdings, one of each name, without those that come to nothing."""
    if len(holdings) == 1:
        return tuple(holdings) if holdings[0].qty else ()
    shares: dict[str | None, Decimal] = {}
    for symbol, qty in holdings:
        shares[symbol] = EXACT.add(shares.get(symbol, ZERO), qty)
    return tuple(Held(symbol, qty) for symbol, qty in shares.items() if qty)


def overnight_value(day: DayActivity, close_of: Callable[[str], Decimal | None]) -> Decimal | None:
    """Return the exact USD that the overnight shares were worth at the previous close; None when one is unknown."""
    value = ZERO
    for symbol, qty in day.overnight:
        close = None if symbol is None else close_of(symbol)
        if close is None:
            return None
        value = EXACT.add(value, EXACT.multiply(qty, close))
    return value


def day_gain(day: DayActivity, value: Decimal, overnight_value: Decimal) -> Decimal:
    """Return the day's P&L in exact USD: the change in equity less the cash that came from outside.

    Equal to overnight quantity * (price - previous close) + today's trades to the price - fees + dividends.
    """
    return EXACT.add(EXACT.subtract(value, overnight_value), day.net_cash)


@lru_cache(maxsize=64)
def day_start(session_date: date) -> datetime:
    """Return the instant at which `session_date` begins in New York."""
    return datetime.combine(session_date, time.min, tzinfo=NEW_YORK)


def _sum(amounts: Sequence[Decimal]) -> Decimal:
    if len(amounts) == 1:
        return amounts[0]
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total
