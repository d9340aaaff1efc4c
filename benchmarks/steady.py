"""How long a quote takes to become a message in Redis at a steady rate, seen by a subscriber of Redis.

One machine, one clock: a quote of the simulator carries the time at which it was sent.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from redis import Redis

from benchmarks.figures import Figure, at_most, percentile
from benchmarks.programs import BenchmarkError, market_data_service, simulator, subscribe, symbols
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.event_publisher import PRICE_CHANNEL_PREFIX

RATE: Final = 1_000
SYMBOLS: Final = 100
LATENCY_TARGET_MS: Final = 5.0
_WARM_UP_S: Final = 1.0
_LEAST_SHARE: Final = 0.5
"""Below this share of the rate the machine did not even make the quotes: there is nothing to conclude."""


class _Update(msgspec.Struct):
    """What is read of a `price.updated.*` message."""

    timestamp: datetime
    received_at: datetime


_decode = msgspec.json.Decoder(_Update).decode


def measure_steady(folder: Path, *, seconds: float) -> list[Figure]:
    """Stream 1,000 quotes per second and follow each published price from its sending to its arrival."""
    with (
        EmbeddedRedis() as redis,
        simulator(folder, str(RATE)) as venue,
        market_data_service(folder, venue, redis.url, "steady") as service,
    ):
        subscribe(service, symbols(SYMBOLS))
        whole_ms, ours_ms = _follow(redis.url, seconds)
        if len(whole_ms) < RATE * seconds * _LEAST_SHARE:
            raise service.fault(f"only {len(whole_ms)} prices in {seconds:g} s")
    return [
        Figure(f"steady: frame sent → Redis, p50 at {RATE:,}/s", percentile(whole_ms, 50), "ms"),
        Figure(
            f"steady: frame sent → Redis, p99 at {RATE:,}/s", percentile(whole_ms, 99), "ms", at_most(LATENCY_TARGET_MS)
        ),
        Figure("steady: received → Redis, p50", percentile(ours_ms, 50), "ms"),
        Figure("steady: received → Redis, p99", percentile(ours_ms, 99), "ms"),
    ]


def _follow(redis_url: str, seconds: float) -> tuple[list[float], list[float]]:
    """Return for each message the milliseconds since the quote was sent, and since our service had it."""
    from_sent, from_received = [], []
    began_s = time.monotonic() + _WARM_UP_S
    for arrived_s, data in _messages(redis_url, began_s + seconds):
        if time.monotonic() >= began_s:
            update = _decode(data)
            from_sent.append((arrived_s - update.timestamp.timestamp()) * 1e3)
            from_received.append((arrived_s - update.received_at.timestamp()) * 1e3)
    return from_sent, from_received


def _messages(redis_url: str, until_s: float) -> Iterator[tuple[float, bytes]]:
    """Yield each price message with the Unix time of its arrival."""
    with Redis.from_url(redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.psubscribe(f"{PRICE_CHANNEL_PREFIX}*")
        while time.monotonic() < until_s:
            message = listener.get_message(timeout=0.5)
            arrived_s = time.time_ns() / 1e9
            if message is not None:
                data = message["data"]
                if not isinstance(data, bytes):
                    raise BenchmarkError(f"a message of {type(data)} on a price channel")
                yield arrived_s, data
