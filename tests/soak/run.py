"""`make soak`: runs everything, injects faults at random, and checks from outside that nothing false is ever shown.

The same seed injects the same faults in the same order, as far as the machine's pace allows. Exit code 0: no
violation; 1: violations; 2: the soak itself did not work; 130: stopped before its time, without a violation.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from tests.soak.injector import Injector, Round
from tests.soak.judge import Finding, Judge
from tests.soak.kinds import KINDS, Kind
from tests.soak.plan import Deck
from tests.soak.report import Outcome, as_json, kinds_table, round_line, summary, violation_text
from tests.soak.watch import Verdicts, Violation, Watch
from tests.soak.world import World, running_world

_INTERRUPTED: Final = 130
_RATE: Final = 200.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak that the command line describes; return the exit code."""
    given = _read_arguments(arguments)
    if given.list:
        for kind in KINDS:
            print(f"{kind.name:<28} {kind.hold_s[0]:>4g} to {kind.hold_s[1]:<4g} s, measured from {kind.measured_from}")
        return 0
    with tempfile.TemporaryDirectory(prefix="markstream-soak-") as folder:
        try:
            outcome = asyncio.run(_soak(Path(folder), given))
        except Exception as error:
            print(f"the soak did not work: {type(error).__name__}: {error}", file=sys.stderr)
            _keep_logs(Path(folder), given.logs)
            return 2
        _keep_logs(Path(folder), given.logs)
    print(f"\n{kinds_table(outcome.rounds, KINDS)}\n\n{summary(outcome)}")
    if given.json is not None:
        given.json.write_text(json.dumps(as_json(outcome), indent=2) + "\n")
    return 1 if outcome.violations else _INTERRUPTED if outcome.was_stopped else 0


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long faults are injected")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same faults")
    parser.add_argument("--only", type=_kinds, default=KINDS, metavar="KIND,KIND", help="inject these kinds alone")
    parser.add_argument("--list", action="store_true", help="list the kinds and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen for machines")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the processes' logs there")
    parser.add_argument("--rate", type=float, default=_RATE, help="quotes per second over all symbols")
    return parser.parse_args(arguments)


def _kinds(text: str) -> tuple[Kind, ...]:
    known = {kind.name: kind for kind in KINDS}
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such kind: {', '.join(unknown)} (see --list)")
    return tuple(known[name] for name in text.split(","))


async def _soak(folder: Path, given: argparse.Namespace) -> Outcome:
    """Run it; a stop that is asked for ends it in good order, with what was seen until then."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"soak: {given.minutes:g} minutes, seed {given.seed}, {len(given.only)} kinds of faults", flush=True)
    async with running_world(folder, seed=given.seed, rate=given.rate) as world:
        return await _inject(world, given, stop)


async def _inject(world: World, given: argparse.Namespace, stop: asyncio.Event) -> Outcome:
    dice = Random(given.seed)
    judge = Judge()
    verdicts = Verdicts(lambda violation: _tell(violation, given.seed), lambda: injector.names_under_way())  # noqa: PLW0108 - made below
    watch = Watch(world, judge, verdicts)
    injector = Injector(
        watch, Deck(given.only, dice), Deck(given.only, dice), dice, lambda done: _tell_round(injector, done)
    )
    began_s = time.time()
    looking = asyncio.create_task(watch.run(), name="watch")
    injecting = asyncio.create_task(injector.run(began_s + given.minutes * 60), name="inject")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait((looking, injecting, stopping), return_when=asyncio.FIRST_COMPLETED)
    was_stopped = stopping.done()
    # The faults first: looking goes on until everything is as it was.
    for task in (injecting, looking, stopping):
        has_failed = task.done() and not task.cancelled() and task.exception() is not None
        task.cancel()
        if has_failed:
            await asyncio.gather(injecting, looking, stopping, return_exceptions=True)
            task.result()
        with suppress(asyncio.CancelledError):
            await task
    for fault in await world.stop():
        verdicts.add(Finding("bad end", "at the end", time.time(), fault))
    return Outcome(
        given.seed, began_s, time.time(), injector.rounds, verdicts.violations, verdicts.counts, watch.looks,
        watch.pnl_took_s, len(watch.dials.times_s), watch.memory.growths(), was_stopped,
    )  # fmt: skip


def _tell(violation: Violation, seed: int) -> None:
    print(violation_text(violation, seed), flush=True)


def _tell_round(injector: Injector, done: Round) -> None:
    print(round_line(sum(len(one.names) for one in injector.rounds), done), flush=True)


def _keep_logs(folder: Path, kept: Path | None) -> None:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        for log in folder.glob("*.log"):
            shutil.copy(log, kept / log.name)


if __name__ == "__main__":
    sys.exit(main())
