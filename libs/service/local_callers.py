"""Where no token is asked for, serves only what this machine itself asks, not what a web page makes its browser ask.

Listening on loopback keeps other machines out, but a page of anywhere runs in a browser here: it may post without being
asked back, and by a name of its own that it lets point to 127.0.0.1 (DNS rebinding) read the answers too.
"""

import re
from collections.abc import Collection
from typing import Final

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.service.problems import send_problem, standard_problem
from libs.service.settings import is_loopback

_HOST: Final = rb"(\[[0-9a-fA-F:.]+\]|[^:/@\[\]]+)(?::[0-9]*)?"
_ASKED: Final = re.compile(_HOST)
_ORIGIN: Final = re.compile(rb"https?://" + _HOST)
_REMEDY: Final = "ask as 127.0.0.1 or localhost, or set API_TOKEN and send it; a page of your own: ALLOWED_ORIGINS"
_POLICY_VIOLATION: Final = 1008


class LocalCallersMiddleware:
    """Answer 403 to requests under a name that is not this machine's own, and to those of pages from elsewhere.

    Pages of the `allowed` origins are served. With a `token` all pass: who knows it is not a stranger, and others are
    refused because they lack it.
    """

    def __init__(self, app: ASGIApp, token: SecretStr | None = None, allowed: Collection[str] = ()) -> None:
        self._app = app
        self._is_active = token is None
        self._allowed = frozenset(origin.encode("ascii") for origin in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        is_request = scope["type"] in {"http", "websocket"}
        refusal = _refusal(scope["headers"], self._allowed) if self._is_active and is_request else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await send_problem(send, standard_problem(403, f"without API_TOKEN {refusal}: {_REMEDY}"))


def _refusal(headers: list[tuple[bytes, bytes]], allowed: Collection[bytes]) -> str | None:
    """Return why a request is refused; None when it is not. Browsers always say a host, and a page its origin."""
    for name, value in headers:
        if name == b"host" and value and not _is_local(_ASKED, value):
            return "only this machine's own names are served"
        if name == b"origin" and value not in allowed and not _is_local(_ORIGIN, value):
            return "no web page from elsewhere is served"
    return None


def _is_local(form: re.Pattern[bytes], value: bytes) -> bool:
    found = form.fullmatch(value)
    return found is not None and is_loopback(found[1].decode("latin-1"))
