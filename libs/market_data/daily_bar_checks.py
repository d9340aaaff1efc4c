"""What an answered daily bar must satisfy to be kept, and what is said of the others. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.missing_bars import BarsRequest


@dataclass(frozen=True, slots=True)
class SiftedBars:
    """The bars of an answer that may be kept, and one line for each that was refused."""

    usable: tuple[DailyBar, ...]
    refused: tuple[str, ...]


def sift_bars(bars: Iterable[DailyBar], request: BarsRequest) -> SiftedBars:
    """Return what of an answer is to be kept: one consistent bar for each pair that was asked for.

    A bar beyond what was asked is left out silently: a server may show the running session, which nobody wants.
    """
    answers: defaultdict[tuple[str, date], list[DailyBar]] = defaultdict(list)
    refused: list[str] = []
    for bar in bars:
        answers[bar.symbol, bar.date].append(bar)
    usable: list[DailyBar] = []
    for (symbol, day), same_day in sorted(answers.items()):
        if symbol not in request.symbols or not request.first <= day <= request.last:
            continue
        fault = _fault(day, same_day, request.sessions)
        if fault is None:
            usable.append(same_day[0])
        else:
            refused.append(f"{symbol} {day}: {fault}")
    return SiftedBars(tuple(usable), tuple(refused))


def bar_fault(bar: DailyBar) -> str | None:
    """Return what is impossible about a bar, None when nothing is."""
    prices = {"open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close}
    for name, price in prices.items():
        if not (price.is_finite() and price > 0):
            return f"its {name} is {price}"
    highest, lowest = max(prices.values()), min(prices.values())
    if bar.high < highest:
        return f"its high {bar.high} is below {_name_of(highest, prices)} {highest}"
    if bar.low > lowest:
        return f"its low {bar.low} is above {_name_of(lowest, prices)} {lowest}"
    return f"its volume is {bar.volume}" if bar.volume < 0 else None


def _fault(day: date, bars: list[DailyBar], sessions: Collection[date]) -> str | None:
    if day not in sessions:
        return "the market was closed that day"
    if any(bar != bars[0] for bar in bars):
        return "the server gave two different bars"
    return bar_fault(bars[0])


def _name_of(price: Decimal, prices: dict[str, Decimal]) -> str:
    return next(name for name, other in prices.items() if other == price)
