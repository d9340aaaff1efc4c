import json

from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import Counter

from libs.service.health import Health, Reason, overall, ready_response, reason_bodies, unhealthy
from libs.service.metrics import metrics_response, metrics_routes, service_registry

AWAY = Reason("redis_unavailable", "Redis does not answer")
REFUSED = Reason("link_refused", "Alpaca refused the key", Health.UNHEALTHY)


def test_the_worst_reason_decides() -> None:
    assert overall([]) is Health.HEALTHY
    assert overall([AWAY]) is Health.DEGRADED
    assert overall([AWAY, REFUSED, AWAY]) is Health.UNHEALTHY
    assert unhealthy([AWAY, REFUSED]) == [REFUSED]
    assert reason_bodies([AWAY]) == [{"code": "redis_unavailable", "detail": "Redis does not answer"}]


def test_ready() -> None:
    assert ready_response([]).status_code == 200
    response = ready_response([REFUSED])
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    body = json.loads(response.body)
    assert body["reasons"] == [{"code": "link_refused", "detail": "Alpaca refused the key"}]
    assert body["detail"] == "Alpaca refused the key"


def test_each_service_shows_its_own_numbers() -> None:
    ours, other = service_registry(), service_registry()
    Counter("quotes", "Quotes received.", registry=ours).inc(3)
    Counter("quotes", "Quotes received.", registry=other)
    app = FastAPI()
    app.include_router(metrics_routes(ours))
    response = TestClient(app).get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "quotes_total 3.0" in response.text
    assert "python_gc_objects_collected_total" in response.text
    assert b"quotes_total 0.0" in bytes(metrics_response(other).body)
