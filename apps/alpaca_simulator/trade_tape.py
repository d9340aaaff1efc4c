"""The trades that were made lately, and which of them is the last price after corrections and cancels.

The simulator's own reading of the tape plans: what a client makes of its trades is checked against it. No I/O.
"""

from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Final

from msgspec.structs import replace

from apps.alpaca_simulator.points import Trade, TradeCancel, TradeCorrection

_KEPT: Final = 200
_NEVER_LAST: Final = frozenset("CGHIMNPQRUVWZ47")
"""Sale conditions with which a trade is no last price: odd lots, average prices, out of sequence and the like."""
_CTA: Final = frozenset("AB")
_AVERAGE_PRICE: Final = "B"
"""On tapes A and B; elsewhere the letter means a bunched trade, which counts."""
_CORRECTED_IDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Printed:
    """One trade on the tape; one that was given is shown as it was, on every feed."""

    trade: Trade
    is_given: bool


class TradeTape:
    """The last 200 trades of each symbol that stand, oldest first."""

    def __init__(self) -> None:
        self._printed: dict[str, deque[Printed]] = {}
        self._ids = count(5_000_000)

    def next_id(self) -> int:
        """Return an id that no trade of this tape has had."""
        return next(self._ids)

    def add(self, trade: Trade, *, is_given: bool = False) -> None:
        """Take in a trade that was made."""
        kept = self._printed.get(trade.symbol)
        if kept is None:
            kept = self._printed[trade.symbol] = deque(maxlen=_KEPT)
        kept.append(Printed(trade, is_given))

    def last(self, symbol: str) -> Printed | None:
        """Return the newest trade that stands and may be the last price; None when there is none."""
        return next((one for one in reversed(self._printed.get(symbol, ())) if may_be_last(one.trade)), None)

    def find(self, symbol: str, trade_id: int | None = None, exchange: str | None = None) -> Printed | None:
        """Return the newest standing trade of this id, and exchange if one is named; without an id, the last."""
        if trade_id is None:
            return self.last(symbol)
        for one in reversed(self._printed.get(symbol, ())):
            if one.trade.trade_id == trade_id and exchange in {None, one.trade.exchange}:
                return one
        return None

    def cancel(self, printed: Printed, action: str, now_ns: int) -> TradeCancel:
        """Take a trade of this tape off it, and return the message that says so."""
        trade = printed.trade
        self._printed[trade.symbol].remove(printed)
        return TradeCancel(
            trade.symbol, trade.trade_id, trade.exchange, trade.price, trade.size, action, now_ns, trade.tape
        )

    def correct(
        self,
        printed: Printed,
        now_ns: int,
        *,
        price: float | None,
        size: int | None,
        conditions: tuple[str, ...] | None,
    ) -> TradeCorrection:
        """Put a trade with a new id in the place of one of this tape, and return the message that says so.

        What is None stays as it was.
        """
        trade = printed.trade
        corrected = replace(
            trade,
            trade_id=trade.trade_id + _CORRECTED_IDS,
            price=trade.price if price is None else price,
            size=trade.size if size is None else size,
            conditions=trade.conditions if conditions is None else conditions,
        )
        kept = self._printed[trade.symbol]
        kept[kept.index(printed)] = Printed(corrected, printed.is_given)
        return TradeCorrection(
            trade.symbol, trade.exchange, trade.trade_id, trade.price, trade.size, trade.conditions, corrected.trade_id,
            corrected.price, corrected.size, corrected.conditions, now_ns, trade.tape,
        )  # fmt: skip

    def rescale(self, symbol: str, factor: float) -> None:
        """Multiply the prices of a symbol's trades, to the cent: its shares were split."""
        kept = self._printed.get(symbol, deque())
        for place, one in enumerate(kept):
            kept[place] = Printed(replace(one.trade, price=round(one.trade.price * factor, 2)), one.is_given)


def may_be_last(trade: Trade) -> bool:
    """Say whether a trade's conditions let it be the consolidated last price, or that of extended hours."""
    if trade.tape in _CTA and _AVERAGE_PRICE in trade.conditions:
        return False
    return _NEVER_LAST.isdisjoint(trade.conditions)
