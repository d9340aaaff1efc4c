"""Lets the web pages of `ALLOWED_ORIGINS` use a service from a browser (CORS): answers preflights, marks all answers.

A browser asks beforehand, without the token, whether a page may send one; and it shows a page no answer, errors
included, that does not name the page's origin.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.service.problems import send_problem, standard_problem

METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED: Final = "Allow, Retry-After, WWW-Authenticate"
"""The headers of an answer that a page may read, beside those that it always may."""
USUAL_REQUEST_HEADERS: Final = "Authorization, Content-Type"
PREFLIGHT_HELD_S: Final = 600

_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")
_VARY: Final = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class CrossOriginMiddleware:
    """Serve pages of the `allowed` origins. Without any it changes nothing.

    It belongs outside whatever refuses requests: a preflight carries no token.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass the request on and mark its answer."""
        if scope["type"] != "http" or not self._allowed:
            await self._app(scope, receive, send)
            return
        origin = page_origin(scope)
        if origin not in self._allowed:
            await self._app(scope, receive, _marking(send, {}))
            return
        headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in given:
            await _answer_preflight(send, origin, given)
            return
        await self._serve(scope, receive, _marking(send, headers))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. An error of our own is answered here, where the answer is still marked."""
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if not has_begun:
                await send_problem(send, standard_problem(500, "the service met an error of its own; see its log"))
            raise


def page_origin(scope: Scope) -> str:
    """Return the origin of the page that asks; empty when none is named, or more than one."""
    given = [value for name, value in scope["headers"] if name == b"origin"]
    return given[0].decode("latin-1") if len(given) == 1 else ""


async def _answer_preflight(send: Send, origin: str, given: Mapping[bytes, str]) -> None:
    asked = given.get(b"access-control-request-headers", "")
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": asked if _HEADER_NAMES.fullmatch(asked) else USUAL_REQUEST_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_HELD_S),
        "Vary": _VARY,
    }
    # A browser asks this where a page from the internet calls a service of its own machine or network.
    if given.get(b"access-control-request-private-network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 204, "headers": raw})
    await send({"type": "http.response.body", "body": b""})


def _marking(send: Send, headers: Mapping[str, str]) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer = MutableHeaders(scope=message)
            answer.update(headers)
            answer.add_vary_header("Origin")
        await send(message)

    return marked
