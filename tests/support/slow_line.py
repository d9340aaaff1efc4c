"""A TCP line to a server that can be made slow, or to swallow everything, as networks do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class SlowLine:
    """Carries bytes both ways between its own port and a server's. `delay_s` and `is_open` may be set while it runs.

    While `is_open` is false nothing is carried, and nothing is closed either: what waits is carried afterwards.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.delay_s = 0.0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    @is_open.setter
    def is_open(self, is_open: bool) -> None:
        (self._open.set if is_open else self._open.clear)()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(1 << 16):
                await asyncio.sleep(self.delay_s)
                await self._open.wait()
                sink.write(chunk)
                await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def slow_line(host: str, port: int) -> AsyncIterator[SlowLine]:
    """Run a line until the block ends."""
    line = SlowLine(host, port)
    await line.start()
    try:
        yield line
    finally:
        await line.stop()
