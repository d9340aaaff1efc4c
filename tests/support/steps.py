"""Counts the work of a call, so that a test can hold its growth to linear without a clock."""

import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FrameType
from typing import Any

_ONE_STEP = {"append", "pop", "startswith", "endswith"}
_WALKED = (bytes, bytearray, str, list, tuple)


def steps_of(call: Callable[[], object]) -> int:
    """Return how many calls `call` makes; one of a method that walks through its own text or list counts its length."""
    steps = 0

    def count(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal steps
        if event == "call":
            steps += 1
        elif event == "c_call":
            owner = called.__self__ if isinstance(called, BuiltinFunctionType) else None
            walks = isinstance(owner, _WALKED) and called.__name__ not in _ONE_STEP
            steps += max(1, len(owner)) if walks else 1  # type: ignore[arg-type]  # only where it has a length

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(before)
    return steps
