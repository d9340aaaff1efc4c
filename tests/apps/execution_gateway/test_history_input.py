"""What may be asked of the P&L history."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.fill_input import InvalidInputError
from apps.execution_gateway.history_input import (
    DEFAULT_POINTS,
    MAX_POINTS,
    HistoryQuery,
    default_step_ms,
    parse_history_query,
    point_count,
)
from apps.execution_gateway.pnl_history import Sampling
from libs.market_data.prices import Mode

NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)
RULE = Sampling(5_000)


def parse(**parameters: str) -> HistoryQuery:
    return parse_history_query([(name.rstrip("_"), value) for name, value in parameters.items()], NOW, RULE)


def faults(*parameters: tuple[str, str]) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        parse_history_query(parameters, NOW, RULE)
    return {fault.field: fault.message for fault in caught.value.faults}


def test_the_last_day_is_the_default() -> None:
    query = parse()
    assert (query.since, query.until, query.mode) == (NOW - timedelta(hours=24), NOW, None)
    assert query.step_ms == 45_000
    assert parse(from_="", to="", step="", mode="") == query


def test_everything_may_be_said() -> None:
    query = parse(from_="2025-10-20T09:30:00-04:00", to="2025-10-20T14:00:00Z", step="12.5", mode="paper")
    opening = datetime(2025, 10, 20, 13, 30, tzinfo=UTC)
    assert query == HistoryQuery(opening, opening + timedelta(minutes=30), 12_500, Mode.PAPER)
    assert parse(to="2025-10-20T14:00:00Z").since == opening - timedelta(hours=23, minutes=30)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("from", "2025-10-20T09:30:00", "zone"),
        ("to", "yesterday", "ISO-8601"),
        ("to", "2025-10-20T09:30:00 00:00", "%2B"),
        ("from", "1969-01-01T00:00:00Z", "1971"),
        ("to", "9999-12-31T23:59:59-10:00", "9998"),
        ("to", "0001-01-01T00:00:00+10:00", "1971"),
        ("from", "2025-10-20T15:00:00Z", "before `to`"),
        ("from", "2025-10-21T00:00:00Z", "before `to`"),
        ("step", "0", "at least 5"),
        ("step", "4.999", "at least 5"),
        ("step", "-60", "at least 5"),
        ("step", "1e3", "at least 5"),
        ("step", "NaN", "at least 5"),
        ("step", "60s", "at least 5"),
        ("mode", "money", "simulated, replay, paper, live"),
        ("stop", "60", "unknown parameter: known are from, to, step, mode"),
    ],
)
def test_what_is_refused_is_named(name: str, value: str, hint: str) -> None:
    found = faults((name, value))
    assert found.keys() == {name}
    assert hint in found[name]


def test_every_fault_is_told_and_nothing_may_be_said_twice() -> None:
    found = faults(("from", "x"), ("to", "y"), ("step", "0"), ("mode", "z"), ("Step", "60"))
    assert found.keys() == {"from", "to", "step", "mode", "Step"}
    assert faults(("step", "60"), ("step", "90"))["step"] == "given more than once"


def test_the_points_asked_for_are_bounded() -> None:
    end = NOW.isoformat()
    most = (NOW - timedelta(seconds=5 * (MAX_POINTS - 1))).isoformat()
    assert parse(from_=most, to=end, step="5").step_ms == 5_000
    more = (NOW - timedelta(seconds=5 * MAX_POINTS)).isoformat()
    assert "20,001" in faults(("from", more), ("to", end), ("step", "5"))["step"]


@given(
    st.integers(1, 5 * 365 * 86_400_000),
    st.integers(0, 10_000_000),
    st.sampled_from([1_000, 1_500, 5_000, 60_000, 3_600_000]),
)
def test_without_a_step_there_are_never_too_many_points(length_ms: int, offset_ms: int, every_ms: int) -> None:
    rule = Sampling(every_ms)
    since = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(milliseconds=offset_ms)
    until = since + timedelta(milliseconds=length_ms)
    step_ms = default_step_ms(since, until, rule)
    assert step_ms % every_ms == 0
    # And one that began before and still stood.
    assert point_count(since, until, step_ms) + 1 <= DEFAULT_POINTS
    if step_ms > every_ms:
        assert length_ms / (step_ms - every_ms) > DEFAULT_POINTS - 4
