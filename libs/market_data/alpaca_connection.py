"""The wire to Alpaca: alpaca-py dials, upgrades and authenticates; afterwards frames are read here, by us.

The only file that knows the SDK's stream. It turns everything that can end a connection into one ConnectionEndedError
that says what the end means for the next attempt.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self

import msgspec
from alpaca.data.live import StockDataStream
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.legacy.client import WebSocketClientProtocol
from websockets.legacy.exceptions import InvalidStatusCode

from libs.market_data.alpaca_messages import ErrorMessage, UnreadableFrameError, read_frame
from libs.market_data.reconnect import Ending
from libs.market_data.session import ErrorCode

PING_INTERVAL_S: Final = 5
PING_TIMEOUT_S: Final = 5
LIVENESS_WINDOW_S: Final = 12.0
"""A connection from which nothing, not even a pong, has come for this long is not called connected."""

_HANDSHAKE_TIMEOUT_S: Final = 12.0
"""Alpaca drops a client that has not authenticated within 10 s; wait for its word first."""

_PERMANENT_CODES: Final = frozenset(
    {ErrorCode.AUTH_FAILED, ErrorCode.INSUFFICIENT_SUBSCRIPTION, ErrorCode.INSUFFICIENT_SCOPE}
)


class ConnectionEndedError(Exception):
    """A connection, or the attempt at one, is over.

    `ending` says what follows; `code` is Alpaca's error code or the HTTP status at the upgrade, None for the network.
    """

    def __init__(
        self, ending: Ending, message: str, *, code: int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.ending = ending
        self.message = message
        self.code = code
        self.retry_after_s = retry_after_s
        super().__init__(message)


def ending_of(code: int) -> Ending:
    """Return what one of Alpaca's error codes means for the next attempt."""
    if code in _PERMANENT_CODES:
        return Ending.REFUSED
    return Ending.SLOT_TAKEN if code == ErrorCode.CONNECTION_LIMIT else Ending.LOST


def _explain(code: int, text: str) -> str:
    remedy = {
        ErrorCode.AUTH_FAILED: "correct ALPACA_API_KEY and ALPACA_SECRET_KEY, then restart",
        ErrorCode.CONNECTION_LIMIT: "another program holds this key's one connection, or held it up to 90 s ago",
        ErrorCode.INSUFFICIENT_SUBSCRIPTION: "the plan does not include this feed; change the plan or ALPACA_FEED",
        ErrorCode.INSUFFICIENT_SCOPE: "the key may not read market data",
    }.get(code)
    return f"{text} ({code})" + (f": {remedy}" if remedy else "")


class _Protocol(WebSocketClientProtocol):
    """The SDK's socket, which also remembers the last message read and when anything was last heard."""

    last_message: bytes | str | None = None
    heard_at_s: float = 0.0

    async def recv(self) -> bytes | str:
        self.last_message = await super().recv()
        return self.last_message

    def data_received(self, data: bytes) -> None:
        self.heard_at_s = time.monotonic()
        super().data_received(data)


class _SdkStream(StockDataStream):
    """alpaca-py's stream, used for its handshake alone."""

    def __init__(self, url: str, api_key: str, secret_key: str, on_welcomed: Callable[[], None]) -> None:
        self._on_welcomed = on_welcomed
        super().__init__(
            api_key,
            secret_key,
            raw_data=True,
            url_override=url,
            # These replace the SDK's own defaults, whose 180 s let a dead socket look alive for three minutes.
            websocket_params={
                "ping_interval": PING_INTERVAL_S,
                "ping_timeout": PING_TIMEOUT_S,
                "close_timeout": 1,
                "open_timeout": 10,
                "max_queue": 64,
                "max_size": 2**24,
                "create_protocol": self._make_protocol,
            },
        )
        self.protocol: _Protocol | None = None

    def _make_protocol(self, *args: Any, **kwargs: Any) -> _Protocol:
        self.protocol = _Protocol(*args, **kwargs)
        return self.protocol

    async def _auth(self) -> None:
        self._on_welcomed()
        await super()._auth()

    async def shake_hands(self) -> _Protocol:
        """Connect and authenticate as alpaca-py does."""
        await self._start_ws()
        if self.protocol is None:
            raise ValueError("the SDK connected without our protocol")
        return self.protocol


class AlpacaConnection:
    """One authenticated connection. `recv` and `send` raise ConnectionEndedError when it is over."""

    def __init__(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self.response_headers = protocol.response_headers

    @classmethod
    async def dial(
        cls, url: str, api_key: str, secret_key: str, *, on_welcomed: Callable[[], None] = lambda: None
    ) -> Self:
        """Connect, upgrade and authenticate. Raises ConnectionEndedError; leaves no socket behind then.

        `on_welcomed` is called between connecting and authenticating.
        """
        stream = _SdkStream(url, api_key, secret_key, on_welcomed)
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                return cls(await stream.shake_hands())
        except BaseException as error:
            if stream.protocol is not None:
                with suppress(Exception):
                    await stream.protocol.close()
            if isinstance(error, Exception):
                raise _why_dial_failed(error, stream.protocol, url) from error
            raise

    async def recv(self) -> bytes | str:
        """Return the next frame."""
        try:
            # Straight to the parent: remembering the last message is for the handshake.
            return await WebSocketClientProtocol.recv(self._protocol)
        except ConnectionClosed as error:
            raise _why_closed(error) from error

    async def send(self, message: dict[str, Any]) -> None:
        """Send one message, as msgpack."""
        try:
            await self._protocol.send(msgspec.msgpack.encode(message))
        except ConnectionClosed as error:
            raise _why_closed(error) from error

    async def close(self) -> None:
        """Close with a close frame, so that Alpaca frees the key's slot at once; takes at most about 3 s."""
        with suppress(WebSocketException, OSError):
            await self._protocol.close()

    @property
    def is_alive(self) -> bool:
        """Whether the socket is open and something, if only a pong, was heard within the liveness window."""
        return self._protocol.open and self.silent_for_s < LIVENESS_WINDOW_S

    @property
    def silent_for_s(self) -> float:
        """Seconds since any bytes came in, pongs included."""
        return time.monotonic() - self._protocol.heard_at_s


def _why_closed(error: ConnectionClosed) -> ConnectionEndedError:
    close = error.rcvd or error.sent
    if close is None:
        return ConnectionEndedError(Ending.LOST, "the connection broke without a close frame")
    reason = f"{close.code} {close.reason}".strip()
    return ConnectionEndedError(Ending.LOST, f"the connection was closed: {reason}", code=close.code)


def _why_dial_failed(error: Exception, protocol: _Protocol | None, url: str) -> ConnectionEndedError:
    # The SDK keeps an error's text and loses its code, or masks both: read what really came.
    answered = _error_in(protocol.last_message if protocol is not None else None)
    if answered is not None:
        return ConnectionEndedError(ending_of(answered.code), _explain(answered.code, answered.msg), code=answered.code)
    match error:
        case InvalidStatusCode():
            return _why_upgrade_refused(error, url)
        case TimeoutError():
            return ConnectionEndedError(Ending.LOST, f"no answer from {url} within {_HANDSHAKE_TIMEOUT_S:.0f} s")
        case ConnectionClosed():
            return _why_closed(error)
        case OSError():
            return ConnectionEndedError(Ending.LOST, f"cannot reach {url}: {error}")
        case _:
            return ConnectionEndedError(Ending.LOST, f"{url} did not answer as Alpaca does: {error}")


def _why_upgrade_refused(error: InvalidStatusCode, url: str) -> ConnectionEndedError:
    status = error.status_code
    ending, text = {
        401: (Ending.REFUSED, "the key was refused"),
        403: (Ending.REFUSED, "access was refused"),
        404: (Ending.WRONG_PLACE, "there is no stream at this address; check ALPACA_STREAM_URL and ALPACA_FEED"),
        429: (Ending.LOST, "too many connection attempts"),
    }.get(status, (Ending.LOST, "the server refused the upgrade"))
    return ConnectionEndedError(
        ending,
        f"{url}: {text} (HTTP {status})",
        code=status,
        retry_after_s=_seconds(error.headers.get("Retry-After")),
    )


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After in seconds, at most ten minutes of it; the date form is rare and taken as absent."""
    return min(600.0, float(retry_after)) if retry_after is not None and retry_after.strip().isdecimal() else None


def _error_in(message: bytes | str | None) -> ErrorMessage | None:
    try:
        read = read_frame(message) if message is not None else []
    except UnreadableFrameError:
        return None
    return next((item for item in read if isinstance(item, ErrorMessage)), None)
