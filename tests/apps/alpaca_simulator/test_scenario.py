"""Scenarios: what is read, what is refused with which line, the order of the timeline, and one that is played."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.acts import Drop, Halt, Quotes
from apps.alpaca_simulator.protocol import ErrorCode
from apps.alpaca_simulator.scenario import (
    Begin,
    FaultChange,
    Moment,
    ScenarioError,
    Step,
    read_scenario,
    read_scenario_file,
    timeline,
)
from tests.support.simulator import running_simulator
from tests.support.stream_client import authenticated
from tests.support.waiting import eventually

DOCS = Path(__file__).parents[3] / "docs" / "SIMULATOR.md"
SAMPLE = b"""
begin = "start"
[[step]]
at = 5.0
faults = { mute = true, auth_error = 402 }
for = 10.0
[[step]]
at = 30
act = "drop"
how = "tcp"
[[step]]
at = 31
act = "quotes"
quotes = [{ symbol = "AAPL", bid = 1, ask = 1.5 }]
"""


def test_a_file():
    scenario = read_scenario_file(SAMPLE)
    assert scenario.begin is Begin.START
    muted, dropped, quoted = scenario.steps
    assert muted == Step(5.0, FaultChange({"mute": True, "auth_error": 402}, 10.0))
    assert dropped == Step(30.0, Drop(how="tcp"))
    assert isinstance(quoted.what, Quotes)
    assert (quoted.what.quotes[0].bid, quoted.what.quotes[0].ask) == (1.0, 1.5)


def test_plain_values_begin_with_the_first_client():
    scenario = read_scenario({"steps": [{"at": 0, "act": "halt", "symbol": "AAPL"}]})
    assert scenario.begin is Begin.FIRST_CLIENT
    assert scenario.steps == (Step(0.0, Halt(symbol="AAPL")),)


def test_the_documented_file_is_read():
    text = DOCS.read_text()
    (block,) = (part.partition("```")[0] for part in text.split("```toml\n")[1:])
    assert len(read_scenario_file(block.encode()).steps) > 3


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "step: at least one is needed"),
        ("begin =", "not readable as TOML"),
        ("\udcff", "not readable as TOML"),
        ("start = 1", "start: no such field"),
        ('begin = "now"\n[[step]]\nat = 1', "begin: "),
        ("step = 1", "step: "),
        ("step = [1]", "step: "),
        ("[[step]]\nact = 'drop'", "step 1, at: missing"),
        ("[[step]]\nat = -1\nact = 'drop'", "step 1, at: "),
        ("[[step]]\nat = nan\nact = 'drop'", "step 1, at: "),
        ("[[step]]\nat = '1'\nact = 'drop'", "step 1, at: "),
        ("[[step]]\nat = 1", "step 1: give either faults or an act"),
        ("[[step]]\nat = 1\nact = 'drop'\nfaults = {mute = true}", "step 1: give either faults or an act"),
        ("[[step]]\nat = 1\nact = 'drop'\n[[step]]\nat = 2\nact = 'fly'", "step 2, act: 'fly' is none of drop"),
        ("[[step]]\nat = 1\nact = 7", "step 1, act: "),
        ("[[step]]\nat = 1\nact = 'drop'\nfor = 3", "step 1, drop: Object contains unknown field `for`"),
        ("[[step]]\nat = 1\nact = 'drop'\nhow = 'gently'", "step 1, drop: Invalid enum value 'gently' - at `$.how`"),
        ("[[step]]\nat = 1\nact = 'halt'", "step 1, halt: Object missing required field `symbol`"),
        ("[[step]]\nat = 1\nfaults = 7", "step 1, faults: "),
        ("[[step]]\nat = 1\nfaults = {mte = true}", "step 1, faults.mte: no such switch"),
        ("[[step]]\nat = 1\nfaults = {mute = 1}", "step 1, faults.mute: "),
        ("[[step]]\nat = 1\nfaults = {frame_delay_s = nan}", "step 1, faults.frame_delay_s: "),
        ("[[step]]\nat = 1\nfaults = {mute = true}\nfor = true", "step 1, for: "),
        ("[[step]]\nat = 1\nfaults = {mute = true}\nwhile = 1", "step 1, while: no such field"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_place(text, place):
    with pytest.raises(ScenarioError) as refused:
        read_scenario_file(text.encode(errors="surrogateescape"))
    assert str(refused.value).startswith(place)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("document", [None, 1, "steps", [], {"step": []}, {"steps": []}, {"steps": {}}])
def test_wrong_values(document):
    with pytest.raises(ScenarioError):
        read_scenario(document)


def change(at_s, for_s=None):
    return Step(at_s, FaultChange({}, for_s))


def test_what_ends_goes_before_what_begins():
    steps = [change(5.0, 1.0), Step(6.0, Drop()), change(0.0)]
    assert timeline(steps) == [
        Moment(0.0, 3, is_end=False),
        Moment(5.0, 1, is_end=False),
        Moment(6.0, 1, is_end=True),
        Moment(6.0, 2, is_end=False),
    ]


@given(st.lists(st.builds(change, st.floats(0, 100), st.none() | st.floats(0.001, 10)), max_size=8))
def test_every_step_begins_once_and_ends_after_its_beginning(steps):
    moments = timeline(steps)
    assert [moment.at_s for moment in moments] == sorted(moment.at_s for moment in moments)
    begun = [moment.number for moment in moments if not moment.is_end]
    assert sorted(begun) == list(range(1, len(steps) + 1))
    for moment in moments:
        if moment.is_end:
            beginning = next(m for m in moments if m.number == moment.number and not m.is_end)
            assert moments.index(beginning) < moments.index(moment)


def scenario(*steps, begin="first_client"):
    return read_scenario({"begin": begin, "steps": list(steps)})


async def test_it_waits_for_the_first_client_and_takes_faults_back():
    script = scenario(
        {"at": 0.05, "faults": {"auth_error": 402, "mute": True}, "for": 1},
        {"at": 0.1, "faults": {"no_ack": True}},
        {"at": 0.15, "act": "halt", "symbol": "AAPL"},
    )
    async with running_simulator(rate=0, scenario=script) as sim:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await eventually(lambda: sim.scenario.step, within_s=9)
        async with authenticated(sim.stream_url()):
            await eventually(lambda: sim.faults.auth_error is ErrorCode.AUTH_FAILED and sim.faults.mute)
            await eventually(lambda: sim.scenario.step == 3)
            assert sim.halted == {"AAPL"}
            await eventually(lambda: not sim.scenario.is_running)
        assert sim.faults.no_ack
        assert not sim.faults.mute
        assert sim.faults.auth_error is None


async def test_it_may_begin_with_the_simulator():
    async with running_simulator(
        rate=0, scenario=scenario({"at": 0, "act": "halt", "symbol": "KO"}, begin="start")
    ) as sim:
        await eventually(lambda: sim.halted == {"KO"})


async def test_a_new_one_takes_the_place_of_a_running_one():
    async with running_simulator(rate=0) as sim:
        first = scenario({"at": 0, "faults": {"mute": True}, "for": 600}, begin="start")
        sim.start_scenario(first)
        await eventually(lambda: sim.faults.mute)
        replaced = sim.scenario
        sim.start_scenario(scenario({"at": 0, "act": "market", "setting": "closed"}, begin="start"))
        await eventually(lambda: sim.market_setting == "closed")
        await eventually(lambda: not replaced.is_running)
        assert sim.faults.mute, "stopping on the way leaves the faults"
        sim.stop_scenario()
        assert sim.scenario is None


async def test_one_that_runs_ends_with_the_simulator():
    async with running_simulator(rate=0) as sim:
        sim.start_scenario(scenario({"at": 600, "act": "drop"}, begin="start"))
        running = sim.scenario
        await eventually(lambda: running.is_running)
        await sim.stop()
        await eventually(lambda: not running.is_running)
