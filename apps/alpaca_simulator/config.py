"""What a simulator is told before it starts. The command line fills it in `main.py`, tests build it directly."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Final

from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.market import Habits, MarketSetting
from apps.alpaca_simulator.protocol import Credentials, Rules
from apps.alpaca_simulator.scenario import Scenario

FASTEST: Final = inf
"""As a rate or a replay speed: as fast as the socket takes."""


def utc_now() -> datetime:
    """Return the real time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class HeldPosition:
    """One opening position of the account; `qty` in shares, negative for a short, entry price in USD.

    It was opened at `opened_at`, an aware datetime; None: 30 days before the start. A symbol may come several times.
    """

    symbol: str
    qty: Decimal
    avg_entry_price: Decimal
    opened_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """Everything a simulator may be told; the defaults make a random-walk market that is always open.

    `rate`: quotes per second over all subscribed symbols, `FASTEST` as fast as the socket takes, None each symbol's
    own usual pace. `speed` of a replay is a factor or `FASTEST`. `slot_hold_s`: how long a connection slot stays
    taken after an unclean drop. `outbox_limit`: points waiting for one client before it is "slow" (407).
    `now` is the clock of the account alone: a test may play a week with it. `trading_rate_limit`: trading REST calls a
    minute, None without limit. `trading_autofill`: orders a minute that somebody else places in the held symbols.
    `faults`: what it does wrong from the start; `scenario`: what happens on a timeline.
    """

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    rate: float | None = None
    market: MarketSetting = MarketSetting.OPEN
    silent_symbols: frozenset[str] = frozenset()
    one_sided_symbols: frozenset[str] = frozenset()
    replay: Path | None = None
    speed: float = 1.0
    keep_timestamps: bool = False
    loop: bool = False
    symbol_limit: int | None = None
    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    positions: tuple[HeldPosition, ...] = ()
    slot_hold_s: float = 90.0
    auth_timeout_s: float = 10.0
    bar_interval_s: float = 60.0
    test_quote_interval_s: float = 5.0
    compress: bool = True
    outbox_limit: int = 20_000
    batch_limit: int = 100
    now: Callable[[], datetime] = utc_now
    trading_rate_limit: int | None = None
    trading_autofill: float = 0.0
    faults: Faults = NO_FAULTS
    scenario: Scenario | None = None

    @property
    def credentials(self) -> Credentials:
        """Return which key pair is accepted, on the stream and over REST."""
        return Credentials(self.key, self.secret)

    @property
    def rules(self) -> Rules:
        """Return what the simulated plan allows."""
        return Rules(self.credentials, self.symbol_limit)

    @property
    def habits(self) -> Habits:
        """Return which symbols behave oddly."""
        return Habits(self.silent_symbols, self.one_sided_symbols)
