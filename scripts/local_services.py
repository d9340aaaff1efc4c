"""Asks our two services over HTTP, for the scripts: where they are, and what they answer within two seconds.

Numbers are kept as written: a body's text is at hand beside its reading, whose fractions are Decimal.
"""

import asyncio
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import httpx2
from pydantic import Field, field_validator

from libs.service.settings import HttpSettings, Port, split_url

PATIENCE_S: Final = 2.0
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class LocalServicesSettings(HttpSettings):
    """Where the services listen."""

    market_data_port: Port = 8004
    execution_gateway_port: Port = 8002
    execution_gateway_url: str | None = Field(None, description="an http:// or https:// address")

    @field_validator("execution_gateway_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None:
            split_url(value, ("http", "https"))
        return value

    @property
    def market_data_url(self) -> str:
        """The base of the market data service's addresses."""
        return f"http://{self._host}:{self.market_data_port}"

    @property
    def gateway_url(self) -> str:
        """The base of the execution gateway's addresses."""
        return (self.execution_gateway_url or self.local_gateway_url).rstrip("/")

    @property
    def local_gateway_url(self) -> str:
        """The base of the addresses of a gateway on this machine."""
        return f"http://{self._host}:{self.execution_gateway_port}"

    @property
    def token(self) -> str | None:
        """The bearer token that both services ask for, None when they ask for none."""
        return None if self.api_token is None else self.api_token.get_secret_value()

    @property
    def _host(self) -> str:
        host = _EVERY_ADDRESS.get(self.bind_host, self.bind_host)
        return f"[{host}]" if ":" in host and not host.startswith("[") else host


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said. `status` is None when it did not answer; `error` is None only for a readable 200."""

    url: str
    status: int | None = None
    text: str | None = None
    body: dict[str, Any] | None = None
    error: str | None = None


def read_body(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object with its fractions as Decimal, digits as written. Raises ValueError for anything else."""
    body = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the text is wrong, not the caller's type
    return body


async def ask(http: httpx2.AsyncClient, url: str, token: str | None) -> Answer:
    """Return the answer of `url`, whatever happens."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        # The client's own time-outs bound each read, not the whole.
        async with asyncio.timeout(PATIENCE_S):
            answer = await http.get(url, headers=headers)
    except (TimeoutError, httpx2.TimeoutException):
        return Answer(url, error=f"no answer within {PATIENCE_S:g} s")
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        return Answer(url, error=f"cannot be reached: {error or type(error).__name__}")
    try:
        body = read_body(answer.text)
    except ValueError:
        return Answer(url, answer.status_code, error=f"answered {answer.status_code} with something else than JSON")
    if answer.status_code != httpx2.codes.OK:
        return Answer(url, answer.status_code, answer.text, body, error=_problem(answer.status_code, body))
    return Answer(url, answer.status_code, answer.text, body)


def client() -> httpx2.AsyncClient:
    """Return a client for services of our own.

    No proxy from the environment stands between, and no connection is kept: a server that closes an idle one just when
    it is used again would look like a server that is down.
    """
    return httpx2.AsyncClient(trust_env=False, timeout=PATIENCE_S, limits=httpx2.Limits(max_keepalive_connections=0))


def _problem(status: int, body: dict[str, Any]) -> str:
    if status == httpx2.codes.UNAUTHORIZED:
        return "answered 401: set API_TOKEN to the services' token"
    return f"answered {status}: {body.get('detail') or body.get('title') or 'no reason given'}"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
