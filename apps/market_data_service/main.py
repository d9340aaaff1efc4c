"""The market data service: builds its parts, starts its tasks, serves its HTTP interface on port 8004."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog
from fastapi import FastAPI

from apps.market_data_service.leadership import Leadership, Tenure
from apps.market_data_service.metrics import market_data_registry
from apps.market_data_service.position_sync import PositionBasedSubscription
from apps.market_data_service.publishing import FeedAnnouncer, PriceWriter
from apps.market_data_service.routes import attach
from apps.market_data_service.settings import MarketDataSettings
from apps.market_data_service.state import MarketDataService
from libs.market_data.account_time import AccountTime
from libs.market_data.alpaca_rest import AlpacaRest
from libs.market_data.alpaca_stream import AlpacaMarketDataStream
from libs.market_data.clock_check import ClockCheck
from libs.market_data.freshness import DELAYED_FEED
from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.latest_quotes_rest import FEEDS_OVER_REST
from libs.market_data.market_hours import MarketClock, MarketHours
from libs.market_data.prices import MarketPhase, Mode
from libs.redis_client.client import RedisClient, RedisUnavailableError
from libs.redis_client.lease import Lease, new_instance
from libs.redis_client.price_cache import PriceCache
from libs.service.api_schema import install_api_schema
from libs.service.auth import OPEN_PATHS, BearerAuthMiddleware
from libs.service.cross_origin import CrossOriginMiddleware
from libs.service.limits import BodyLimitMiddleware
from libs.service.local_callers import LocalCallersMiddleware
from libs.service.logging import configure_logging
from libs.service.metrics import metrics_routes
from libs.service.no_store import NoStoreMiddleware
from libs.service.problems import install_problem_handlers
from libs.service.server import serve
from libs.service.settings import load_settings
from libs.service.supervise import Supervisor
from libs.service.version import VERSION

log = structlog.get_logger(__name__)

_LAST_WRITES_S = 1.0
_RELEASE_S = 0.5


def build_service(settings: MarketDataSettings, supervisor: Supervisor) -> MarketDataService:
    """Build all parts from the settings. Opens nothing."""
    key, secret = settings.credentials
    account_time = AccountTime()
    rest = AlpacaRest(settings.data_url, settings.trading_url, key, secret, now=lambda: check.now())  # noqa: PLW0108 - made of it
    check = ClockCheck(rest.clock, account_time)
    feed = settings.alpaca_feed
    clock = MarketClock(check.ask, MarketHours())
    stream = AlpacaMarketDataStream(
        key,
        secret,
        url=settings.stream_url,
        symbol_limit=settings.alpaca_symbol_limit,
        max_spread_pct=float(settings.max_spread_pct),
        max_reconnect_attempts=settings.reconnect_max_attempts,
        fetch_latest_quotes=(lambda symbols: rest.latest_quotes(symbols, feed)) if feed in FEEDS_OVER_REST else None,
        wants_trades=settings.mark_rule == "last",
        fetch_latest_trades=(lambda symbols: rest.latest_trades(symbols, feed)) if feed in FEEDS_OVER_REST else None,
        is_market_open=lambda: clock.current(check.now()).phase is MarketPhase.OPEN,
        account_time=account_time,
        is_late_by_design=lambda: feed == DELAYED_FEED or service.mode is Mode.REPLAY,
    )
    redis = RedisClient(settings.redis_dsn, namespace=settings.redis_namespace)
    instance = new_instance()
    cache = PriceCache(redis, settings.price_ttl_seconds, fence=instance)
    latest = LatestQuotes(feed, instance)
    tenure, lease, look_now = Tenure(instance), Lease(redis, instance), asyncio.Event()
    writer = PriceWriter(
        latest,
        cache,
        stream.epoch_of,
        tenure.may_write,
        look_now.set,
        announce_epoch=lambda: announcer.announce_epoch(),  # noqa: PLW0108 - the announcer is made of the writer too
    )
    announcer = FeedAnnouncer(
        lambda: service.feed_status(),  # noqa: PLW0108 - the service is made of the announcer too
        stream,
        latest,
        writer,
        cache,
        settings.price_ttl_seconds,
        tenure.may_write,
        look_now.set,
    )
    leadership = Leadership(tenure, lease, stream, writer, announcer, look_now)
    stream.add_handler(writer.take_quote)
    stream.add_rejection_handler(writer.take_rejected)
    stream.add_trade_handler(writer.take_trade)
    stream.link.add_listener(announcer.announce_soon)
    sync = PositionBasedSubscription(
        stream,
        settings.execution_gateway_url,
        redis=redis,
        api_token=settings.api_token.get_secret_value() if settings.api_token is not None else None,
        every_s=settings.position_sync_seconds,
    )

    def correct_times(by: timedelta) -> None:
        clock.shift(by)
        latest.shift_received(by)
        writer.wake()
        announcer.announce_soon()

    account_time.on_change = correct_times
    service = MarketDataService(
        settings,
        stream,
        latest,
        redis,
        cache,
        writer,
        announcer,
        sync,
        clock,
        rest,
        supervisor,
        lease,
        leadership,
        check,
    )
    service.note_mode()
    stream.link.add_listener(service.note_mode)
    return service


def create_app(settings: MarketDataSettings, supervisor: Supervisor | None = None) -> FastAPI:
    """Return the application; its tasks run while its lifespan does."""
    owner = supervisor or Supervisor()
    service = build_service(settings, owner)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        log.info("market_data_service_started", version=VERSION, feed=settings.alpaca_feed, url=settings.stream_url)
        await service.clock.state(service.clock_check.now())
        owner.spawn("market-clock", lambda: service.clock.keep_current(service.clock_check.now))
        owner.spawn("clock-check", service.clock_check.run)
        # Before the stream, so that it is stopped after it: the lease must outlast the connection.
        owner.spawn("leadership", service.leadership.run)
        owner.spawn("price-writer", service.writer.run)
        owner.spawn("feed-announcer", service.announcer.run)
        owner.spawn("alpaca-stream", service.stream.start)
        owner.spawn("position-sync", service.sync.start_sync_loop)
        owner.spawn("position-listener", service.sync.listen)
        try:
            yield
        finally:
            await _shut_down(service)

    # No interactive docs: their page loads its scripts from elsewhere. /openapi.json is there.
    # A redirect for a trailing slash would name http:// behind a proxy that speaks TLS.
    app = FastAPI(
        title="Markstream market data service",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_problem_handlers(app)
    install_api_schema(app, is_guarded=settings.api_token is not None, open_paths=OPEN_PATHS)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(BearerAuthMiddleware, token=settings.api_token)
    app.add_middleware(LocalCallersMiddleware, token=settings.api_token, allowed=settings.origins)
    app.add_middleware(CrossOriginMiddleware, allowed=settings.origins)
    app.add_middleware(NoStoreMiddleware)
    attach(app, service)
    app.include_router(metrics_routes(market_data_registry(service)))
    return app


async def _shut_down(service: MarketDataService) -> None:
    """Close the link with a close frame, write what waits, say that we are gone; then let another instance lead."""
    await service.supervisor.stop()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WRITES_S):
            await service.writer.flush()
            await service.announcer.announce()
    with suppress(TimeoutError, RedisUnavailableError):
        async with asyncio.timeout(_RELEASE_S):
            await service.lease.release()
    await service.rest.aclose()
    await service.redis.aclose()
    log.info("market_data_service_stopped")


def main() -> int:
    """Run the service until it is told to stop; return the exit code."""
    settings = load_settings(MarketDataSettings)
    configure_logging(settings.log_level, settings.log_format)
    supervisor = Supervisor()
    return serve(
        create_app(settings, supervisor),
        settings.bind_host,
        settings.market_data_port,
        port_variable="MARKET_DATA_PORT",
        supervisor=supervisor,
    )


if __name__ == "__main__":
    sys.exit(main())
