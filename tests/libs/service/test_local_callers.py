import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.websockets import WebSocketDisconnect

from libs.service.local_callers import LocalCallersMiddleware


def client(token: str | None = None) -> TestClient:
    app = FastAPI()
    app.add_middleware(LocalCallersMiddleware, token=None if token is None else SecretStr(token))

    @app.post("/fills")
    async def fills() -> str:
        return "recorded"

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return TestClient(app, base_url="http://127.0.0.1:8002")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "localhost"},
        {"host": "LOCALHOST:8002"},
        {"host": "127.8.9.1:80"},
        {"host": "[::1]:8002"},
        {"host": "[::1]"},
        {"origin": "http://localhost:8080"},
        {"origin": "https://127.0.0.1"},
        {"origin": "http://[::1]:3000"},
    ],
)
def test_this_machine_is_served(headers: dict[str, str]) -> None:
    assert client().post("/fills", headers=headers).json() == "recorded"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8002"},
        {"host": "localhost.evil.example"},
        {"host": "127.0.0.1.evil.example:8002"},
        {"host": "192.168.1.7:8002"},
        {"host": "0.0.0.0:8002"},
        {"host": "evil.example@localhost"},
        {"host": "[::2]"},
        {"host": ":8002"},
        {"host": b"\xff"},
        {"origin": ""},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://localhost.evil.example:8002"},
        {"origin": "http://localhost@evil.example"},
        {"origin": "file://localhost"},
        {"origin": "chrome-extension://localhost"},
        {"origin": "http://localhost http://evil.example"},
    ],
)
def test_pages_from_elsewhere_are_refused_and_told_the_remedy(headers: dict[str, str]) -> None:
    response = client().post("/fills", headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (403, "application/problem+json")
    assert "127.0.0.1 or localhost, or set API_TOKEN" in response.json()["detail"]


def test_one_good_name_does_not_cover_another() -> None:
    headers = [("origin", "http://localhost"), ("origin", "http://evil.example")]
    assert client().post("/fills", headers=headers).status_code == 403


def test_with_a_token_the_name_does_not_matter() -> None:
    headers = {"host": "gateway.example", "origin": "https://dashboard.example"}
    assert client("t0ken").post("/fills", headers=headers).status_code == 200


def test_a_websocket_is_refused_too() -> None:
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/socket", headers={"origin": "http://a.b"}):
        pass
    with client().websocket_connect("/socket", headers={"host": "localhost"}):
        pass
