import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import Figure, as_json, at_least, at_most, percentile, table


@pytest.mark.parametrize(("pct", "expected"), [(50, 3.0), (99, 5.0), (100, 5.0), (20, 1.0), (0, 1.0)])
def test_a_percentile_is_one_of_the_values(pct: float, expected: float) -> None:
    assert percentile([5.0, 1.0, 4.0, 2.0, 3.0], pct) == expected


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0, 100))
def test_a_percentile_has_that_share_at_or_below_it(values: list[float], pct: float) -> None:
    found = percentile(values, pct)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * pct / 100


def test_of_no_values_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 50)


def test_a_target_is_a_ceiling_or_a_floor_and_may_be_met_exactly() -> None:
    assert Figure("latency", 5.0, "ms", at_most(5)).passed is True
    assert Figure("latency", 5.01, "ms", at_most(5)).passed is False
    assert Figure("ratio", 20.0, "times", at_least(20)).passed is True
    assert Figure("ratio", 19.9, "times", at_least(20)).passed is False
    assert Figure("speed", 1.0, "/s").passed is None


def test_the_table_shows_target_measured_and_verdict_in_columns() -> None:
    figures = [
        Figure("latency p99", 7.153, "ms", at_most(5)),
        Figure("ratio", 27.94, "times", at_least(20)),
        Figure("quotes", 49344.0, "/s"),
    ]
    assert table(figures).splitlines() == [
        "                 target    measured",
        "latency p99      ≤ 5 ms     7.15 ms  FAIL",
        "ratio        ≥ 20 times  27.9 times  pass",
        "quotes                    49,344 /s",
    ]


def test_machines_read_the_same_figures() -> None:
    assert as_json(Figure("ratio", 27.9, "times", at_least(20))) == {
        "name": "ratio",
        "value": 27.9,
        "unit": "times",
        "target": 20,
        "target_is": "at least",
        "passed": True,
    }
    assert as_json(Figure("quotes", 1.0, "/s"))["target"] is None
