import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from apps.execution_gateway.body_limits import IMPORT_PATH, BodyLimits
from libs.service.limits import BodyLimitMiddleware
from tests.support.waiting import eventually


class Caller:
    """Calls an ASGI application; `body` arrives when `send_body` is set."""

    def __init__(self, path: str = IMPORT_PATH) -> None:
        self.scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        self.send_body = asyncio.Event()
        self.reads = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        self.reads += 1
        await self.send_body.wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


async def app(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def calling(limits: Any, *callers: Caller) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(limits(one.scope, one.receive, one.send)) for one in callers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_import_at_a_time_has_its_body_read() -> None:
    callers = [Caller() for _ in range(8)]
    async with calling(BodyLimits(app), *callers) as tasks:
        for served, caller in enumerate(callers):
            await eventually(lambda one=caller: one.reads == 1)
            assert [one.status for one in callers] == [200] * served + [None] * (8 - served)
            assert sum(one.reads for one in callers) == served + 1, "the others' bytes stay in their sockets"
            caller.send_body.set()
            await eventually(lambda one=caller: one.status == 200)
        await asyncio.gather(*tasks)


async def test_an_import_whose_turn_does_not_come_is_told_to_try_again() -> None:
    first, second, third, usual = Caller(), Caller(), Caller(), Caller("/api/v1/fills")
    limits = BodyLimits(app, turn_s=0.01)
    async with calling(limits, first) as tasks:
        await eventually(lambda: first.reads == 1)
        second.send_body.set()
        await limits(second.scope, second.receive, second.send)
        assert second.status == 503
        assert second.headers[b"retry-after"] == b"5"
        assert b"nothing of it was recorded" in second.sent[1]["body"]
        usual.send_body.set()
        await limits(usual.scope, usual.receive, usual.send)
        assert usual.status == 200, "nobody else waits for an import"
        first.send_body.set()
        await asyncio.gather(*tasks)
        third.send_body.set()
        await limits(third.scope, third.receive, third.send)
        assert third.status == 200


async def test_an_import_that_is_given_up_gives_up_its_turn() -> None:
    first, second = Caller(), Caller()
    limits = BodyLimits(app)
    async with calling(limits, first):
        await eventually(lambda: first.reads == 1)
    second.send_body.set()
    await limits(second.scope, second.receive, second.send)
    assert second.status == 200


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    caller = Caller()
    await BodyLimitMiddleware(app, timeout_s=0.01)(caller.scope, caller.receive, caller.send)
    assert (caller.status, caller.headers[b"connection"]) == (408, b"close")
    assert b"did not arrive within 0.01 s" in caller.sent[1]["body"]
