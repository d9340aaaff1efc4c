"""What a caller is told when a request fails: problem JSON (RFC 9457), one sentence with the remedy, never a trace."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Send

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_MAX_FIELDS_NAMED: Final = 20
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_UNPARSABLE_BODY: Final = "There was an error parsing the body"
"""What FastAPI says, with status 400, of bytes that are not even text or that are nested too deep."""

log = structlog.get_logger(__name__)


class Problem(Exception):  # noqa: N818  # the RFC's word
    """Raise it in a route to answer with a problem body. `extra` are further members of that body."""

    def __init__(
        self, status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: object
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra
        super().__init__(f"{status} {title}: {detail}")

    def body(self) -> bytes:
        """Return the JSON.

        Sample: `{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no /x here"}`
        """
        members = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        return msgspec.json.encode({**self.extra, **members})

    def response(self) -> Response:
        """Return the HTTP answer."""
        return Response(self.body(), self.status, self.headers, PROBLEM_MEDIA_TYPE)


def standard_problem(status: int, detail: str, **extra: object) -> Problem:
    """Return a problem whose title is the status's own phrase."""
    problem = Problem(status, _phrase(status), detail)
    problem.extra = extra
    return problem


async def send_problem(send: Send, problem: Problem) -> None:
    """Answer a bare ASGI request with a problem."""
    body = problem.body()
    headers = {"content-type": PROBLEM_MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def install_problem_handlers(app: FastAPI) -> None:
    """Make every failure of `app` a problem body: bad input, unknown paths and methods, our own bugs."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_bad_input)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  # Starlette chooses by this type
    return error.response()


async def _on_bad_input(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # Starlette chooses by this type
    return bad_input(error.errors()).response()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # Starlette chooses by this type
    detail, headers = str(error.detail) or _phrase(error.status_code), dict(error.headers or {})
    if detail == _UNPARSABLE_BODY:
        return standard_problem(422, "body: is no JSON; send UTF-8 text").response()
    if detail == _phrase(error.status_code):
        match error.status_code:
            case HTTPStatus.NOT_FOUND:
                detail = f"there is no {request.url.path} here"
            case HTTPStatus.METHOD_NOT_ALLOWED:
                # Starlette names the methods of the first route that has this path; there may be several.
                headers["Allow"] = ", ".join(_allowed_methods(request))
                detail = f"{request.method} does not work on {request.url.path}; use {headers['Allow']}"
    return Problem(error.status_code, _phrase(error.status_code), detail, headers=headers).response()


def _allowed_methods(request: Request) -> list[str]:
    """Return every method that some route serves on the request's path."""

    def is_served(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if is_served(method)]


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("unhandled_error", method=request.method, path=request.url.path, error=type(error).__name__)
    problem = standard_problem(500, "the service met an error of its own; its log has the details")
    problem.headers["Cache-Control"] = "no-store"  # this answer passes no middleware
    return problem.response()


def bad_input(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Return the 422 problem for pydantic's errors; `errors` in its body has one entry for each wrong field.

    At most 20 are named, `other_errors` counts the rest. What was sent is not repeated.
    """
    fields = [{"field": _field(error), "problem": _remedy(error)} for error in errors[:_MAX_FIELDS_NAMED]]
    detail = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
    others = len(errors) - len(fields)
    extra = {"other_errors": others} if others else {}
    if others:
        detail += f"; and {others:,} more"
    return standard_problem(422, detail or "the request is not understood", errors=fields, **extra)


def _field(error: Mapping[str, Any]) -> str:
    where, *path = [str(part) for part in error.get("loc", ())] or ["request"]
    # The position of a JSON syntax error is a number, not a field.
    if error.get("type") == "json_invalid":
        return where
    return ".".join(path) or where


def _remedy(error: Mapping[str, Any]) -> str:
    match error.get("type"):
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not known here; leave it out"
        case "json_invalid":
            return f"is no JSON: {error.get('ctx', {}).get('error', 'syntax error')}"
        case "model_attributes_type" | "dict_type" | "model_type" if list(error.get("loc", ())) == ["body"]:
            return "must be a JSON object, sent with Content-Type: application/json"
        case _:
            message = str(error.get("msg", "is wrong"))
            return message[:1].lower() + message[1:]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
