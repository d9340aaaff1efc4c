"""What a connection to PostgreSQL is told: not to outlast the one who opened it, and not to be waited for at its end.

A gateway that dies or freezes in the middle of a writing must not lock out the others; nor may a server that no longer
answers hold up an answer of ours.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from apps.execution_gateway.postgres_options import certificate_dsn

CLOSE_TIMEOUT_S: Final = 0.2
"""How long a goodbye may take; then the connection is dropped. The driver's own 2 s would double each time-out."""

ROLLBACK_TIMEOUT_S: Final = 0.5
"""Rolling back takes PostgreSQL no time, however much was written."""

SERVER_SETTINGS: Final = {
    "application_name": "markstream",
    # Between two statements of a transaction we take milliseconds: whoever takes longer is gone, his locks must go too.
    "idle_in_transaction_session_timeout": "10s",
    # Longer than the slowest call: only a statement whose caller has vanished is ended by it.
    "statement_timeout": "90s",
    # A peer without power closes nothing: find out within a minute, not within two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


_ROLLBACK: Final = "ROLLBACK;"
"""As the driver's transactions write it."""


class PromptConnection(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that can be given up in bounded time, whatever the server does.

    SQLAlchemy rolls back and closes to the end, past every time-out of the caller: those two must not hang.
    """

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109  # driver's
        """Execute; where a rollback is not answered, hang up: that rolls back as well."""
        if query != _ROLLBACK:
            return str(await super().execute(query, *args, timeout=timeout))
        try:
            async with asyncio.timeout(ROLLBACK_TIMEOUT_S):
                return str(await super().execute(query))
        except TimeoutError:
            self.terminate()
            return "ROLLBACK"

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  # the driver's own signature
        """Say goodbye, and hang up when that is not heard."""
        # When it times out the driver has dropped the connection already.
        with contextlib.suppress(TimeoutError):
            await super().close(timeout=CLOSE_TIMEOUT_S if timeout is None else min(timeout, CLOSE_TIMEOUT_S))


def connect_arguments(timeout_s: float, options: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    """Return what the driver is given for each connection, beside its address; `timeout_s` bounds the connecting.

    `options` are the address's own, as `postgres_options.read_options` returns them.
    """
    name = options.get("application_name", SERVER_SETTINGS["application_name"])
    arguments = {
        "timeout": timeout_s,
        "server_settings": {**SERVER_SETTINGS, "application_name": name},
        "connection_class": PromptConnection,
    }
    dsn = certificate_dsn(options)
    return arguments if dsn is None else {**arguments, "dsn": dsn}
