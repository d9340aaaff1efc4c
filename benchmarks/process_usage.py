"""What a process has used so far: CPU seconds and resident memory, from /proc on Linux and from `ps` elsewhere."""

import os
import subprocess
from pathlib import Path
from typing import Final

_STAT_UTIME: Final = 11
_STAT_STIME: Final = 12
"""Places in /proc/<pid>/stat counted from behind the command's closing bracket (proc(5): fields 14 and 15)."""
_KB_PER_MB: Final = 1024


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and all its threads, user and system. Raises OSError when it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        return parse_stat(stat.read_text(encoding="ascii"), os.sysconf("SC_CLK_TCK"))
    return parse_ps_time(_ps(pid, "time"))


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB. Raises OSError when it is gone."""
    statm = Path(f"/proc/{pid}/statm")
    if statm.exists():
        pages = int(statm.read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / _KB_PER_MB**2
    return int(_ps(pid, "rss")) / _KB_PER_MB


def parse_stat(text: str, ticks_per_s: int) -> float:
    """Return the CPU seconds in the content of /proc/<pid>/stat: `71 (python -m x) S 1 71 … 1234 56 …`."""
    fields = text.rpartition(")")[2].split()
    return (int(fields[_STAT_UTIME]) + int(fields[_STAT_STIME])) / ticks_per_s


def parse_ps_time(text: str) -> float:
    """Return the seconds in ps's `[[days-]hours:]minutes:seconds`: `0:01.23`, `2-03:04:05`."""
    days, _, clock = text.strip().rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + int(days or 0) * 86_400


def _ps(pid: int, column: str) -> str:
    done = subprocess.run(
        ["/bin/ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=5
    )
    if done.returncode or not done.stdout.strip():
        raise ProcessLookupError(f"no process {pid}")
    return done.stdout
