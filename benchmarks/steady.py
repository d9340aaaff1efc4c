"""How long a quote takes to become a message in Redis at a steady rate, seen by a subscriber of Redis.

One machine, one clock: a quote of the simulator carries the time at which it was sent.
"""

import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import hiredis
import msgspec

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
    # The target is for our part, from the frame in our hands to Redis. What the simulator takes between naming the time
    # of a quote and sending it is in the first two figures.
    return [
        Figure(f"steady: quote made → Redis, p50 at {RATE:,}/s", percentile(whole_ms, 50), "ms"),
        Figure(f"steady: quote made → Redis, p99 at {RATE:,}/s", percentile(whole_ms, 99), "ms"),
        Figure("steady: frame → Redis, p50", percentile(ours_ms, 50), "ms"),
        Figure("steady: frame → Redis, p99", percentile(ours_ms, 99), "ms", at_most(LATENCY_TARGET_MS)),
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
    """Yield each price message with the Unix time at which its bytes were there.

    Read from the socket itself: a client library takes the messages of a burst one after another, and its own time for
    each would be counted as ours for the next.
    """
    address = urlsplit(redis_url)
    reader = hiredis.Reader()
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=0.5) as connection:
        connection.sendall(b"PSUBSCRIBE " + PRICE_CHANNEL_PREFIX.encode() + b"*\r\n")
        while time.monotonic() < until_s:
            try:
                chunk = connection.recv(1 << 16)
            except TimeoutError:
                continue
            arrived_s = time.time_ns() / 1e9
            if not chunk:
                raise BenchmarkError("Redis closed the subscriber's connection")
            reader.feed(chunk)
            while (message := reader.gets()) is not False:
                if isinstance(message, list) and message[0] == b"pmessage":
                    yield arrived_s, message[3]
