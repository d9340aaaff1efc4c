"""The price of a symbol as one program hands it to another through Redis, and the state of the link that made it."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class LinkState(StrEnum):
    """Where the one connection to Alpaca stands.

    A reader that has heard nothing says `UNKNOWN`; one whose account is real and whose prices are made up,
    `FOREIGN_MODE`.
    """

    STANDBY = "standby"
    CONNECTING = "connecting"
    AUTHENTICATING = "authenticating"
    SUBSCRIBING = "subscribing"
    STREAMING = "streaming"
    BACKING_OFF = "backing_off"
    REFUSED = "refused"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    FOREIGN_MODE = "foreign_mode"


class Mode(StrEnum):
    """Whose money the figures speak of. Shown on every surface."""

    SIMULATED = "simulated"
    REPLAY = "replay"
    PAPER = "paper"
    LIVE = "live"


class MarketPhase(StrEnum):
    """Whether the regular session is on."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Price:
    """A two-sided quote that may mark a position, as cached under `price:{symbol}`.

    Prices in USD per share, sizes in shares. `timestamp` is the venue's clock, `received_at` ours.
    Only `symbol`, `mid` and `timestamp` are always known: other programs may write a price with nothing else.
    `epoch` names the authenticated connection it came over; `seq` counts that symbol's published messages in it.
    `last` is the price of the last eligible trade, of venue time `last_timestamp`, where trades are streamed too.
    `instance` is the market data process that wrote it, `mode` whose money it speaks of. `suspect_since` is our time of
    the first newer quote that could not mark, `suspect_reason` why the newest of those could not; both None while the
    held quote is the newest. `suspect_quotes` is how many of those came in a row (2: or more), `newest_timestamp` the
    venue's time of the newest, `newest_bid` and `newest_ask` its sides where it has usable ones.
    """

    symbol: str
    mid: Decimal
    timestamp: datetime
    bid: Decimal | None = None
    ask: Decimal | None = None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None
    exchange: str | None = None
    ask_exchange: str | None = None
    feed: str | None = None
    received_at: datetime | None = None
    epoch: str | None = None
    seq: int | None = None
    last: Decimal | None = None
    last_timestamp: datetime | None = None
    last_size: Decimal | None = None
    instance: str | None = None
    suspect_since: datetime | None = None
    suspect_reason: str | None = None
    mode: Mode | None = None
    suspect_quotes: int | None = None
    newest_bid: Decimal | None = None
    newest_ask: Decimal | None = None
    newest_timestamp: datetime | None = None

    @property
    def known_since(self) -> datetime:
        """From when its age counts: our receipt, else the venue's time."""
        return self.received_at or self.timestamp

    def age_s(self, now: datetime) -> float:
        """Seconds since we knew it, never negative (a venue's clock may run ahead of ours)."""
        return max(0.0, (now - self.known_since).total_seconds())


@dataclass(frozen=True, slots=True)
class PriceWrite:
    """A price to cache, and whether to tell subscribers of it.

    `age_s`: seconds of its life in the cache that are used up already. A suspect price is written without a new life.
    """

    price: Price
    publish: bool
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """What the market data service says of its link: the content of `feed:status` and its heartbeat.

    `symbols` are those that Alpaca has confirmed. `instance` is the process that speaks. `epoch` is None before the
    first authenticated connection. `halted`: those of them whose trading the venue has halted. `doubted`: those that
    have been silent for longer than is usual for them without a proof that nothing happened; the link does not vouch
    for their prices. `lag_s`: by how many seconds even the freshest streamed quotes come late, while that makes nothing
    live; None while the stream is in time. `at` is when it spoke, by the account's clock where that is known, and
    `clock_offset_s` what it has to add to its own clock for that, in whole seconds, 0 while that is not wrong.
    """

    state: LinkState
    connected: bool
    since: datetime
    epoch: str | None
    feed: str
    mode: Mode
    symbols: frozenset[str]
    market: MarketPhase
    halted: frozenset[str] = frozenset()
    doubted: frozenset[str] = frozenset()
    instance: str | None = None
    lag_s: float | None = None
    clock_offset_s: float = 0.0
    at: datetime | None = field(default=None, compare=False)
