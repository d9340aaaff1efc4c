"""Makes a child process end with its parent, however the parent dies, SIGKILL included.

Two ways at once. Linux can signal a child when the thread that forked it dies; it needs no helper, but is Linux's and
speaks of a thread. Everywhere, a tiny shell waits on a pipe whose other end only the parent holds: when the parent is
gone the pipe ends, and the shell kills the child.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1

# $0 is the child's process id, $1 a file of its, $2 the folder to remove once that is gone ("" for neither).
# `read` returns when the pipe ends: nothing is ever written to it.
_WATCH: Final = 'read -r _; kill -9 "$0"; [ -z "$2" ] || { rm -f "$1"; rmdir "$2"; }'


def die_with_parent() -> Callable[[], None] | None:
    """Return what Popen's `preexec_fn` must call in the child; None where only the pipe can do it.

    The signal follows the forking *thread*, so a helper thread that ends early would take the child with it.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    # Loaded here: between fork and exec nothing may be imported.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_for_signal() -> None:  # pragma: no cover  # runs in the forked child, where coverage cannot follow
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died between the fork and this call.
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_signal


class ParentWatch:
    """Kill process `pid` as soon as this process is gone. Close it when that process has ended.

    With `leftover`, that one file and its then empty folder go too.
    """

    def __init__(self, pid: int, leftover: Path | None = None) -> None:
        paths = ("", "") if leftover is None else (str(leftover), str(leftover.parent))
        self._shell = subprocess.Popen(  # noqa: S603  # a fixed text, a number and our own temporary paths
            ["/bin/sh", "-c", _WATCH, str(pid), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def close(self) -> None:
        """Stop watching. The shell goes first, so that it never kills a process that was given the same id later."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()
