"""Shows how far a long piece of work has come: one line rewritten on a terminal, a few plain lines elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TextIO

_WIDTH: Final = 24
_ERASE_LINE: Final = "\r\x1b[K"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` steps, and what came of them in words."""

    done: int
    total: int
    result: str = ""

    @property
    def tenths(self) -> int:
        """Whole tenths that are done; ten of nothing."""
        return 10 if self.total <= 0 else 10 * self.done // self.total


class ProgressLine:
    """Writes to `stream`. On anything but a terminal each tenth is a line, and work of one step is none."""

    def __init__(self, what: str, stream: TextIO, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._shown_tenths = 0
        self._is_drawn = False

    def show(self, progress: Progress) -> None:
        """Show where the work stands."""
        if self._is_terminal:
            self._write(_ERASE_LINE + self._drawn(progress), is_drawn=True)
        elif progress.total > 1 and progress.tenths > self._shown_tenths:
            self._write(f"{self._what}: {_steps(progress)}\n", is_drawn=False)
        self._shown_tenths = progress.tenths

    def say(self, text: str) -> None:
        """Write a line of its own; the next `show` draws below it."""
        self.clear()
        self._write(f"{text}\n", is_drawn=False)

    def clear(self) -> None:
        """Take the line away, so that other output begins on an empty one."""
        if self._is_drawn:
            self._write(_ERASE_LINE, is_drawn=False)

    def _drawn(self, progress: Progress) -> str:
        filled = _WIDTH if progress.total <= 0 else _WIDTH * progress.done // progress.total
        return f"{self._what} [{'#' * filled}{'.' * (_WIDTH - filled)}] {_steps(progress)}{self._time_left(progress)}"

    def _time_left(self, progress: Progress) -> str:
        if not 0 < progress.done < progress.total:
            return ""
        left_s = (self._clock_s() - self._began_s) / progress.done * (progress.total - progress.done)
        return f", {int(left_s) // 60}:{int(left_s) % 60:02} left"

    def _write(self, text: str, *, is_drawn: bool) -> None:
        self._stream.write(text)
        self._stream.flush()
        self._is_drawn = is_drawn


def _steps(progress: Progress) -> str:
    result = f", {progress.result}" if progress.result else ""
    return f"{progress.done} of {progress.total} requests{result}"
