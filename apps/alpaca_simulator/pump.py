"""The pace of the simulated market: tasks that make points and hand them to the broadcaster."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from math import exp
from random import Random
from typing import Final

from apps.alpaca_simulator.bars import BarBuilder
from apps.alpaca_simulator.broadcast import MARKET_FEEDS, TEST_FEED, Broadcaster
from apps.alpaca_simulator.config import FASTEST
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.halts import Halts
from apps.alpaca_simulator.market import Lottery, RandomWalkMarket
from apps.alpaca_simulator.points import Bar, Channel, Point, Quote
from apps.alpaca_simulator.quote_faults import choose_fault, spoiled
from apps.alpaca_simulator.sent_record import is_good
from libs.market_data.symbols import TEST_SYMBOL

_TICK_S: Final = (0.01, 0.1)
_BURST_FACTOR: Final = 4.0
_BURST_FADES_S: Final = 5.0
_TRADES_PER_QUOTE: Final = 0.25
_NS_PER_S: Final = 1_000_000_000


class RandomWalkPump:
    """Makes quotes, and a trade for about every fourth, of what is wanted, `rate` per second in total.

    Without a rate every symbol keeps its own pace, and each beginning is a small opening burst. A halted symbol makes
    nothing.
    """

    def __init__(  # noqa: PLR0913 - the parts of the market
        self,
        market: RandomWalkMarket,
        broadcaster: Broadcaster,
        bars: "BarPump",
        halts: Halts,
        faults: Callable[[], Faults],
        *,
        rate: float | None,
        seed: int,
        batch: int,
        is_open: Callable[[], bool],
    ) -> None:
        self._market = market
        self._broadcaster = broadcaster
        self._bars = bars
        self._halts = halts
        self._faults = faults
        self._rate = rate
        self._dice = Random(seed)
        self._batch = batch
        self._is_open = is_open
        self._wanted: frozenset[str] = frozenset()
        self._silent: frozenset[str] = frozenset()
        self._lottery = Lottery((), market.activity, self._dice)
        self._began_s = 0.0

    async def run(self) -> None:
        """Make quotes for ever; sleeps while nobody wants any."""
        owed = 0.0
        last_s = time.monotonic()
        while True:
            if not self._broadcaster.wanted:
                self._wanted = frozenset()
                await self._broadcaster.wait_for_change()
                last_s = time.monotonic()
            now_s = time.monotonic()
            self._redraw(now_s)
            if self._rate == FASTEST:
                await self._flood()
                continue
            rate = self._rate_at(now_s)
            # After a stall the debt is forgiven: a market does not catch up.
            owed = min(owed + rate * (now_s - last_s), max(rate, 1.0))
            last_s = now_s
            self._make(int(owed))
            owed -= int(owed)
            await asyncio.sleep(min(max(1 / rate if rate else 1.0, _TICK_S[0]), _TICK_S[1]))

    def _redraw(self, now_s: float) -> None:
        wanted, silent = self._broadcaster.wanted, self._halts.silent
        if wanted is self._wanted and silent is self._silent:
            return
        if not self._wanted:
            self._began_s = now_s
        self._wanted, self._silent = wanted, silent
        self._lottery = Lottery(wanted - silent, self._market.activity, self._dice)

    def _rate_at(self, now_s: float) -> float:
        if self._rate is not None:
            return self._rate
        burst = 1 + (_BURST_FACTOR - 1) * exp(-(now_s - self._began_s) / _BURST_FADES_S)
        return self._lottery.total_activity * burst

    async def _flood(self) -> None:
        await self._broadcaster.wait_for_room()
        await asyncio.sleep(0 if self._make(self._batch) else _TICK_S[1])

    def _make(self, count: int) -> int:
        """Make `count` quotes, and return how many points somebody will get."""
        if not count or not self._is_open():
            return 0
        now_ns = self._faults().skewed_ns(time.time_ns())
        points: list[Point] = []
        for symbol in self._lottery.draw(count):
            quote = self._market.step(symbol, now_ns)
            points.append(quote)
            if self._dice.random() < _TRADES_PER_QUOTE and self._is_trade_wanted(symbol):
                trade = self._market.trade(quote)
                self._bars.builder.add(trade)
                points.append(trade)
        if self._faults().bad_quotes:
            return self._deliver_with_bad_ones(points)
        return self._broadcaster.deliver(points, MARKET_FEEDS)

    def _deliver_with_bad_ones(self, points: list[Point]) -> int:
        """Deliver points one by one, some good quotes followed by a spoiled copy of themselves."""
        faults, dice = self._faults(), self._dice
        count = 0
        for point in points:
            count += self._broadcaster.deliver((point,), MARKET_FEEDS)
            if not isinstance(point, Quote) or not is_good(point):
                continue
            if (fault := choose_fault(faults.bad_quotes, faults.bad_quote_share, dice)) is not None:
                spoil = partial(spoiled, fault=fault, dice=dice)
                self._broadcaster.deliver_spoiled(point, MARKET_FEEDS, spoil)
        return count

    def _is_trade_wanted(self, symbol: str) -> bool:
        wants = self._broadcaster.wants
        return wants(Channel.TRADES, symbol, MARKET_FEEDS) or wants(Channel.BARS, symbol, MARKET_FEEDS)


class BarPump:
    """Sends the bars of each interval just after its end, of the symbols that traded in it."""

    def __init__(self, broadcaster: Broadcaster, interval_s: float) -> None:
        self.builder = BarBuilder(round(interval_s * _NS_PER_S))
        self._broadcaster = broadcaster
        self._interval_s = interval_s

    async def run(self) -> None:
        """Send bars for ever."""
        while True:
            await asyncio.sleep(self._interval_s - time.time() % self._interval_s + 0.01)
            self._broadcaster.deliver(self.builder.finish(time.time_ns()), MARKET_FEEDS)


class FakepacaPump:
    """Alpaca's test stream: one symbol, the same quote every few seconds, one bar a minute, day and night."""

    def __init__(self, broadcaster: Broadcaster, quote_interval_s: float, bar_interval_s: float) -> None:
        self._broadcaster = broadcaster
        self._quote_interval_s = quote_interval_s
        self._bar_interval_s = bar_interval_s

    async def run_quotes(self) -> None:
        """Send the quote for ever."""
        while True:
            self._broadcaster.deliver([fakepaca_quote(time.time_ns())], TEST_FEED)
            await asyncio.sleep(self._quote_interval_s)

    async def run_bars(self) -> None:
        """Send the bar for ever."""
        while True:
            await asyncio.sleep(self._bar_interval_s - time.time() % self._bar_interval_s + 0.01)
            interval_ns = round(self._bar_interval_s * _NS_PER_S)
            self._broadcaster.deliver([fakepaca_bar((time.time_ns() // interval_ns - 1) * interval_ns)], TEST_FEED)


def fakepaca_quote(time_ns: int) -> Quote:
    """Return the test stream's only quote."""
    return Quote(TEST_SYMBOL, 133.85, 4, "O", 135.77, 5, "R", time_ns, ("R",), "A")


def fakepaca_bar(time_ns: int) -> Bar:
    """Return the test stream's only bar."""
    return Bar(TEST_SYMBOL, 132.65, 136.0, 132.12, 134.65, 205, time_ns, 16, 133.7)
