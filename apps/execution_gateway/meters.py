"""The gateway's numbers for Prometheus. The P&L figures are the reporter's, as of the scrape."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from math import nan
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.execution_gateway.announcements import PositionAnnouncer
from apps.execution_gateway.parity_report import ParityReporter
from apps.execution_gateway.pnl_feed import PnlFeed
from apps.execution_gateway.pnl_report import PnlReporter, RealtimePnl
from apps.execution_gateway.price_book import PriceBook
from apps.execution_gateway.price_subscriber import PriceSubscriber
from libs.broker.account_parity import AccountParity
from libs.market_data.freshness import PriceSource

if TYPE_CHECKING:
    from apps.execution_gateway.account_mirror import AccountMirror

_PREFIX = "markstream_gateway"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


def pnl_seconds(registry: CollectorRegistry) -> Histogram:
    """Return the histogram of how long a P&L answer takes."""
    return Histogram(f"{_PREFIX}_pnl_seconds", "Time to answer P&L", buckets=_SECONDS, registry=registry)


class GatewayMeters(Collector):
    """Read the parts' own counters when scraped. Set `pnl` before each scrape; None while it cannot be had."""

    def __init__(
        self,
        prices: PriceBook,
        subscriber: PriceSubscriber,
        reporter: PnlReporter,
        feed: PnlFeed,
        announcer: PositionAnnouncer,
        mirror: "AccountMirror | None" = None,
        parity: ParityReporter | None = None,
        refused: Callable[[], int] = lambda: 0,
    ) -> None:
        self._prices = prices
        self._subscriber = subscriber
        self._reporter = reporter
        self._feed = feed
        self._announcer = announcer
        self._mirror = mirror
        self._parity = parity
        self._refused = refused
        self.pnl: RealtimePnl | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        counters = self._subscriber.counters
        yield _counter("messages", "Messages received from Redis", counters.messages)
        yield _counter("messages_unreadable", "Messages that held no believable content", counters.unreadable)
        yield _counter("prices_outdated", "Prices older than the one held", counters.outdated)
        foreign = self._subscriber.own_feed.foreign_messages
        yield _counter("messages_foreign", "Messages of another feed on the same Redis server, not believed", foreign)
        yield _counter("price_gaps", "Gaps in the sequence of a symbol's prices", counters.gaps)
        yield _counter("cache_resyncs", "Times the cached prices were read anew", counters.resyncs)
        yield _counter("redis_reconnects", "Times the subscriber began anew", counters.reconnects)
        yield _counter("deliveries_late", "Times that messages came too late to be believed", counters.late)
        yield _counter("cache_faults", "P&L reads of the cache that failed", self._reporter.cache_faults)
        yield _counter("prices_evicted", "Prices given up for lack of room", self._prices.evicted)
        yield _counter("position_changes_announced", "Announcements sent", self._announcer.announced)
        yield _counter(
            "position_changes_failed", "Announcements that failed and were tried again", self._announcer.failures
        )
        yield _counter("requests_refused", "Requests refused because too many were waiting", self._refused())
        yield _counter("pnl_updates", "Updates pushed to the readers of the P&L stream", self._feed.updates)
        yield _gauge("redis_connected", "1 while the subscriber is connected", self._subscriber.is_connected)
        yield _gauge("prices_held", "Symbols with a price in memory", len(self._prices))
        yield _gauge("stream_readers", "Open P&L streams", self._feed.readers)
        yield _gauge("ledger_readable", "1 while the ledger can be read", self.pnl is not None)
        if self.pnl is not None:
            yield from _pnl_metrics(self.pnl)
        if self._mirror is not None:
            yield from _account_metrics(self._mirror, self._parity)


def _account_metrics(mirror: "AccountMirror", parity: ParityReporter | None) -> Iterator[Metric]:
    view, ledger = mirror.look(), mirror.ledger
    yield _gauge("account_in_step", "1 while every execution of the account is known", view.health == "in_step")
    yield _gauge("account_differences_unexplained", "Positions that differ, unexplained", len(view.unexplained))
    yield _counter("account_executions", "Executions recorded from the account", ledger.executions)
    yield _counter("account_executions_voided", "Executions busted or corrected", ledger.voids)
    yield _counter("account_adjustments", "Adjustments recorded from the account", ledger.adjustments)
    yield _counter("account_faults", "Times that the account or the ledger could not be asked", mirror.faults)
    yield _counter("trading_stream_reconnects", "Times the trading stream began anew", mirror.stream.link.reconnects)
    report = None if parity is None else parity.last()
    if report is not None:
        yield _gauge("parity_unexplained", "Positions whose figures differ from the account's", len(report.unexplained))
        if report.account is not None:
            yield _account_parity(report.account)
        yield _gauge("parity_unexplained_usd", "What of the differences nothing explains", report.unexplained_usd)


def _account_parity(account: AccountParity) -> Metric:
    text = "What of the difference to the account's cash and equity nothing explains; NaN while it is not known"
    metric = GaugeMetricFamily(f"{_PREFIX}_account_unexplained_usd", text, labels=["figure"])
    for name, compared in account.by_name().items():
        metric.add_metric([name], nan if compared.unexplained is None else float(compared.unexplained))
    return metric


def _pnl_metrics(pnl: RealtimePnl) -> Iterator[Metric]:
    totals = pnl.report.totals
    yield _gauge("feed_connected", "1 while the feed says it is connected", pnl.feed.connected)
    yield _gauge("stream_lag_seconds", "Seconds by which the stream is late; 0 while in time", pnl.feed.lag_s or 0.0)
    yield _gauge("unrealized_pnl_usd", "Unrealized P&L of what is priced", totals.total_unrealized)
    yield _gauge("realized_pnl_usd", "Realized P&L of the whole ledger, before fees", totals.total_realized)
    yield _gauge("day_pnl_usd", "P&L of the day of what is priced", totals.total_day_pnl)
    yield _gauge("market_value_usd", "Market value of what is priced", totals.total_market_value)
    yield _gauge("positions_unpriced", "Open positions without any price", len(totals.unpriced))
    by_source = GaugeMetricFamily(f"{_PREFIX}_positions", "Open positions by price source", labels=["price_source"])
    sources = [row.price_source for row in pnl.report.rows]
    for source in PriceSource:
        by_source.add_metric([source], sources.count(source))
    yield by_source


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)


def _gauge(name: str, text: str, value: Decimal | float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=float(value))
