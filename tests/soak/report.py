"""What a soak came to: the line of each fault, the table per kind, the JSON for machines. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from benchmarks.figures import percentile
from tests.soak.bounds import Growth
from tests.soak.injector import TWO_AT_ONCE, Round
from tests.soak.kinds import Kind
from tests.soak.watch import Violation


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that a run has seen. Times in seconds since 1970; `counts` are findings by rule, repeated ones too."""

    seed: int
    began_s: float
    ended_s: float
    rounds: Sequence[Round]
    violations: Sequence[Violation]
    counts: Counter[str]
    looks: int
    pnl_took_s: Sequence[float]
    dials: int
    growths: Sequence[Growth]
    was_stopped: bool = False

    @property
    def faults(self) -> int:
        """How many faults were injected."""
        return sum(len(one.names) for one in self.rounds)


def round_line(number: int, one: Round) -> str:
    """Return the one line that a fault is worth."""
    recovery = "NOT RECOVERED" if one.recovery_s is None else f"well after {one.recovery_s:5.1f} s"
    return (
        f"{_clock(one.began_s)} {number:4}  {' + '.join(one.names):<44} {one.ended_s - one.began_s:5.1f} s  {recovery}"
    )


def violation_text(violation: Violation, seed: int) -> str:
    """Return a violation with all that is needed to look into it."""
    finding = violation.finding
    faults = " + ".join(violation.under_way) or "none"
    return (
        f"VIOLATION {_clock(finding.at_s)} {finding.rule}: {finding.subject} (faults: {faults}; seed {seed})\n"
        f"    {finding.detail}"
    )


def kinds_table(rounds: Sequence[Round], kinds: Sequence[Kind]) -> str:
    """Return the table per kind: how often it came, and how long recovery took where it came alone."""
    head = ("fault", "times", "p50 s", "max s", "measured from")
    lines = [head]
    for kind in kinds:
        times = sum(one.names.count(kind.name) for one in rounds)
        if times:
            lines.append((kind.name, str(times), *_recovery(rounds, kind.name), kind.measured_from))
    if pairs := sum(one.is_of == TWO_AT_ONCE for one in rounds):
        lines.append((TWO_AT_ONCE, str(pairs), *_recovery(rounds, TWO_AT_ONCE), "the end of the later one"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        f"{name:<{widths[0]}}  {times:>{widths[1]}}  {p50:>{widths[2]}}  {most:>{widths[3]}}  {since}".rstrip()
        for name, times, p50, most, since in lines
    )


def _recovery(rounds: Sequence[Round], name: str) -> tuple[str, str]:
    took_s = [one.recovery_s for one in rounds if one.is_of == name and one.recovery_s is not None]
    return (f"{percentile(took_s, 50):.1f}", f"{max(took_s):.1f}") if took_s else ("", "")


def summary(outcome: Outcome) -> str:
    """Return the totals."""
    took_s = [one.recovery_s for one in outcome.rounds if one.recovery_s is not None]
    recovery = f"p50 {percentile(took_s, 50):.1f} s, max {max(took_s):.1f} s" if took_s else "none measured"
    answers = outcome.pnl_took_s
    latency = f"p99 {percentile(answers, 99) * 1e3:.0f} ms, max {max(answers) * 1e3:.0f} ms" if answers else "none"
    verdict = f"{len(outcome.violations)} violations" if outcome.violations else "no violation"
    rules = "".join(f"\n    {rule}: seen {count} times" for rule, count in sorted(outcome.counts.items()))
    memory = "".join(f"\n    {line}" for line in _memory_lines(outcome.growths))
    took = ceil(outcome.ended_s - outcome.began_s)
    return (
        f"{outcome.faults} faults in {took} s, seed {outcome.seed}: {verdict}{rules}\n"
        f"recovery: {recovery}\n"
        f"looks at the P&L: {outcome.looks}; answers: {latency}\n"
        f"dials: {outcome.dials}\n"
        f"memory, largest of each process after its first 30 s, over what it had then:{memory}"
    )


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return everything for machines."""
    return {
        "seed": outcome.seed,
        "began_at": _iso(outcome.began_s),
        "seconds": round(outcome.ended_s - outcome.began_s, 1),
        "faults": outcome.faults,
        "was_stopped": outcome.was_stopped,
        "rounds": [
            {
                "faults": list(one.names),
                "began_at": _iso(one.began_s),
                "measured_from": _iso(one.ended_s),
                "recovery_seconds": one.recovery_s,
                "last_missing": one.missing,
            }
            for one in outcome.rounds
        ],
        "violations": [
            {
                "at": _iso(one.finding.at_s),
                "rule": one.finding.rule,
                "subject": one.finding.subject,
                "detail": one.finding.detail,
                "under_way": list(one.under_way),
            }
            for one in outcome.violations
        ],
        "findings_by_rule": dict(outcome.counts),
        "looks": outcome.looks,
        "dials": outcome.dials,
        "memory": [one._asdict() for one in outcome.growths],
    }


def _memory_lines(growths: Sequence[Growth]) -> list[str]:
    lines = []
    for role in sorted({one.role for one in growths}):
        own = [one for one in growths if one.role == role]
        most = max(own, key=lambda one: one.most_mb)
        growth_mb = max(one.most_mb - one.settled_mb for one in own)
        lines.append(f"{role}: {most.most_mb:.0f} MB at most, {growth_mb:.0f} MB grown at most, {len(own)} processes")
    return lines


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S")


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()
