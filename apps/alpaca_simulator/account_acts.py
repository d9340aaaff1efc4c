"""What can be made to happen to the account, as JSON or a scenario file says it. Strict: a wrong field is named.

A wrong act changes nothing: what the fields alone cannot tell, the account refuses with AccountError.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from apps.alpaca_simulator.acts import Result
from apps.alpaca_simulator.trade_updates_stream import DropKind, TradeUpdatesStream
from apps.alpaca_simulator.trading_desk import Announce, TradingDesk
from apps.alpaca_simulator.wire_text import number_text
from libs.market_data.symbols import MalformedSymbolError, parse_symbol

_LARGEST: Final = Decimal("1e12")
_FINEST_QTY: Final = -9
Moment = Annotated[datetime, Meta(tz=True)]
Pieces = Annotated[int, Meta(ge=1, le=1000)]
DelaySeconds = Annotated[float, Meta(ge=0, le=86_400)]
Kind = Annotated[str, Meta(pattern="^[A-Z]{2,8}$")]


class SteeredAccount(Protocol):
    """What these acts need of the simulator."""

    @property
    def desk(self) -> TradingDesk:
        """The account's broker."""

    @property
    def updates(self) -> TradeUpdatesStream:
        """The trading stream."""


class _Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An act whose symbols are well-formed and whose numbers are finite and of a sane size."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in {"symbol", "new_symbol"} and value is not None:
                _check_symbol(name, value)
            elif isinstance(value, Decimal):
                _check_number(name, value)


class Fill(_Act, frozen=True):
    """Let shares change hands: an execution, or as many as there are `pieces`."""

    symbol: str
    side: Literal["buy", "sell"]
    qty: Decimal
    price: Decimal | None = None
    pieces: Pieces = 1
    execution_ids: tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...] = ()
    fee: Decimal | None = None
    at: Moment | None = None
    announce: Announce = Announce.ONCE
    delay_s: DelaySeconds = 1.0
    order_id: str | None = None
    order_qty: Decimal | None = None

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the ids of the executions, and of their order."""
        given = msgspec.structs.asdict(self) | {"symbol": parse_symbol(self.symbol)}
        ids = await simulator.desk.fill(**given)
        return {"execution_ids": ids, "order_id": simulator.desk.account.executions[ids[0]].order_id}


class Bust(_Act, frozen=True):
    """Let the exchange undo an execution."""

    execution_id: str
    announce: Announce = Announce.ONCE
    delay_s: DelaySeconds = 1.0

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the id again."""
        await simulator.desk.bust(self.execution_id, self.announce, self.delay_s)
        return {"execution_id": self.execution_id}


class Correct(_Act, frozen=True):
    """Let the exchange correct an execution."""

    execution_id: str
    price: Decimal | None = None
    qty: Decimal | None = None
    announce: Announce = Announce.ONCE
    delay_s: DelaySeconds = 1.0

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the id again."""
        await simulator.desk.correct(self.execution_id, self.price, self.qty, self.announce, self.delay_s)
        return {"execution_id": self.execution_id}


class SplitAct(_Act, frozen=True):
    """Split a held symbol."""

    symbol: str
    new: Decimal
    old: Decimal
    cash_price: Decimal | None = None

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the shares held now."""
        symbol = parse_symbol(self.symbol)
        await simulator.desk.split(symbol, self.new, self.old, self.cash_price)
        return {"qty": _held(simulator, symbol)}


class SymbolChangeAct(_Act, frozen=True):
    """Rename a held symbol."""

    symbol: str
    new_symbol: str

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the shares held now."""
        new_symbol = parse_symbol(self.new_symbol)
        await simulator.desk.change_symbol(parse_symbol(self.symbol), new_symbol)
        return {"qty": _held(simulator, new_symbol)}


class Dividend(_Act, frozen=True):
    """Pay a cash dividend on what is held."""

    symbol: str
    per_share: Decimal

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return what it came to."""
        amount = await simulator.desk.pay_dividend(parse_symbol(self.symbol), self.per_share)
        return {"net_amount": number_text(amount)}


class Fee(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take a fee, give one back when negative."""

    amount: Decimal
    symbol: str | None = None
    type: Kind = "FEE"

    def __post_init__(self) -> None:
        _check_number("amount", self.amount, is_signed=True)
        if self.symbol is not None:
            _check_symbol("symbol", self.symbol)

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the cash now."""
        symbol = None if self.symbol is None else parse_symbol(self.symbol)
        await simulator.desk.charge_fee(self.amount, symbol, self.type)
        return {"cash": _cash(simulator)}


class Cash(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let cash come in, or go out when negative."""

    amount: Decimal
    type: Kind | None = None

    def __post_init__(self) -> None:
        _check_number("amount", self.amount, is_signed=True)

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the cash now."""
        await simulator.desk.move_cash(self.amount, self.type)
        return {"cash": _cash(simulator)}


class HoldingAct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Show a position with these fields, whatever they are: over the model's own, or as one beside them."""

    fields: dict[str, Any]
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not isinstance(self.fields.get("symbol"), str):
            raise ValueError("fields.symbol: missing")  # noqa: TRY004 - msgspec tells ValueErrors

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the symbol."""
        symbol = self.fields["symbol"]
        simulator.desk.account.exotic[symbol] = self.fields
        simulator.desk.account.left_out[symbol] = self.without
        return {"symbol": symbol}


class RemoveHolding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Show the model's own position again, or none."""

    symbol: str

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return whether there was anything to remove."""
        simulator.desk.account.left_out.pop(self.symbol, None)
        return {"removed": simulator.desk.account.exotic.pop(self.symbol, None) is not None}


class AccountReset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Begin again with the opening positions."""

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the cash now."""
        simulator.desk.reset()
        return {"cash": _cash(simulator)}


class WrongPrice(_Act, frozen=True):
    """Let the broker insist on a price, until it is null."""

    symbol: str
    price: Decimal | None

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return the prices that are wrong now."""
        wrong = simulator.desk.prices.wrong
        wrong.pop(parse_symbol(self.symbol), None)
        if self.price is not None:
            wrong[parse_symbol(self.symbol)] = self.price
        return {"wrong": {symbol: number_text(price) for symbol, price in wrong.items()}}


class DropTrading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End the trading stream's connections: cut TCP, close, or send an error and close."""

    how: DropKind = "tcp"

    async def carry_out(self, simulator: SteeredAccount) -> Result:
        """Return how many clients were there."""
        return {"dropped": await simulator.updates.drop_all(self.how)}


AccountAct = (
    Fill
    | Bust
    | Correct
    | SplitAct
    | SymbolChangeAct
    | Dividend
    | Fee
    | Cash
    | HoldingAct
    | RemoveHolding
    | AccountReset
    | WrongPrice
    | DropTrading
)

ACCOUNT_ACTS: Final[Mapping[str, type[AccountAct]]] = {
    "fill": Fill,
    "bust": Bust,
    "correct": Correct,
    "split": SplitAct,
    "symbol_change": SymbolChangeAct,
    "dividend": Dividend,
    "fee": Fee,
    "cash": Cash,
    "holding": HoldingAct,
    "remove_holding": RemoveHolding,
    "account_reset": AccountReset,
    "wrong_price": WrongPrice,
    "drop_trading": DropTrading,
}
"""Every act of the account, by its name in a scenario; in a path `_` is written `-`."""


def _check_symbol(name: str, symbol: str) -> None:
    try:
        parse_symbol(symbol)
    except MalformedSymbolError as fault:
        raise ValueError(f"{name}: {fault}") from fault


def _check_number(name: str, number: Decimal, *, is_signed: bool = False) -> None:
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(number) > _LARGEST:
        raise ValueError(f"{name}: must be a number up to {_LARGEST:f}")
    if not is_signed and number <= 0:
        raise ValueError(f"{name}: must be above 0")
    if "qty" in name and exponent < _FINEST_QTY:
        raise ValueError(f"{name}: has more than 9 decimals")


def _held(simulator: SteeredAccount, symbol: str) -> str:
    desk = simulator.desk
    return number_text(desk.account.book(desk.now()).held(symbol).qty)


def _cash(simulator: SteeredAccount) -> str:
    desk = simulator.desk
    return number_text(desk.account.book(desk.now()).cash)
