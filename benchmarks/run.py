"""`make bench`: our quote path beside the record's own, P&L, fills to their marks, what idling costs, recovery.

Exit code 1 when a target is missed in a full run, or something did not work. A quick run is too short, and most
machines too busy, to judge by: it only shows the figures.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks.account import measure_account
from benchmarks.crowd import CLIENTS, measure_crowd
from benchmarks.figures import Figure, as_json, table
from benchmarks.fill_to_mark import measure_fill_to_mark
from benchmarks.flood import measure_flood
from benchmarks.idle import measure_idle
from benchmarks.programs import BenchmarkError
from benchmarks.recovery import measure_recovery
from benchmarks.steady import measure_steady
from libs.redis_client.embedded import RedisServerError

Measure = Callable[[Path], list[Figure]]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to measure, and how long that takes."""

    name: str
    measure: Measure


_FULL: Final = (
    Part("flood", partial(measure_flood, turns=3, turn_s=8)),
    Part("steady", partial(measure_steady, seconds=20)),
    Part("account", partial(measure_account, requests=500, within_s=25, push_s=8)),
    Part("crowd", partial(measure_crowd, clients=CLIENTS, seconds=15)),
    Part("fill-to-mark", partial(measure_fill_to_mark, fills=100)),
    Part("idle", partial(measure_idle, seconds=20)),
    Part("recovery", partial(measure_recovery, drops=6, lasting_s=11.0, outages_s=(5.0, 20.0, 60.0))),
)
_QUICK: Final = (
    Part("flood", partial(measure_flood, turns=1, turn_s=3)),
    Part("steady", partial(measure_steady, seconds=4)),
    Part("account", partial(measure_account, requests=50, within_s=3, push_s=2)),
    Part("crowd", partial(measure_crowd, clients=CLIENTS, seconds=3)),
    Part("fill-to-mark", partial(measure_fill_to_mark, fills=10)),
    Part("idle", partial(measure_idle, seconds=10)),
    Part("recovery", partial(measure_recovery, drops=1, lasting_s=1.0, outages_s=(2.0,))),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, print the table, return the exit code."""
    given = _read_arguments(arguments)
    # A stop is asked for in either way; either way all that was started is stopped again.
    signal.signal(signal.SIGTERM, _interrupt)
    began_s = time.monotonic()
    try:
        figures = _measure(_QUICK if given.quick else _FULL, given.only)
    except (BenchmarkError, RedisServerError) as error:
        print(f"the benchmark did not work: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    took_s = time.monotonic() - began_s
    missed = [figure.name for figure in figures if figure.passed is False]
    print(f"\n{table(figures)}\n\n{_summary(missed, is_quick=given.quick, took_s=took_s)}")
    if given.json is not None:
        given.json.write_text(json.dumps(_report(figures, is_quick=given.quick), indent=2) + "\n")
    return 1 if missed and not given.quick else 0


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, and no verdict")
    parser.add_argument("--only", choices=[part.name for part in _FULL], action="append", help="measure this part")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    return parser.parse_args(arguments)


def _measure(parts: Sequence[Part], only: Sequence[str] | None) -> list[Figure]:
    figures = []
    for part in parts:
        if only is None or part.name in only:
            print(f"measuring: {part.name} …", flush=True)
            with tempfile.TemporaryDirectory(prefix="markstream-bench-") as folder:
                figures += part.measure(Path(folder))
    return figures


def _summary(missed: Sequence[str], *, is_quick: bool, took_s: float) -> str:
    verdict = f"{len(missed)} missed: {'; '.join(missed)}" if missed else "all targets met"
    note = " (a quick run on a shared machine: no verdict, run without --quick for one)" if is_quick else ""
    load = os.getloadavg()[0]
    return f"{verdict}{note}. {took_s:.0f} s on {os.cpu_count()} cores, load {load:.1f}."


def _report(figures: Sequence[Figure], *, is_quick: bool) -> dict[str, object]:
    return {
        "measured_at": datetime.now(UTC).isoformat(),
        "is_quick": is_quick,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load": os.getloadavg()[0],
        },
        "figures": [as_json(figure) for figure in figures],
    }


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
