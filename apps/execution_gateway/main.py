"""The execution gateway: keeps the ledger, values the positions, serves both over HTTP. This file wires it together."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.announcements import PositionAnnouncer
from apps.execution_gateway.body_limits import BodyLimits
from apps.execution_gateway.database import DatabaseError, DatabaseUnavailableError, create_engine, migrate
from apps.execution_gateway.health_report import GatewayState
from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.meters import GatewayMeters, pnl_seconds
from apps.execution_gateway.pnl_feed import PnlFeed
from apps.execution_gateway.pnl_report import PnlReporter, PnlRules
from apps.execution_gateway.price_book import PriceBook
from apps.execution_gateway.price_subscriber import PriceSubscriber
from apps.execution_gateway.routes.errors import install_error_handlers
from apps.execution_gateway.routes.fills import fills_routes
from apps.execution_gateway.routes.health import health_routes
from apps.execution_gateway.routes.metrics import metrics_routes
from apps.execution_gateway.routes.positions import positions_routes
from apps.execution_gateway.settings import GatewaySettings
from libs.market_data.daily_bars import DailyBarsStore
from libs.market_data.freshness import MarkRule, MarkRules
from libs.market_data.market_hours import MarketHours
from libs.redis_client.client import RedisClient
from libs.redis_client.event_publisher import EventPublisher
from libs.redis_client.price_cache import PriceCache
from libs.service.auth import BearerAuthMiddleware
from libs.service.logging import configure_logging
from libs.service.metrics import service_registry
from libs.service.problems import install_problem_handlers
from libs.service.server import serve
from libs.service.settings import load_settings
from libs.service.supervise import OnDeath, Supervisor, end_process
from libs.service.version import VERSION

log = structlog.get_logger(__name__)

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Gateway:
    """All parts of one running gateway."""

    engine: AsyncEngine
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

    def positions_changed(self, symbols: Iterable[str]) -> None:
        """Tell everybody that the positions in `symbols` have changed. Returns at once."""
        self.reporter.forget_book()
        self.announcer.announce(symbols)
        self.feed.positions_changed()

    async def look(self) -> GatewayState:
        """Find out how every part is."""
        now = self.now()
        heard_at = self.prices.heard_at
        pnl = database_error = None
        try:
            pnl = await self.reporter.report_from_memory()
        except DatabaseUnavailableError as error:
            database_error = str(error)
        return GatewayState(
            mode=self.reporter.mode,
            task_failures=self.supervisor.failures,
            pnl=pnl,
            database_error=database_error,
            redis_address=self.redis.address,
            redis_error=None if self.subscriber.is_connected else self.subscriber.last_error or "not connected yet",
            feed=self.reporter.feed(now),
            doubted=self.reporter.doubted(now),
            heartbeat_age_s=None if heard_at is None else max(0.0, (now - heard_at).total_seconds()),
            market=self.reporter.market(now),
            closing_prices=len(self.bars.prices),
            bars_problems=self.bars.prices.problems,
        )


def build(settings: GatewaySettings, now: Now, on_death: OnDeath, hours: MarketHours) -> Gateway:
    """Make every part. Opens nothing."""
    engine = create_engine(settings.database_url.get_secret_value())
    ledger = Ledger(engine, now=now)
    redis = RedisClient(settings.redis_dsn)
    cache = PriceCache(redis, settings.price_ttl_seconds)
    prices = PriceBook()
    bars = DailyBarsStore(settings.daily_bars_path)
    marks = MarkRules(
        settings.stale_after_seconds,
        settings.price_ttl_seconds,
        MarkRule(settings.mark_rule),
        settings.extended_hours_marks,
    )
    rules = PnlRules(marks, settings.mode)
    reporter = PnlReporter(ledger, prices, cache, lambda: bars.prices, hours, rules, now)
    feed = PnlFeed(reporter)
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
        on_connected=announce_again,
        now=now,
    )
    return Gateway(
        engine=engine,
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
    log.info("gateway_started", redis=gateway.redis.address, database=gateway.engine.url.get_backend_name())
    try:
        yield
    finally:
        gateway.feed.close()
        await supervisor.stop()
        await gateway.redis.aclose()
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

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with running(gateway):
            yield

    # The documentation pages would load their scripts from elsewhere; the schema itself is at /openapi.json.
    app = FastAPI(
        title="Markstream execution gateway", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.gateway = gateway
    install_problem_handlers(app)
    install_error_handlers(app)
    meters = GatewayMeters(gateway.prices, gateway.subscriber, gateway.reporter, gateway.feed, gateway.announcer)
    gateway.registry.register(meters)
    app.include_router(fills_routes(gateway.ledger, gateway.positions_changed, now))
    app.include_router(positions_routes(gateway.ledger, gateway.reporter, gateway.feed, pnl_seconds(gateway.registry)))
    app.include_router(health_routes(gateway.look, VERSION))
    app.include_router(metrics_routes(gateway.registry, meters, gateway.reporter))
    app.add_middleware(BodyLimits)
    app.add_middleware(BearerAuthMiddleware, token=settings.api_token)  # the outermost: strangers send no bodies
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
