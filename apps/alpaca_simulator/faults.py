"""The switches that make the simulator misbehave, read afresh at every use, so a test may turn them while it runs.

These are states; what happens once (a drop, a halt) is an act, in `acts.py`. A new fault is a new field here and one
reader. How switches are named from outside is in `fault_switches.py`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from apps.alpaca_simulator.frame_faults import FrameFault
from apps.alpaca_simulator.protocol import ErrorCode, Refusals
from apps.alpaca_simulator.quote_faults import QuoteFault
from apps.alpaca_simulator.trade_update_faults import Oddity

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
HttpStatus = Annotated[int, Meta(ge=200, le=599)]
Count = Annotated[int, Meta(ge=0)]
Skew = Annotated[float, Meta(ge=-86_400, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Faults:
    """How the server misbehaves now; the default does not. Below each switch stands what it does."""

    mute: bool = False
    """No client gets data; pongs, acknowledgements and errors still come. What was made meanwhile is lost."""
    half_open: bool = False
    """Freezes the connections that exist when it is turned on: they are never read, answered, ponged, written or
    closed again, even after it is off. Later connections work, so a client that dials again recovers."""
    dead_symbols: frozenset[str] = frozenset()
    """Nothing of these symbols is sent on the stream; REST goes on showing newer quotes."""
    hold_data: bool = False
    """Data is kept back, and goes out in one burst when it is turned off; a full outbox is a slow client."""
    frame_delay_s: Seconds = 0.0
    """Seconds before each data frame."""
    late_s: Seconds = 0.0
    """Made-up points of the stream are stamped so many seconds before they are sent; REST shows their true times."""
    clock_skew_s: Skew = 0.0
    """The account's clock and the times of made-up points are so many seconds ahead (negative: behind)."""

    upgrade_status: HttpStatus | None = None
    """HTTP answer instead of the WebSocket upgrade."""
    retry_after_s: Seconds | None = None
    """The Retry-After header of that answer."""
    error_before_welcome: ErrorCode | None = None
    """The first message is this error, and the connection is closed."""
    no_welcome: bool = False
    """The welcome never comes, and no authentication time-out either."""
    auth_error: ErrorCode | None = None
    """What every authentication is answered with."""
    no_auth_answer: bool = False
    """An authentication is ignored, and times out never."""

    subscribe_error: ErrorCode | None = None
    """What every subscribe request is refused with, whole."""
    refused_symbols: frozenset[str] = frozenset()
    """A subscribe request that names any of these is refused whole with 400."""
    symbol_limit: Count | None = None
    """Stands in for the plan's limit: it bites (405) at the next subscribe request."""
    refuse_statuses: ErrorCode | None = None
    """What a subscribe request that names the statuses channel is refused with, whole."""
    no_ack: bool = False
    """A subscribe request is ignored."""
    slot_hold_s: Seconds | None = None
    """How long the slot of a connection that is lost from now on stays taken (406)."""

    bad_quotes: frozenset[QuoteFault] = frozenset()
    """Some quotes of the random walk are followed by a spoiled copy of one of these kinds."""
    bad_quote_share: Share = 0.2
    """The share of quotes that are."""
    bad_frames: frozenset[FrameFault] = frozenset()
    """Between data frames come frames of these kinds, each kind in turn."""
    bad_frame_every: Annotated[int, Meta(ge=1)] = 10
    """After how many data frames comes a bad one."""
    malformed_every: Count = 0
    """Every n-th data frame is itself cut short, and its data lost (0 = none)."""

    rest_status: HttpStatus | None = None
    """HTTP answer of every REST call; from 500 on it is HTML."""
    rest_retry_after_s: Seconds | None = None
    """The Retry-After header of that answer."""
    rest_delay_s: Seconds = 0.0
    """Seconds before a REST call is answered."""
    rest_html: bool = False
    """REST answers 200 with HTML."""
    rest_garbage: bool = False
    """REST answers 200 with JSON that is cut short, or has null where the quotes should be."""
    rest_paths: Literal["all", "quotes", "clock"] = "all"
    """Which REST calls the switches above are for."""

    trading_upgrade_status: HttpStatus | None = None
    """HTTP answer instead of the trading stream's WebSocket upgrade."""
    trading_retry_after_s: Seconds | None = None
    """The Retry-After header of that answer."""
    trading_slot_hold_s: Seconds = 0.0
    """How long the account's one place on the trading stream stays taken (429) after an unclean drop."""
    trading_no_auth_answer: bool = False
    """The trading stream ignores what is said before a client is authorized."""
    trading_unauthorized: bool = False
    """The trading stream turns down every authentication, and closes."""
    trading_mute: bool = False
    """No event goes out on the trading stream; what happens meanwhile only REST shows."""
    trading_half_open: bool = False
    """Freezes the clients of the trading stream that exist when it is turned on, like `half_open`."""
    trading_data_null: bool = False
    """Each event's data is null."""
    trading_heartbeat_s: Seconds = 0.0
    """Every so many seconds comes a one-byte frame, 0x01 (0 = none)."""
    trading_text_frames: bool = False
    """The trading stream sends text frames, as the live host does."""
    trading_single_ids: bool = False
    """`trade_bust` and `trade_correct` carry the execution's id alone, not their own and that as the previous one."""
    trading_oddities: frozenset[Oddity] = frozenset()
    """Events have these things in them that a client did not expect."""
    trading_lose_every: Count = 0
    """Every n-th execution event never comes; REST has the execution (0 = none)."""
    trading_duplicate_every: Count = 0
    """Every n-th execution event comes twice (0 = none)."""
    trading_reorder_every: Count = 0
    """Every n-th execution event comes 0.3 s late, after those that follow it (0 = none)."""
    trading_delay_s: Seconds = 0.0
    """Seconds before each event of the trading stream."""

    trading_rest_status: HttpStatus | None = None
    """HTTP answer of the trading REST calls; from 500 on it is HTML."""
    trading_rest_retry_after_s: Seconds | None = None
    """The Retry-After header of that answer."""
    trading_rest_delay_s: Seconds = 0.0
    """Seconds before a trading REST call is answered."""
    trading_rest_garbage: bool = False
    """Trading REST calls answer 200 with JSON that is cut short, is null, or is of the wrong kind, in turn."""
    trading_rest_path: str = "/v2/"
    """The switches above are for the trading REST calls whose path begins so."""
    activities_lag_s: Seconds = 0.0
    """An activity is shown only so many seconds after it was booked."""
    positions_lag_s: Seconds = 0.0
    """Positions and account are shown as they were so many seconds ago."""
    busted_stay: bool = False
    """Busted executions stay among the FILL activities, as if nothing had happened."""
    split_one_entry: bool = False
    """A split is one SPLIT activity with the difference, instead of the old shares out and the new ones in."""
    order_pieces: Annotated[int, Meta(ge=1)] = 1
    """In how many partial fills an order is filled that comes by REST."""

    def skewed_ns(self, now_ns: int) -> int:
        """Return what the skewed clock shows at `now_ns`."""
        return now_ns + round(self.clock_skew_s * 1_000_000_000)

    @property
    def refusals(self) -> Refusals:
        """Return what a session refuses now."""
        return Refusals(
            auth=self.auth_error,
            subscribe=self.subscribe_error,
            statuses=self.refuse_statuses,
            symbols=self.refused_symbols,
            symbol_limit=self.symbol_limit,
        )


NO_FAULTS = Faults()
