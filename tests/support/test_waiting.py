import asyncio

import pytest

from tests.support.waiting import eventually


async def test_returns_the_first_truthy_value_of_a_sync_or_async_condition() -> None:
    values = iter([0, None, "yes"])
    assert await eventually(lambda: next(values), every_s=0) == "yes"

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert await eventually(answer) == 42


async def test_a_failed_assertion_counts_as_not_yet() -> None:
    tries = iter(range(10))

    def third_time() -> bool:
        assert next(tries) >= 2
        return True

    assert await eventually(third_time, every_s=0)


async def test_says_what_it_waited_for_and_saw() -> None:
    def never() -> int:
        return 0

    with pytest.raises(AssertionError, match=r"never.* did not come true within 0.01 s; last: 0"):
        await eventually(never, within_s=0.01)


async def test_other_errors_are_not_waited_out() -> None:
    def broken() -> bool:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await eventually(broken)
