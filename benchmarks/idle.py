"""What the services use when nothing happens: the link is up, an account is held, and no quote flows."""

import time
from pathlib import Path
from typing import Final

from benchmarks.account import MEMORY_TARGET_MB, buy, chain
from benchmarks.figures import Figure, at_most
from benchmarks.process_usage import cpu_seconds, resident_mb
from benchmarks.programs import symbols, wait_confirmed

CPU_TARGET_PCT: Final = 2.0
_POSITIONS: Final = 10
_SETTLE_S: Final = 1.5


def measure_idle(folder: Path, *, seconds: float) -> list[Figure]:
    """Hold ten positions in a market that says nothing and look at both services for `seconds`."""
    figures = []
    with chain(folder, "0") as (service, gateway):
        buy(folder, gateway, symbols(_POSITIONS))
        wait_confirmed(service, _POSITIONS)
        time.sleep(_SETTLE_S)
        watched = {"market data service": service, "gateway": gateway}
        began_s = time.monotonic()
        before = {name: cpu_seconds(program.pid) for name, program in watched.items()}
        time.sleep(seconds)
        wall_s = time.monotonic() - began_s
        for name, program in watched.items():
            pct = (cpu_seconds(program.pid) - before[name]) / wall_s * 100
            figures.append(Figure(f"{name}: idle CPU, of a core", pct, "%", at_most(CPU_TARGET_PCT)))
            figures.append(Figure(f"{name}: idle memory", resident_mb(program.pid), "MB", at_most(MEMORY_TARGET_MB)))
    return figures
