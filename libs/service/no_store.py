"""Forbids browsers and proxies to keep answers: a figure shown from a cache is an old figure shown as live."""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEPT_PATHS: Final = frozenset({"/openapi.json"})
"""What holds no figures, and may be kept."""


class NoStoreMiddleware:
    """Set `Cache-Control: no-store` on every answer, errors included, but on those of `kept` and those that set one."""

    def __init__(self, app: ASGIApp, kept: Collection[str] = KEPT_PATHS) -> None:
        self._app = app
        self._kept = frozenset(kept)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and mark its answer."""
        if scope["type"] != "http" or scope["path"] in self._kept:
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, marked)
