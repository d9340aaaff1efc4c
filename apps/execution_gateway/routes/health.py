"""How the gateway is, for people and for whoever restarts it."""

from typing import Final

from fastapi import APIRouter, Response

from apps.execution_gateway.answers import Answers
from apps.execution_gateway.bodies import encode
from apps.execution_gateway.health_report import health_body, reasons
from libs.service.api_schema import problem_responses
from libs.service.health import ready_response, unhealthy

JSON: Final = "application/json"


def health_routes(answers: Answers, version: str) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["health"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Response:
        """Tell how every part is. Always 200: the answer is the body."""
        return Response(encode(health_body(await answers.state.get(), version)), media_type=JSON)

    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live")
    async def live() -> Response:
        """Answer while the event loop runs."""
        return Response(encode({"status": "live"}), media_type=JSON)

    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/ready", responses=problem_responses(503))
    async def ready() -> Response:
        """Answer 200, or 503 with reasons while this service cannot do its work."""
        return ready_response(unhealthy(reasons(await answers.state.get())))

    return router
