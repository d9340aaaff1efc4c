"""The gateway as a process: starts, answers, stops, and says in one line why it cannot start."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx2

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[3]


async def start(folder: Path, port: int, redis_url: str, **environment: str) -> asyncio.subprocess.Process:
    variables: Mapping[str, str] = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{folder}/new/ledger.db",
        "EXECUTION_GATEWAY_PORT": str(port),
        **environment,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "apps.execution_gateway.main", cwd=folder, env=variables, stderr=asyncio.subprocess.PIPE
    )


async def is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx2.TransportError:
        return False


async def test_it_serves_and_stops_with_a_stream_open(tmp_path: Path, free_port: int, redis_url: str):
    process = await start(tmp_path, free_port, redis_url)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{free_port}", timeout=5) as client:
            await eventually(lambda: is_ready(client), within_s=30)
            assert (tmp_path / "new" / "ledger.db").exists()
            async with client.stream("GET", "/api/v1/positions/pnl/stream") as response:
                lines = response.aiter_lines()
                assert await anext(lines) == "event: snapshot"
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(8):
                    rest = [line async for line in lines]
                assert rest
        async with asyncio.timeout(10):
            _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert b"Traceback" not in said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_database_that_cannot_be_is_told_in_one_line(tmp_path: Path, free_port: int, redis_url: str):
    (tmp_path / "file").write_text("not a folder")
    process = await start(tmp_path, free_port, redis_url, DATABASE_URL=f"sqlite:///{tmp_path}/file/ledger.db")
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.count(b"\n") == 1, said.decode()
    assert b"DATABASE_URL" in said


async def test_a_taken_port_is_told_in_one_line(tmp_path: Path, redis_url: str):
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await start(tmp_path, port, redis_url)
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"EXECUTION_GATEWAY_PORT" in said
    assert b"Traceback" not in said
