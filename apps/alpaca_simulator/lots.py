"""What a position cost, as Alpaca reckons it: weighted average within the day, compressed FIFO for older days. Pure.

Source: "Position Average Entry Price Calculation" in Alpaca's docs. Each day's opening trades become one lot at that
day's average, lots leave first-in first-out; until the morning sync the whole position is one average.
"""

from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from typing import Final

COSTS: Final = Context(prec=60)
"""Wide enough that what a division leaves out is far below anything that is shown."""
NOTHING: Final = Decimal(0)
_SMALLEST_QTY: Final = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Lot:
    """Shares with what they cost in USD; both negative for shares sold short."""

    qty: Decimal = NOTHING
    cost: Decimal = NOTHING

    def part(self, qty: Decimal) -> "Lot":
        """Return `qty` of these shares, at this lot's average."""
        return self if qty == self.qty else Lot(qty, self.cost * qty / self.qty)


@dataclass(frozen=True, slots=True)
class Holding:
    """One symbol's shares: the lots of the last sync, oldest first, and what was bought and sold since.

    `sold` has a negative quantity and cost. `cost` is what the position is said to cost now: until the next sync the
    lots count as one, and the day's trades move it by average cost.
    """

    lots: tuple[Lot, ...] = ()
    bought: Lot = Lot()
    sold: Lot = Lot()
    cost: Decimal = NOTHING

    @property
    def overnight_qty(self) -> Decimal:
        """The shares held at the last sync, whatever happened to them since."""
        return sum((lot.qty for lot in self.lots), NOTHING)

    @property
    def qty(self) -> Decimal:
        """The shares held now, negative for a short."""
        return self.overnight_qty + self.bought.qty + self.sold.qty

    def traded(self, qty: Decimal, price: Decimal) -> "Holding":
        """Return the holding after an execution of `qty` shares, negative for a sale, at `price` USD."""
        with localcontext(COSTS):
            trade = Lot(qty, qty * price)
            cost = self._cost_after(trade, price)
            if qty > 0:
                return Holding(self.lots, _sum(self.bought, trade), self.sold, cost)
            return Holding(self.lots, self.bought, _sum(self.sold, trade), cost)

    def synced(self) -> "Holding":
        """Return the holding after the morning sync."""
        with localcontext(COSTS):
            lots = (*self.older_left(), *self.opened_today())
            return Holding(lots, cost=sum((lot.cost for lot in lots), NOTHING))

    def older_left(self) -> tuple[Lot, ...]:
        """Return what the day's closing trades leave of the lots, first-in first-out."""
        with localcontext(COSTS):
            to_close = abs(self._closing.qty)
            left = []
            for lot in self.lots:
                taken = min(to_close, abs(lot.qty))
                to_close -= taken
                if taken < abs(lot.qty):
                    left.append(lot.part(lot.qty - taken.copy_sign(lot.qty)))
            return tuple(left)

    def opened_today(self) -> tuple[Lot, ...]:
        """Return the day's own lot, none or one.

        Closing trades that found no older lot are matched with the day's opening trades, both at their averages;
        what remains of either side is the lot.
        """
        with localcontext(COSTS):
            unmatched = max(abs(self._closing.qty) - abs(self.overnight_qty), NOTHING)
            opened = abs(self._opening.qty) - unmatched
            if opened == 0:
                return ()
            side = self._opening if opened > 0 else self._closing
            return (side.part(abs(opened).copy_sign(side.qty)),)

    def split(self, new: Decimal, old: Decimal) -> tuple["Holding", Decimal]:
        """Return the holding with `new` shares for each `old`, and the fraction of a share that fits no 9 decimals.

        The cost stays. Every lot is cut so that the lots add up to the position, which is cut once.
        """
        with localcontext(COSTS):
            before = after = NOTHING
            pieces = []
            for piece in (*self.lots, self.bought, self.sold):
                before += piece.qty
                rest = _whole(before * new / old) - after
                after += rest
                pieces.append(Lot(rest, piece.cost))
            *lots, bought, sold = pieces
            return Holding(tuple(lots), bought, sold, self.cost), before * new / old - after

    @property
    def _closing(self) -> Lot:
        return self.bought if self.overnight_qty < 0 else self.sold

    @property
    def _opening(self) -> Lot:
        return self.sold if self.overnight_qty < 0 else self.bought

    def _cost_after(self, trade: Lot, price: Decimal) -> Decimal:
        held, after = self.qty, self.qty + trade.qty
        if held * trade.qty >= 0:
            return self.cost + trade.cost
        if held * after >= 0:
            return self.cost * after / held
        return after * price


def _sum(one: Lot, other: Lot) -> Lot:
    return Lot(one.qty + other.qty, one.cost + other.cost)


def _whole(qty: Decimal) -> Decimal:
    """Return a quantity without what lies beyond 9 decimals."""
    return qty.quantize(_SMALLEST_QTY, ROUND_DOWN)
