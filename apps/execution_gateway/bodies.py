"""The JSON that the gateway answers: money as numbers, digit for digit, times as ISO-8601 UTC. Computes nothing."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, get_type_hints

import msgspec

from apps.execution_gateway.account_view import AccountView, MirrorHealth
from apps.execution_gateway.adjustment_ledger import AdjustmentPage, RecordedAdjustment
from apps.execution_gateway.fill_batch import Comparison, Conflict
from apps.execution_gateway.fill_input import FillList
from apps.execution_gateway.input_fields import MAX_FAULTS
from apps.execution_gateway.ledger import FillPage, RecordedFill
from apps.execution_gateway.pnl_report import MarketView, RealtimePnl
from libs.market_data.freshness import MarkState
from libs.market_data.prices import LinkState, MarketPhase, Mode
from libs.market_data.trading_sessions import TradingPhase
from libs.portfolio.adjustments import FIELDS, Adjustment
from libs.portfolio.fills import Fill, Side
from libs.portfolio.pnl import ClosedPnl, PnlTotals, PositionPnl
from libs.portfolio.positions import Position
from libs.portfolio.rounding import plain_number, rounded_money, rounded_price
from libs.redis_client.price_codec import utc_text

encode: Final = msgspec.json.Encoder(decimal_format="number").encode
"""Write a body. Decimals become JSON numbers as they stand; NaN never gets this far."""


class CostMethod(StrEnum):
    """By which method the cost of what was sold is worked out."""

    AVERAGE = "average"
    ALPACA = "alpaca"


class PositionRow(msgspec.Struct, frozen=True):
    """One open position, as it was bought: no price is needed to say this."""

    symbol: str
    qty: Decimal
    avg_entry_price: Decimal | None
    cost_basis: Decimal
    realized_pnl: Decimal
    fees: Decimal
    income: Decimal
    opened_at: str | None


class FillRow(msgspec.Struct, frozen=True):
    """One fill of the ledger with its history; `voided_at` and `void_reason` are null while it counts."""

    fill_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    fee: Decimal
    filled_at: str
    recorded_at: str
    voided_at: str | None
    void_reason: str | None


class FillAnswer(msgspec.Struct, frozen=True):
    """What a posted fill was understood as, and whether it was new: `created` or `repeated`.

    `voided_at` is null while it counts.
    """

    status: str
    fill_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    fee: Decimal
    filled_at: str
    voided_at: str | None


class VoidFillRow(msgspec.Struct, frozen=True):
    """A fill of a list that was recorded and voided before: it counts for nothing. `index` is its place, from 0."""

    index: int
    fill_id: str
    voided_at: str | None


class TwiceListedRow(msgspec.Struct, frozen=True):
    """A fill that is in the list twice with the same content and counts once; `other_index` is the first place."""

    index: int
    fill_id: str
    other_index: int


class ImportAnswer(msgspec.Struct, frozen=True):
    """What became of a list of fills: `imported`, or only `checked`; how many are new, and how many stood already.

    `void` counts those that stood already but are void, `void_fills` names them. `twice` counts those of `repeated`
    that were not recorded before but are in the list twice, `twice_fills` names the first of them.
    """

    status: str
    created: int
    repeated: int
    void: int
    void_fills: list[VoidFillRow]
    twice: int
    twice_fills: list[TwiceListedRow]


class RefusedFillRow(msgspec.Struct, frozen=True):
    """Why a list of fills was refused, fault by fault.

    `index` is the fill's place in the list, from 0; `field` is null when the fault is the fill's as a whole;
    `other_index` is the place of an earlier fill that took the same id, null when there is none.
    """

    index: int
    fill_id: str | None
    field: str | None
    detail: str
    other_index: int | None = None


_TIMES: Final = tuple(
    place
    for place, name in enumerate(PositionPnl._fields)
    if name in {"last_updated", "last_trade_at", "received_at", "suspect_since"}
)
PnlRow: Final = msgspec.defstruct(
    "PnlRow",
    [
        (name, "str | None" if place in _TIMES else kind)
        for place, (name, kind) in enumerate(get_type_hints(PositionPnl).items())
    ],
    frozen=True,
)
"""One row of the P&L body: a PositionPnl with its times as text. Made from it, so that no field is forgotten."""


class FeedBody(msgspec.Struct, frozen=True):
    """The state of the link to the venue; `lag_seconds` is null unless the stream is late, so that nothing is live."""

    connected: bool
    state: LinkState
    since: str | None
    lag_seconds: float | None


class AccountBody(msgspec.Struct, frozen=True):
    """How well the mirrored account is known; `in_step` false: executions may be missing."""

    state: MirrorHealth
    in_step: bool
    confirmed_at: str | None
    unexplained: int


class ClosedBody(msgspec.Struct, frozen=True):
    """What symbols no longer held have brought; the totals that cover the whole ledger contain it."""

    realized: Decimal
    fees: Decimal
    income: Decimal
    realized_today: Decimal
    fees_today: Decimal
    income_today: Decimal
    day_pnl: Decimal | None


class StateBody(msgspec.Struct, frozen=True):
    """The rows of one state, summed."""

    state: MarkState
    positions: int
    unrealized_pnl: Decimal | None
    market_value: Decimal | None
    day_pnl: Decimal | None


class UnclassifiedBody(msgspec.Struct, frozen=True):
    """Cash of the account that is in no total, because nobody has classified it: `make adjust ARGS="classify …"`."""

    activity: str
    kind: str
    symbol: str | None
    amount: Decimal
    date: str


class PnlBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The P&L body; `removed` stands in updates only, where `positions` are the rows that changed."""

    positions: list[Any]
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
    closed: ClosedBody
    states: list[StateBody]
    mode: Mode
    feed: FeedBody
    market: MarketPhase
    session: TradingPhase
    position_source: str
    account: AccountBody | None
    calculated_at: str
    calculation_id: str
    unclassified: list[UnclassifiedBody]
    removed: tuple[str, ...] | None = None


def pnl_body(pnl: RealtimePnl) -> bytes:
    """Return the whole P&L body."""
    return encode(_pnl(pnl, pnl.report.rows, None))


def pnl_update_body(pnl: RealtimePnl, changed: Iterable[PositionPnl], removed: Iterable[str]) -> bytes:
    """Return the body of an update: the rows that changed, the symbols that went, and all the rest as it stands."""
    return encode(_pnl(pnl, changed, tuple(sorted(removed))))


def positions_body(positions: Sequence[Position], cost: CostMethod) -> bytes:
    """Return the open positions, with cost and realized P&L by `cost`.

    Sample: `{"positions":[{"symbol":"AAPL","qty":100,"avg_entry_price":150.00,"cost_basis":15000.00,
    "realized_pnl":0.00,"fees":0.00,"income":0.00,"opened_at":"2025-10-19T14:30:15+00:00"}],"cost":"average"}`
    """
    return encode({"positions": [_position_row(position) for position in positions], "cost": cost})


def fill_body(status: str, fill: Fill, voided_at: datetime | None) -> bytes:
    """Return the answer to a posted fill; `voided_at` tells since when it has counted for nothing."""
    return encode(
        FillAnswer(
            status,
            fill.fill_id,
            fill.symbol,
            fill.side,
            plain_number(fill.qty),
            plain_number(fill.price),
            plain_number(fill.fee),
            fill.filled_at.isoformat(),
            iso(voided_at),
        )
    )


def import_body(status: str, compared: Comparison) -> bytes:
    """Return the answer to a list of fills.

    Sample: `{"status":"imported","created":2,"repeated":0,"void":1,"void_fills":[{"index":2,"fill_id":"f-3",
    "voided_at":"2025-10-19T14:30:15+00:00"}],"twice":0,"twice_fills":[]}`.
    """
    void = [VoidFillRow(one.place, one.fill_id, iso(one.voided_at)) for one in compared.void]
    twice = [TwiceListedRow(one.place, one.fill_id, one.earlier_place) for one in compared.twice[:MAX_FAULTS]]
    new, repeated = len(compared.new), compared.repeated
    return encode(ImportAnswer(status, new, repeated, len(void), void, len(compared.twice), twice))


def refused_fills(posted: FillList, conflicts: Sequence[Conflict]) -> list[RefusedFillRow]:
    """Return the faults of a list of fills in the order of the list: the first of them, at most MAX_FAULTS."""
    rows = [
        RefusedFillRow(malformed.place, malformed.fill_id, fault.field or None, fault.message)
        for malformed in posted.malformed
        for fault in malformed.faults
    ]
    rows += [_conflict_row(posted, conflict) for conflict in conflicts[:MAX_FAULTS]]
    return sorted(rows, key=lambda row: row.index)[:MAX_FAULTS]


def recorded_fill_body(recorded: RecordedFill) -> bytes:
    """Return one fill of the ledger."""
    return encode(_fill_row(recorded))


def fills_body(page: FillPage) -> bytes:
    """Return a page of the ledger: `{"fills":[…],"next":null}`."""
    return encode({"fills": [_fill_row(recorded) for recorded in page.fills], "next": page.next})


def adjustment_body(status: str, adjustment: Adjustment) -> bytes:
    """Return the answer to a posted adjustment."""
    return encode({"status": status, **_adjustment_fields(adjustment)})


def opening_body(amount: Decimal) -> bytes:
    """Return the answer to a confirmed opening balance: `{"status":"confirmed","amount":100000}`."""
    return encode({"status": "confirmed", "amount": plain_number(amount)})


def adjustments_body(recorded: Iterable[RecordedAdjustment]) -> bytes:
    """Return adjustments with their history: `{"adjustments":[…]}`."""
    return encode({"adjustments": _adjustment_rows(recorded)})


def adjustment_page_body(page: AdjustmentPage) -> bytes:
    """Return a page of the adjustments: `{"adjustments":[…],"next":null}`."""
    return encode({"adjustments": _adjustment_rows(page.adjustments), "next": page.next})


def market_body(market: MarketView) -> dict[str, str | None]:
    """Return the market's part of the health body."""
    return {"state": market.phase, "next_change": iso(market.next_change), "said_by": market.said_by}


def iso(time: datetime | None) -> str | None:
    """Return an aware UTC time as text, `2025-10-19T14:30:15.123456+00:00`; None stays None."""
    return None if time is None else utc_text(time)


def _conflict_row(posted: FillList, conflict: Conflict) -> RefusedFillRow:
    fill_id, differing = conflict.stands.fill_id, ", ".join(conflict.fields)
    if conflict.earlier_place is None:
        other = None
        detail = (
            f"{fill_id!r} is recorded already with another {differing}: leave this fill out, "
            "or give it a new fill_id (and void the recorded one if that is wrong)"
        )
    else:
        other = posted.places[conflict.earlier_place]
        detail = f"{fill_id!r} is in the list twice, here with another {differing}: give each fill a fill_id of its own"
    return RefusedFillRow(posted.places[conflict.place], fill_id, "fill_id", detail, other)


def _adjustment_rows(recorded: Iterable[RecordedAdjustment]) -> list[dict[str, object]]:
    return [
        {
            **_adjustment_fields(one.adjustment),
            "recorded_at": iso(one.recorded_at),
            "voided_at": iso(one.voided_at),
            "void_reason": one.void_reason,
        }
        for one in recorded
    ]


def _adjustment_fields(adjustment: Adjustment) -> dict[str, object]:
    """Return the fields that an adjustment of its kind has."""
    own = {name: getattr(adjustment, name) for name in FIELDS}
    return {
        "adjustment_id": adjustment.adjustment_id,
        "kind": adjustment.kind,
        "symbol": adjustment.symbol,
        "effective_at": iso(adjustment.effective_at),
        "reason": adjustment.reason,
        **{
            name: plain_number(value) if isinstance(value, Decimal) else value
            for name, value in own.items()
            if value is not None
        },
    }


def _fill_row(recorded: RecordedFill) -> FillRow:
    fill = recorded.fill
    return FillRow(
        fill.fill_id,
        fill.symbol,
        fill.side,
        plain_number(fill.qty),
        plain_number(fill.price),
        plain_number(fill.fee),
        fill.filled_at.isoformat(),
        recorded.recorded_at.isoformat(),
        iso(recorded.voided_at),
        recorded.void_reason,
    )


def _position_row(position: Position) -> PositionRow:
    return PositionRow(
        position.symbol,
        plain_number(position.qty),
        rounded_price(position.avg_entry_price),
        rounded_money(position.cost_basis),
        rounded_money(position.realized_pnl),
        rounded_money(position.fees),
        rounded_money(position.income),
        iso(position.opened_at),
    )


def _pnl(pnl: RealtimePnl, rows: Iterable[PositionPnl], removed: tuple[str, ...] | None) -> PnlBody:
    totals = pnl.report.totals
    return PnlBody(
        positions=[_pnl_row(row) for row in rows],
        total_unrealized=totals.total_unrealized,
        total_realized=totals.total_realized,
        total_fees=totals.total_fees,
        total_day_pnl=totals.total_day_pnl,
        total_market_value=totals.total_market_value,
        realized_closed=totals.realized_closed,
        complete=totals.complete,
        unpriced=totals.unpriced,
        total_realized_today=totals.total_realized_today,
        total_income=totals.total_income,
        total_income_today=totals.total_income_today,
        day_complete=totals.day_complete,
        total_liquidation_pnl=totals.total_liquidation_pnl,
        liquidation_complete=totals.liquidation_complete,
        account_day_pnl=totals.account_day_pnl,
        closed=_closed_body(totals.closed),
        states=_state_bodies(totals),
        mode=pnl.mode,
        feed=FeedBody(pnl.feed.connected, pnl.feed.state, iso(pnl.feed.since), pnl.feed.lag_s),
        market=pnl.market.phase,
        session=pnl.market.session,
        position_source="ledger" if pnl.account is None else "alpaca",
        account=None if pnl.account is None else _account_body(pnl.account),
        calculated_at=pnl.calculated_at.isoformat(),
        calculation_id=pnl.calculation_id,
        unclassified=[
            UnclassifiedBody(one.activity, one.kind, one.symbol, one.amount, one.date.isoformat())
            for one in totals.unclassified
        ],
        removed=removed,
    )


def _pnl_row(row: PositionPnl) -> msgspec.Struct:
    values: list[Any] = list(row)
    for place in _TIMES:
        values[place] = iso(values[place])
    return PnlRow(*values)


def _account_body(account: AccountView) -> AccountBody:
    is_in_step = account.health is MirrorHealth.IN_STEP
    return AccountBody(account.health, is_in_step, iso(account.confirmed_at), len(account.unexplained))


def _closed_body(closed: ClosedPnl) -> ClosedBody:
    return ClosedBody(
        closed.realized,
        closed.fees,
        closed.income,
        closed.realized_today,
        closed.fees_today,
        closed.income_today,
        closed.day_pnl,
    )


def _state_bodies(totals: PnlTotals) -> list[StateBody]:
    return [
        StateBody(one.state, one.positions, one.unrealized_pnl, one.market_value, one.day_pnl) for one in totals.states
    ]
