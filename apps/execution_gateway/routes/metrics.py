"""The gateway's numbers for Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from libs.service.metrics import METRICS_RESPONSE
from libs.service.shared_answers import SharedAnswers


def metrics_routes(answers: SharedAnswers[bytes]) -> APIRouter:
    """Return the route `GET /metrics`."""
    router = APIRouter()

    @router.get("/metrics", tags=["health"], response_class=Response, responses=METRICS_RESPONSE)
    async def metrics() -> Response:
        """Return the numbers of this process, its link and its P&L in Prometheus's text format."""
        return Response(await answers.get(), media_type=CONTENT_TYPE_LATEST)

    return router
