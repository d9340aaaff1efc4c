"""Wait for something to become true, instead of sleeping and hoping."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(condition: Callable[[], Awaitable[T] | T], within_s: float = 5.0, every_s: float = 0.02) -> T:
    """Return the first truthy value of `condition` (sync or async), asked every `every_s` seconds.

    An AssertionError inside it counts as "not yet". Raises AssertionError with its last word after `within_s`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        try:
            answer = condition()
            value: T = await answer if inspect.isawaitable(answer) else answer
            if value:
                return value
            last = repr(value)
        except AssertionError as error:
            last = f"AssertionError: {error}"
        if loop.time() >= deadline:
            raise AssertionError(f"{_name(condition)} did not come true within {within_s} s; last: {last}")
        await asyncio.sleep(every_s)


def _name(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip().splitlines()[0]
    except (OSError, TypeError):
        return repr(condition)
