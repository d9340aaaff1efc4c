"""The P&L endpoint under a crowd: hundreds of clients at once, each asking again as soon as it is answered."""

from pathlib import Path
from typing import Final

from benchmarks.account import buy, chain, wait_live
from benchmarks.figures import Figure, at_least, at_most
from benchmarks.programs import ask, running, symbols, wait_confirmed

CLIENTS: Final = 500
ANSWERS_TARGET: Final = 1_000.0
LIVE_TARGET_MS: Final = 50.0
_POSITIONS: Final = 10
_RATE: Final = "100"
_PATH: Final = "/api/v1/positions/pnl/realtime"


def measure_crowd(folder: Path, *, clients: int, seconds: float) -> list[Figure]:
    """Hold ten positions at live prices and let so many clients ask for their P&L."""
    with chain(folder, _RATE) as (service, gateway):
        buy(folder, gateway, symbols(_POSITIONS))
        wait_confirmed(service, _POSITIONS)
        wait_live(gateway, _POSITIONS)
        arguments = {"port": gateway.port, "path": _PATH, "clients": clients, "seconds": seconds}
        command = ["benchmarks.http_clients", *(f"--{name}={value}" for name, value in arguments.items())]
        with running(folder, "clients", command, {}) as crowd:
            seen = ask(crowd)
    named = f"P&L, {clients} clients at once"
    return [
        Figure(f"{named}: answers", seen["answers_per_s"], "/s", at_least(ANSWERS_TARGET)),
        Figure(f"{named}: answers other than 200", seen["failed"], "", at_most(0)),
        Figure(f"{named}: time to answer, p99", seen["p99_ms"], "ms"),
        Figure(f"{named}: /health/live meanwhile, p99", seen["live_p99_ms"], "ms", at_most(LIVE_TARGET_MS)),
    ]
