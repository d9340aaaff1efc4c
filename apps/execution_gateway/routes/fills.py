"""The ledger over HTTP: record a fill or a whole list, void one, list them."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import structlog
from fastapi import APIRouter, Depends, Request, Response

from apps.execution_gateway.answers import Answers
from apps.execution_gateway.bodies import (
    fill_body,
    import_body,
    recorded_fill_body,
    refused_fills,
)
from apps.execution_gateway.fill_batch import Comparison
from apps.execution_gateway.fill_input import (
    FillList,
    parse_fill,
    parse_fills,
    parse_query,
    parse_void,
)
from apps.execution_gateway.ledger import Ledger, MirroredAccountError, Recorded
from apps.execution_gateway.routes import request_schemas
from apps.execution_gateway.routes.parameters import Undescribed, only_parameters
from libs.service.api_schema import Responses, problem_responses
from libs.service.problems import Problem, standard_problem

JSON: Final = "application/json"

OnChange = Callable[[Iterable[str]], None]

log = structlog.get_logger(__name__)

_ONCE: Final[Responses] = {200: {"description": "It was recorded before, with the same content: no effect"}}


def fills_routes(
    ledger: Ledger, answers: Answers, on_change: OnChange, now: Callable[[], datetime], *, is_mirror: bool
) -> APIRouter:
    """Return the routes. `on_change(symbols)` is called after positions have changed for good; it must not block.

    It is called for repetitions too: who repeats may have lost the answer of a call that died before it announced.
    `is_mirror`: the ledger is written by the account alone.
    """
    router = APIRouter(prefix="/api/v1/fills", tags=["fills"])
    refusing = [Depends(refuse_writing)] if is_mirror else []
    writing = [*refusing, Depends(only_parameters())]

    # The bodies are parsed by hand, from the bytes: pydantic would coerce, and numbers would pass through floats.
    @router.post(
        "",
        status_code=201,
        dependencies=writing,
        responses={**_ONCE, **problem_responses(409, 422)},
        openapi_extra=request_schemas.body(request_schemas.FILL),
    )
    async def record_fill(request: Request) -> Response:
        """Record a fill once: 201; the same again: 200 and no effect; the same id with other content: 409.

        A voided fill stays void: then `voided_at` tells that it counts for nothing.
        """
        fill = parse_fill(await request.body(), now())
        recorded = await ledger.record_fill(fill)
        if recorded is Recorded.CREATED:
            log.info("fill_recorded", fill_id=fill.fill_id, symbol=fill.symbol, side=fill.side, qty=str(fill.qty))
        on_change([fill.symbol])
        if recorded is Recorded.CREATED:
            return Response(fill_body(recorded, fill, None), 201, media_type=JSON)
        return Response(fill_body(recorded, fill, await ledger.voided_at(fill.fill_id)), 200, media_type=JSON)

    importing = [*refusing, Depends(only_parameters("dry_run"))]

    @router.post(
        "/import",
        dependencies=importing,
        responses=problem_responses(409, 422),
        openapi_extra=request_schemas.body(request_schemas.FILL_LIST),
    )
    async def import_fills(request: Request, dry_run: bool = False) -> Response:
        """Record all fills of a list, or none: one that is malformed (422) or in conflict (409) refuses them all.

        The first 20 faults are listed, the others counted. With `dry_run=true` nothing is recorded.
        """
        body = await request.body()
        # In a thread: ten thousand fills take a good part of a second, and others are being served.
        posted = await asyncio.to_thread(parse_fills, body, now())
        is_check = dry_run or bool(posted.malformed_fills)
        compared = await (ledger.compare_fills(posted.fills) if is_check else ledger.record_fills(posted.fills))
        if posted.malformed_fills or compared.conflicts:
            raise _all_refused(posted, compared)
        if not is_check:
            _log_import(compared)
            _tell_all(posted, on_change)
        return Response(import_body("checked" if is_check else "imported", compared), media_type=JSON)

    # An id may hold slashes: `path` lets them through.
    @router.post(
        "/{fill_id:path}/void",
        dependencies=writing,
        responses=problem_responses(404, 409, 422),
        openapi_extra=request_schemas.body(request_schemas.VOID),
    )
    async def void_fill(fill_id: str, request: Request) -> Response:
        """Let a mistyped fill count no longer. It stays listed; voiding twice keeps the first reason."""
        voided = await ledger.void_fill(fill_id, parse_void(await request.body()))
        log.info("fill_voided", fill_id=fill_id, symbol=voided.fill.symbol, reason=voided.void_reason)
        on_change([voided.fill.symbol])
        return Response(recorded_fill_body(voided), media_type=JSON)

    @router.get(
        "",
        dependencies=[Depends(only_parameters("symbol", "limit", "after"))],
        responses=problem_responses(422),
        openapi_extra=request_schemas.PAGE,
    )
    async def list_fills(symbol: Undescribed = None, limit: Undescribed = None, after: Undescribed = None) -> Response:
        """List fills, newest first, voided ones included; `next` of one answer is `after` of the next request."""
        body = await answers.fills.get(parse_query(symbol, limit, after))
        return Response(body, media_type=JSON)

    return router


async def refuse_writing() -> None:
    """Answer 409: the ledger mirrors an account."""
    raise MirroredAccountError


def _tell_all(posted: FillList, on_change: OnChange) -> None:
    if posted.fills:
        on_change({fill.symbol for fill in posted.fills})


def _log_import(compared: Comparison) -> None:
    symbols = {fill.symbol for fill in compared.new}
    created, void = len(compared.new), len(compared.void)
    log.info("fills_imported", created=created, repeated=compared.repeated, void=void, symbols=len(symbols))


def _all_refused(posted: FillList, compared: Comparison) -> Problem:
    fills = posted.malformed_fills + len(compared.conflicts)
    listed = refused_fills(posted, compared.conflicts)
    others = posted.malformed_faults + len(compared.conflicts) - len(listed)
    rest = f", and {others:,} more faults are not listed" if others else ""
    detail = f"no fill was recorded: {fills:,} of the list cannot be; `errors` tells why, `index` counts from 0{rest}"
    status = 422 if posted.malformed_fills else 409
    return standard_problem(status, detail, errors=listed, **({"other_errors": others} if others else {}))
