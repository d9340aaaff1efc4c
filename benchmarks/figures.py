"""What a benchmark measured, what was asked for, and the table that shows both. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must reach: at most `bound`, or at least, when `is_floor`."""

    bound: float
    is_floor: bool = False

    def is_met_by(self, value: float) -> bool:
        """Say whether `value` is good enough."""
        return value >= self.bound if self.is_floor else value <= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `target` None: shown for information, nothing is asked of it."""

    name: str
    value: float
    unit: str
    target: Target | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the target was met; None without one."""
        return None if self.target is None else self.target.is_met_by(self.value)


def at_most(bound: float) -> Target:
    """Return the target of a figure that must stay small."""
    return Target(bound)


def at_least(bound: float) -> Target:
    """Return the target of a figure that must be large."""
    return Target(bound, is_floor=True)


def percentile(values: Sequence[float], pct: float) -> float:
    """Return the nearest-rank percentile: the smallest value with at least `pct` percent at or below it.

    `values` need no order. Raises ValueError without any.
    """
    if not values:
        raise ValueError("no values, no percentile")
    rank = max(1, ceil(len(values) * pct / 100))
    return sorted(values)[rank - 1]


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned columns: what, target, measured, verdict."""
    rows = [("", "target", "measured", "")]
    rows += [(figure.name, _target(figure), _number(figure.value, figure.unit), _verdict(figure)) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {target:>{widths[1]}}  {value:>{widths[2]}}  {verdict}".rstrip()
        for name, target, value, verdict in rows
    )


def as_json(figure: Figure) -> dict[str, object]:
    """Return a figure for machines."""
    target = figure.target
    return {
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "target": None if target is None else target.bound,
        "target_is": None if target is None else "at least" if target.is_floor else "at most",
        "passed": figure.passed,
    }


def _target(figure: Figure) -> str:
    target = figure.target
    return "" if target is None else f"{'≥' if target.is_floor else '≤'} {target.bound:g} {figure.unit}"


def _verdict(figure: Figure) -> str:
    return {True: "pass", False: "FAIL", None: ""}[figure.passed]


def _number(value: float, unit: str) -> str:
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2  # noqa: PLR2004 - three digits are read
    return f"{value:,.{decimals}f} {unit}"
