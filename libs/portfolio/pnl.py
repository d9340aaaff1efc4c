"""The figures of the P&L, row by row and in total, as every surface shows them. Computed in `valuation.py`."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from libs.market_data.freshness import MarkRule, MarkState, PriceSource
from libs.market_data.trading_sessions import TradingPhase
from libs.portfolio.fills import ZERO
from libs.portfolio.rounding import rounded_money


class DayUnknown(StrEnum):
    """Why the day's P&L of a row with a price is not known."""

    PREVIOUS_CLOSE = "previous_close"
    """The close of the session before is missing."""
    SPLIT = "split"
    """Prices do not tell whether that close is one of the shares before a split or after it."""
    ACTIVITY = "activity"
    """It is not known what an activity of the account does to the shares; `/health` names it."""


class PositionPnl(NamedTuple):
    """One row of the P&L body, in its order and already rounded. Short: negative qty, value and cost.

    A tuple, because a thousand are built for one answer and a frozen dataclass costs three times as much to build.

    USD, shares and percent; `price_age_seconds` in seconds. None is unknown: without a price everything that needs one,
    `day_pnl` also without the previous close, the quote's fields when the mark is a close. `previous_close` and
    `overnight_qty` are in today's shares. `cost`, `overnight_value` and `day_cash` (sales less purchases less fees plus
    dividends) are exact: from them, `qty` and the prices every figure can be worked out again. `suspect_since` is when
    the venue withdrew the quote without a usable one in its place, None while it has not; `stale_reason` says why a
    stale mark is not live. `streamable` false: no quotes of such a symbol are streamed (an option, a
    coin, a form that is not known), so that only a close marks it. `day_unknown` says why a priced row has no day.
    """

    symbol: str
    unrealized_pnl: Decimal | None
    current_price: Decimal | None
    price_source: PriceSource
    last_updated: datetime | None
    qty: Decimal
    avg_entry_price: Decimal | None
    market_value: Decimal | None
    cost_basis: Decimal
    unrealized_pnl_pct: Decimal | None
    realized_pnl: Decimal
    fees: Decimal
    day_pnl: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    previous_close: Decimal | None
    price_age_seconds: float | None
    closing_date: date | None
    state: MarkState
    session: TradingPhase
    mark_rule: MarkRule | None
    last_trade: Decimal | None
    last_trade_at: datetime | None
    feed: str | None
    received_at: datetime | None
    liquidation_price: Decimal | None
    liquidation_pnl: Decimal | None
    extended_price: Decimal | None
    extended_pnl: Decimal | None
    income: Decimal
    realized_today: Decimal
    fees_today: Decimal
    income_today: Decimal
    overnight_qty: Decimal
    cost: Decimal
    overnight_value: Decimal | None
    day_cash: Decimal
    stale_reason: str | None
    suspect_since: datetime | None
    streamable: bool
    day_unknown: DayUnknown | None


@dataclass(frozen=True, slots=True)
class ClosedPnl:
    """What symbols no longer held, and the account as a whole, have brought: in exact USD, ever and on this day.

    `day_pnl` is None when the previous close of something sold today is unknown.
    """

    realized: Decimal = ZERO
    fees: Decimal = ZERO
    income: Decimal = ZERO
    realized_today: Decimal = ZERO
    fees_today: Decimal = ZERO
    income_today: Decimal = ZERO
    day_pnl: Decimal | None = ZERO

    def rounded(self) -> "ClosedPnl":
        """Return the same to the cent."""
        day_pnl = None if self.day_pnl is None else rounded_money(self.day_pnl)
        return ClosedPnl(
            rounded_money(self.realized),
            rounded_money(self.fees),
            rounded_money(self.income),
            rounded_money(self.realized_today),
            rounded_money(self.fees_today),
            rounded_money(self.income_today),
            day_pnl,
        )


class UnclassifiedCash(NamedTuple):
    """Cash that is booked but of a kind that nobody has classified: in no total.

    `activity` is the broker's id of it, `kind` its word for the type. `amount` in signed USD, `symbol` None for the
    account as a whole.
    """

    activity: str
    kind: str
    symbol: str | None
    amount: Decimal
    date: date


@dataclass(frozen=True, slots=True)
class StatePnl:
    """The rows whose marks are in one state, summed. USD; None is unknown: `day_pnl` when one of theirs is."""

    state: MarkState
    positions: int
    unrealized_pnl: Decimal | None
    market_value: Decimal | None
    day_pnl: Decimal | None


@dataclass(frozen=True, slots=True)
class PnlTotals:
    """Sums of the rounded rows, USD. Unpriced rows are left out and named; then `complete` is false.

    So it is with cash that is `unclassified`. `total_realized`, `total_fees`, `total_income` and the totals of today's
    realized and income cover the whole ledger:
    the rows, and what belongs to no symbol held now, which is `closed`. `account_day_pnl` is the day of all: None when
    some part of it is unknown. `total_day_pnl` is over the rows whose day is known; `day_complete` says whether those
    are all. `total_liquidation_pnl` is over the rows with a quote; `liquidation_complete` says whether those are all.
    """

    total_unrealized: Decimal
    total_realized: Decimal
    total_fees: Decimal
    total_day_pnl: Decimal
    total_market_value: Decimal
    realized_closed: Decimal
    complete: bool
    unpriced: tuple[str, ...]
    total_realized_today: Decimal
    total_income: Decimal
    total_income_today: Decimal
    day_complete: bool
    total_liquidation_pnl: Decimal
    liquidation_complete: bool
    account_day_pnl: Decimal | None
    closed: ClosedPnl
    states: tuple[StatePnl, ...]
    unclassified: tuple[UnclassifiedCash, ...] = ()


@dataclass(frozen=True, slots=True)
class PnlReport:
    """Every row and their totals, as of one moment."""

    rows: tuple[PositionPnl, ...]
    totals: PnlTotals
