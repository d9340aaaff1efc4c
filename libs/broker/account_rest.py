"""Asks the account over REST: positions, its summary, pages of activities. The only importer of the HTTP client here.

Decides time-outs, and how long to leave the server alone; it never tries again by itself. What the answers mean is
read in `account_messages.py`. Faults are AlpacaRestError, as for market data.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from libs.broker.account_messages import (
    AccountSummary,
    ActivitiesPage,
    PositionsAnswer,
    read_account,
    read_activities,
    read_base_value,
    read_positions,
)
from libs.market_data.alpaca_rest import AlpacaRestError

PAGE_SIZE: Final = 100
"""The most that one page of activities may hold."""

_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})
_REFUSED: Final = frozenset({401, 403})
_MOST_BYTES: Final = 32 * 1024 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_PAUSE_AFTER_429_S: Final = 15.0
_LONGEST_PAUSE_S: Final = 600.0
_LIMIT_WINDOW_S: Final = 60.0
_LOW_SHARE: Final = 0.25
"""Below this share of the limit the rest is spread over the time until the limit starts anew."""

Answer = TypeVar("Answer")


class AccountRest:
    """The account's calls. Building it opens nothing; `aclose` (or `async with`) closes what the calls opened.

    `trading_url` comes without `/v2`. `timeout_s` bounds every single call as a whole.
    """

    def __init__(self, trading_url: str, key: str | None, secret: str | None, *, timeout_s: float = 5.0) -> None:
        self._url = trading_url.rstrip("/")
        self._headers = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret} if key and secret else {}
        self._timeout_s = timeout_s
        self._http: httpx2.AsyncClient | None = None
        self._ask_again_at_s = 0.0
        self.requests = 0

    def __repr__(self) -> str:
        return f"AccountRest(trading_url={self._url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. A later call opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next call: the server asked for it, or its rate limit is nearly used up."""
        return max(0.0, self._ask_again_at_s - time.monotonic())

    async def positions(self) -> PositionsAnswer:
        """Return all that the account holds. Raises AlpacaRestError, also for an answer that is no list."""
        return await self._ask("/v2/positions", {}, read_positions)

    async def account(self) -> AccountSummary:
        """Return the account's summary. Raises AlpacaRestError."""
        return await self._ask("/v2/account", {}, read_account)

    async def base_value(self) -> Decimal | None:
        """Return with how much the account's history began, in USD; None: it does not say. Raises AlpacaRestError."""
        query = {"period": "all", "timeframe": "1D", "intraday_reporting": "market_hours"}
        return await self._ask("/v2/account/portfolio/history", query, read_base_value)

    async def activities(
        self, *, after: datetime | None = None, page_token: str | None = None, kinds: Iterable[str] = ()
    ) -> ActivitiesPage:
        """Return one page of activities, oldest first; a page with fewer than PAGE_SIZE elements is the last.

        `after` None: since the account was opened. `page_token` is the last page's `last_id`. `kinds` empty: all.
        Raises AlpacaRestError.
        """
        query = {"direction": "asc", "page_size": str(PAGE_SIZE)}
        if after is not None:
            query["after"] = after.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if page_token is not None:
            query["page_token"] = page_token
        if wanted := ",".join(kinds):
            query["activity_types"] = wanted
        return await self._ask("/v2/account/activities", query, read_activities)

    async def _ask(self, path: str, query: Mapping[str, str], read: Callable[[bytes], Answer]) -> Answer:
        url = self._url + path
        body = await self._get(url, query)
        try:
            return read(body)
        # msgspec's errors are ValueErrors. A proxy's HTML page under status 200 passes; so this is worth another try.
        except (ValueError, RecursionError) as error:
            raise AlpacaRestError(
                f"{url} answered 200 with an unreadable body: {error}", status=200, retryable=True
            ) from error

    async def _get(self, url: str, query: Mapping[str, str]) -> bytes:
        """Return the body of a 200 answer. Raises AlpacaRestError for anything else."""
        self.requests += 1
        try:
            # The client's own time-outs bound each read; a server that drips bytes needs a bound of the whole.
            async with (
                asyncio.timeout(self._timeout_s),
                self._client().stream("GET", url, params=query, headers=self._headers) as answer,
            ):
                body = await _read_whole(url, answer)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise AlpacaRestError(f"{url} did not answer within {self._timeout_s:g} s", retryable=True) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise AlpacaRestError(f"{url} is no URL that can be asked: {error}", retryable=False) from error
        except httpx2.RequestError as error:
            raise AlpacaRestError(
                f"{url} cannot be reached: {error or type(error).__name__}", retryable=True
            ) from error
        self._note_limit(answer)
        if answer.status_code != httpx2.codes.OK:
            raise _refusal(url, answer, body)
        return body

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            # A proxy from the environment is for the internet, not for a simulator on this machine.
            is_local = urlsplit(self._url).hostname in _LOOPBACK
            self._http = httpx2.AsyncClient(timeout=self._timeout_s, trust_env=not is_local)
        return self._http

    def _note_limit(self, answer: httpx2.Response) -> None:
        """Remember how long to leave the server alone."""
        now = datetime.now(UTC)
        pause_s = _pause_for(answer.headers, now)
        if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            asked_s = _retry_after_s(answer.headers, now)
            pause_s = max(pause_s, _PAUSE_AFTER_429_S if asked_s is None else asked_s)
        self._ask_again_at_s = time.monotonic() + min(pause_s, _LONGEST_PAUSE_S)


async def _read_whole(url: str, answer: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise AlpacaRestError(f"{url} answered more than {_MOST_BYTES} bytes", retryable=False)
    return bytes(body)


def _pause_for(headers: httpx2.Headers, now: datetime) -> float:
    """Return the seconds to the next call that spread what is left of the limit over the time until it starts anew."""
    try:
        limit, remaining = int(headers["X-RateLimit-Limit"]), int(headers["X-RateLimit-Remaining"])
        reset_s = float(headers["X-RateLimit-Reset"]) - now.timestamp()
    except (KeyError, ValueError):
        return 0.0
    if remaining >= limit * _LOW_SHARE:
        return 0.0
    # Clocks disagree: the window is a minute at most.
    return min(max(reset_s, 1.0), _LIMIT_WINDOW_S) / max(1, remaining)


def _refusal(url: str, answer: httpx2.Response, body: bytes) -> AlpacaRestError:
    status = answer.status_code
    is_retryable = status in _RETRYABLE_STATUSES or status >= httpx2.codes.INTERNAL_SERVER_ERROR
    message = f"{url} answered {status}{_said(body)}"
    if status in _REFUSED:
        message += " (wrong key, or a live key with ALPACA_PAPER=true or the reverse)"
    # The limit's reset says something of our own haste alone, not of a server in trouble.
    is_told = status == httpx2.codes.TOO_MANY_REQUESTS or "Retry-After" in answer.headers
    wait_s = _retry_after_s(answer.headers, datetime.now(UTC)) if is_retryable and is_told else None
    return AlpacaRestError(message, status=status, retryable=is_retryable, retry_after_s=wait_s)


class _ErrorBody(msgspec.Struct):
    """The trading host's errors: `{"code":40110000,"message":"..."}`."""

    message: str = ""


def _said(body: bytes) -> str:
    """Return what the server gave as its reason, shortened to one printable line; nothing for HTML."""
    try:
        message = msgspec.json.decode(body, type=_ErrorBody).message
    except (ValueError, RecursionError):
        return ""
    line = "".join(character if character.isprintable() else " " for character in message[:200])
    return f": {line}" if line else ""


def _retry_after_s(headers: httpx2.Headers, now: datetime) -> float | None:
    """Return the seconds that the server asks us to wait: Retry-After (seconds or a date), else the limit's reset.

    At most ten minutes, or a minute for the reset, whose window is no longer: a clock may be wrong.
    """
    asked = headers.get("Retry-After", "").strip()
    try:
        if asked.isdecimal() and asked.isascii():
            return min(float(asked), _LONGEST_PAUSE_S)
        if asked:
            return min(max(0.0, (parsedate_to_datetime(asked) - now).total_seconds()), _LONGEST_PAUSE_S)
        reset_at = datetime.fromtimestamp(int(headers["X-RateLimit-Reset"]), tz=UTC)
        return min(max(0.0, (reset_at - now).total_seconds()), _LIMIT_WINDOW_S)
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
