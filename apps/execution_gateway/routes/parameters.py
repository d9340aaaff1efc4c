"""Answers 422 to query parameters that a route does not know, or that are given more than once."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Query, Request

from apps.execution_gateway.input_fields import FieldFault, InvalidInputError, given_parameters

Undescribed = Annotated[str | None, Query(include_in_schema=False)]
"""A parameter that is read as text, and described by hand."""


def only_parameters(*known: str) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency of a route that refuses all parameters but the `known`, each at most once."""

    async def check(request: Request) -> None:
        faults: list[FieldFault] = []
        given_parameters(request.query_params.multi_items(), known, faults)
        if faults:
            raise InvalidInputError(*faults)

    return check
