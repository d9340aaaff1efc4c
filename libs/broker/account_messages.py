"""What the account answers over REST: positions, the account's summary, activities. Pure; `account_rest.py` asks.

Decides that one odd element costs that element alone, and is named; that an answer which is no list is an error and
never an empty account. Samples (numbers are strings):

    [{"symbol":"AAPL","asset_class":"us_equity","qty":"-5","side":"short","avg_entry_price":"100.0",
      "market_value":"-600.0","cost_basis":"-500.0","unrealized_pl":"-100.0","unrealized_intraday_pl":"-5.0",
      "current_price":"120.0","lastday_price":"119.0"}]
    [{"activity_type":"FILL","id":"20190524113406977::8efc7b9a-8b2b-4000-9955-d36e7db0df74","cum_qty":"1",
      "leaves_qty":"0","price":"1.63","qty":"1","side":"buy","symbol":"LPCN","type":"fill",
      "transaction_time":"2019-05-24T15:34:06.977Z","order_id":"904837e3-3b76-47ec-b432-046db621571b"},
     {"activity_type":"DIV","id":"20190801011955195::5f596936-6f23-4cef-bdf1-3806aae57dbf","date":"2019-08-01",
      "net_amount":"1.02","symbol":"T","qty":"2","per_share_amount":"0.51","status":"executed"}]
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import msgspec

from libs.broker.executions import Activity, Execution, Unreadable
from libs.broker.wire_values import (
    Fields,
    asset_class_of,
    day,
    decode_fields,
    moment,
    number,
    positive,
    side,
    symbol_of,
    text,
)
from libs.market_data.frame_structure import split_array
from libs.portfolio.fills import EXACT

_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_WHY_LENGTH: Final = 200
_SYMBOL_LENGTH: Final = 40


@dataclass(frozen=True, slots=True)
class AccountPosition:
    """One holding as the account reports it; money in USD, prices per share. Short: `qty` and `cost_basis` negative.

    None is what the account could not say: a holding without a price has no value.
    """

    symbol: str
    asset_class: str
    qty: Decimal
    avg_entry_price: Decimal
    cost_basis: Decimal
    market_value: Decimal | None = None
    current_price: Decimal | None = None
    lastday_price: Decimal | None = None
    unrealized_pl: Decimal | None = None
    unrealized_intraday_pl: Decimal | None = None


@dataclass(frozen=True, slots=True)
class PositionsAnswer:
    """All that the account holds. Flat is said only by an empty `positions` with nothing in `unreadable`."""

    positions: tuple[AccountPosition, ...]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """The account as a whole; money in USD, None what it did not say. `last_equity` is of the last session's close."""

    account_number: str
    status: str | None
    currency: str | None
    cash: Decimal | None
    equity: Decimal | None
    last_equity: Decimal | None
    long_market_value: Decimal | None
    short_market_value: Decimal | None
    accrued_fees: Decimal | None
    balance_asof: date | None
    pending_fees: Decimal | None = None
    """Fees that the account knows of and has not booked yet: accrued, and pending regulatory ones."""


@dataclass(frozen=True, slots=True)
class ActivitiesPage:
    """One page of activities. `last_id` is where the next page begins; None for an empty page.

    `count` is the number of elements, readable or not: fewer than asked for means that this was the last page.
    """

    executions: tuple[Execution, ...]
    activities: tuple[Activity, ...]
    unreadable: tuple[Unreadable, ...]
    last_id: str | None
    count: int


def read_positions(body: bytes) -> PositionsAnswer:
    """Return the holdings in an answer. A symbol listed twice is unreadable: which of the two holds is not known.

    Raises msgspec.MsgspecError when the answer is no list.
    """
    found: dict[str, AccountPosition] = {}
    unreadable: list[Unreadable] = []
    for raw in _elements(body):
        one = _read_one_position(raw)
        if isinstance(one, Unreadable):
            unreadable.append(one)
        elif one.symbol in found:
            unreadable.append(_unreadable(one.symbol, "listed more than once"))
        else:
            found[one.symbol] = one
    doubtful = {one.symbol for one in unreadable}
    return PositionsAnswer(tuple(held for held in found.values() if held.symbol not in doubtful), tuple(unreadable))


def read_account(body: bytes) -> AccountSummary:
    """Return the account's summary. Raises ValueError when the answer names no account."""
    fields = decode_fields(body)
    account_number = text(fields.get("account_number")) or text(fields.get("id"))
    if account_number is None:
        raise ValueError("the answer names no account")
    return AccountSummary(
        account_number,
        text(fields.get("status")),
        text(fields.get("currency")),
        number(fields.get("cash")),
        number(fields.get("equity")),
        number(fields.get("last_equity")),
        number(fields.get("long_market_value")),
        number(fields.get("short_market_value")),
        number(fields.get("accrued_fees")),
        day(fields.get("balance_asof")),
        EXACT.add(
            number(fields.get("accrued_fees")) or Decimal(0), number(fields.get("pending_reg_taf_fees")) or Decimal(0)
        ),
    )


def read_base_value(body: bytes) -> Decimal | None:
    """Return with how much the account's history began, in USD; None when it does not say, or with nothing.

    Sample: `{"timestamp":[1580826600],"equity":[27423.73],"profit_loss":[0],"profit_loss_pct":[0],
    "base_value":27423.73,"timeframe":"1D"}`. Raises ValueError when the answer is no object.
    """
    return positive(decode_fields(body).get("base_value"))


def read_activities(body: bytes) -> ActivitiesPage:
    """Return one page of activities, in the order given. Raises msgspec.MsgspecError when the answer is no list."""
    executions: list[Execution] = []
    activities: list[Activity] = []
    unreadable: list[Unreadable] = []
    last_id: str | None = None
    elements = _elements(body)
    for raw in elements:
        try:
            fields = decode_fields(raw)
        except (ValueError, RecursionError) as error:
            unreadable.append(Unreadable(None, _shortened(error), may_be_execution=True))
            continue
        last_id = text(fields.get("id")) or last_id
        match _read_one_activity(fields):
            case Execution() as execution:
                executions.append(execution)
            case Activity() as activity:
                activities.append(activity)
            case Unreadable() as one:
                unreadable.append(one)
    return ActivitiesPage(tuple(executions), tuple(activities), tuple(unreadable), last_id, len(elements))


def execution_id_of(activity_id: str) -> str:
    """Return the execution that a FILL activity speaks of: the part of its id after `::`, the whole id without one."""
    return activity_id.partition("::")[2] or activity_id


def _elements(body: bytes) -> Sequence[bytes]:
    """Return the encoded elements of a list, as long as they can be told apart at all. Raises ValueError."""
    try:
        return [bytes(element) for element in _decode_elements(body)]
    except (ValueError, RecursionError):
        # One element nested too deeply, or one NaN, must not cost those beside it.
        with suppress(ValueError):
            return [element.encode() for element in split_array(body.decode()) if isinstance(element, str)]
        raise


def _read_one_position(raw: bytes) -> AccountPosition | Unreadable:
    try:
        fields = decode_fields(raw)
    except (ValueError, RecursionError) as error:
        return Unreadable(None, _shortened(error))
    symbol, qty = symbol_of(fields), _signed_qty(fields)
    if symbol is None:
        return Unreadable(None, "no symbol")
    if qty is None:
        return _unreadable(symbol, "no quantity")
    average, cost = _cost(fields, qty)
    if average is None or cost is None:
        return _unreadable(symbol, "neither an entry price nor a cost")
    return AccountPosition(
        symbol,
        text(fields.get("asset_class")) or "unknown",
        qty,
        average,
        cost,
        number(fields.get("market_value")),
        number(fields.get("current_price")),
        number(fields.get("lastday_price")),
        number(fields.get("unrealized_pl")),
        number(fields.get("unrealized_intraday_pl")),
    )


def _unreadable(symbol: str, why: str) -> Unreadable:
    return Unreadable(symbol, f"{symbol[:_SYMBOL_LENGTH]}: {why}")


def _signed_qty(fields: Fields) -> Decimal | None:
    """Return the shares held, negative when short. `side` decides: some answers give a short's quantity unsigned."""
    qty = number(fields.get("qty"))
    if qty is None:
        return None
    match text(fields.get("side")):
        case "short":
            return qty.copy_abs().copy_negate()
        case "long":
            return qty.copy_abs()
        case _:
            return qty


def _cost(fields: Fields, qty: Decimal) -> tuple[Decimal | None, Decimal | None]:
    """Return the entry price per share (positive) and the cost (signed like `qty`), one from the other if need be."""
    average, cost = number(fields.get("avg_entry_price")), number(fields.get("cost_basis"))
    if cost is not None:
        cost = cost.copy_abs().copy_sign(qty)
    elif average is not None:
        cost = EXACT.multiply(average.copy_abs(), qty)
    if average is None and cost is not None and qty:
        average = EXACT.divide(cost, qty)
    return average and average.copy_abs(), cost


def _read_one_activity(fields: Fields) -> Execution | Activity | Unreadable:
    kind, activity_id, symbol = text(fields.get("activity_type")), text(fields.get("id")), symbol_of(fields)
    if kind is None or activity_id is None:
        return Unreadable(symbol, "no activity type or no id", may_be_execution=True)
    if kind.upper() == "FILL":
        return _read_fill(fields, execution_id_of(activity_id), symbol)
    booked_on = day(fields.get("date"))
    if booked_on is None:
        return Unreadable(symbol, f"{kind[:20]} {activity_id[:80]} without a date")
    return Activity(
        activity_id,
        kind.upper(),
        booked_on,
        symbol,
        number(fields.get("qty")),
        number(fields.get("net_amount")),
        number(fields.get("per_share_amount")),
        number(fields.get("price")),
        text(fields.get("description")),
        text(fields.get("status")),
        (text(fields.get("activity_sub_type")) or "").upper() or None,
    )


def _read_fill(fields: Fields, execution_id: str, symbol: str | None) -> Execution | Unreadable:
    way, qty, price = side(fields.get("side")), positive(fields.get("qty")), positive(fields.get("price"))
    executed_at = moment(fields.get("transaction_time"))
    if symbol is None or way is None or qty is None or price is None or executed_at is None:
        why = f"execution {execution_id[:80]} lacks symbol, side, quantity, price or time"
        return Unreadable(symbol, why, may_be_execution=True)
    return Execution(
        execution_id,
        text(fields.get("order_id")),
        symbol,
        asset_class_of(fields),
        way,
        qty,
        price,
        positive(fields.get("cum_qty")),
        executed_at,
    )


def _shortened(error: Exception) -> str:
    return str(error)[:_WHY_LENGTH]
