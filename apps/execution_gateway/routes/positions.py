"""Positions and their P&L over HTTP: as bought, as of now, and as it changes."""

from typing import Final

import structlog
from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse
from prometheus_client import Histogram
from starlette.types import Receive, Scope, Send

from apps.execution_gateway.answers import Answers
from apps.execution_gateway.bodies import CostMethod
from apps.execution_gateway.body_schemas import PNL_SCHEMA
from apps.execution_gateway.input_fields import FieldFault, InvalidInputError, shown
from apps.execution_gateway.pnl_feed import PnlFeed, PnlReader
from apps.execution_gateway.pnl_report import PnlReporter
from apps.execution_gateway.routes.parameters import Undescribed, only_parameters
from libs.service.api_schema import Responses, problem_responses

JSON: Final = "application/json"
# Figures of money are never to be kept by anything on the way, and a proxy must not hold events back.
_FRESH: Final = {"Cache-Control": "no-store"}
_UNBUFFERED: Final = {**_FRESH, "X-Accel-Buffering": "no"}

_COST: Final = {
    "name": "cost",
    "in": "query",
    "allowEmptyValue": False,
    "schema": {"enum": [method.value for method in CostMethod]},
}
_EVENT: Final = {
    "type": "object",
    "description": "One event. The first is a snapshot; comments in between keep the connection open",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["snapshot", "update", "problem"]},
        "data": {"type": "string", "contentMediaType": JSON},
    },
}
_EVENTS: Final[Responses] = {
    200: {
        "description": "It lasts until either side ends it",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}

log = structlog.get_logger(__name__)


def positions_routes(answers: Answers, reporter: PnlReporter, feed: PnlFeed, seconds: Histogram) -> APIRouter:
    """Return the routes. `seconds` observes how long each P&L took."""
    router = APIRouter(prefix="/api/v1/positions", tags=["positions"])

    @router.get(
        "",
        dependencies=[Depends(only_parameters("cost"))],
        responses=problem_responses(422),
        openapi_extra={"parameters": [_COST]},
    )
    async def positions(cost: Undescribed = CostMethod.AVERAGE) -> Response:
        """Return the open positions as they were bought; needs no price. `cost`: by average or by Alpaca's method."""
        return Response(await answers.positions.get(_cost_method(cost)), media_type=JSON, headers=_FRESH)

    @router.get("/parity", responses=problem_responses(409))
    async def positions_parity() -> Response:
        """Return our figures beside the account's own, each difference with its causes."""
        return Response(await answers.parity.get(), media_type=JSON, headers=_FRESH)

    @router.get("/pnl/realtime", responses={200: {"content": {JSON: {"schema": PNL_SCHEMA}}}})
    async def realtime_pnl() -> Response:
        """Return the P&L as of now; each row says how good its price is."""
        with seconds.time():
            answer = await answers.pnl.get()
            if reporter.is_outdated(answer.pnl):
                answer = await answers.pnl.get()
        return Response(answer.body, media_type=JSON, headers=_FRESH)

    @router.get("/pnl/stream", response_class=StreamingResponse, responses=_EVENTS)
    async def pnl_stream() -> Response:
        """Send the P&L as server-sent events: a `snapshot`, then `update` events with the rows that changed."""
        return EventStream(feed, await feed.join())

    return router


def _cost_method(text: str | None) -> CostMethod:
    text = text or ""
    try:
        return CostMethod(text)
    except ValueError:
        expected = " or ".join(CostMethod)
        raise InvalidInputError(FieldFault("cost", f"expected {expected}, got {shown(text)}")) from None


class EventStream(StreamingResponse):
    """One reader's stream. It ends when the feed closes, the client goes, or the client takes nothing for too long."""

    media_type = "text/event-stream"

    def __init__(self, feed: PnlFeed, reader: PnlReader) -> None:
        super().__init__(reader.events(), headers=_UNBUFFERED, media_type=self.media_type)
        self._feed = feed
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the feed forgets the reader at the end."""
        with self._feed.reading(self._reader):
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the events, each within its time."""
        try:
            async with self._reader.sending():
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in self.body_iterator:
                async with self._reader.sending():
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # Returning without an end closes the connection: the reader must not take this for a complete answer.
            log.warning("pnl_stream_stalled", readers=self._feed.readers)
