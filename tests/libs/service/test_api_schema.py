"""What a service says of itself in /openapi.json: whom it serves, and every failure as a problem."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from libs.service.api_schema import install_api_schema, problem_responses
from libs.service.problems import install_problem_handlers


def described(*, is_guarded: bool) -> dict[str, Any]:
    app = FastAPI()
    install_problem_handlers(app)
    install_api_schema(app, is_guarded=is_guarded, open_paths={"/health/live"}, any_request=[503])

    @app.get("/orders/{number}", responses=problem_responses(404))
    async def order(number: int) -> int:
        return number

    @app.get("/health/live")
    async def live() -> None:
        return None

    with TestClient(app) as client:
        first = client.get("/openapi.json").json()
        assert client.get("/openapi.json").json() == first
    return first  # type: ignore[no-any-return]


@pytest.mark.parametrize(("is_guarded", "statuses"), [(False, "403"), (True, "401")])
def test_every_failure_is_a_problem(is_guarded: bool, statuses: str) -> None:
    schema = described(is_guarded=is_guarded)
    responses = schema["paths"]["/orders/{number}"]["get"]["responses"]
    assert sorted(responses) == sorted(["200", "404", "408", "413", "422", "503", statuses])
    for status, response in responses.items():
        wanted = "application/json" if status == "200" else "application/problem+json"
        assert list(response["content"]) == [wanted]
    assert responses["422"]["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert set(schema["components"]["schemas"]) == {"Problem"}


def test_a_token_is_asked_for_where_it_is() -> None:
    schema = described(is_guarded=True)
    assert schema["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert schema["paths"]["/orders/{number}"]["get"]["security"] == [{"bearer": []}]
    live = schema["paths"]["/health/live"]["get"]
    assert "security" not in live
    assert "401" not in live["responses"]
    assert "securitySchemes" not in described(is_guarded=False)["components"]
