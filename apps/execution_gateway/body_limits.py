"""How long a request may be, path by path: a whole file of fills is longer than anything else that is asked of us."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from libs.service.limits import BodyLimitMiddleware, read_away
from libs.service.problems import send_problem, standard_problem

IMPORT_PATH: Final = "/api/v1/fills/import"
MAX_IMPORT_BYTES: Final = 16 * 1024 * 1024
"""Enough for the longest list of fills with the longest ids, twice."""
IMPORT_TURN_S: Final = 10.0
"""How long an import waits for the one before it."""
_RETRY_AFTER_S: Final = 5


class BodyLimits:
    """Answer 413 to a body of more than `MAX_IMPORT_BYTES` on the import's path, and to much less on all others.

    One import at a time has its body read: the next waits for up to `turn_s`, then it is answered 503. What a waiting
    one has sent stays in the socket.
    """

    def __init__(self, app: ASGIApp, turn_s: float = IMPORT_TURN_S) -> None:
        self._usual = BodyLimitMiddleware(app)
        self._import = BodyLimitMiddleware(app, MAX_IMPORT_BYTES)
        self._turn = asyncio.Lock()
        self._turn_s = turn_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 or 503."""
        is_import = scope["type"] == "http" and scope["path"] == IMPORT_PATH and scope["method"] == "POST"
        if not is_import:
            await self._usual(scope, receive, send)
            return
        async with self._import_turn() as is_our_turn:
            if is_our_turn:
                await self._import(scope, receive, send)
                return
        await read_away(receive)
        detail = f"other imports were under way for {self._turn_s:g} s: try this one again; nothing of it was recorded"
        problem = standard_problem(503, detail)
        problem.headers |= {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"}
        await send_problem(send, problem)

    @contextlib.asynccontextmanager
    async def _import_turn(self) -> AsyncIterator[bool]:
        """Hold the turn for the block; False when it did not come in time."""
        try:
            async with asyncio.timeout(self._turn_s):
                await self._turn.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self._turn.release()
