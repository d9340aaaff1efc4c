"""Half-open requests against a real server, whose patience is made short."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from libs.service import request_time
from libs.service.limits import BodyLimitMiddleware
from libs.service.request_time import PunctualProtocol

PATIENCE_S = 0.3
BEGUN = b"POST /fills HTTP/1.1\r\nHost: localhost\r\n"
BODY_OWED = BEGUN + b"Content-Length: 10\r\n\r\nab"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, but on /slow only after many times the patience; on /refused without reading the body."""
    if scope["path"] != "/refused":
        await limited_app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    if scope["path"] == "/slow":
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(PATIENCE_S * 2)
        await send({"type": "http.response.body", "body": b"x"})
    else:
        await send({"type": "http.response.body", "body": b"done"})


limited_app = BodyLimitMiddleware(answering, timeout_s=PATIENCE_S)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(request_time, "REQUEST_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(request_time, "_ANSWER_FIRST_S", PATIENCE_S)
    config = uvicorn.Config(app, port=0, lifespan="off", http=PunctualProtocol, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    server.config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server.servers[0].sockets[0].getsockname()[1]
    await server.shutdown()


async def ask(port: int, *parts: bytes, every_s: float = 0.0) -> bytes:
    """Send the parts and return all that comes until the server closes the connection, or resets it."""
    came = bytearray()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def trickle() -> None:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(every_s)

    sending = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                while some := await reader.read(65_536):
                    came += some
            return bytes(came)
    finally:
        sending.cancel()
        writer.close()


async def test_headers_that_do_not_end_are_answered_and_closed(port: int) -> None:
    answer = await ask(port, BEGUN)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"application/problem+json" in answer


async def test_a_byte_at_a_time_does_not_win_time(port: int) -> None:
    letters = [bytes([byte]) for byte in (BEGUN + b"X: " + b"y" * 10_000)]
    assert (await ask(port, *letters, every_s=0.01)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_does_not_end_is_answered_and_closed(port: int) -> None:
    answer = await ask(port, BODY_OWED)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"the body did not arrive" in answer


async def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    assert await ask(port) == b""


async def test_half_of_a_second_request_is_closed_too(port: int) -> None:
    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for parts in ((whole, BEGUN), (whole + BEGUN,), (whole + BODY_OWED,)):
        first, _, second = (await ask(port, *parts, every_s=0.05)).partition(b"done")
        assert first.startswith(b"HTTP/1.1 200 ")
        assert second.startswith(b"HTTP/1.1 408 "), parts


async def test_a_body_still_owed_after_the_answer_is_closed(port: int) -> None:
    refused = BEGUN.replace(b"/fills", b"/refused") + b"Content-Length: 70000\r\n\r\n"
    answer = await ask(port, refused, *[b"x"] * 10_000, every_s=0.01)
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_an_answer_may_take_as_long_as_it_likes(port: int) -> None:
    answer = await ask(port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nxxxx")


async def test_requests_one_after_the_other_on_one_connection(port: int) -> None:
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab"
    last = request.replace(b"Host", b"Connection: close\r\nHost")
    answer = await ask(port, *[request] * 5, last, every_s=PATIENCE_S / 2)
    assert answer.count(b"HTTP/1.1 200 ") == 6
