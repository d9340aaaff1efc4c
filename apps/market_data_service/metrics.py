"""The service's numbers for Prometheus, read from its parts when somebody asks."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.market_data_service.state import MarketDataService
from libs.market_data.prices import LinkState
from libs.service.metrics import service_registry

_MOST_NAMED: Final = 50


def market_data_registry(service: MarketDataService) -> CollectorRegistry:
    """Return a registry that shows `service` and its process."""
    registry = service_registry()
    registry.register(_ServiceCollector(service))
    return registry


class _ServiceCollector(Collector):
    def __init__(self, service: MarketDataService) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        # Asked at registration, before the parts run; an empty answer skips the check for name clashes.
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._link()
        yield from self._quotes()
        yield from self._trades()
        yield from self._redis()

    def _link(self) -> Iterator[Metric]:
        stream, link, watch = self._service.stream, self._service.stream.link, self._service.stream.watch
        state = GaugeMetricFamily("markstream_link_state", "1 for the link's present state", labels=["state"])
        for name in LinkState:
            if name not in {LinkState.UNKNOWN, LinkState.FOREIGN_MODE}:  # what readers say
                state.add_metric([name], float(link.state is name))
        yield state
        yield _gauge("link_connected", "1 while the connection is authenticated and heard", stream.is_connected())
        yield _counter("link_reconnects", "Connections made after the first", link.reconnects)
        entered = CounterMetricFamily("markstream_link_changes", "Times the link entered a state", labels=["state"])
        for name, times in link.entered.items():
            entered.add_metric([name], times)
        yield entered
        yield _counter("link_attempts_ended", "Connections and attempts that ended", link.attempts_ended)
        age_s = self._service.last_frame_age_s
        if age_s is not None:
            yield _gauge("last_frame_age_seconds", "Seconds since the last frame", age_s)
        yield _counter("mute_connections", "Connections dropped because they brought no data", watch.mute_connections)
        yield _counter("silence_probes", "Times REST was asked whether silence is quiet", watch.probes)
        yield _counter("silence_probe_faults", "Times REST gave no answer to that", watch.probe_faults)
        yield _counter("gaps", "Spells in which quotes of some symbols may have been missed", stream.gaps.closed)
        if watch.lag_s is not None:
            yield _gauge("quote_lag_seconds", "Venue's time to ours, of the freshest quotes last seen", watch.lag_s)
        yield _gauge("stream_late", "1 while even the freshest quotes come late", stream.late_by_s is not None)
        offset_s = self._service.clock_check.time.offset.total_seconds()
        yield _gauge("clock_offset_seconds", "What ages add to our clock; 0 unless it is known to be wrong", offset_s)
        yield _gauge("symbols_wanted", "Symbols wanted by anybody", len(stream.subscribed_symbols))
        yield _gauge("symbols_confirmed", "Symbols that Alpaca has confirmed", len(stream.confirmed))
        yield _gauge("symbols_polled", "Symbols priced by REST, not streamed", len(stream.polled))
        yield _gauge("symbols_doubted", "Symbols whose newest quote may be missing", len(stream.doubted))
        yield _gauge("symbols_halted", "Symbols whose trading is halted", len(stream.halted))
        yield from self._suspects()
        yield _counter("polls", "Times REST was asked for what is not streamed", stream.poller.polls)
        yield _counter("poll_faults", "Times it gave no answer", stream.poller.faults)

    def _suspects(self) -> Iterator[Metric]:
        suspects = self._service.latest.suspects
        yield _gauge("symbols_suspect", "Symbols whose newest quote may not mark", len(suspects.symbols))
        named = GaugeMetricFamily(
            "markstream_symbol_suspect", "1 for a symbol whose newest quote may not mark", labels=["symbol", "reason"]
        )
        for symbol in sorted(suspects.symbols)[:_MOST_NAMED]:
            if (suspicion := suspects.of(symbol)) is not None:
                named.add_metric([symbol, suspicion.reason], 1.0)
        yield named

    def _quotes(self) -> Iterator[Metric]:
        stream, latest = self._service.stream, self._service.latest
        yield _counter("quotes_received", "Quotes read from the stream", stream.counts["quotes"])
        yield _counter("quotes_accepted", "Quotes that became the newest of their symbol", latest.accepted)
        yield _counter("quotes_conflated", "Quotes replaced by a newer one before they were written", latest.conflated)
        rejected = CounterMetricFamily(
            "markstream_quotes_rejected", "Quotes that may not mark a position", labels=["reason"]
        )
        for reason, count in stream.rejected.items():
            rejected.add_metric([reason], count)
        yield rejected
        faults = CounterMetricFamily("markstream_stream_faults", "What was odd on the stream", labels=["kind"])
        for kind, count in stream.counts.items():
            if kind != "quotes":
                faults.add_metric([kind], count)
        faults.add_metric(["snapshot_errors"], stream.snapshot_faults)
        faults.add_metric(["trade_snapshot_errors"], stream.trade_snapshot_faults)
        yield faults

    def _trades(self) -> Iterator[Metric]:
        stream, trades = self._service.stream, self._service.latest.trades
        yield _gauge("symbols_confirmed_trades", "Symbols of which trades are streamed", len(stream.confirmed_trades))
        told = CounterMetricFamily(
            "markstream_trade_messages", "What was told of trades, and why some are no last price", labels=["kind"]
        )
        for kind, count in stream.trade_counts.items():
            told.add_metric([kind], count)
        yield told
        yield _counter("trades_accepted", "Trades that became the last of their symbol", trades.accepted)
        yield _counter("trades_withdrawn", "Kept trades that the venue cancelled", trades.cancelled)
        yield _counter("trades_corrected", "Kept trades that the venue corrected", trades.corrected)

    def _redis(self) -> Iterator[Metric]:
        writer, sync, leadership = self._service.writer, self._service.sync, self._service.leadership
        yield _gauge("leader", "1 while this instance holds the feed, 0 while it waits", leadership.is_leader)
        yield _counter("lease_changes", "Times this instance began or ceased to hold the feed", leadership.changes)
        yield _counter("prices_written", "Prices written to Redis", writer.written)
        yield _counter("prices_published", "Price messages published", writer.published)
        yield _counter("prices_unwritable", "Prices that could not be written down", self._service.cache.unwritable)
        yield _counter("redis_batches", "Requests that carried prices", writer.batches)
        yield _counter("redis_batches_failed", "Requests that Redis did not take", writer.failed_batches)
        yield _gauge("prices_waiting", "Symbols whose newest price is not in Redis yet", self._service.latest.pending)
        yield _counter("position_syncs", "Times the gateway was asked for positions", sync.syncs)
        yield _counter("position_sync_failures", "Times it gave no position list", sync.failures)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"markstream_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"markstream_{name}", text, value=float(value))
