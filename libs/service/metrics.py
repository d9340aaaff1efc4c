"""How a service shows its numbers to Prometheus: one registry of its own, so that two in one process do not mix."""

from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from libs.service.api_schema import Responses

METRICS_RESPONSE: Final[Responses] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def service_registry() -> CollectorRegistry:
    """Return a new registry that already tells of the process: memory, CPU, files, garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def metrics_response(registry: CollectorRegistry) -> Response:
    """Return the registry's content in Prometheus's text format."""
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def metrics_routes(registry: CollectorRegistry) -> APIRouter:
    """Return the route `GET /metrics`."""
    router = APIRouter()

    @router.get("/metrics", response_class=Response, responses=METRICS_RESPONSE)
    async def metrics() -> Response:
        """Return the numbers of this process in Prometheus's text format."""
        return metrics_response(registry)

    return router
