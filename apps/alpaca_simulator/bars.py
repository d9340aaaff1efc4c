"""Bars made of trades. No I/O, no clock."""

from dataclasses import dataclass

from apps.alpaca_simulator.points import Bar, Trade


@dataclass(slots=True)
class _Growing:
    begin_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: int = 0
    value: float = 0.0
    trade_count: int = 0

    def add(self, trade: Trade) -> None:
        self.high = max(self.high, trade.price)
        self.low = min(self.low, trade.price)
        self.close = trade.price
        self.volume += trade.size
        self.value += trade.size * trade.price
        self.trade_count += 1

    def as_bar(self, symbol: str) -> Bar:
        vwap = round(self.value / self.volume, 6)
        return Bar(
            symbol, self.open, self.high, self.low, self.close, self.volume, self.begin_ns, self.trade_count, vwap
        )


class BarBuilder:
    """Collects trades into bars of one interval; a symbol without a trade makes no bar."""

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._growing: dict[tuple[int, str], _Growing] = {}

    def add(self, trade: Trade) -> None:
        """Take in one trade, by its own time."""
        begin_ns = trade.time_ns // self._interval_ns * self._interval_ns
        bar = self._growing.get((begin_ns, trade.symbol))
        if bar is None:
            price = trade.price
            bar = self._growing[begin_ns, trade.symbol] = _Growing(begin_ns, price, price, price, price)
        bar.add(trade)

    def finish(self, now_ns: int) -> list[Bar]:
        """Return the bars whose interval has ended, oldest first, then by symbol."""
        ended = sorted(place for place in self._growing if place[0] + self._interval_ns <= now_ns)
        return [self._growing.pop(place).as_bar(place[1]) for place in ended]
