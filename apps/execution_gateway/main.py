"""The execution gateway: keeps the ledger, values the positions, serves both over HTTP. This file wires it together."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.announcements import PositionAnnouncer
from apps.execution_gateway.answers import Answers
from apps.execution_gateway.body_limits import BodyLimits
from apps.execution_gateway.body_schemas import pnl_components
from apps.execution_gateway.database import (
    BookUnavailableError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    create_engine,
    migrate,
)
from apps.execution_gateway.database_probe import DatabaseProbe
from apps.execution_gateway.health_report import GatewayState
from apps.execution_gateway.history_sampler import HistorySampler
from apps.execution_gateway.history_store import HistoryStore
from apps.execution_gateway.ledger import DEFAULT_ACCOUNT, Ledger
from apps.execution_gateway.meters import GatewayMeters, pnl_seconds
from apps.execution_gateway.parity_report import ParityReporter
from apps.execution_gateway.pnl_feed import PnlFeed
from apps.execution_gateway.pnl_history import Sampling
from apps.execution_gateway.pnl_report import BookSource, PnlReporter, PnlRules, RealtimePnl
from apps.execution_gateway.price_book import PriceBook
from apps.execution_gateway.price_subscriber import PriceSubscriber
from apps.execution_gateway.routes.account import account_routes
from apps.execution_gateway.routes.adjustments import adjustments_routes
from apps.execution_gateway.routes.errors import install_error_handlers
from apps.execution_gateway.routes.fills import fills_routes
from apps.execution_gateway.routes.health import health_routes
from apps.execution_gateway.routes.history import history_routes
from apps.execution_gateway.routes.metrics import metrics_routes
from apps.execution_gateway.routes.positions import positions_routes
from apps.execution_gateway.settings import ALPACA, GatewaySettings
from apps.execution_gateway.write_probe import WriteProbe
from libs.market_data.daily_bars import DailyBarsStore
from libs.market_data.freshness import MarkRule, MarkRules
from libs.market_data.market_hours import MarketHours
from libs.redis_client.client import RedisClient
from libs.redis_client.event_publisher import EventPublisher
from libs.redis_client.price_cache import PriceCache
from libs.service.api_schema import install_api_schema
from libs.service.auth import OPEN_PATHS, BearerAuthMiddleware
from libs.service.cross_origin import CrossOriginMiddleware
from libs.service.local_callers import LocalCallersMiddleware
from libs.service.logging import configure_logging
from libs.service.metrics import service_registry
from libs.service.no_store import NoStoreMiddleware
from libs.service.problems import install_problem_handlers
from libs.service.server import serve
from libs.service.settings import load_settings
from libs.service.supervise import OnDeath, Supervisor, end_process
from libs.service.version import VERSION

if TYPE_CHECKING:
    from apps.execution_gateway.account_mirror import AccountMirror

log = structlog.get_logger(__name__)

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Gateway:
    """All parts of one running gateway."""

    engine: AsyncEngine
    probe: DatabaseProbe
    write_probe: WriteProbe
    ledger: Ledger
    redis: RedisClient
    prices: PriceBook
    bars: DailyBarsStore
    hours: MarketHours
    reporter: PnlReporter
    feed: PnlFeed
    announcer: PositionAnnouncer
    subscriber: PriceSubscriber
    supervisor: Supervisor
    registry: CollectorRegistry
    now: Now
    positions_changed: Callable[[Iterable[str]], None]
    """Tells everybody that the positions in some symbols have changed. Returns at once."""
    mirror: "AccountMirror | None"
    """The mirror of the account; None when the ledger is one's own."""

    parity: ParityReporter
    history: HistoryStore
    sampler: HistorySampler

    @property
    def book_source(self) -> BookSource:
        """Where positions come from."""
        return self.ledger if self.mirror is None else self.mirror

    async def look(self) -> GatewayState:
        """Find out how every part is."""
        database_error, write_error, (pnl, ledger_fault) = await asyncio.gather(
            self.probe.fault(), self.write_probe.fault(), self._pnl_or_fault()
        )
        # A reading that took too long says nothing of the database while that answers the probe.
        is_slow = isinstance(ledger_fault, DatabaseTimeoutError)
        if database_error is None and ledger_fault is not None and not is_slow:
            database_error = str(ledger_fault)
        now = self.now()
        heard_at = self.prices.heard_at
        return GatewayState(
            mode=self.reporter.mode,
            task_failures=self.supervisor.failures,
            pnl=pnl,
            database_error=database_error,
            write_error=write_error,
            ledger_error=str(ledger_fault) if is_slow else None,
            redis_address=self.redis.address,
            redis_error=None if self.subscriber.is_connected else self.subscriber.last_error or "not connected yet",
            feed=self.reporter.feed(now),
            doubted=self.reporter.doubted(now),
            foreign=self.subscriber.own_feed.lasting(now),
            heartbeat_age_s=None if heard_at is None else max(0.0, (now - heard_at).total_seconds()),
            market=self.reporter.market(now),
            closing_prices=len(self.bars.prices),
            bars_problems=self.bars.prices.problems,
            bars_missing=self.reporter.missing_closes(now),
            account=None if self.mirror is None else self.mirror.look(),
            account_unexplained=self.parity.persisting,
        )

    async def _pnl_or_fault(self) -> tuple[RealtimePnl | None, DatabaseUnavailableError | None]:
        try:
            return await self.reporter.report_from_memory(), None
        except DatabaseUnavailableError as error:
            return None, error
        except BookUnavailableError:
            return None, None  # the account has not reported what it holds: `account` says why


def build(settings: GatewaySettings, now: Now, on_death: OnDeath, hours: MarketHours) -> Gateway:
    """Make every part. Opens nothing."""
    engine = create_engine(settings.database_url.get_secret_value())
    is_mirror = settings.position_source == ALPACA
    ledger = Ledger(engine, f"alpaca-{settings.account_mode}" if is_mirror else DEFAULT_ACCOUNT, now)
    redis = RedisClient(settings.redis_dsn, namespace=settings.redis_namespace)
    cache = PriceCache(redis, settings.price_ttl_seconds, max_spread_pct=settings.max_spread_pct)
    prices = PriceBook()
    bars = DailyBarsStore(settings.daily_bars_path, hours, now)
    marks = MarkRules(
        settings.stale_after_seconds,
        settings.price_ttl_seconds,
        MarkRule(settings.mark_rule),
        settings.extended_hours_marks,
    )
    rules = PnlRules(marks, settings.account_mode)

    def positions_changed(symbols: Iterable[str]) -> None:
        changed = frozenset(symbols)
        reporter.forget_book()
        subscriber.hold(changed)
        announcer.announce(changed)
        feed.positions_changed()

    mirror = _mirror(settings, ledger, positions_changed, now) if is_mirror else None
    look = None if mirror is None else mirror.look
    reporter = PnlReporter(mirror or ledger, prices, cache, lambda: bars.prices, hours, rules, now, look)
    feed = PnlFeed(reporter)
    history = HistoryStore(engine, Sampling(round(settings.pnl_history_seconds * 1000)), ledger.account)
    announcer = PositionAnnouncer(EventPublisher(redis), now)

    async def announce_again() -> None:
        # What was announced while Redis was away, or restarted, has reached nobody.
        announcer.announce(reporter.held)

    subscriber = PriceSubscriber(
        redis,
        cache,
        prices,
        listener=feed,
        held_symbols=reporter.held_symbols,
        held_now=lambda: reporter.held,
        on_connected=announce_again,
        now=now,
    )
    parity = ParityReporter(mirror, reporter.figures, reporter.day_facts, reporter.take_in_prices, now)
    if mirror is not None:
        mirror.on_reading = parity.take_round
    return Gateway(
        engine=engine,
        probe=DatabaseProbe(engine),
        write_probe=WriteProbe(engine),
        ledger=ledger,
        redis=redis,
        prices=prices,
        bars=bars,
        hours=hours,
        reporter=reporter,
        feed=feed,
        announcer=announcer,
        subscriber=subscriber,
        supervisor=Supervisor(on_death),
        registry=service_registry(),
        now=now,
        positions_changed=positions_changed,
        mirror=mirror,
        parity=parity,
        history=history,
        sampler=HistorySampler(reporter, history, settings.pnl_history_days, now),
    )


def _mirror(
    settings: GatewaySettings, ledger: Ledger, on_change: Callable[[Iterable[str]], None], now: Now
) -> "AccountMirror":
    """Make the mirror of the account whose keys are set; a stand-in for Alpaca takes any pair."""
    # Its clients are loaded only where an account is mirrored.
    from apps.execution_gateway.account_mirror import AccountMirror
    from apps.execution_gateway.mirrored_ledger import MirroredLedger
    from libs.broker.account_rest import AccountRest
    from libs.broker.trade_updates_connection import stream_url
    from libs.broker.trading_stream import TradingStream

    key, secret = "simulator", "simulator"
    if settings.alpaca_api_key is not None and settings.alpaca_secret_key is not None:
        key, secret = settings.alpaca_api_key.get_secret_value(), settings.alpaca_secret_key.get_secret_value()
    return AccountMirror(
        MirroredLedger(ledger),
        ledger.mirror_state,
        AccountRest(settings.trading_url, key, secret),
        lambda take: TradingStream(stream_url(settings.trading_url), key, secret, take),
        on_change,
        now,
        timedelta(seconds=settings.reconcile_seconds),
    )


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[None]:
    """Bring the database up to date, start the background tasks; at the end stop and close everything."""
    await migrate(gateway.engine)
    # A calendar and closes must be at hand before the first question: loading takes a second, in threads.
    await asyncio.gather(asyncio.to_thread(gateway.hours.load), gateway.bars.refresh())
    supervisor = gateway.supervisor
    supervisor.spawn("daily_bars", gateway.bars.keep_current)
    supervisor.spawn("position_announcer", gateway.announcer.run)
    supervisor.spawn("price_subscriber", gateway.subscriber.run)
    supervisor.spawn("pnl_feed", gateway.feed.run)
    supervisor.spawn("pnl_history", gateway.sampler.run)
    if gateway.mirror is not None:
        supervisor.spawn("account_mirror", gateway.mirror.run)
        supervisor.spawn("trading_stream", gateway.mirror.stream.run)
    log.info("gateway_started", redis=gateway.redis.address, database=gateway.engine.url.get_backend_name())
    try:
        yield
    finally:
        gateway.feed.close()
        await supervisor.stop()
        await gateway.sampler.finish()
        if gateway.mirror is not None:
            await gateway.mirror.aclose()
        await gateway.redis.aclose()
        await gateway.probe.finish()
        await gateway.write_probe.finish()
        await gateway.ledger.finish()
        await gateway.engine.dispose()
        log.info("gateway_stopped")


def create_app(
    settings: GatewaySettings,
    *,
    now: Now = lambda: datetime.now(UTC),
    on_death: OnDeath = end_process,
    hours: MarketHours | None = None,
) -> FastAPI:
    """Return the gateway as an ASGI application; its parts are at `app.state.gateway`. Opens nothing until it runs.

    `hours` is a calendar to share with others in this process; None for one of its own.
    """
    gateway = build(settings, now, on_death, hours or MarketHours())
    answers = Answers(gateway.book_source, gateway.ledger, gateway.reporter, gateway.parity, gateway.look, now)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with running(gateway):
            yield
            await answers.finish()

    # The documentation pages would load their scripts from elsewhere; the schema itself is at /openapi.json.
    # A redirect for a trailing slash would name http:// behind a proxy that speaks TLS.
    app = FastAPI(
        title="Markstream execution gateway",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    app.state.answers = answers
    install_problem_handlers(app)
    install_api_schema(
        app,
        is_guarded=settings.api_token is not None,
        open_paths=OPEN_PATHS,
        any_request=[503],
        components=pnl_components(),
    )
    install_error_handlers(app)
    meters = GatewayMeters(
        gateway.prices,
        gateway.subscriber,
        gateway.reporter,
        gateway.feed,
        gateway.announcer,
        gateway.mirror,
        gateway.parity,
        refused=lambda: answers.refused + gateway.history.refused,
    )
    gateway.registry.register(meters)
    is_mirror, changed = gateway.mirror is not None, gateway.positions_changed
    app.include_router(fills_routes(gateway.ledger, answers, changed, now, is_mirror=is_mirror))
    app.include_router(account_routes(gateway.mirror))
    app.include_router(adjustments_routes(gateway.ledger.adjustments, answers, changed, now, is_mirror=is_mirror))
    seconds = pnl_seconds(gateway.registry)
    app.include_router(positions_routes(answers, gateway.reporter, gateway.feed, seconds))
    app.include_router(history_routes(gateway.history, now))
    app.include_router(health_routes(answers, VERSION))
    app.include_router(metrics_routes(answers.metrics(gateway.registry, meters)))
    app.add_middleware(BodyLimits)
    app.add_middleware(BearerAuthMiddleware, token=settings.api_token)  # outside the limits: strangers send no bodies
    app.add_middleware(LocalCallersMiddleware, token=settings.api_token, allowed=settings.origins)
    app.add_middleware(CrossOriginMiddleware, allowed=settings.origins)
    app.add_middleware(NoStoreMiddleware)
    return app


def main() -> int:
    """Run the gateway until it is told to stop; return the exit code."""
    settings = load_settings(GatewaySettings)
    configure_logging(settings.log_level, settings.log_format)
    try:
        asyncio.run(_migrate(settings))
    except DatabaseError as error:
        print(f"the gateway cannot start: {error} (DATABASE_URL)", file=sys.stderr)  # noqa: T201  # one line, no trace
        return 1
    app = create_app(settings)
    gateway: Gateway = app.state.gateway
    return serve(
        app,
        settings.bind_host,
        settings.execution_gateway_port,
        port_variable="EXECUTION_GATEWAY_PORT",
        supervisor=gateway.supervisor,
        on_stop_requested=gateway.feed.close,
    )


async def _migrate(settings: GatewaySettings) -> None:
    engine = create_engine(settings.database_url.get_secret_value())
    try:
        await migrate(engine)
    finally:
        await engine.dispose()


if __name__ == "__main__":
    sys.exit(main())
