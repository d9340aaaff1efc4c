"""How this project talks to a Redis server: one pool, short time-outs, no silent retries.

What to do about a fault (back off, serve from memory, refuse) is the caller's decision, so callers must see it at once.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from libs.redis_client.scripts import Script

CONNECT_TIMEOUT_S: Final = 1.0
COMMAND_TIMEOUT_S: Final = 1.0
MAX_CONNECTIONS: Final = 32
"""More callers than that wait for a free one, within their command's time-out."""

Argument = bytes | str | int | float


class RedisUnavailableError(ConnectionError):
    """The server could not carry out a command: away, too slow, or unwilling. Asking later may help.

    `operation` is the command, `reason` the fault in one line. Never holds the password.
    """

    def __init__(self, operation: str, reason: str) -> None:
        self.operation = operation
        self.reason = reason
        super().__init__(f"Redis {operation} failed: {reason}")


REDIS_FAULTS: Final = (RedisError, OSError, TimeoutError)
"""All that a faulty server can make redis-py raise, for those who use `raw` or `pubsub()` directly."""


class RedisClient:
    """Own the connections to one Redis server. Constructing opens nothing; the first command does.

    Every method raises RedisUnavailableError, and nothing else, when the server cannot serve. `namespace` keeps the
    keys and channels of several systems on one server apart: whoever uses one asks `named` for its name.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "",
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._address = without_credentials(url)
        self._prefix = f"{namespace}:" if namespace else ""
        self._command_timeout_s = command_timeout_s

        def pool(socket_timeout_s: float | None, **options: Any) -> BlockingConnectionPool:
            return BlockingConnectionPool.from_url(
                url,
                # Nothing here needs protocol 3, and its handshake and push messages cost round trips on some servers.
                protocol=2,
                decode_responses=False,
                max_connections=max_connections,
                timeout=None,
                socket_connect_timeout=connect_timeout_s,
                socket_timeout=socket_timeout_s,
                retry=Retry(NoBackoff(), 0),
                **options,
            )

        # Commands are bounded as a whole, by us. A socket time-out would make redis-py send through wait_for, which
        # starts a task for each command and, before Python 3.12, may swallow a cancellation.
        self._commands: Redis = Redis.from_pool(pool(None, **_forgetful(command_timeout_s)))
        # Subscribers outlast any time-out of ours, so they keep redis-py's own for their handshake.
        self._raw: Redis = Redis.from_pool(pool(command_timeout_s))

    def __repr__(self) -> str:
        return f"RedisClient({self._address})"

    @property
    def address(self) -> str:
        """The server's URL without user and password, fit for logs."""
        return self._address

    def named(self, name: str) -> str:
        """Return the name that the key or channel `name` has here: with the namespace before it, if there is one."""
        return self._prefix + name

    @property
    def raw(self) -> Redis:
        """The redis-py client, for commands that this class does not name. Raises REDIS_FAULTS."""
        return self._raw

    async def ping(self) -> None:
        """Return when the server has answered."""
        await self.execute("PING")

    async def get(self, key: str) -> bytes | None:
        """Read one string; None when there is none."""
        reply: bytes | None = await self.execute("GET", key)
        return reply

    async def set(self, key: str, value: bytes | str, ex: float | None = None) -> None:
        """Write one string that lives `ex` seconds (None: for ever)."""
        if ex is None:
            await self.execute("SET", key, value)
        else:
            await self.execute("SET", key, value, "PX", max(1, round(ex * 1000)))

    async def mget(self, keys: Sequence[str], deadline_s: float | None = None) -> list[bytes | None]:
        """Read many strings in one request, None for each that is missing.

        `deadline_s` bounds the whole call, connecting included.
        """
        if not keys:
            return []
        reply: list[bytes | None] = await self.execute("MGET", *keys, deadline_s=deadline_s)
        return reply

    async def publish(self, channel: str, message: bytes | str) -> int:
        """Send a message; return how many clients of this server received it."""
        reply: int = await self.execute("PUBLISH", channel, message)
        return reply

    async def run_script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a server-side script in one request, or two when the server does not hold it yet."""
        try:
            async with asyncio.timeout(self._command_timeout_s):
                try:
                    return await self._command("EVALSHA", script.sha, len(keys), *keys, *args)
                except NoScriptError:
                    # EVAL also keeps the script for the next EVALSHA.
                    return await self._command("EVAL", script.source, len(keys), *keys, *args)
        except REDIS_FAULTS as error:
            raise _unavailable(script.name, error) from error

    def pubsub(self) -> PubSub:
        """Return a subscriber with a connection of its own. Close it with `aclose()`.

        It raises REDIS_FAULTS, and only judges a server dead when the socket is: watch heartbeats for a frozen one.
        """
        return self._raw.pubsub()

    async def execute(self, command: str, *args: Argument, deadline_s: float | None = None) -> Any:
        """Carry out any command and return its reply.

        The whole call, connecting included, is bounded by the command time-out, or by `deadline_s` if that is sooner.
        """
        limit_s = self._command_timeout_s if deadline_s is None else min(deadline_s, self._command_timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                return await self._command(command, *args)
        except REDIS_FAULTS as error:
            raise _unavailable(command, error) from error

    async def aclose(self) -> None:
        """Close every connection."""
        await self._commands.aclose()
        await self._raw.aclose()

    async def _command(self, *args: Argument) -> Any:
        return await self._commands.execute_command(*args)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped


def redis_url(host: str, port: int) -> str:
    """Return the URL of a server without password, database 0."""
    return f"redis://{f'[{host}]' if ':' in host else quote(host)}:{port}/0"


def without_credentials(url: str) -> str:
    """Return the URL's scheme, host, port and path only."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _forgetful(timeout_s: float) -> dict[str, Any]:
    """Return the connection options that have the kernel drop what the server's has not taken within `timeout_s`.

    Otherwise a command that we have long given up could still arrive, minutes after the network's return, and put an
    old price over a newer one. Only Linux offers this.
    """
    option: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None:
        return {}
    return {"socket_keepalive": True, "socket_keepalive_options": {option: round(timeout_s * 1000)}}


def _unavailable(operation: str, error: BaseException) -> RedisUnavailableError:
    lines = str(error).splitlines()
    return RedisUnavailableError(operation, lines[0] if lines else "no answer in time")
