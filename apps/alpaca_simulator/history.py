"""The daily bars of the past, made up: always the same for a symbol and a session, ending near today's prices. Pure.

Decides how the past looks after a split: unadjusted, as it was traded then.
"""

from collections import defaultdict
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from math import prod
from typing import Final

from msgspec.structs import replace

from apps.alpaca_simulator.listings import listing_of, unit_hash
from apps.alpaca_simulator.points import Bar
from libs.market_data.trading_sessions import NEW_YORK

_DAILY_SWING: Final = 0.012
"""How far a close may lie from the usual price, so that daily moves are about one percent."""
_GAP: Final = 0.003
_CENT: Final = 0.01
_WICK: Final = 0.006
_NS_PER_S: Final = 1_000_000_000
_SHARES_PER_TRADE: Final = 90
_IEX_SHARE: Final = 0.024
_IEX_DEVIATION: Final = 0.0005


class DailyHistory:
    """Daily bars around each symbol's usual price in USD. A bar depends on nothing but symbol, dates and splits.

    `usual_price` answers what is usual today, after every split that was told here.
    """

    def __init__(self, usual_price: Callable[[str], float]) -> None:
        self._usual_price = usual_price
        self._splits: defaultdict[str, dict[date, float]] = defaultdict(dict)

    def split(self, symbol: str, new: Decimal | int, old: Decimal | int, effective: date) -> None:
        """Make `new` shares of each `old` from the New York date `effective` on.

        Sessions before it show the prices of then, `new / old` times those after it; volumes stay. A second split of
        the same symbol and date replaces the first. Raises ValueError unless both are positive.
        """
        ratio = float(new) / float(old) if old > 0 else 0.0
        if not 0 < ratio < float("inf"):
            raise ValueError(f"{new} new shares for {old} old are no split")
        self._splits[symbol][effective] = ratio

    def close(self, symbol: str, session: date) -> float:
        """Return the official closing price of a session, in USD with two decimals, unadjusted."""
        return self._close_on_scale_of(session, symbol, session)

    def bar(self, symbol: str, session: date, previous: date) -> Bar:
        """Return the consolidated bar of a completed session that followed `previous`."""
        close = self.close(symbol, session)
        last = self._close_on_scale_of(session, symbol, previous)
        open_ = round(last * (1 + _around_zero(_GAP, "gap", symbol, session)), 2)
        high = round(max(open_, close) * (1 + _WICK * unit_hash("high", symbol, session)), 2)
        low = round(min(open_, close) * (1 - _WICK * unit_hash("low", symbol, session)), 2)
        volume = round(listing_of(symbol).daily_volume * (0.6 + unit_hash("volume", symbol, session)))
        vwap = round((open_ + high + low + close) / 4, 6)
        trades = max(1, volume // _SHARES_PER_TRADE)
        return Bar(symbol, open_, high, low, close, volume, midnight_ns(session), trades, vwap)

    def running_bar(self, symbol: str, session: date, previous: date, price: float) -> Bar:
        """Return the bar of a session that is not over, at `price` now."""
        bar = self.bar(symbol, session, previous)
        return replace(
            bar,
            high=max(bar.open, price),
            low=min(bar.open, price),
            close=price,
            volume=bar.volume // 2,
            trade_count=max(1, bar.trade_count // 2),
            vwap=round((bar.open + price) / 2, 6),
        )

    def _close_on_scale_of(self, day: date, symbol: str, session: date) -> float:
        """Return the close of `session` in the shares that were traded on `day`: the opening after a split needs it."""
        usual_then = self._usual_price(symbol) * self._ratio_since(symbol, day)
        return max(_CENT, round(usual_then * (1 + _around_zero(_DAILY_SWING, "close", symbol, session)), 2))

    def _ratio_since(self, symbol: str, day: date) -> float:
        """Return how many of today's shares one share of `day` has become."""
        splits = self._splits.get(symbol, {})
        return prod(ratio for effective, ratio in splits.items() if day < effective)


def as_traded_on_iex(bar: Bar) -> Bar:
    """Return a consolidated bar as IEX alone saw it: a fortieth of the volume, and not quite the official prices."""
    factor = 1 + _around_zero(_IEX_DEVIATION, "iex", bar.symbol, bar.time_ns)
    close = min(max(round(bar.close * factor, 2), bar.low), bar.high)
    volume, trades = round(bar.volume * _IEX_SHARE), max(1, round(bar.trade_count * _IEX_SHARE))
    return replace(bar, close=close, volume=volume, trade_count=trades)


def midnight_ns(day: date) -> int:
    """Return the beginning of a day in New York, which stamps its daily bar."""
    return round(datetime.combine(day, time(), NEW_YORK).timestamp()) * _NS_PER_S


def _around_zero(reach: float, *parts: object) -> float:
    return reach * (2 * unit_hash(*parts) - 1)
