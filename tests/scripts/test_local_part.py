"""The logs of `make run`: they name trades, so nobody but their owner may read them."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.local_part import LocalPart, PrivateLog


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(log: PrivateLog, lines: int) -> None:
    for number in range(lines):
        log.emit(logging.LogRecord("gateway", logging.INFO, "", 0, f"fill_recorded {number}", None, None))


def test_a_log_and_its_rotated_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "log" / "execution-gateway.log"
    log = PrivateLog(path, maxBytes=100, backupCount=3, encoding="utf-8")
    write(log, 50)
    log.close()
    kept = sorted(path.parent.iterdir())
    assert [one.name for one in kept] == [path.name, *(f"{path.name}.{number}" for number in (1, 2, 3))]
    assert {mode(one) for one in kept} == {0o600}
    assert mode(path.parent) == 0o700
    assert mode(tmp_path / "log") == 0o700


def test_what_others_could_read_is_tightened(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir(mode=0o755)
    for name in ("gateway.log", "gateway.log.1"):
        (folder / name).write_text("fill_recorded\n")
        (folder / name).chmod(0o644)
    log = PrivateLog(folder / "gateway.log", maxBytes=1_000, backupCount=3, encoding="utf-8")
    write(log, 1)
    log.close()
    assert {mode(one) for one in folder.iterdir()} == {0o600}
    assert mode(folder) == 0o700
    assert (folder / "gateway.log").read_text() == "fill_recorded\nfill_recorded 0\n"


async def test_a_part_of_the_local_stack_logs_privately(tmp_path: Path) -> None:
    path = tmp_path / "log" / "part.log"

    part = LocalPart("part", ["this"], dict(os.environ), path, lambda _part, _code: None)
    await part._run_once()  # `run` would start it again
    assert "Zen of Python" in path.read_text()
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
