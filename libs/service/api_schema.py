"""Completes the /openapi.json of a service: whom it serves, and every failure as the problem body that it is.

What a route may refuse stands with the route (`problem_responses`); what any request may meet is added here.
"""

from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from libs.service.problems import PROBLEM_MEDIA_TYPE

_FIRST_FAILURE: Final = 400
_BEARER: Final = "bearer"
_PROBLEM_REF: Final = {"$ref": "#/components/schemas/Problem"}
_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457: what is wrong, and what to do. Some problems have further members.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": _FIRST_FAILURE, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "one entry for each fault, at most 20"},
        "other_errors": {"type": "integer", "description": "how many more faults there are"},
    },
}

Responses = dict[int | str, dict[str, Any]]

_NO_COMPONENTS: Final[Mapping[str, Any]] = {}


def problem_responses(*statuses: int) -> Responses:
    """Return what a route's `responses` says of these failures."""
    return {status: {"description": HTTPStatus(status).phrase} for status in statuses}


def install_api_schema(
    app: FastAPI,
    *,
    is_guarded: bool,
    open_paths: Collection[str] = (),
    any_request: Iterable[int] = (),
    components: Mapping[str, Any] = _NO_COMPONENTS,
) -> None:
    """Let `app` describe itself completely. `components`: schemas of bodies that its routes refer to, by name.

    `is_guarded`: a token is asked for, except on `open_paths`. `any_request` are failures that any request may meet,
    besides 401 or 403, 408 for a body that does not arrive, and 413 for too long a one.
    """
    described = app.openapi
    usual = (*any_request, 408, 413)

    def openapi() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        schema = described()
        if is_new:
            _complete(schema, usual, open_paths, is_guarded=is_guarded)
            schema["components"]["schemas"].update(components)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the schema


def _complete(schema: dict[str, Any], usual: Iterable[int], open_paths: Collection[str], *, is_guarded: bool) -> None:
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    if is_guarded:
        components["securitySchemes"] = {_BEARER: {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        is_open = path in open_paths
        refusals = [403] if not is_guarded else [] if is_open else [401]
        for operation in operations.values():
            if is_guarded and not is_open:
                operation["security"] = [{_BEARER: []}]
            _add_problems(operation["responses"], (*usual, *refusals))


def _add_problems(responses: dict[str, Any], statuses: Iterable[int]) -> None:
    for status in statuses:
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
    for code, response in responses.items():
        if int(code) >= _FIRST_FAILURE:
            response["description"] = HTTPStatus(int(code)).phrase
            response["content"] = {PROBLEM_MEDIA_TYPE: {"schema": _PROBLEM_REF}}
