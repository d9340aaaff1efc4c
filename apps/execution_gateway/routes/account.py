"""The mirrored account over HTTP: what somebody must confirm, because the account does not say it."""

from typing import TYPE_CHECKING, Final

import structlog
from fastapi import APIRouter, Depends, Request, Response

from apps.execution_gateway.adjustment_input import parse_amount
from apps.execution_gateway.bodies import opening_body
from apps.execution_gateway.parity_report import NoAccountError
from apps.execution_gateway.routes import request_schemas
from apps.execution_gateway.routes.parameters import only_parameters
from libs.service.api_schema import problem_responses

if TYPE_CHECKING:
    from apps.execution_gateway.account_mirror import AccountMirror

JSON: Final = "application/json"
_FRESH: Final = {"Cache-Control": "no-store"}

log = structlog.get_logger(__name__)


def account_routes(mirror: "AccountMirror | None") -> APIRouter:
    """Return the routes; `mirror` None: no account is mirrored."""
    router = APIRouter(prefix="/api/v1/account", tags=["account"])

    @router.post(
        "/opening-balance",
        dependencies=[Depends(only_parameters())],
        responses=problem_responses(409, 422, 503),
        openapi_extra=request_schemas.body(request_schemas.OPENING_BALANCE),
    )
    async def confirm_opening_balance(request: Request) -> Response:
        """Confirm the cash, in USD, that the account had before its first activity: parity counts with it."""
        amount = parse_amount(await request.body())
        if mirror is None:
            raise NoAccountError
        opening = await mirror.confirm_opening(amount)
        log.info("opening_balance_confirmed", amount=str(opening.amount))
        return Response(opening_body(opening.amount), media_type=JSON, headers=_FRESH)

    return router
