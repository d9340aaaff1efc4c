"""The gateway's numbers for Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry

from apps.execution_gateway.database import BookUnavailableError
from apps.execution_gateway.meters import GatewayMeters
from apps.execution_gateway.pnl_report import PnlReporter
from libs.service.metrics import metrics_response


def metrics_routes(registry: CollectorRegistry, meters: GatewayMeters, reporter: PnlReporter) -> APIRouter:
    """Return the route `GET /metrics`, with the P&L as of the scrape."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        try:
            meters.pnl = await reporter.report_from_memory()
        except BookUnavailableError:
            meters.pnl = None
        return metrics_response(registry)

    return router
