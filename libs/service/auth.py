"""Lets only those with the token in. Live and ready stay open: whoever restarts a service need not know its secret."""

import hmac
from collections.abc import Collection
from typing import Final

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.service.problems import send_problem, standard_problem

OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready"})
_HEADER: Final = b"authorization"
_POLICY_VIOLATION: Final = 1008


class BearerAuthMiddleware:
    """Demand `Authorization: Bearer <token>` on every path but `open_paths`. `token` None demands nothing."""

    def __init__(self, app: ASGIApp, token: SecretStr | None = None, open_paths: Collection[str] = OPEN_PATHS) -> None:
        self._app = app
        self._token = None if token is None else token.get_secret_value().encode()
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if self._token is None or scope["type"] == "lifespan" or self._may_pass(scope, self._token):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            problem = standard_problem(401, "send the service's token: Authorization: Bearer <API_TOKEN>")
            problem.headers["WWW-Authenticate"] = "Bearer"
            await send_problem(send, problem)

    def _may_pass(self, scope: Scope, token: bytes) -> bool:
        if scope["path"] in self._open_paths:
            return True
        given = [value for name, value in scope["headers"] if name == _HEADER]
        if len(given) != 1:
            return False
        scheme, _, credentials = given[0].partition(b" ")
        # Compared in constant time: how long a refusal takes must not tell how much was right.
        return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), token)
