"""Ports that stay free until they are used."""

import os
import random
import socket
from collections import deque

_LOWEST_PORT = 20_000
_LOWEST_EPHEMERAL = 32_768
_WORKERS = 16
_PORTS_EACH = (_LOWEST_EPHEMERAL - _LOWEST_PORT) // _WORKERS
_given: deque[int] = deque(maxlen=_PORTS_EACH // 2)


def service_port() -> int:
    """Return a free loopback port that no outgoing connection is ever given: it stays free until it is used.

    Nor is it given twice in a row, or by another of the processes that test side by side: nobody listens on it yet.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    lowest = _LOWEST_PORT + worker % _WORKERS * _PORTS_EACH
    while True:
        port = random.SystemRandom().randrange(lowest, lowest + _PORTS_EACH)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.append(port)
        return port
