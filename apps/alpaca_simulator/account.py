"""The simulated account: what was recorded in it, and what it has therefore. Pure: every moment is an argument.

It is an account of its own, sharing no arithmetic with the services that mirror it, so that they can be checked by it.
"""

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid4, uuid5

from apps.alpaca_simulator.account_book import Book
from apps.alpaca_simulator.account_entries import (
    AccountError,
    Activity,
    Booking,
    CashMove,
    Entry,
    Execution,
    Split,
    SymbolChange,
    activity_id,
    sync_day,
)
from apps.alpaca_simulator.lots import COSTS, NOTHING, Holding
from apps.alpaca_simulator.orders import Order, Orders, Part, Side
from apps.alpaca_simulator.wire_text import number_text

OPENING_CASH_USD: Final = Decimal(100_000)
"""What is left once the opening positions are paid for."""
_OPENING_AGE: Final = timedelta(days=30)
_CENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class OpeningPosition:
    """Shares bought before the first day, `qty` negative for a short; 30 days before when no moment is given."""

    symbol: str
    qty: Decimal
    price: Decimal
    opened_at: datetime | None = None


class Account:
    """One account. Each method that changes it takes `now`, an aware datetime."""

    def __init__(self, opening: Iterable[OpeningPosition], now: datetime) -> None:
        self.orders = Orders()
        self.executions: dict[str, Execution] = {}
        self.activities: list[Activity] = []
        self.exotic: dict[str, dict[str, object]] = {}
        """Fields that stand over the model's own in the answer about a position, or a whole position beside them."""
        self.left_out: dict[str, frozenset[str]] = {}
        """Fields that are left out of the answer about a position."""
        self._journal: list[Entry] = []
        self._book = Book()
        self._changed_at: dict[str, datetime] = {}
        self._opening = tuple(opening)
        self._began_at = now
        self._sequence = 0
        self._open()

    @property
    def base_value(self) -> Decimal:
        """The cash that the account was opened with."""
        cost = sum((position.qty * position.price for position in self._opening), NOTHING)
        return OPENING_CASH_USD + cost

    @property
    def recorded(self) -> int:
        """How many things have been recorded; the next one gets this sequence number."""
        return self._sequence

    def book(self, now: datetime, recorded: int | None = None) -> Book:
        """Return what the account has, as it was when no more than `recorded` things were; None: all there are."""
        if recorded is None or recorded >= self._sequence:
            self._book.roll(sync_day(now))
            return self._book
        earlier = Book(entry for entry in self._journal if entry.sequence < recorded)
        earlier.roll(sync_day(now))
        return earlier

    def reset(self) -> None:
        """Begin again with the opening positions, as they were at first; sequence numbers go on."""
        self.orders.clear()
        for recorded in (self.executions, self.activities, self.exotic, self.left_out, self._journal, self._changed_at):
            recorded.clear()
        self._book = Book()
        self._open()

    def execute(
        self, order: Order, qty: Decimal, price: Decimal, at: datetime, execution_id: str | None = None
    ) -> Execution:
        """Record that `qty` shares (unsigned) of an order changed hands at `price` USD. Raises AccountError."""
        if execution_id in self.executions:
            raise AccountError(f"execution_ids: {execution_id} is known already")
        self.check_moment(order.symbol, at)
        filled = self.orders.filled(order.order_id, qty, price, at)
        execution = Execution(
            execution_id=execution_id or str(uuid4()),
            order_id=order.order_id,
            symbol=order.symbol,
            qty=qty if order.side == "buy" else -qty,
            price=price,
            at=at,
            cum_qty=filled.filled_qty,
            leaves_qty=filled.leaves_qty,
            sequence=self._next(),
        )
        self.executions[execution.execution_id] = execution
        self._record(execution)
        return execution

    def bust(self, execution_id: str, now: datetime) -> Execution:
        """Undo an execution, as an exchange does. Raises AccountError."""
        return self._amend(self.execution(execution_id), now, booking=Booking.BUSTED)

    def correct(self, execution_id: str, price: Decimal | None, qty: Decimal | None, now: datetime) -> Execution:
        """Give an execution another price (USD) or quantity (unsigned); None leaves it. Raises AccountError."""
        before = self.execution(execution_id)
        corrected = before.qty if qty is None else qty.copy_sign(before.qty)
        delta = abs(corrected) - abs(before.qty)
        return self._amend(
            before,
            now,
            price=before.price if price is None else price,
            qty=corrected,
            cum_qty=before.cum_qty + delta,
            booking=Booking.CORRECTED,
        )

    def execution(self, execution_id: str) -> Execution:
        """Return a recorded execution that stands. Raises AccountError."""
        found = self.executions.get(execution_id)
        if found is None:
            raise AccountError(f"execution_id: {execution_id[:60]} is not known")
        if found.booking is Booking.BUSTED:
            raise AccountError(f"execution_id: {execution_id[:60]} is busted")
        return found

    def split(
        self, symbol: str, new: Decimal, old: Decimal, cash_price: Decimal, now: datetime, *, one_entry: bool = False
    ) -> None:
        """Give `new` shares for each `old`; what fits no 9 decimals is paid at `cash_price` USD a new share.

        Shown as the old shares going out and the new ones coming in, or with `one_entry` as the difference alone.
        Raises AccountError when the symbol is not held.
        """
        before = self._held(symbol, now)
        after, fraction = before.split(new, old)
        self._record(Split(symbol, new, old, self._not_before(now), self._next()))
        self._changed_at[symbol] = now
        moves = (("ADD", after.qty - before.qty),) if one_entry else (("REMOVE", -before.qty), ("ADD", after.qty))
        value = abs(before.cost).quantize(_CENT, ROUND_HALF_UP)
        from_qty, to_qty = number_text(-before.qty), number_text(after.qty)
        for word, qty in moves:
            told = f"{word}, From QTY:{from_qty}, To QTY:{to_qty}, Position Value:{value:f}"
            price = abs(before.cost / (before.qty if word == "REMOVE" else after.qty or 1))
            self._note("SPLIT", now, told, symbol=symbol, qty=qty, price=price.quantize(Decimal("1e-6")))
        if fraction:
            with localcontext(COSTS):
                paid = fraction * cash_price
            told = f"Cash in lieu of {number_text(fraction)} shares"
            self._cash("CIL", paid, now, told, symbol=symbol)

    def change_symbol(self, symbol: str, new_symbol: str, now: datetime) -> None:
        """Let a position go on as `new_symbol`. Raises AccountError when it is not held."""
        held = self._held(symbol, now)
        self._record(SymbolChange(symbol, new_symbol, self._not_before(now), self._next()))
        self._changed_at[symbol] = self._changed_at[new_symbol] = now
        told = f"Symbol change {symbol} to {new_symbol}"
        self._note("NC", now, told, symbol=symbol, qty=-held.qty)
        self._note("NC", now, told, symbol=new_symbol, qty=held.qty)

    def pay_dividend(self, symbol: str, per_share: Decimal, now: datetime) -> Decimal:
        """Pay a cash dividend to the cent, or take it from a short; return it. Raises AccountError when not held."""
        qty = self._held(symbol, now).qty
        amount = (qty * per_share).quantize(_CENT, ROUND_HALF_UP)
        told = f"Cash DIV @ {number_text(per_share)}, Pos QTY: {number_text(qty)}"
        self._cash("DIV", amount, now, told, symbol=symbol, qty=qty, per_share=per_share)
        return amount

    def charge_fee(self, amount: Decimal, now: datetime, *, symbol: str | None = None, kind: str = "FEE") -> None:
        """Take a fee of `amount` USD; a negative one is a refund."""
        self._cash(kind, -amount, now, f"{kind} fee", symbol=symbol)

    def move_cash(self, amount: Decimal, now: datetime, kind: str | None = None) -> None:
        """Let cash come in, or go out when `amount` is negative: CSD or CSW unless another kind is named."""
        self._cash(kind or ("CSD" if amount >= 0 else "CSW"), amount, now, "Cash moved")

    def splits_since(self, symbol: str, moment: datetime) -> Iterator[Split]:
        """Yield the splits of a symbol after a moment, also those it had under earlier symbols."""
        names = {symbol}
        for entry in reversed(self._journal):
            if entry.at <= moment:
                return
            if isinstance(entry, SymbolChange) and entry.new_symbol in names:
                names.add(entry.symbol)
            elif isinstance(entry, Split) and entry.symbol in names:
                yield entry

    def _open(self) -> None:
        moments = [position.opened_at or self._began_at - _OPENING_AGE for position in self._opening]
        first = min(moments, default=self._began_at - _OPENING_AGE) - timedelta(days=1)
        self.move_cash(self.base_value, first)
        for number, (position, at) in enumerate(zip(self._opening, moments, strict=True)):
            # The same each time, so that a client that knows it does not take it for another after a restart.
            name = f"opening:{number}:{position.symbol}:{position.qty}:{position.price}"
            side: Side = "buy" if position.qty > 0 else "sell"
            qty = abs(position.qty)
            order = self.orders.place(
                position.symbol, side, qty, at, order_id=str(uuid5(NAMESPACE_URL, f"order:{name}"))
            )
            self.execute(order, qty, position.price, at, str(uuid5(NAMESPACE_URL, name)))

    def _held(self, symbol: str, now: datetime) -> Holding:
        held = self.book(now).held(symbol)
        if not held.qty:
            raise AccountError(f"symbol: {symbol} is not held")
        return held

    def _amend(self, before: Execution, now: datetime, **changes: Any) -> Execution:
        self.check_moment(before.symbol, before.at)
        amended = replace(before, **changes)
        stands = amended.booking is not Booking.BUSTED
        self.orders.amended(
            before.order_id, Part(before.qty, before.price), Part(amended.qty, amended.price) if stands else None, now
        )
        self.executions[before.execution_id] = amended
        self._journal[self._journal.index(before)] = amended
        self._book = Book(self._journal)
        self._next()
        return amended

    def check_moment(self, symbol: str, at: datetime) -> None:
        """Raise AccountError when an execution cannot be recorded at a moment: the symbol was another one then."""
        changed_at = self._changed_at.get(symbol)
        if changed_at is not None and at <= changed_at:
            raise AccountError(f"at: before the split or symbol change of {symbol}, which is not reckoned anew")

    def _record(self, entry: Entry) -> None:
        is_newest = not self._journal or entry.at >= self._journal[-1].at
        insort(self._journal, entry, key=lambda one: (one.at, one.sequence))
        if is_newest and (self._book.day is None or sync_day(entry.at) >= self._book.day):
            self._book.apply(entry)
        else:
            self._book = Book(self._journal)

    def _cash(
        self,
        kind: str,
        amount: Decimal,
        now: datetime,
        description: str,
        *,
        symbol: str | None = None,
        qty: Decimal | None = None,
        per_share: Decimal | None = None,
    ) -> None:
        self._record(CashMove(amount, self._not_before(now), self._next()))
        self._note(kind, now, description, amount=amount, symbol=symbol, qty=qty, per_share=per_share)

    def _note(self, kind: str, at: datetime, description: str, **fields: Any) -> None:
        amount = fields.pop("amount", NOTHING)
        self.activities.append(
            Activity(activity_id(at, str(uuid4())), kind, at, amount, description, self._next(), **fields)
        )

    def _not_before(self, now: datetime) -> datetime:
        """Return when an entry counts: after all there is, also when executions were recorded with a time to come."""
        return max(now, self._journal[-1].at) if self._journal else now

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1
