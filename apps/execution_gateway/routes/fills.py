"""The ledger over HTTP: record a fill, void one, list them."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog
from fastapi import APIRouter, Request, Response

from apps.execution_gateway.bodies import fill_body, fills_body, recorded_fill_body
from apps.execution_gateway.fill_input import parse_fill, parse_query, parse_void
from apps.execution_gateway.ledger import Ledger, Recorded

JSON: Final = "application/json"

log = structlog.get_logger(__name__)

_DECIMAL: Final = {"anyOf": [{"type": "number"}, {"type": "string"}], "description": "up to 9 decimals, below 1e12"}
_FILL_SCHEMA: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["fill_id", "symbol", "side", "qty", "price", "filled_at"],
    "properties": {
        "fill_id": {"type": "string", "minLength": 1, "maxLength": 128},
        "symbol": {"type": "string", "examples": ["AAPL"]},
        "side": {"enum": ["buy", "sell"]},
        "qty": _DECIMAL,
        "price": _DECIMAL,
        "fee": _DECIMAL,
        "filled_at": {"type": "string", "format": "date-time"},
    },
}
_VOID_SCHEMA: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reason"],
    "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": 500}},
}


def fills_routes(ledger: Ledger, on_change: Callable[[str], None], now: Callable[[], datetime]) -> APIRouter:
    """Return the routes. `on_change(symbol)` is called after a position has changed for good; it must not block."""
    router = APIRouter(prefix="/api/v1/fills", tags=["fills"])

    # The bodies are parsed by hand, from the bytes: pydantic would coerce, and numbers would pass through floats.
    @router.post("", status_code=201, openapi_extra=_body(_FILL_SCHEMA))
    async def record_fill(request: Request) -> Response:
        """Record a fill once: 201; the same again: 200 and no effect; the same id with other content: 409."""
        fill = parse_fill(await request.body(), now())
        recorded = await ledger.record_fill(fill)
        if recorded is Recorded.CREATED:
            log.info("fill_recorded", fill_id=fill.fill_id, symbol=fill.symbol, side=fill.side, qty=str(fill.qty))
            on_change(fill.symbol)
        status = 201 if recorded is Recorded.CREATED else 200
        return Response(fill_body(recorded, fill), status, media_type=JSON)

    # An id may hold slashes: `path` lets them through.
    @router.post("/{fill_id:path}/void", openapi_extra=_body(_VOID_SCHEMA))
    async def void_fill(fill_id: str, request: Request) -> Response:
        """Let a mistyped fill count no longer. It stays listed; voiding twice keeps the first reason."""
        voided = await ledger.void_fill(fill_id, parse_void(await request.body()))
        log.info("fill_voided", fill_id=fill_id, symbol=voided.fill.symbol, reason=voided.void_reason)
        on_change(voided.fill.symbol)
        return Response(recorded_fill_body(voided), media_type=JSON)

    @router.get("")
    async def list_fills(symbol: str | None = None, limit: str | None = None, after: str | None = None) -> Response:
        """List fills, newest first, voided ones included; `next` of one answer is `after` of the next request."""
        query = parse_query(symbol, limit, after)
        page = await ledger.list_fills(query.symbol, query.limit, query.after)
        return Response(fills_body(page), media_type=JSON)

    return router


def _body(schema: dict[str, object]) -> dict[str, object]:
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}
