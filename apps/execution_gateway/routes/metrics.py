"""The gateway's numbers for Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from libs.service.shared_answers import SharedAnswers


def metrics_routes(answers: SharedAnswers[bytes]) -> APIRouter:
    """Return the route `GET /metrics`."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(await answers.get(), media_type=CONTENT_TYPE_LATEST)

    return router
