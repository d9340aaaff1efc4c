"""A TCP line to a server, with the faults that networks and servers have."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

Fault = Literal["", "delay", "drip", "hold", "swallow", "answer", "refuse"]


class FaultyLine:
    """Carries bytes both ways between its own port and a server's. Its fault may change while it runs.

    `delay`: each chunk takes `delay_s`. `drip`: what the server says arrives byte by byte. `hold`: nothing is carried;
    what waits is carried afterwards. `swallow`: what is sent is lost. `answer`: the line itself answers whatever is
    sent. `refuse`: connections are cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._carries = asyncio.Event()
        self._carries.set()
        self._fault: Fault = ""
        self._answer = b""
        self._delay_s = 0.0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def break_by(self, fault: Fault, *, delay_s: float = 0.2, answer: bytes = b"") -> None:
        """Have this fault, on the connections that exist and on those to come."""
        self._fault, self._delay_s, self._answer = fault, delay_s, answer
        (self._carries.clear if fault == "hold" else self._carries.set)()
        if fault == "refuse":
            self._cut()

    def mend(self) -> None:
        """Have no fault."""
        self.break_by("")

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Close every connection, whatever is under way."""
        assert self._server is not None
        self._server.close()
        self._cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _cut(self) -> None:
        for connection in self._connections:
            connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        assert self._server is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            # One that was accepted as the line stopped begins only now.
            if self._fault == "refuse" or not self._server.is_serving():
                return
            there_reader, there_writer = await asyncio.open_connection(*self._target)
            with contextlib.closing(there_writer):
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(self._to_server(reader, there_writer, writer))
                    directions.create_task(self._to_client(there_reader, writer))

    async def _to_server(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with contextlib.closing(sink), contextlib.suppress(ConnectionError):
            while chunk := await source.read(1 << 16):
                if self._fault == "answer":
                    back.write(self._answer)
                elif self._fault != "swallow":
                    await self._take_time()
                    sink.write(chunk)
                    await sink.drain()

    async def _to_client(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.closing(sink), contextlib.suppress(ConnectionError):
            while chunk := await source.read(1 << 16):
                if self._fault == "swallow":
                    continue
                await self._take_time()
                size = 1 if self._fault == "drip" else len(chunk)
                for at in range(0, len(chunk), size):
                    sink.write(chunk[at : at + size])
                    await sink.drain()
                    if size == 1:
                        await asyncio.sleep(0.01)

    async def _take_time(self) -> None:
        if self._fault == "delay":
            await asyncio.sleep(self._delay_s)
        await self._carries.wait()


@contextlib.asynccontextmanager
async def faulty_line(port: int, host: str = "127.0.0.1") -> AsyncIterator[FaultyLine]:
    """Run a line until the block ends."""
    line = FaultyLine(host, port)
    await line.start()
    try:
        yield line
    finally:
        await line.stop()
