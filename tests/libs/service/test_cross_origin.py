"""What a browser shows a page of one's own, through all that stands in front of a service."""

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from pydantic import SecretStr

from libs.service.auth import BearerAuthMiddleware
from libs.service.cross_origin import CrossOriginMiddleware
from libs.service.limits import BodyLimitMiddleware
from libs.service.local_callers import LocalCallersMiddleware
from libs.service.no_store import NoStoreMiddleware
from libs.service.problems import install_problem_handlers, standard_problem

PAGE = "https://dashboard.example"
TOKEN = "t0ken-t0ken-t0ken"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


def build(token: str | None = TOKEN, allowed: tuple[str, ...] = (PAGE,)) -> TestClient:
    app = FastAPI(redirect_slashes=False)
    install_problem_handlers(app)

    @app.get("/positions")
    async def positions() -> dict[str, int]:
        return {"AAPL": 100}

    @app.get("/stream")
    async def stream() -> Response:
        return StreamingResponse(iter([b"data: 1\n\n"]), headers={"Vary": "Accept"}, media_type="text/event-stream")

    @app.get("/busy")
    async def busy() -> None:
        problem = standard_problem(503, "busy")
        problem.headers["Retry-After"] = "2"
        raise problem

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("hunter2")

    @app.post("/fills")
    async def fills() -> str:
        return "recorded"

    secret = None if token is None else SecretStr(token)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(BearerAuthMiddleware, token=secret)
    app.add_middleware(LocalCallersMiddleware, token=secret, allowed=allowed)
    app.add_middleware(CrossOriginMiddleware, allowed=allowed)
    app.add_middleware(NoStoreMiddleware)
    return TestClient(app, base_url="http://127.0.0.1:8002", raise_server_exceptions=False)


def preflight(client: TestClient, origin: str = PAGE, **headers: str):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"} | headers
    return client.options("/fills", headers=asked)


def test_a_preflight_is_answered_without_the_token() -> None:
    answer = preflight(build(), **{"Access-Control-Request-Headers": "authorization, content-type, x-mine"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type, x-mine"
    methods = answer.headers["access-control-allow-methods"].split(", ")
    assert {"GET", "HEAD", "POST", "PATCH", "DELETE"} <= set(methods)
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-private-network" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_from_the_internet_to_this_machine() -> None:
    answer = preflight(build(), **{"Access-Control-Request-Private-Network": "true"})
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("asked", ["x" * 2_000, "bad\x00header", "a: b", ""])
def test_headers_asked_for_are_repeated_only_when_they_are_names(asked: str) -> None:
    answer = preflight(build(), **{"Access-Control-Request-Headers": asked})
    assert answer.headers["access-control-allow-headers"] == "Authorization, Content-Type"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://dashboard.example",
        f"{PAGE}:8443",
        f"{PAGE}.evil.example",
        "null",
        "",
        f"{PAGE}/",
    ],
)
@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_page_from_elsewhere_gets_no_mark_and_without_a_token_nothing(origin: str, token: str | None) -> None:
    client = build(token)
    for answer in (preflight(client, origin), client.get("/positions", headers={"Origin": origin, **WITH_TOKEN})):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"
    if token is None:
        assert client.get("/positions", headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/positions", WITH_TOKEN, 200),
        ("/positions", {}, 401),
        ("/positions", {"Authorization": "Bearer wrong"}, 401),
        ("/positions/", WITH_TOKEN, 404),
        ("/nowhere", WITH_TOKEN, 404),
        ("/fills", WITH_TOKEN, 405),
        ("/busy", WITH_TOKEN, 503),
        ("/bug", WITH_TOKEN, 500),
        ("/stream", WITH_TOKEN, 200),
    ],
)
def test_every_answer_can_be_read_by_the_page_and_is_kept_nowhere(
    path: str, headers: dict[str, str], status: int
) -> None:
    answer = build().get(path, headers={"Origin": PAGE, **headers}, follow_redirects=False)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]
    assert answer.headers["cache-control"] == "no-store"
    assert "hunter2" not in answer.text


def test_a_refused_body_too() -> None:
    answer = build().post("/fills", headers={"Origin": PAGE, **WITH_TOKEN}, content=b"x" * 70_000)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (413, PAGE)


def test_without_a_token_set_an_allowed_page_is_served_and_others_are_not() -> None:
    client = build(token=None)
    assert client.post("/fills", headers={"Origin": PAGE}).json() == "recorded"
    assert client.post("/fills", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/fills", headers={"Origin": PAGE, "Host": "evil.example"}).status_code == 403, "rebinding"
    assert client.post("/fills").json() == "recorded"


def test_two_origins_are_none() -> None:
    headers = [("origin", PAGE), ("origin", "https://evil.example")]
    answer = build(token=None).post("/fills", headers=headers)
    assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (403, None)


def test_without_allowed_origins_nothing_changes() -> None:
    client = build(allowed=())
    assert preflight(client).status_code == 401
    answer = client.get("/positions", headers={"Origin": PAGE, **WITH_TOKEN})
    assert (answer.status_code, answer.headers.get("vary")) == (200, None)
    bug = client.get("/bug", headers=WITH_TOKEN)
    assert (bug.status_code, bug.headers["cache-control"]) == (500, "no-store")


def test_the_schema_may_be_kept() -> None:
    assert "cache-control" not in build().get("/openapi.json", headers=WITH_TOKEN).headers
