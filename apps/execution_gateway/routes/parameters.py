"""Answers 422 to query parameters that a route does not know, or that are given more than once."""

from collections.abc import Awaitable, Callable

from fastapi import Request

from apps.execution_gateway.input_fields import FieldFault, InvalidInputError, given_parameters


def only_parameters(*known: str) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency of a route that refuses all parameters but the `known`, each at most once."""

    async def check(request: Request) -> None:
        faults: list[FieldFault] = []
        given_parameters(request.query_params.multi_items(), known, faults)
        if faults:
            raise InvalidInputError(*faults)

    return check
