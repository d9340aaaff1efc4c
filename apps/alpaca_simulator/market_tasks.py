"""The market of a simulator, a random walk or a replay, and the tasks that keep it going. Builds; starts nothing."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from apps.alpaca_simulator.broadcast import Broadcaster
from apps.alpaca_simulator.config import SimulatorConfig
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.halts import Halts
from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.market import QuoteSource, RandomWalkMarket
from apps.alpaca_simulator.pump import BarPump, FakepacaPump, RandomWalkPump
from apps.alpaca_simulator.recording import Recording
from apps.alpaca_simulator.replay import ReplayMarket, ReplayPump

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class BuiltMarket:
    """Where REST and a test's own quotes meet the market, and the work of each of its tasks by name."""

    quotes: QuoteSource
    work: Mapping[str, Work]


def build_market(
    config: SimulatorConfig,
    recording: Recording | None,
    broadcaster: Broadcaster,
    halts: Halts,
    faults: Callable[[], Faults],
    is_open: Callable[[], bool],
) -> BuiltMarket:
    """Return the replay of `recording`, or the random walk when there is none; beside it the test stream."""
    test_feed = FakepacaPump(broadcaster, config.test_quote_interval_s, config.bar_interval_s)
    always = {"test-quotes": test_feed.run_quotes, "test-bars": test_feed.run_bars}
    if recording is not None:
        replayed = ReplayMarket()
        broadcaster.universe = recording.symbols
        player = ReplayPump(
            recording,
            replayed,
            broadcaster,
            halts,
            speed=config.speed,
            batch=config.batch_limit,
            keep_timestamps=config.keep_timestamps,
            loop=config.loop,
        )
        return BuiltMarket(replayed, always | {"replay": player.run})
    walking = RandomWalkMarket(config.seed, usual_price(None), config.habits)
    bars = BarPump(broadcaster, config.bar_interval_s)
    walk = RandomWalkPump(
        walking,
        broadcaster,
        bars,
        halts,
        faults,
        rate=config.rate,
        seed=config.seed,
        batch=config.batch_limit,
        is_open=is_open,
    )
    return BuiltMarket(walking, always | {"random-walk": walk.run, "bars": bars.run})


def usual_price(recording: Recording | None) -> Callable[[str], float]:
    """Return what each symbol usually costs: where the walk starts and around what its past lies."""

    def price_of(symbol: str) -> float:
        first = recording.first_prices.get(symbol) if recording is not None else None
        return listing_of(symbol).base_price if first is None else first

    return price_of
