import os
import time

import pytest

from benchmarks.process_usage import cpu_seconds, parse_ps_time, parse_stat, resident_mb


def test_our_own_cpu_time_grows_with_work() -> None:
    before = cpu_seconds(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.05 <= cpu_seconds(os.getpid()) - before < 5


def test_our_own_memory_is_that_of_a_python_process() -> None:
    assert 10 < resident_mb(os.getpid()) < 2_000


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="no process"):
        cpu_seconds(2**22 + 1)


def test_the_command_in_a_stat_line_may_hold_anything() -> None:
    text = "71 (python) (x 1 2) S 1 71 71 0 -1 4194304 5 0 0 0 1234 66 7 8 20 0 3 0 99 1 2"
    assert parse_stat(text, 100) == 13.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:01.23", 1.23), (" 12:30.00\n", 750), ("01:02:03", 3723), ("2-03:04:05", 183845)]
)
def test_the_time_of_ps_is_read_in_all_its_forms(text: str, seconds: float) -> None:
    assert parse_ps_time(text) == pytest.approx(seconds)
