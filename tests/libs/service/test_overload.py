"""A bounded line: some do, some wait, the others learn that this is overload."""

import asyncio

import pytest

from libs.service.overload import OverloadedError, WaitingLine
from tests.support.waiting import eventually


def line(**changes: float) -> WaitingLine:
    known = {"at_once": 2, "most_waiting": 3, "wait_s": 3600.0}
    return WaitingLine("the ledger", **{**known, **changes})  # type: ignore[arg-type]


async def test_a_few_at_a_time_in_the_order_they_came() -> None:
    waiting, under_way, most, order = line(most_waiting=100), 0, 0, []

    async def work(number: int) -> None:
        nonlocal under_way, most
        async with waiting.turn():
            under_way += 1
            most = max(most, under_way)
            order.append(number)
            await asyncio.sleep(0)
            under_way -= 1

    await asyncio.gather(*(work(number) for number in range(20)))
    assert (most, order) == (2, list(range(20)))


async def test_who_finds_the_line_full_is_refused_at_once() -> None:
    waiting, may_end = line(), asyncio.Event()

    async def work() -> None:
        async with waiting.turn():
            await may_end.wait()

    admitted = [asyncio.create_task(work()) for _ in range(5)]
    await eventually(lambda: waiting._waiting == 3)
    with pytest.raises(OverloadedError, match="overloaded: 3 requests for the ledger are waiting; ask again in 2 sec"):
        await work()
    assert waiting.refused == 1
    may_end.set()
    await asyncio.gather(*admitted)
    await work()


async def test_who_waits_too_long_is_refused_and_leaves_the_line() -> None:
    waiting = line(at_once=1, wait_s=0.01)
    async with waiting.turn():
        with pytest.raises(OverloadedError, match="has waited for"):
            async with waiting.turn():
                pytest.fail("it is not its turn")
        assert (waiting.refused, waiting._waiting) == (1, 0)
    async with waiting.turn():
        pass


async def test_a_turn_ends_with_its_block_and_with_its_caller() -> None:
    waiting = line(at_once=1)
    with pytest.raises(LookupError):
        async with waiting.turn():
            raise LookupError
    async with waiting.turn():
        gone = asyncio.create_task(waiting.turn().__aenter__())
        await eventually(lambda: waiting._waiting == 1)
        gone.cancel()
        await asyncio.wait([gone])
        assert waiting._waiting == 0
    async with waiting.turn():
        pass
