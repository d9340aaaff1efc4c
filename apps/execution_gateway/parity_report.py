"""Our figures beside the account's own: what is compared, and the JSON that says it. Computed in `broker/parity.py`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol

from apps.execution_gateway.account_view import AccountReading, OpeningBalance
from apps.execution_gateway.bodies import encode, iso
from apps.execution_gateway.ledger_facts import DayFacts, ledger_day
from libs.broker.account_messages import AccountPosition
from libs.broker.account_parity import AccountParity, compare_account
from libs.broker.executions import Unreadable
from libs.broker.parity import Cause, Compared, OurFigures, PositionParity, compare_position
from libs.portfolio.book import Book
from libs.portfolio.fills import EXACT, ZERO
from libs.portfolio.rounding import PRICE_STEP, plain_number, rounded_money, rounded_price, rounded_to

_CAUSES_WORTH_NAMING: Final = Decimal("0.005")


class NoAccountError(Exception):
    """No account is mirrored, so there is nothing to compare with."""

    def __init__(self) -> None:
        super().__init__(
            "no account is mirrored, so there is nothing to compare with, and nothing to confirm: "
            "set POSITION_SOURCE=alpaca, and the account's keys"
        )


class AccountSource(Protocol):
    """Where the account's own figures come from."""

    reading: AccountReading | None

    async def read_now(self) -> AccountReading:
        """Ask the account. Raises AccountUnknownError, AlpacaRestError, DatabaseUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Every symbol of either side. `account_at` is when the account was asked, `at` when ours were worked out."""

    rows: tuple[PositionParity, ...]
    unreadable: tuple[Unreadable, ...]
    account_at: datetime
    at: datetime
    account: AccountParity | None = None
    opening: OpeningBalance | None = None

    @property
    def unexplained(self) -> tuple[PositionParity, ...]:
        """The rows of which some part is unexplained."""
        return tuple(row for row in self.rows if not row.is_explained)

    @property
    def unexplained_usd(self) -> Decimal:
        """The exact sum of what is unexplained, whichever way it goes."""
        total = ZERO
        for row in self.rows:
            for part in (row.unrealized.unexplained, row.day.unexplained):
                total = EXACT.add(total, part.copy_abs())
        return total


class ParityReporter:
    """Compare with the account; `source` None: there is none.

    `figures` returns ours for a book at the marks of now, `day` what belongs to its day beside them, `take_in_prices`
    reads the cached prices of some symbols.
    """

    def __init__(
        self,
        source: AccountSource | None,
        figures: Callable[[Book], Mapping[str, OurFigures]],
        day: Callable[[Book], DayFacts],
        take_in_prices: Callable[[Iterable[str]], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._figures = figures
        self._day = day
        self._unexplained: frozenset[str] = frozenset()
        self.persisting: tuple[str, ...] = ()
        """The comparisons of the account as a whole that two rounds in a row could not explain."""
        self._take_in_prices = take_in_prices
        self._now = now

    async def report(self) -> ParityReport:
        """Ask the account and compare. Raises NoAccountError, and what the source raises."""
        if self._source is None:
            raise NoAccountError
        reading = await self._source.read_now()
        # The same prices as the P&L's: what was published while nobody listened lies in the cache.
        await self._take_in_prices([position.symbol for position in reading.book.open_positions])
        return self._of(reading)

    async def take_round(self, reading: AccountReading) -> None:
        """Compare with the reading of one round, and remember what it leaves unexplained."""
        await self._take_in_prices([position.symbol for position in reading.book.open_positions])
        account = self._of(reading).account
        unexplained = frozenset(() if account is None else account.unexplained)
        self.persisting = tuple(sorted(unexplained & self._unexplained))
        self._unexplained = unexplained

    def last(self) -> ParityReport | None:
        """Compare with what the account said last; None before it said anything."""
        reading = None if self._source is None else self._source.reading
        return None if reading is None else self._of(reading)

    def _of(self, reading: AccountReading) -> ParityReport:
        ours = self._figures(reading.book)
        theirs = {position.symbol: position for position in reading.answer.positions}
        found = {difference.symbol: difference for difference in reading.differences}
        symbols = sorted(ours.keys() | theirs.keys())
        rows = [compare_position(one, ours.get(one), theirs.get(one), found.get(one)) for one in symbols]
        account = self._whole(reading, ours, theirs)
        opening = reading.opening
        return ParityReport(tuple(rows), reading.answer.unreadable, reading.at, self._now(), account, opening)

    def _whole(
        self, reading: AccountReading, ours: Mapping[str, OurFigures], theirs: Mapping[str, AccountPosition]
    ) -> AccountParity | None:
        whole = reading.whole
        if whole is None:
            return None
        day = ledger_day(whole.facts, self._day(reading.book), theirs, whole.summary.balance_asof)
        return compare_account(whole.facts.totals, day, ours, whole.summary, theirs, whole.circumstances)


def parity_body(report: ParityReport) -> bytes:
    """Return the report as JSON; amounts in USD, differences are ours - the account's, null where one is unknown."""
    return encode(
        {
            "positions": [_row(row) for row in report.rows],
            "unexplained": [row.symbol for row in report.unexplained],
            "unexplained_usd": rounded_money(report.unexplained_usd),
            "account": None if report.account is None else _account(report.account, report.opening),
            "unreadable": [one.symbol or one.why for one in report.unreadable],
            "account_at": iso(report.account_at),
            "calculated_at": iso(report.at),
        }
    )


def _row(row: PositionParity) -> dict[str, object]:
    ours, theirs = row.ours, row.theirs
    return {
        "symbol": row.symbol,
        "reason": _main_cause(row),
        "explained": row.is_explained,
        "quantity_reason": row.reason,
        "ours": None if ours is None else _ours(ours, row),
        "account": None
        if theirs is None
        else {
            "qty": plain_number(theirs.qty),
            "avg_entry_price": rounded_price(theirs.avg_entry_price),
            "cost_basis": rounded_money(theirs.cost_basis),
            "current_price": rounded_price(theirs.current_price),
            "unrealized_pl": _money(theirs.unrealized_pl),
            "unrealized_intraday_pl": _money(theirs.unrealized_intraday_pl),
        },
        "unrealized": _compared(row.unrealized),
        "day": _compared(row.day),
    }


def _ours(ours: OurFigures, row: PositionParity) -> dict[str, object]:
    position, holding = ours.position, ours.holding
    theirs = EXACT.divide(holding.cost, position.qty) if position.qty else None
    return {
        "qty": plain_number(position.qty),
        "avg_entry_price": rounded_price(position.avg_entry_price),
        "avg_entry_price_alpaca": rounded_price(theirs),
        "cost_basis": rounded_money(position.cost_basis),
        "cost_basis_alpaca": rounded_money(holding.cost),
        "current_price": rounded_price(ours.mark),
        "unrealized_pnl": _money(row.unrealized.ours),
        "day_pnl": _money(row.day.ours),
    }


def _account(account: AccountParity, opening: OpeningBalance | None) -> dict[str, object]:
    figures: dict[str, object] = {
        name: {
            "ours": _money(one.ours),
            "theirs": _money(one.theirs),
            "difference": _money(one.difference),
            "parts": {part: plain_number(rounded_to(amount, PRICE_STEP)) for part, amount in one.parts.items()},
            "unexplained": _money(one.unexplained),
        }
        for name, one in account.by_name().items()
    }
    return figures | {
        "opening_balance": None
        if opening is None
        else {"amount": rounded_money(opening.amount), "source": opening.source, "confirmed": opening.is_confirmed}
    }


def _compared(compared: Compared) -> dict[str, object]:
    return {
        "difference": None if compared.difference is None else rounded_money(compared.difference),
        "parts": {cause: plain_number(rounded_to(amount, PRICE_STEP)) for cause, amount in compared.parts.items()},
    }


def _main_cause(row: PositionParity) -> Cause | None:
    """Return what makes most of the difference; None when there is none to speak of."""
    parts = [*row.unrealized.parts.items(), *row.day.parts.items()]
    named = [(abs(amount), cause) for cause, amount in parts if abs(amount) >= _CAUSES_WORTH_NAMING]
    unexplained = [cause for _, cause in named if cause is Cause.UNEXPLAINED]
    return unexplained[0] if unexplained else max(named, default=(ZERO, None), key=_amount)[1]


def _amount(named: tuple[Decimal, Cause | None]) -> Decimal:
    return named[0]


def _money(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else rounded_money(amount)
