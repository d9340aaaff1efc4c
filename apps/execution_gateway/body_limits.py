"""How long a request may be, path by path: a whole file of fills is longer than anything else that is asked of us."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from libs.service.limits import BodyLimitMiddleware

IMPORT_PATH: Final = "/api/v1/fills/import"
MAX_IMPORT_BYTES: Final = 16 * 1024 * 1024
"""Enough for the longest list of fills with the longest ids, twice."""


class BodyLimits:
    """Answer 413 to a body of more than `MAX_IMPORT_BYTES` on the import's path, and to much less on all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._usual = BodyLimitMiddleware(app)
        self._import = BodyLimitMiddleware(app, MAX_IMPORT_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        is_import = scope["type"] == "http" and scope["path"] == IMPORT_PATH and scope["method"] == "POST"
        await (self._import if is_import else self._usual)(scope, receive, send)
