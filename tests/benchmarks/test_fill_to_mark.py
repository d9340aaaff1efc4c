from pathlib import Path

import pytest

from benchmarks.fill_to_mark import live_symbols, measure_fill_to_mark
from benchmarks.run import main


@pytest.mark.parametrize("line", [b"", b"\n", b": keep-alive\n", b"event: pnl\n", b"id: 7\n"])
def test_a_line_without_data_shows_nothing(line: bytes) -> None:
    assert live_symbols(line) == set()


def test_only_what_has_a_real_time_mark_counts() -> None:
    line = (
        b'data: {"positions":[{"symbol":"S0","price_source":"real-time","qty":1},'
        b'{"symbol":"S1","price_source":"unavailable"},{"symbol":"S2","price_source":"stale"}],"complete":false}\n'
    )
    assert live_symbols(line) == {"S0"}


def test_two_fills_are_followed_to_their_marks(tmp_path: Path) -> None:
    half, most, slowest = measure_fill_to_mark(tmp_path, fills=2)
    assert "p50 of 2 new symbols" in half.name
    assert 0 < half.value <= most.value == slowest.value < 20
    assert (half.target, slowest.target) == (None, None)
    assert most.target is not None
    assert most.target.bound == 2.0


def test_it_can_be_measured_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "fill-to-mark" in capsys.readouterr().out
