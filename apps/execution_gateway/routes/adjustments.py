"""Adjustments over HTTP: record a split, a rename, a dividend, a fee or a transfer, void one, list them."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import structlog
from fastapi import APIRouter, Depends, Request, Response

from apps.execution_gateway.adjustment_input import parse_adjustment, parse_classification
from apps.execution_gateway.adjustment_ledger import AdjustmentLedger
from apps.execution_gateway.answers import Answers
from apps.execution_gateway.bodies import adjustment_body, adjustments_body
from apps.execution_gateway.fill_input import parse_query, parse_void
from apps.execution_gateway.routes import request_schemas
from apps.execution_gateway.routes.fills import refuse_writing
from apps.execution_gateway.routes.parameters import Undescribed, only_parameters
from libs.service.api_schema import Responses, problem_responses

JSON: Final = "application/json"

OnChange = Callable[[Iterable[str]], None]

log = structlog.get_logger(__name__)

_ONCE: Final[Responses] = {200: {"description": "It was recorded before, with the same content: no effect"}}


def adjustments_routes(
    ledger: AdjustmentLedger, answers: Answers, on_change: OnChange, now: Callable[[], datetime], *, is_mirror: bool
) -> APIRouter:
    """Return the routes. `on_change(symbols)` is called after positions have changed for good; it must not block.

    It is called for repetitions too, as with fills.
    `is_mirror`: the ledger is written by the account alone.
    """
    router = APIRouter(prefix="/api/v1/adjustments", tags=["adjustments"])
    writing = [*([Depends(refuse_writing)] if is_mirror else []), Depends(only_parameters())]

    # The body is parsed by hand, from the bytes: pydantic would coerce, and numbers would pass through floats.
    @router.post(
        "",
        status_code=201,
        dependencies=writing,
        responses={**_ONCE, **problem_responses(409, 422)},
        openapi_extra=request_schemas.body(request_schemas.ADJUSTMENT),
    )
    async def record_adjustment(request: Request) -> Response:
        """Record an adjustment once: 201; the same again: 200 and no effect; the same id with other content: 409."""
        adjustment = parse_adjustment(await request.body(), now())
        is_new = await ledger.record(adjustment)
        if is_new:
            log.info("adjustment_recorded", adjustment_id=adjustment.adjustment_id, kind=adjustment.kind)
        on_change(adjustment.symbols)
        body = adjustment_body("created" if is_new else "repeated", adjustment)
        return Response(body, 201 if is_new else 200, media_type=JSON)

    @router.post(
        "/{adjustment_id:path}/void",
        dependencies=writing,
        responses=problem_responses(404, 409, 422),
        openapi_extra=request_schemas.body(request_schemas.VOID),
    )
    async def void_adjustment(adjustment_id: str, request: Request) -> Response:
        """Let an adjustment count no longer. It stays listed; voiding twice keeps the first reason."""
        voided = await ledger.void(adjustment_id, parse_void(await request.body()))
        log.info("adjustment_voided", adjustment_id=adjustment_id, reason=voided.void_reason)
        on_change(voided.adjustment.symbols)
        return Response(adjustments_body([voided]), media_type=JSON)

    # Open on a mirror too: what a type that nobody knows is, the account does not say.
    @router.post(
        "/{activity:path}/classify",
        dependencies=[Depends(only_parameters())],
        responses=problem_responses(404, 422),
        openapi_extra=request_schemas.body(request_schemas.CLASSIFICATION),
    )
    async def classify_cash(activity: str, request: Request) -> Response:
        """Book cash that is unclassified as income, a fee, realized or outside; another class later replaces it."""
        classified = await ledger.classify(activity, parse_classification(await request.body()))
        log.info("cash_classified", adjustment_id=classified.adjustment_id, kind=classified.kind)
        on_change(classified.symbols)
        return Response(adjustment_body("classified", classified), media_type=JSON)

    @router.get(
        "",
        dependencies=[Depends(only_parameters("symbol", "limit", "after"))],
        responses=problem_responses(422),
        openapi_extra=request_schemas.PAGE,
    )
    async def list_adjustments(
        symbol: Undescribed = None, limit: Undescribed = None, after: Undescribed = None
    ) -> Response:
        """List adjustments, newest first, voided ones included; `next` of one answer is `after` of the next request."""
        body = await answers.adjustments.get(parse_query(symbol, limit, after))
        return Response(body, media_type=JSON)

    return router
