"""Ports that stay free until they are used."""

import random
import socket

_LOWEST_EPHEMERAL = 32_768


def service_port() -> int:
    """Return a free loopback port that no outgoing connection is ever given: it stays free until it is used."""
    while True:
        port = random.SystemRandom().randrange(20_000, _LOWEST_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
