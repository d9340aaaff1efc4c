"""Cost by Alpaca's own method, beside the average cost that the P&L stands on. Pure and exact.

While a day runs, its trades change one weighted average. At the next morning's sync the cost is worked out anew, by
compressed first-in-first-out: each day's opening trades are one lot at that day's average price, and lots leave in
the order they came. So cost and average may change overnight without a trade (Alpaca's documentation, "Position Average
Entry Price Calculation").
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.days import NEW_YORK
from libs.portfolio.entries import Entry, after_split, apply_entry, spun_off_cost
from libs.portfolio.fills import EXACT, ZERO, Fill
from libs.portfolio.positions import cost_of, flat

MORNING_SYNC: Final = timedelta(hours=2, minutes=30)
"""When the sync is over, in New York: it runs from 02:15 to 02:30 ("Daily Processes")."""


def sync_day(moment: datetime) -> date:
    """Return the day whose books `moment` belongs to: it ends with the next morning's sync."""
    return (moment.astimezone(NEW_YORK).replace(tzinfo=None) - MORNING_SYNC).date()


@dataclass(frozen=True, slots=True)
class AlpacaHolding:
    """One symbol's shares as Alpaca counts them, signed. `cost` in USD, signed like the shares.

    `overnight_left` are the shares of the last morning's sync that are held still (closing trades take the oldest),
    `opened_cost` is the USD cost of those opened since: what the account's intraday profit is measured against.
    """

    cost: Decimal
    overnight_left: Decimal
    opened_cost: Decimal


def alpaca_holdings(entries: Iterable[Entry], now: datetime) -> dict[str, AlpacaHolding]:
    """Return per symbol what Alpaca holds and at which cost as of `now`.

    `entries` are those of symbols that belong together, in the order they apply.
    """
    holdings: dict[str, _Holding] = {}
    for entry in entries:
        for symbol in entry.symbols:
            holdings.setdefault(symbol, _Holding(symbol))
        holding = holdings[entry.symbol]
        if isinstance(entry, Fill):
            holding.trade(entry)
        elif entry.new_symbol is not None and entry.kind is AdjustmentKind.SPIN_OFF:
            holdings[entry.new_symbol].come_in(entry.qty or ZERO, holding.spin_off(entry))
        elif entry.new_symbol is not None:
            holding.sync()
            holdings[entry.new_symbol].take_over(holding)
        else:
            holding.adjust(entry)
    for holding in holdings.values():
        holding.sync_before(sync_day(now))
    return {symbol: holding.as_of_now() for symbol, holding in holdings.items()}


@dataclass(slots=True)
class _Lot:
    """Shares of one day, signed, and their signed cost in USD."""

    qty: Decimal
    cost: Decimal


@dataclass(slots=True)
class _Holding:
    """The lots of one symbol at the last sync, oldest first, and the trades and transfers since."""

    symbol: str
    lots: list[_Lot] = field(default_factory=list)
    since: list[Entry] = field(default_factory=list)
    day: date = date.min

    def as_of_now(self) -> AlpacaHolding:
        """Return the shares and their cost: the lots count as one position, the trades since move it by its average."""
        qty, cost = _total(self.lots)
        positions = {self.symbol: replace(flat(self.symbol), qty=qty, cost_basis=cost)}
        for entry in self.since:
            apply_entry(positions, entry)
        kept, opened = _after_trades(self.lots, self._trades)
        return AlpacaHolding(positions[self.symbol].cost_basis, _total(self._moved(kept))[0], opened.cost)

    @property
    def _trades(self) -> list[Fill]:
        return [entry for entry in self.since if isinstance(entry, Fill)]

    def _moved(self, lots: list[_Lot]) -> list[_Lot]:
        """Return the lots after the transfers since the last sync."""
        for entry in self.since:
            if isinstance(entry, Adjustment):
                lots = _transferred(lots, entry.qty or ZERO, entry.amount or ZERO)
        return lots

    def trade(self, fill: Fill) -> None:
        """Add a trade of this day or of a later one."""
        self.sync_before(sync_day(fill.filled_at))
        self.since.append(fill)

    def sync_before(self, day: date) -> None:
        """Do the sync that comes before `day`, if it has not been done."""
        if day > self.day:
            self.sync()
            self.day = day

    def sync(self) -> None:
        """Turn the trades and transfers since the last sync into lots."""
        self.lots = self._moved(_compressed(self.lots, self._trades))
        self.since = []

    def take_over(self, other: "_Holding") -> None:
        """Take all lots of `other`."""
        self.sync()
        self.lots = [*other.lots, *self.lots]
        other.lots = []

    def spin_off(self, entry: Adjustment) -> Decimal:
        """Take out of every lot the part of its cost that goes with a spin-off; return their sum."""
        self.sync()
        before = _total(self.lots)[1]
        self.lots = [_Lot(lot.qty, EXACT.subtract(lot.cost, spun_off_cost(lot.cost, entry))) for lot in self.lots]
        return EXACT.subtract(before, _total(self.lots)[1])

    def come_in(self, qty: Decimal, cost: Decimal) -> None:
        """Take in shares of a spin-off at their part of the cost."""
        self.sync()
        self.lots = _transferred(self.lots, qty, cost)

    def adjust(self, adjustment: Adjustment) -> None:
        """Split the lots, or move shares and cost in or out; other adjustments change no cost."""
        if adjustment.kind is AdjustmentKind.SPLIT:
            self.sync()
            self._split(adjustment)
        elif adjustment.kind in {AdjustmentKind.TRANSFER, AdjustmentKind.MOVE}:
            # In the middle of a day it moves the day's average; it becomes a lot with the next sync.
            self.sync_before(sync_day(adjustment.effective_at))
            self.since.append(adjustment)

    def _split(self, split: Adjustment) -> None:
        whole, _ = _total(self.lots)
        qty = after_split(whole, split)
        lots: list[_Lot] = []
        left = qty
        for lot in reversed(self.lots):
            # The newest lots keep their full share; what is beyond nine decimals is missing from the oldest.
            is_oldest = len(lots) == len(self.lots) - 1
            part = left if is_oldest else after_split(lot.qty, split)
            lots.append(_Lot(part, lot.cost))
            left = EXACT.subtract(left, part)
        self.lots = [lot for lot in reversed(lots) if lot.qty]


def _transferred(lots: list[_Lot], qty: Decimal, cost: Decimal) -> list[_Lot]:
    """Return the lots after shares and cost were moved in or out."""
    held, before = _total(lots)
    if qty and (not held or (held > ZERO) == (qty > ZERO)):
        return [*lots, _Lot(qty, cost)]
    left = _consumed(lots, qty.copy_negate()) if qty else list(lots)
    missing = EXACT.subtract(EXACT.add(held, qty), _total(left)[0])
    if missing:
        left.append(_Lot(missing, ZERO))
    if not left:
        return left
    # What the transfer says of the cost stands: the newest lot takes the difference.
    owed = EXACT.subtract(EXACT.add(before, cost), _total(left)[1])
    return [*left[:-1], _Lot(left[-1].qty, EXACT.add(left[-1].cost, owed))]


def _compressed(lots: list[_Lot], trades: list[Fill]) -> list[_Lot]:
    """Return the lots after a day's trades."""
    kept, opened = _after_trades(lots, trades)
    return [*kept, opened] if opened.qty else kept


def _after_trades(lots: list[_Lot], trades: list[Fill]) -> tuple[list[_Lot], _Lot]:
    """Return what a day's trades leave of the lots, oldest shares taken first, and the one lot they open."""
    if not trades:
        return lots, _Lot(ZERO, ZERO)
    bought, sold = _side(trades, is_buying=True), _side(trades, is_buying=False)
    held, _ = _total(lots)
    opening, closing = (sold, bought) if held < ZERO else (bought, sold)
    taken = min(closing.qty.copy_abs(), held.copy_abs())
    kept = _consumed(lots, taken.copy_sign(held)) if taken else lots
    # Signed: what of the day's own two sides is left once they have met.
    rest = EXACT.add(opening.qty, EXACT.subtract(closing.qty, taken.copy_sign(closing.qty)))
    if not rest:
        return kept, _Lot(ZERO, ZERO)
    side = opening if (rest > ZERO) == (opening.qty > ZERO) and opening.qty else closing
    return kept, _Lot(rest, cost_of(side.cost, side.qty, rest.copy_negate()))


def _side(trades: list[Fill], *, is_buying: bool) -> _Lot:
    side = _Lot(ZERO, ZERO)
    for fill in trades:
        if (fill.signed_qty > ZERO) is is_buying:
            side = _Lot(EXACT.add(side.qty, fill.signed_qty), EXACT.add(side.cost, fill.signed_cost))
    return side


def _consumed(lots: list[_Lot], qty: Decimal) -> list[_Lot]:
    """Return the lots without their `qty` oldest shares (of the lots' own sign)."""
    kept = []
    for lot in lots:
        taken = min(qty.copy_abs(), lot.qty.copy_abs()).copy_sign(lot.qty)
        qty = EXACT.subtract(qty.copy_abs(), taken.copy_abs())
        left = EXACT.subtract(lot.qty, taken)
        if left:
            removed = cost_of(lot.cost, lot.qty, taken.copy_negate()) if taken else ZERO
            kept.append(_Lot(left, EXACT.subtract(lot.cost, removed)))
    return kept


def _total(lots: list[_Lot]) -> tuple[Decimal, Decimal]:
    qty = cost = ZERO
    for lot in lots:
        qty, cost = EXACT.add(qty, lot.qty), EXACT.add(cost, lot.cost)
    return qty, cost
