"""Refuses request bodies that no honest client sends, before they are parsed or fill the memory."""

import asyncio
import contextlib
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.service.problems import send_problem, standard_problem

MAX_BODY_BYTES: Final = 65536
BODY_TIMEOUT_S: Final = 30.0
"""How long a body may take to arrive: whoever sends a byte a second keeps a connection for ever."""
_READ_AWAY_BYTES: Final = 16 * 1024 * 1024
_READ_AWAY_S: Final = 2.0


class BodyLimitMiddleware:
    """Answer 413 to a body of more than `max_bytes`, its length announced or not; 408 to one not here in `timeout_s`.

    The body is gathered before the application runs: within the limit that is little memory, and the application
    can then not mistake the cut for a bad request of its own.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 or 408."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = None if self._announces_too_much(scope) else await self._gather(receive)
        except TimeoutError:
            await self._give_up(send)
            return
        if body is None:
            await read_away(receive)
            await self._refuse(send)
        else:
            await self._app(scope, _replay(body, receive), send)

    def _announces_too_much(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"content-length":
                return not value.isdigit() or int(value) > self._max_bytes
        return False

    async def _gather(self, receive: Receive) -> Message | None:
        """Return the whole body as one message, None when it is too long, or the client's disconnect."""
        chunks: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            chunks.append(message.get("body", b""))
            length += len(chunks[-1])
            if length > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return {"type": "http.request", "body": b"".join(chunks), "more_body": False}

    async def _give_up(self, send: Send) -> None:
        problem = standard_problem(408, f"the body did not arrive within {self._timeout_s:g} s; send it again")
        problem.headers["Connection"] = "close"
        await send_problem(send, problem)

    async def _refuse(self, send: Send) -> None:
        problem = standard_problem(413, f"the body is longer than {self._max_bytes} bytes; send less at a time")
        # What may be left of the body is never read, so the connection cannot be used again.
        problem.headers["Connection"] = "close"
        await send_problem(send, problem)


async def read_away(receive: Receive) -> None:
    """Take in what is still coming, within reason: closing on unread bytes resets, and the answer is lost."""
    left = _READ_AWAY_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READ_AWAY_S):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


def _replay(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message
