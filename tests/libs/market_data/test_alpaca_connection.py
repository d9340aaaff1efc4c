import asyncio

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.protocol import ErrorCode
from libs.market_data.alpaca_connection import AlpacaConnection, ConnectionEndedError
from libs.market_data.reconnect import Ending
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually


async def why_dial_fails(url: str) -> ConnectionEndedError:
    with pytest.raises(ConnectionEndedError) as ended:
        await AlpacaConnection.dial(url, "key", "secret")
    return ended.value


async def test_dial_authenticates_and_frames_come_through() -> None:
    async with running_simulator(rate=0.0) as simulator:
        connection = await AlpacaConnection.dial(simulator.stream_url(), "key", "secret")
        assert connection.is_alive
        assert connection.response_headers["X-Markstream-Simulator"] == "simulated"
        await connection.send({"action": "subscribe", "quotes": ["AAPL"]})
        [acknowledged] = msgspec.msgpack.decode(await connection.recv())
        assert acknowledged["quotes"] == ["AAPL"]
        await connection.close()
        assert not connection.is_alive
        await eventually(lambda: not simulator.connections)


@pytest.mark.parametrize(
    ("auth_error", "ending"),
    [
        (ErrorCode.AUTH_FAILED, Ending.REFUSED),
        (ErrorCode.INSUFFICIENT_SUBSCRIPTION, Ending.REFUSED),
        (ErrorCode.INSUFFICIENT_SCOPE, Ending.REFUSED),
        (ErrorCode.CONNECTION_LIMIT_EXCEEDED, Ending.SLOT_TAKEN),
        (ErrorCode.AUTH_TIMEOUT, Ending.LOST),
        (ErrorCode.INTERNAL_ERROR, Ending.LOST),
    ],
)
async def test_the_code_of_a_refused_authentication_survives(auth_error: ErrorCode, ending: Ending) -> None:
    async with running_simulator(rate=0.0) as simulator:
        simulator.faults = Faults(auth_error=auth_error)
        ended = await why_dial_fails(simulator.stream_url())
        assert (ended.ending, ended.code) == (ending, int(auth_error))
        assert auth_error.text in ended.message
        await eventually(lambda: not simulator.connections)


@pytest.mark.parametrize(
    ("status", "ending"),
    [(401, Ending.REFUSED), (403, Ending.REFUSED), (404, Ending.WRONG_PLACE), (429, Ending.LOST), (502, Ending.LOST)],
)
async def test_a_refused_upgrade_says_what_follows(status: int, ending: Ending) -> None:
    async with running_simulator(rate=0.0) as simulator:
        simulator.faults = Faults(upgrade_status=status)
        ended = await why_dial_fails(simulator.stream_url())
        assert (ended.ending, ended.code) == (ending, status)


async def test_a_second_connection_of_the_key_finds_the_slot_taken() -> None:
    async with running_simulator(rate=0.0) as simulator:
        connection = await AlpacaConnection.dial(simulator.stream_url(), "key", "secret")
        assert (await why_dial_fails(simulator.stream_url())).ending is Ending.SLOT_TAKEN
        await connection.close()


async def test_nobody_there(free_port: int) -> None:
    ended = await why_dial_fails(f"ws://127.0.0.1:{free_port}/v2/iex")
    assert ended.ending is Ending.LOST
    assert "cannot reach" in ended.message


async def test_an_end_is_told_to_the_reader_and_the_sender() -> None:
    async with running_simulator(rate=0.0) as simulator:
        connection = await AlpacaConnection.dial(simulator.stream_url(), "key", "secret")
        await simulator.drop_all(clean=False)
        with pytest.raises(ConnectionEndedError, match="without a close frame"):
            await connection.recv()
        with pytest.raises(ConnectionEndedError):
            await connection.send({"action": "subscribe"})
        assert not connection.is_alive
        await connection.close()


async def test_a_close_code_is_told() -> None:
    async with running_simulator(rate=0.0) as simulator:
        connection = await AlpacaConnection.dial(simulator.stream_url(), "key", "secret")
        await simulator.drop_all(clean=True)
        with pytest.raises(ConnectionEndedError) as ended:
            await connection.recv()
        assert ended.value.code == 1001
        await connection.close()


@pytest.mark.parametrize(
    "first_frame",
    ["hello", b"\xc1", b"\x91\x81\xa1T\xa5error", '[{"T":"success"}]', "[]", "{}", "null", b"\x90"],
)
async def test_a_server_that_is_not_alpaca_is_no_crash(first_frame: bytes | str) -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.send(first_frame)
        await connection.wait_closed()

    async with serve(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ended = await why_dial_fails(f"ws://127.0.0.1:{port}/")
        assert ended.ending is Ending.LOST
        await eventually(lambda: not server.connections)


async def test_an_error_before_the_welcome_keeps_its_code() -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.send('[{"T":"error","code":406,"msg":"connection limit exceeded"}]')
        await connection.wait_closed()

    async with serve(refuse, "127.0.0.1", 0) as server:
        ended = await why_dial_fails(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (ended.ending, ended.code) == (Ending.SLOT_TAKEN, 406)


async def test_a_server_that_only_listens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.market_data.alpaca_connection._HANDSHAKE_TIMEOUT_S", 0.2)

    async def say_nothing(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(say_nothing, "127.0.0.1", 0) as server:
        ended = await why_dial_fails(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        assert "no answer" in ended.message
        await eventually(lambda: not server.connections)


async def test_a_plain_web_server_is_no_stream() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        ended = await why_dial_fails(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (ended.code, ended.retry_after_s) == (429, 7.0)


async def test_a_cancelled_dial_leaves_no_socket() -> None:
    async def say_nothing(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(say_nothing, "127.0.0.1", 0) as server:
        dial = asyncio.create_task(
            AlpacaConnection.dial(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "key", "secret")
        )
        await eventually(lambda: server.connections)
        dial.cancel()
        await asyncio.gather(dial, return_exceptions=True)
        await eventually(lambda: not server.connections)
