"""The wire to the trading stream: dials, authenticates and listens. The only file here that knows websockets.

It turns everything that can end a connection into one StreamEndedError that says what follows for the next attempt.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from libs.market_data.reconnect import Ending

PING_INTERVAL_S: Final = 5
PING_TIMEOUT_S: Final = 5
LIVENESS_WINDOW_S: Final = 12.0
"""A connection from which nothing, not even a pong, has come for this long is not called connected."""

_OPEN_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 2**22
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LONGEST_RETRY_AFTER_S: Final = 600.0


class StreamEndedError(Exception):
    """A connection, or the attempt at one, is over.

    `ending` says what follows; `code` is the HTTP status at the upgrade or the close code, None for the network.
    """

    def __init__(
        self, ending: Ending, message: str, *, code: int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.ending = ending
        self.message = message
        self.code = code
        self.retry_after_s = retry_after_s
        super().__init__(message)


def stream_url(trading_url: str) -> str:
    """Return the trading stream's address: that of the account's REST calls, with ws and `/stream`."""
    scheme, separator, rest = trading_url.rstrip("/").partition("://")
    secure = {"https": "wss", "http": "ws"}.get(scheme.lower(), scheme)
    return f"{secure}{separator}{rest}/stream"


class _Connection(ClientConnection):
    """A socket that remembers when anything was last heard."""

    heard_at_s: float = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard_at_s = time.monotonic()
        super().data_received(data)


class TradeUpdatesConnection:
    """One open connection. `recv` and `send` raise StreamEndedError when it is over."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def dial(cls, url: str) -> Self:
        """Connect and upgrade. Raises StreamEndedError; leaves no socket behind then."""
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                return cls(
                    await connect(
                        url,
                        ping_interval=PING_INTERVAL_S,
                        ping_timeout=PING_TIMEOUT_S,
                        close_timeout=1,
                        open_timeout=None,
                        max_size=_MOST_BYTES,
                        max_queue=256,
                        # A proxy from the environment is for the internet, not for a simulator on this machine.
                        proxy=None if urlsplit(url).hostname in _LOOPBACK else True,
                        create_connection=_Connection,
                    )
                )
        except Exception as error:
            raise _why_dial_failed(error, url) from error

    async def recv(self) -> bytes | str:
        """Return the next frame: Alpaca's paper host sends JSON in binary frames, the live host in text."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise _why_closed(error) from error

    async def send(self, message: dict[str, Any]) -> None:
        """Send one message, as JSON text."""
        try:
            await self._connection.send(msgspec.json.encode(message).decode())
        except ConnectionClosed as error:
            raise _why_closed(error) from error

    async def close(self) -> None:
        """Close with a close frame, so that the account's one slot is free at once; takes at most about 2 s."""
        with suppress(WebSocketException, OSError):
            await self._connection.close()

    @property
    def silent_for_s(self) -> float:
        """Seconds since any bytes came in, pongs included."""
        return time.monotonic() - getattr(self._connection, "heard_at_s", 0.0)


def _why_closed(error: ConnectionClosed) -> StreamEndedError:
    close = error.rcvd or error.sent
    if close is None:
        return StreamEndedError(Ending.LOST, "the connection broke without a close frame")
    reason = f"{close.code} {close.reason}".strip()
    return StreamEndedError(Ending.LOST, f"the connection was closed: {reason}", code=close.code)


def _why_dial_failed(error: Exception, url: str) -> StreamEndedError:
    match error:
        case InvalidStatus():
            return _why_upgrade_refused(error, url)
        case TimeoutError():
            return StreamEndedError(Ending.LOST, f"no answer from {url} within {_OPEN_TIMEOUT_S:.0f} s")
        case InvalidURI():
            return StreamEndedError(Ending.REFUSED, f"{url} is no address of a stream: {error}")
        case ConnectionClosed():
            return _why_closed(error)
        case _:
            # A wrong certificate is an OSError too.
            what = f"cannot reach {url}" if isinstance(error, OSError) else f"{url} did not answer as Alpaca does"
            return StreamEndedError(Ending.LOST, f"{what}: {error}")


def _why_upgrade_refused(error: InvalidStatus, url: str) -> StreamEndedError:
    status = error.response.status_code
    ending, text = {
        401: (Ending.REFUSED, "the key was refused"),
        403: (Ending.REFUSED, "access was refused"),
        404: (Ending.WRONG_PLACE, "there is no trading stream at this address; check ALPACA_TRADING_URL"),
        # One connection per account: somebody else has it, or had it a moment ago.
        429: (Ending.SLOT_TAKEN, "another program holds this account's one trading stream"),
    }.get(status, (Ending.LOST, "the server refused the upgrade"))
    retry_after_s = _seconds(error.response.headers.get("Retry-After"))
    return StreamEndedError(ending, f"{url}: {text} (HTTP {status})", code=status, retry_after_s=retry_after_s)


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After in seconds, at most ten minutes of it; the date form is rare and taken as absent."""
    if retry_after is None or not (retry_after.strip().isdecimal() and retry_after.isascii()):
        return None
    return min(_LONGEST_RETRY_AFTER_S, float(retry_after))
