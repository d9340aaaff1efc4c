import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.service.server import listen, serve
from libs.service.supervise import Supervisor
from tests.support.waiting import eventually

# A service as an app's main.py builds one; argv: port, what goes wrong.
SERVICE = """
import asyncio, contextlib, sys, time
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from libs.service import server
from libs.service.logging import configure_logging
from libs.service.supervise import Supervisor

port, case = int(sys.argv[1]), sys.argv[2]
configure_logging("INFO", "json")
supervisor = Supervisor()
stopping = asyncio.Event()
if case == "hard stop":
    server.HARD_STOP_S = 0.5

async def die():
    raise RuntimeError("boom")

@contextlib.asynccontextmanager
async def lifespan(app):
    if case == "broken start":
        raise RuntimeError("no database")
    if case == "task dies":
        supervisor.spawn("writer", die)
    yield
    print("lifespan ended", flush=True)
    if case == "hard stop":
        await asyncio.sleep(60)
    await supervisor.stop()

app = FastAPI(lifespan=lifespan)

@app.get("/ping")
async def ping():
    return "pong"

@app.get("/stream")
async def stream():
    async def events():
        yield "data: 1\\n\\n"
        await stopping.wait()
        yield "data: end\\n\\n"
        print("stream ended", flush=True)
    return StreamingResponse(events(), media_type="text/event-stream")

on_stop = None if case == "no hook" else stopping.set
sys.exit(
    server.serve(
        app, "127.0.0.1", port, port_variable="PING_PORT", supervisor=supervisor, on_stop_requested=on_stop
    )
)
"""


@contextlib.contextmanager
def running(port: int, case: str = "well") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(port), case], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def answers(port: int) -> bool:
    async with httpx2.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/ping")).json() == "pong"
        except httpx2.TransportError:
            return False


async def ended(process: subprocess.Popen[str], within_s: float = 10.0) -> int:
    await eventually(lambda: process.poll() is not None, within_s)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_requested_stop_is_clean_and_ends_with_0(free_port: int, number: signal.Signals) -> None:
    with running(free_port) as process:
        await eventually(lambda: answers(free_port), within_s=20)
        process.send_signal(number)
        assert await ended(process) == 0
        out, err = process.communicate()
    assert out == "lifespan ended\n"
    assert "stop_requested" in err
    assert "Traceback" not in err


async def test_streams_are_told_to_end_before_they_are_waited_for(free_port: int) -> None:
    with running(free_port) as process:
        await eventually(lambda: answers(free_port), within_s=20)
        async with (
            httpx2.AsyncClient(timeout=10) as client,
            client.stream("GET", f"http://127.0.0.1:{free_port}/stream") as response,
        ):
            lines = response.aiter_lines()
            assert await anext(lines) == "data: 1"
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = [line async for line in lines]
        assert await ended(process) == 0
        assert time.monotonic() - started < 3
        assert process.communicate()[0] == "stream ended\nlifespan ended\n"
    assert "data: end" in rest


@pytest.mark.faults
async def test_a_stream_that_does_not_end_is_cut_within_ten_seconds(free_port: int) -> None:
    with running(free_port, "no hook") as process:
        await eventually(lambda: answers(free_port), within_s=20)
        async with (
            httpx2.AsyncClient(timeout=15) as client,
            client.stream("GET", f"http://127.0.0.1:{free_port}/stream") as response,
        ):
            lines = response.aiter_lines()
            assert await anext(lines) == "data: 1"
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(httpx2.TransportError):
                [line async for line in lines]
        assert await ended(process) == 0
        assert "lifespan ended" in process.communicate()[0]


async def test_a_stop_that_hangs_is_ended_the_hard_way(free_port: int) -> None:
    with running(free_port, "hard stop") as process:
        await eventually(lambda: answers(free_port), within_s=20)
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 1
        assert "took longer than 0.5 s" in process.communicate()[1]


async def test_a_dead_task_ends_the_process_with_1(free_port: int) -> None:
    with running(free_port, "task dies") as process:
        assert await ended(process, within_s=20) == 1
        out, err = process.communicate()
    assert out == "lifespan ended\n"
    assert "background_task_died" in err


async def test_a_start_that_fails_ends_with_1_and_the_reason(free_port: int) -> None:
    with running(free_port, "broken start") as process:
        assert await ended(process, within_s=20) == 1
        assert "no database" in process.communicate()[1]


async def test_a_port_in_use_is_one_line_and_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(port) as process:
            assert await ended(process, within_s=20) == 1
            out, err = process.communicate()
    assert out == ""
    assert err == f"cannot listen on 127.0.0.1 port {port}: Address already in use; set PING_PORT to another\n"


def test_a_host_that_is_not_ours_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("203.0.113.1", "no.such.host.invalid"):
        assert listen(host, 0) is None
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_two_cannot_have_the_same_port() -> None:
    first = listen("127.0.0.1", 0)
    assert first is not None
    with first:
        assert listen("127.0.0.1", first.getsockname()[1]) is None


def asgi_app(*, does_start: bool = True) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete" if does_start else "lifespan.startup.failed"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'"pong"'})

    return app


# These run within this process, where coverage sees them.


def test_serve_tells_of_the_signal_and_returns_0(free_port: int) -> None:
    told: list[str] = []

    def stop_when_it_answers() -> None:
        asyncio.run(eventually(lambda: answers(free_port)))
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_it_answers)
    stopper.start()
    code = serve(asgi_app(), "127.0.0.1", free_port, on_stop_requested=lambda: told.append("stop"))
    stopper.join()
    assert (code, told) == (0, ["stop"])


def test_serve_returns_1_when_a_task_has_died(free_port: int) -> None:
    supervisor = Supervisor()
    supervisor.failures["writer"] = "boom"
    stopper = threading.Thread(
        target=lambda: (asyncio.run(eventually(lambda: answers(free_port))), os.kill(os.getpid(), signal.SIGINT))
    )
    stopper.start()
    assert serve(asgi_app(), "127.0.0.1", free_port, supervisor=supervisor) == 1
    stopper.join()


def test_serve_returns_1_when_it_cannot_start(free_port: int) -> None:
    assert serve(asgi_app(does_start=False), "127.0.0.1", free_port) == 1
    with socket.create_server(("127.0.0.1", free_port)):
        assert serve(asgi_app(), "127.0.0.1", free_port) == 1
