from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from libs.service.auth import BearerAuthMiddleware
from libs.service.limits import BodyLimitMiddleware


def build_app(token: str | None) -> FastAPI:
    app = FastAPI()
    app.add_middleware(BodyLimitMiddleware, max_bytes=10)
    app.add_middleware(BearerAuthMiddleware, token=None if token is None else SecretStr(token))

    @app.get("/health/live")
    async def live() -> str:
        return "live"

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    return app


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(build_app("t0ken"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer t0ken2"},
        {"authorization": "Bearer T0KEN"},
        {"authorization": "Basic t0ken"},
        {"authorization": "t0ken"},
        {"authorization": b"Bearer \xfc"},
    ],
)
def test_without_the_token_nothing_is_told(client: TestClient, headers: dict[str, str]) -> None:
    for path in ("/echo", "/nowhere", "/openapi.json", "/health/live/", "//health/live"):
        response = client.post(path, headers=headers)
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["content-type"] == "application/problem+json"
        assert "t0ken" not in response.text


def test_two_tokens_are_none(client: TestClient) -> None:
    headers = [("authorization", "Bearer t0ken"), ("authorization", "Bearer t0ken")]
    assert client.post("/echo", headers=headers).status_code == 401


@pytest.mark.parametrize("value", ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken "])
def test_with_the_token_the_request_goes_on(client: TestClient, value: str) -> None:
    assert client.post("/echo", headers={"authorization": value}, content=b"12345").json() == 5


def test_live_is_open(client: TestClient) -> None:
    assert client.get("/health/live").json() == "live"


def test_a_websocket_needs_it_too(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
        pass
    with client.websocket_connect("/socket", headers={"authorization": "Bearer t0ken"}) as socket:
        assert socket.receive_text() == "hello"


def test_without_a_token_set_all_is_open() -> None:
    open_client = TestClient(build_app(None))
    assert open_client.post("/echo", content=b"1").json() == 1
    with open_client:  # the lifespan passes
        assert open_client.get("/health/live").status_code == 200


@pytest.fixture(scope="module")
def open_client() -> TestClient:
    return TestClient(build_app(None))


def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not announced."""

    async def each() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return each()


def test_a_body_up_to_the_limit_passes(open_client: TestClient) -> None:
    assert open_client.post("/echo", content=b"x" * 10).json() == 10
    assert open_client.post("/echo").json() == 0
    assert open_client.post("/echo", content=iter([b"12345", b"67890"])).json() == 10


@pytest.mark.parametrize("announced", [True, False])
def test_a_longer_body_is_refused(open_client: TestClient, announced: bool) -> None:
    content = b"x" * 11 if announced else iter([b"x" * 6, b"x" * 5])
    response = open_client.post("/echo", content=content)
    assert response.status_code == 413
    assert "10 bytes" in response.json()["detail"]
    assert response.headers["connection"] == "close"


async def test_a_client_that_leaves_early_is_the_applications_affair() -> None:
    seen: list[Message] = []

    async def app(_scope: object, receive: object, _send: object) -> None:
        seen.append(await receive())  # type: ignore[operator]
        seen.append(await receive())  # type: ignore[operator]

    arriving = [{"type": "http.request", "body": b"1", "more_body": True}, {"type": "http.disconnect"}] * 2

    async def receive() -> Message:
        return arriving.pop(0)

    async def send(_message: Message) -> None:
        raise AssertionError

    await BodyLimitMiddleware(app)({"type": "http", "headers": []}, receive, send)  # type: ignore[arg-type]
    assert seen[0] == {"type": "http.disconnect"}


async def test_a_length_that_is_no_number_is_refused() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x"}

    async def never(*_args: object) -> None:
        raise AssertionError

    scope = {"type": "http", "headers": [(b"content-length", b"-5")]}
    await BodyLimitMiddleware(never)(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 413
