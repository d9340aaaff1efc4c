"""The line's own promises: tests lean on them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.support.faulty_line import Fault, faulty_line


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Serve an echo; yields its port and what is set once a connection of it has ended."""
    has_ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while chunk := await reader.read(100):
                writer.write(chunk)
        has_ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], has_ended


@pytest.mark.parametrize("fault", ["", "delay", "drip", "hold", "swallow", "answer", "refuse"])
async def test_a_line_that_stops_leaves_nothing_open_whatever_is_under_way(fault: Fault) -> None:
    async with echo() as (port, has_ended), faulty_line(port) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with contextlib.closing(writer):
            writer.write(b"first")
            assert await reader.readexactly(5) == b"first"
            line.break_by(fault, delay_s=60, answer=b"said")
            writer.write(b"second")
            await asyncio.sleep(0.05)
            await line.stop()
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    while await reader.read(100):
                        pass
                await has_ended.wait()


async def test_what_was_held_arrives_afterwards_and_what_was_swallowed_does_not() -> None:
    async with echo() as (port, _), faulty_line(port) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with contextlib.closing(writer):
            line.break_by("swallow")
            writer.write(b"lost")
            await asyncio.sleep(0.05)
            line.break_by("hold")
            writer.write(b"late")
            await asyncio.sleep(0.05)
            line.mend()
            assert await asyncio.wait_for(reader.readexactly(4), 5) == b"late"
