"""The P&L history over HTTP: the series as it was sampled, thinned to a step, with its gaps."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from apps.execution_gateway.bodies import encode, iso
from apps.execution_gateway.history_input import HistoryQuery, parse_history_query
from apps.execution_gateway.history_store import HistorySeries, HistoryStore
from apps.execution_gateway.pnl_history import Gap, HistoryPoint
from apps.execution_gateway.routes import request_schemas
from libs.market_data.prices import Mode
from libs.portfolio.rounding import plain_number
from libs.service.api_schema import problem_responses
from libs.service.shared_answers import SharedAnswersByKey

JSON: Final = "application/json"
_FRESH: Final = {"Cache-Control": "no-store"}


class PointBody(msgspec.Struct, frozen=True):
    """One point of the series, USD; null is unknown. It stood from `at` until `until`."""

    at: str | None
    until: str | None
    total_unrealized: Decimal | None
    total_realized: Decimal
    total_fees: Decimal
    total_day_pnl: Decimal | None
    total_market_value: Decimal | None
    complete: bool
    unpriced: int
    stale: int


class GapBody(msgspec.Struct, frozen=True):
    """A span in which nobody looked."""

    since: str | None = msgspec.field(name="from")
    until: str | None = msgspec.field(name="to")


class HistoryBody(msgspec.Struct, frozen=True):
    """A part of the series, and how it was asked for once every default is filled in."""

    points: list[PointBody]
    gaps: list[GapBody]
    step_seconds: Decimal
    mode: Mode | None
    since: str | None = msgspec.field(name="from")
    until: str | None = msgspec.field(name="to")


def history_routes(store: HistoryStore, now: Callable[[], datetime]) -> APIRouter:
    """Return the route `GET /api/v1/pnl/history`."""
    router = APIRouter(prefix="/api/v1/pnl", tags=["history"])

    async def read(parameters: tuple[tuple[str, str], ...]) -> Callable[[], bytes]:
        asked_at = now()
        query = parse_history_query(parameters, asked_at, store.sampling)
        body = history_body(query, await store.series(query, asked_at))
        return lambda: body

    answers = SharedAnswersByKey(read)

    # The parameters are parsed by hand: one misspelt must be refused, not ignored.
    @router.get("/history", responses=problem_responses(422), openapi_extra=request_schemas.HISTORY)
    async def pnl_history(request: Request) -> Response:
        """Return the P&L series of one mode: its points, oldest first, and the gaps in which nobody looked."""
        body = await answers.get(tuple(request.query_params.multi_items()))
        return Response(body, media_type=JSON, headers=_FRESH)

    return router


def history_body(query: HistoryQuery, series: HistorySeries) -> bytes:
    """Return the answer to `query`."""
    return encode(
        HistoryBody(
            points=[_point_body(point) for point in series.points],
            gaps=[_gap_body(gap) for gap in series.gaps],
            step_seconds=plain_number(Decimal(query.step_ms) / 1000),
            mode=series.mode,
            since=iso(query.since),
            until=iso(query.until),
        )
    )


def _point_body(point: HistoryPoint) -> PointBody:
    figures = point.figures
    return PointBody(
        iso(point.at),
        iso(point.until),
        figures.unrealized,
        figures.realized,
        figures.fees,
        figures.day_pnl,
        figures.market_value,
        figures.complete,
        figures.unpriced,
        figures.stale,
    )


def _gap_body(gap: Gap) -> GapBody:
    return GapBody(iso(gap.since), iso(gap.until))
