"""Many HTTP clients in a process of their own, each asking for the same path again as soon as it is answered.

For each line on stdin it lets them ask for a while, and writes one line of JSON: how many answers came, with which
status, how long they took, and how long `/health/live` took meanwhile.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from typing import Final, cast

import uvloop

from benchmarks.figures import percentile
from benchmarks.programs import HOST

WARM_UP_S: Final = 1.0
"""Connecting is no part of the figures."""
_LIVE_EVERY_S: Final = 0.02
_LIVE: Final = "/health/live"
_PATIENCE_S: Final = 15.0
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Tally:
    """What all clients together have seen since `counts_from_s`."""

    def __init__(self, ends_at_s: float, counts_from_s: float) -> None:
        self.ends_at_s = ends_at_s
        self.counts_from_s = counts_from_s
        self.statuses: Counter[int] = Counter()
        self.taken_ms: list[float] = []
        self.live_ms: list[float] = []

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.ends_at_s

    def answered(self, status: int, asked_at_s: float) -> None:
        """Count one answer."""
        now_s = time.monotonic()
        if self.counts_from_s <= now_s <= self.ends_at_s:
            self.statuses[status] += 1
            self.taken_ms.append((now_s - asked_at_s) * 1e3)


class Client(asyncio.Protocol):
    """One connection. `done` is set when it has ended."""

    def __init__(self, path: str, tally: Tally) -> None:
        self._request = request(path)
        self._tally = tally
        self._received = b""
        self._asked_at_s = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own is one in all but its class
        self._ask(self._transport)

    def data_received(self, data: bytes) -> None:
        """Take in a part of an answer; when it is whole, ask again."""
        self._received += data
        size = answer_size(self._received)
        if size is None or len(self._received) < size or self._transport is None:
            return
        self._tally.answered(int(self._received[9:12]), self._asked_at_s)
        self._received = b""
        self._ask(self._transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """End; before the time was up that counts as an answer of status 0."""
        if not self._tally.is_over:
            self._tally.answered(0, self._asked_at_s)
        self.done.set()

    def _ask(self, transport: asyncio.WriteTransport) -> None:
        if self._tally.is_over:
            transport.close()
        else:
            self._asked_at_s = time.monotonic()
            transport.write(self._request)


def request(path: str) -> bytes:
    """Return the bytes that ask for `path`."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def answer_size(received: bytes) -> int | None:
    """Return how long the answer will be that begins with `received`; None while its head is not whole."""
    head, end, _ = received.partition(_HEAD_END)
    if not end:
        return None
    length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
    return len(head) + len(_HEAD_END) + int(length or b"0")


async def ask_all(port: int, path: str, clients: int, seconds: float) -> Tally:
    """Have so many clients ask for so long, after a warm-up in which they connect."""
    began_s = time.monotonic()
    tally = Tally(began_s + WARM_UP_S + seconds, began_s + WARM_UP_S)
    probing = asyncio.create_task(_probe(port, tally))
    loop = asyncio.get_running_loop()
    connected = [await loop.create_connection(lambda: Client(path, tally), HOST, port) for _ in range(clients)]
    async with asyncio.timeout(WARM_UP_S + seconds + _PATIENCE_S):
        await asyncio.gather(probing, *(client.done.wait() for _, client in connected))
    return tally


async def _probe(port: int, tally: Tally) -> None:
    """Ask whether the service is alive, as whoever restarts it would."""
    reader, writer = await asyncio.open_connection(HOST, port)
    while not tally.is_over:
        asked_at_s = time.monotonic()
        writer.write(request(_LIVE))
        head = await reader.readuntil(_HEAD_END)
        await reader.readexactly((answer_size(head) or 0) - len(head))
        if asked_at_s >= tally.counts_from_s:
            tally.live_ms.append((time.monotonic() - asked_at_s) * 1e3)
        await asyncio.sleep(_LIVE_EVERY_S)
    writer.close()


def main() -> int:
    """Ask once for each line on stdin."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_clients", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    for _ in sys.stdin:
        tally = uvloop.run(ask_all(given.port, given.path, given.clients, given.seconds))
        answer = {
            "answers_per_s": sum(tally.statuses.values()) / given.seconds,
            "failed": sum(count for status, count in tally.statuses.items() if status != 200),  # noqa: PLR2004 - HTTP's
            "p99_ms": percentile(tally.taken_ms, 99),
            "live_p99_ms": percentile(tally.live_ms, 99),
        }
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
