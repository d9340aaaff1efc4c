"""The service's parts as one object, and what they amount to: the feed's status, the health and its reasons."""

import time
from dataclasses import dataclass
from typing import assert_never

from apps.market_data_service.leadership import Leadership
from apps.market_data_service.position_sync import PositionBasedSubscription
from apps.market_data_service.publishing import FeedAnnouncer, PriceWriter
from apps.market_data_service.settings import MarketDataSettings
from libs.market_data.alpaca_rest import SIMULATOR_HEADER, AlpacaRest
from libs.market_data.alpaca_stream import AlpacaMarketDataStream
from libs.market_data.clock_check import ClockCheck
from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.market_hours import MarketClock
from libs.market_data.modes import simulator_mode
from libs.market_data.prices import FeedStatus, LinkState, Mode
from libs.market_data.reconnect import Ending
from libs.market_data.silence import Silence
from libs.redis_client.client import RedisClient
from libs.redis_client.lease import Lease
from libs.redis_client.price_cache import PriceCache
from libs.service.health import Health, Reason, clock_reason
from libs.service.supervise import Supervisor

_CONVERGES_WITHIN_S = 5.0
_NAMED = 20


@dataclass(slots=True)
class MarketDataService:
    """All parts of the service; main.py builds it. Holds no state of its own."""

    settings: MarketDataSettings
    stream: AlpacaMarketDataStream
    latest: LatestQuotes
    redis: RedisClient
    cache: PriceCache
    writer: PriceWriter
    announcer: FeedAnnouncer
    sync: PositionBasedSubscription
    clock: MarketClock
    rest: AlpacaRest
    supervisor: Supervisor
    lease: Lease
    leadership: Leadership
    clock_check: ClockCheck

    @property
    def mode(self) -> Mode:
        """Whose money the prices speak of. A simulator says so itself, at the upgrade; else the settings tell."""
        said = simulator_mode(self.stream.response_headers.get(SIMULATOR_HEADER.lower()))
        return said or self.settings.stream_mode

    def note_mode(self) -> None:
        """Have the prices say whose money they speak of on the present connection."""
        self.latest.mode = self.mode

    def feed_status(self) -> FeedStatus:
        """Return what is announced on `feed.status` at this moment."""
        link = self.stream.link
        return FeedStatus(
            state=link.state,
            connected=self.stream.is_connected(),
            since=link.since,
            epoch=link.epoch,
            feed=self.settings.alpaca_feed,
            mode=self.mode,
            symbols=self.stream.confirmed,
            market=self.clock.current(self.clock_check.now()).phase,
            halted=self.stream.halted,
            doubted=self.stream.doubted | self.writer.unwritable,
            instance=self.lease.instance,
            lag_s=self._lag_s,
            clock_offset_s=float(round(self.clock_check.time.offset.total_seconds())),
            at=self.clock_check.now(),
        )

    @property
    def _lag_s(self) -> float | None:
        """Whole seconds by which the stream is late; None while it is in time, or is late by design."""
        late_by_s = self.stream.late_by_s
        return None if late_by_s is None else float(round(late_by_s))

    @property
    def last_frame_age_s(self) -> float | None:
        """Seconds since the last frame of any kind; None before the first."""
        heard_at_s = self.stream.last_frame_at_s
        return None if heard_at_s is None else time.monotonic() - heard_at_s

    @property
    def wants_trades(self) -> bool:
        """Whether the last trade is to mark, and so to be streamed beside the quotes."""
        return self.settings.mark_rule == "last"

    @property
    def redis_fault(self) -> str | None:
        """Why Redis did not take what was last asked of it; None when it did."""
        return self.writer.fault or self.announcer.fault or self.leadership.fault

    def reasons(self) -> list[Reason]:
        """Return all that is not as it should be."""
        return [
            *(
                Reason("background_task_died", f"{name} ended: {why}", Health.UNHEALTHY)
                for name, why in self.supervisor.failures.items()
            ),
            *(self._feed_reasons() if self.leadership.is_leader else [self._standby_reason()]),
            *self._neighbour_reasons(),
            *self._clock_reasons(),
        ]

    def _clock_reasons(self) -> list[Reason]:
        reasons = []
        if offset_s := self.clock_check.time.offset.total_seconds():
            reasons.append(clock_reason(offset_s))
        if (ahead_s := self.stream.watch.ahead_s) is not None:
            reasons.append(
                Reason(
                    "stream_ahead",
                    f"quotes are stamped {ahead_s:.0f} s ahead of this machine's clock, so that none marks: one of the "
                    "two is wrong. Set the clock (NTP)",
                )
            )
        return reasons

    def _standby_reason(self) -> Reason:
        holder = self.leadership.tenure.holder
        if holder is not None:
            why = f"another instance ({holder}) holds the feed; this one waits"
        elif self.leadership.fault is not None:
            why = "Redis does not say who holds the feed; this one waits"
        else:
            why = "nobody holds the feed; this one takes it if that stays so"
        return Reason("standby", why)

    def _feed_reasons(self) -> list[Reason]:
        return [*self._link_reasons(), *self._subscription_reasons(), *self._silence_reasons()]

    def _link_reasons(self) -> list[Reason]:
        link, fault = self.stream.link, self.stream.link.last_fault
        why = f": {fault.message}" if fault is not None else ""
        match link.state:
            case LinkState.STREAMING if self.stream.is_connected():
                return []
            case LinkState.REFUSED:
                return [
                    Reason(
                        "refused",
                        f"Alpaca refuses the connection{why}. When its cause is gone, restart (if settings changed) "
                        "or POST /api/v1/market-data/reconnect",
                        Health.UNHEALTHY,
                    )
                ]
            case LinkState.STOPPED:
                return [Reason("stopped", f"no further connection is tried{why}", Health.UNHEALTHY)]
            case _ if fault is not None and fault.ending is Ending.WRONG_PLACE:
                return [Reason("wrong_address", fault.message, Health.UNHEALTHY)]
            case _:
                return [Reason("link_not_streaming", f"the link is {link.state}{why}")]

    def _subscription_reasons(self) -> list[Reason]:
        stream = self.stream
        reasons = []
        # Without a link nothing is confirmed: that is told already.
        if stream.is_connected() and stream.diverged_for_s > _CONVERGES_WITHIN_S:
            reasons.append(Reason("not_converged", "Alpaca has not confirmed what is wanted for more than 5 s"))
        refused = [f"{symbol} ({why})" for symbol, why in stream.not_streamed.items()]
        if refused:
            reasons.append(
                Reason("symbols_not_streamed", f"not streamed, but polled by REST: {', '.join(refused[:_NAMED])}")
            )
        if stream.is_connected() and stream.why_no_trades is not None:
            reasons.append(Reason("trades_not_streamed", f"no last trades, quotes mark alone ({stream.why_no_trades})"))
        return reasons

    def _silence_reasons(self) -> list[Reason]:
        watch = self.stream.watch
        reasons = []
        match watch.silence:
            case Silence.NONE:
                pass
            case Silence.DOUBTED:
                reasons.append(
                    Reason("feed_doubted", "the open market sends nothing, and nothing proves that it is quiet")
                )
            case Silence.MUTE:
                reasons.append(Reason("feed_mute", "the last connection was mute: connected, but without data"))
            case _:
                assert_never(watch.silence)
        if watch.dead:
            named = ", ".join(sorted(watch.dead)[:_NAMED])
            reasons.append(
                Reason("symbols_dead", f"the stream brings nothing, though REST has newer quotes (polled): {named}")
            )
        if self.stream.late_by_s is not None:
            reasons.append(
                Reason(
                    "stream_lagging",
                    f"quotes come {self.stream.late_by_s:.0f} s after they were made: none of them is live",
                )
            )
        return reasons

    def _neighbour_reasons(self) -> list[Reason]:
        reasons = []
        if self.redis_fault is not None:
            reasons.append(Reason("redis_unavailable", self.redis_fault))
        if self.sync.last_error is not None:
            reasons.append(Reason("position_sync_failing", self.sync.last_error))
        return reasons

    def not_ready_reasons(self) -> list[Reason]:
        """Return why the service is not ready: unhealthy, a standby, or its first attempt to connect has not ended."""
        blocking = [reason for reason in self.reasons() if reason.health is Health.UNHEALTHY]
        if not self.leadership.is_leader:
            blocking.append(self._standby_reason())
        elif not self.stream.first_attempt_ended:
            blocking.append(Reason("starting", "the first connection attempt has not ended yet", Health.UNHEALTHY))
        return blocking
