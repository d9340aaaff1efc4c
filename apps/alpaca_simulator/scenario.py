"""A scenario: faults and acts on a timeline. Reading one is pure; `ScenarioRun` plays it.

A step of a file (the sample is also a test):
[[step]]
at = 5.0
faults = { mute = true }
for = 10.0
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec
import structlog

from apps.alpaca_simulator.account_acts import ACCOUNT_ACTS, AccountAct, SteeredAccount
from apps.alpaca_simulator.account_entries import AccountError
from apps.alpaca_simulator.acts import ACTS, Act, Steered
from apps.alpaca_simulator.fault_switches import WrongSwitchError, as_default, merged
from apps.alpaca_simulator.faults import NO_FAULTS, Faults

log = structlog.get_logger(__name__)

_ALL_ACTS: Final[Mapping[str, type[Act | AccountAct]]] = {**ACTS, **ACCOUNT_ACTS}
_LATEST_S: Final = 7 * 86_400.0


class ScenarioError(ValueError):
    """A scenario cannot be read; the text names the step and the field in one line. Reading it again does not help."""


class Begin(StrEnum):
    """From when the times of a scenario count."""

    FIRST_CLIENT = "first_client"
    START = "start"


@dataclass(frozen=True, slots=True)
class FaultChange:
    """Switches to be set, named and valued as in JSON, and for how many seconds; None leaves them as they are."""

    changes: Mapping[str, object]
    for_s: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """What happens `at_s` seconds after the beginning."""

    at_s: float
    what: FaultChange | Act | AccountAct


@dataclass(frozen=True, slots=True)
class Scenario:
    """Steps in the order of the file, which need not be that of their times."""

    begin: Begin
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """One point of the timeline: the step it belongs to (from 1), and whether the step ends here or begins."""

    at_s: float
    number: int
    is_end: bool


def timeline(steps: Sequence[Step]) -> list[Moment]:
    """Return when steps begin and end, in the order of time; at the same time what ends goes first."""
    moments = []
    for number, step in enumerate(steps, start=1):
        moments.append(Moment(step.at_s, number, is_end=False))
        if isinstance(step.what, FaultChange) and step.what.for_s is not None:
            moments.append(Moment(step.at_s + step.what.for_s, number, is_end=True))
    return sorted(moments, key=lambda moment: (moment.at_s, not moment.is_end, moment.number))


def read_scenario_file(data: bytes) -> Scenario:
    """Read the TOML of a scenario file: `begin`, and `[[step]]` for each step. Raises ScenarioError."""
    try:
        document = msgspec.toml.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ScenarioError(f"not readable as TOML: {_one_line(fault)}") from fault
    return read_scenario(document, "step")


def read_scenario(document: object, steps_key: str = "steps") -> Scenario:
    """Read a scenario from plain values: `{"begin": ..., "steps": [...]}`. Raises ScenarioError."""
    if not isinstance(document, dict):
        raise ScenarioError("expected an object with steps")
    if unknown := sorted(document.keys() - {"begin", steps_key}):
        raise ScenarioError(f"{unknown[0]}: no such field; known are begin, {steps_key}")
    begin = _field(document, "begin", Begin, Begin.FIRST_CLIENT, "begin")
    listed = _field(document, steps_key, list[dict[str, Any]], [], steps_key)
    if not listed:
        raise ScenarioError(f"{steps_key}: at least one is needed")
    return Scenario(begin, tuple(_step(number, fields) for number, fields in enumerate(listed, start=1)))


def _step(number: int, fields: dict[str, Any]) -> Step:
    place = f"step {number}"
    if "at" not in fields:
        raise ScenarioError(f"{place}, at: missing")
    rest = dict(fields)
    at_s = _seconds(rest, "at", place)
    if ("act" in rest) == ("faults" in rest):
        raise ScenarioError(f"{place}: give either faults or an act")
    return Step(at_s, _act(rest, place) if "act" in rest else _fault_change(rest, place))


def _fault_change(fields: dict[str, Any], place: str) -> FaultChange:
    for_s = _seconds(fields, "for", place) if "for" in fields else None
    changes = _field(fields, "faults", dict[str, Any], {}, f"{place}, faults")
    if unknown := sorted(fields.keys() - {"faults"}):
        raise ScenarioError(f"{place}, {unknown[0]}: no such field; known are at, faults, for")
    try:
        merged(NO_FAULTS, changes)
    except WrongSwitchError as fault:
        raise ScenarioError(f"{place}, faults.{fault}") from fault
    return FaultChange(changes, for_s)


def _act(fields: dict[str, Any], place: str) -> Act | AccountAct:
    name = fields.pop("act")
    if not isinstance(name, str) or name not in _ALL_ACTS:
        raise ScenarioError(f"{place}, act: {str(name)[:40]!r} is none of {', '.join(_ALL_ACTS)}")
    try:
        return msgspec.convert(fields, _ALL_ACTS[name])
    except msgspec.ValidationError as fault:
        raise ScenarioError(f"{place}, {name}: {_one_line(fault)}") from fault


def _seconds(fields: dict[str, Any], name: str, place: str) -> float:
    seconds: float = _field(fields, name, float, 0.0, f"{place}, {name}")
    del fields[name]
    if not 0 <= seconds <= _LATEST_S:
        raise ScenarioError(f"{place}, {name}: expected seconds from 0 to a week")
    return seconds


def _field(fields: Mapping[str, Any], name: str, kind: Any, default: Any, place: str) -> Any:
    try:
        return msgspec.convert(fields.get(name, default), kind)
    except msgspec.ValidationError as fault:
        raise ScenarioError(f"{place}: {_one_line(fault)}") from fault


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split())


class Playground(Steered, SteeredAccount, Protocol):
    """What a scenario needs of the simulator beside its acts."""

    faults: Faults


class ScenarioRun:
    """One run of a scenario. Stopped or replaced on the way, it leaves the faults as they are."""

    def __init__(self, scenario: Scenario, simulator: Playground, first_client: Callable[[], Awaitable[None]]) -> None:
        self.step = 0
        """The number of the step that began last; 0 before the first."""
        self.is_running = True
        self._scenario = scenario
        self._simulator = simulator
        self._first_client = first_client

    async def run(self) -> None:
        """Play to the end."""
        try:
            if self._scenario.begin is Begin.FIRST_CLIENT:
                await self._first_client()
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            for moment in timeline(self._scenario.steps):
                await asyncio.sleep(began_s + moment.at_s - loop.time())
                await self._play(moment)
        finally:
            self.is_running = False

    async def _play(self, moment: Moment) -> None:
        what = self._scenario.steps[moment.number - 1].what
        log.info("scenario_step", step=moment.number, ends=moment.is_end)
        if not isinstance(what, FaultChange):
            self.step = moment.number
            await self._carry_out(what)
        elif moment.is_end:
            self._simulator.faults = as_default(self._simulator.faults, what.changes)
        else:
            self.step = moment.number
            self._simulator.faults = merged(self._simulator.faults, what.changes)

    async def _carry_out(self, act: Act | AccountAct) -> None:
        """Carry out an act; one that the account cannot do is passed over, and the scenario goes on."""
        try:
            await act.carry_out(self._simulator)
        except AccountError as fault:
            log.warning("scenario_act_refused", step=self.step, why=str(fault))
