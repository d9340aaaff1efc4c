from typing import Annotated, Literal

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Query
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import BaseModel, ConfigDict

from libs.service.problems import Problem, bad_input, install_problem_handlers


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    symbol: str
    qty: int


async def nothing(name: str) -> None:
    del name


def build_app() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)

    @app.post("/orders")
    async def order(body: Order) -> Order:
        return body

    @app.get("/list")
    async def listing(limit: Annotated[int, Query(ge=1)] = 1, side: Literal["buy", "sell"] = "buy") -> None:
        del limit, side

    # Two routes of one path in two routers, as the services have them.
    for method in ("GET", "POST"):
        router = APIRouter(prefix="/both")
        router.add_api_route("/{name:path}", nothing, methods=[method])
        app.include_router(router)

    @app.get("/conflict")
    async def conflict() -> None:
        raise Problem(409, "Fill Conflict", "the fill differs in qty", headers={"X-Fill": "f1"}, fields=["qty"])

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    @app.get("/odd")
    async def odd() -> None:
        raise HTTPException(499)

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("password=hunter2")

    return app


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(build_app(), raise_server_exceptions=False)


def problem_of(response: Response, status: int) -> dict[str, object]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = response.json()
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


def test_a_raised_problem_with_its_members(client: TestClient) -> None:
    response = client.get("/conflict")
    assert problem_of(response, 409) == {
        "type": "about:blank", "title": "Fill Conflict", "status": 409, "detail": "the fill differs in qty",
        "fields": ["qty"],
    }  # fmt: skip
    assert response.headers["x-fill"] == "f1"


def test_extra_members_cannot_replace_the_standard_ones() -> None:
    assert b'"status":400' in Problem(400, "Bad", "no", type="x").body()


@pytest.mark.parametrize(
    ("sent", "field", "words"),
    [
        ({"json": {"symbol": "AAPL"}}, "qty", "is required"),
        ({"json": {"symbol": "AAPL", "qty": "1"}}, "qty", "valid integer"),
        ({"json": {"symbol": "AAPL", "qty": 1, "colour": 1}}, "colour", "is not known here"),
        ({"json": ["AAPL"]}, "body", "must be a JSON object"),
        ({"json": None}, "body", "is required"),
        ({"content": b'{"symbol": ', "headers": {"content-type": "application/json"}}, "body", "is no JSON"),
        ({"content": b'{"symbol": "AAPL", "qty": 1}'}, "body", "Content-Type: application/json"),
        ({}, "body", "is required"),
    ],
)
def test_bad_bodies_name_the_field_and_the_remedy(
    client: TestClient, sent: dict[str, object], field: str, words: str
) -> None:
    body = problem_of(client.post("/orders", **sent), 422)  # type: ignore[arg-type]
    assert body["detail"].startswith(f"{field}: ")  # type: ignore[attr-defined]
    assert words in body["detail"]  # type: ignore[operator]
    assert body["errors"][0]["field"] == field  # type: ignore[index]


def test_bad_query_parameters_are_all_named(client: TestClient) -> None:
    body = problem_of(client.get("/list", params={"limit": "0", "side": "hold"}), 422)
    assert body["detail"] == (
        "limit: input should be greater than or equal to 1; side: input should be 'buy' or 'sell'"
    )


def test_what_was_sent_is_not_repeated(client: TestClient) -> None:
    response = client.post("/orders", json={"symbol": "AAPL", "qty": "hunter2"})
    assert "hunter2" not in response.text


def test_many_errors_are_cut() -> None:
    errors = [{"loc": ("body", f"f{number}"), "type": "missing"} for number in range(50)]
    problem = bad_input(errors)
    assert (len(problem.extra["errors"]), problem.extra["other_errors"]) == (20, 30)  # type: ignore[arg-type]
    assert problem.detail.endswith("; and 30 more")
    assert bad_input([{"loc": (), "msg": "Odd"}]).detail == "request: odd"
    assert bad_input([]).detail == "the request is not understood"


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert problem_of(client.get("/nowhere"), 404)["detail"] == "there is no /nowhere here"
    response = client.delete("/orders")
    assert problem_of(response, 405)["detail"] == "DELETE does not work on /orders; use POST"
    assert response.headers["allow"] == "POST"


def test_other_http_exceptions(client: TestClient) -> None:
    assert problem_of(client.get("/teapot"), 418)["detail"] == "short and stout"
    assert problem_of(client.get("/odd"), 499)["title"] == "Error"


def test_a_bug_tells_nothing_of_itself(client: TestClient) -> None:
    response = client.get("/bug")
    problem_of(response, 500)
    assert "hunter2" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/orders", "POST"), ("/list", "GET"), ("/both/a/b", "GET, POST"), ("/openapi.json", "GET, HEAD")],
)
@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE", "BREW"])
def test_a_method_that_is_not_served_names_every_one_that_is(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    body = problem_of(response, 405)
    assert response.headers["allow"] == allowed
    assert body["detail"] == f"{method} does not work on {path}; use {allowed}"
