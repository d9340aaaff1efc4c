"""Asks Alpaca over REST: latest quotes and trades, clock, daily bars. The only importer of the HTTP client here.

Decides time-outs, paging, and which faults are worth another try; it never tries again by itself.
What the answers mean is read in `latest_quotes_rest.py`, `latest_trades_rest.py`, `daily_bars_rest.py` and
`market_hours.py`.

    AlpacaRestError   .status (None: no answer came), .retryable, .retry_after_s
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from libs.market_data.daily_bars_rest import DailyBar, bars_query, read_bars_page
from libs.market_data.latest_quotes_rest import FEEDS_OVER_REST, in_requests, read_latest_quotes
from libs.market_data.latest_trades_rest import read_latest_trades
from libs.market_data.market_hours import AccountClock, read_clock
from libs.market_data.prices import Mode
from libs.market_data.quotes import Quote
from libs.market_data.trades import Trade

SIMULATOR_HEADER: Final = "X-Markstream-Simulator"
"""Set by our simulator on every answer, to `simulated` or `replay`: made-up money is then named as such."""

_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})
_UNREADABLE: Final = (ValueError, RecursionError)
"""What reading a body may raise: msgspec's errors are ValueErrors, and one nested too deeply overflows the stack."""
_REFUSED: Final = frozenset({401, 403})
_BAD_REQUEST: Final = frozenset({400, 422})
_LONGEST_WAIT_S: Final = 600.0
_MOST_BYTES: Final = 32 * 1024 * 1024
_MOST_PAGES: Final = 10_000
_MOST_SPLITS: Final = 16
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

T = TypeVar("T")


class AlpacaRestError(Exception):
    """A call failed. `retryable` says whether asking again can help, `retry_after_s` what the server asked us to wait.

    `status` is the HTTP status; None when no answer came at all.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool, retry_after_s: float | None = None
    ) -> None:
        self.message = message
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        super().__init__(message)


class AlpacaRest:
    """The calls we make. Building it opens nothing; `aclose` (or `async with`) closes what the calls opened.

    `data_url` and `trading_url` come without `/v2`. `timeout_s` bounds every single call as a whole. `now` says when an
    answer was received.
    """

    def __init__(
        self,
        data_url: str,
        trading_url: str,
        key: str | None,
        secret: str | None,
        *,
        timeout_s: float = 5.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._data_url = data_url.rstrip("/")
        self._trading_url = trading_url.rstrip("/")
        self._headers = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret} if key and secret else {}
        self._timeout_s = timeout_s
        self._now = now
        self._http: httpx2.AsyncClient | None = None
        self.simulator_mode: Mode | None = None
        """What the server says it plays; None until asked, and for Alpaca itself."""
        self.unreadable_quotes = 0
        self.unreadable_trades = 0

    def __repr__(self) -> str:
        return f"AlpacaRest(data_url={self._data_url!r}, trading_url={self._trading_url!r})"

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

    async def latest_quotes(self, symbols: Sequence[str], feed: str) -> list[Quote]:
        """Return the latest quote of each symbol that has one; an empty list for a feed without a REST side.

        A refused symbol (400, 422) is searched out by halving, so that the others still get theirs.
        Raises AlpacaRestError.
        """
        if feed not in FEEDS_OVER_REST:
            return []
        return await _without_refused(symbols, lambda asked: self._latest_quotes_once(asked, feed))

    async def latest_trades(self, symbols: Sequence[str], feed: str) -> list[Trade]:
        """Return the latest trade of each symbol that has one which still stands, like `latest_quotes`.

        Raises AlpacaRestError.
        """
        if feed not in FEEDS_OVER_REST:
            return []
        return await _without_refused(symbols, lambda asked: self._latest_trades_once(asked, feed))

    async def clock(self) -> AccountClock:
        """Return what the account's clock says of the market. Raises AlpacaRestError."""
        url = f"{self._trading_url}/v2/clock"
        body = await self._get(url)
        try:
            return read_clock(body, self.simulator_mode)
        except _UNREADABLE as error:
            raise _unreadable(url, error) from error

    async def daily_bars(
        self, symbols: Sequence[str], start: date, end: datetime, *, now: datetime | None = None
    ) -> list[DailyBar]:
        """Return the unadjusted consolidated daily bars from `start` to `end`, all pages.

        `end` is moved back to 16 minutes before `now` (default: this moment). A bar of a session that is not over
        is Alpaca's state of it: the caller knows which sessions are complete. Raises AlpacaRestError.
        """
        url = f"{self._data_url}/v2/stocks/bars"
        bars: list[DailyBar] = []
        for asked in in_requests(sorted(set(symbols))):
            query = bars_query(list(asked), start, end, now or datetime.now(UTC))
            seen: set[str] = set()
            while True:
                body = await self._get(url, query)
                try:
                    page, token = read_bars_page(body)
                except _UNREADABLE as error:
                    raise _unreadable(url, error) from error
                bars += page
                if token is None:
                    break
                if token in seen or len(seen) >= _MOST_PAGES:
                    raise AlpacaRestError(f"{url} repeats its page token: the pages never end", retryable=False)
                seen.add(token)
                query["page_token"] = token
        return bars

    async def _latest_quotes_once(self, symbols: Sequence[str], feed: str) -> list[Quote]:
        url = f"{self._data_url}/v2/stocks/quotes/latest"
        body = await self._get(url, {"symbols": ",".join(symbols), "feed": feed})
        try:
            quotes, unreadable = read_latest_quotes(body, self._now())
        except _UNREADABLE as error:
            raise _unreadable(url, error) from error
        self.unreadable_quotes += unreadable
        return quotes

    async def _latest_trades_once(self, symbols: Sequence[str], feed: str) -> list[Trade]:
        url = f"{self._data_url}/v2/stocks/trades/latest"
        body = await self._get(url, {"symbols": ",".join(symbols), "feed": feed})
        try:
            trades, unreadable = read_latest_trades(body, self._now())
        except _UNREADABLE as error:
            raise _unreadable(url, error) from error
        self.unreadable_trades += unreadable
        return trades

    async def _get(self, url: str, query: Mapping[str, str] | None = None) -> bytes:
        """Return the body of a 200 answer. Raises AlpacaRestError for anything else."""
        try:
            # The client's own time-outs bound each read; a server that drips bytes needs a bound of the whole.
            async with (
                asyncio.timeout(self._timeout_s),
                self._client().stream("GET", url, params=query, headers=self._headers) as answer,
            ):
                body = bytearray()
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise AlpacaRestError(f"{url} answered more than {_MOST_BYTES} bytes", retryable=False)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise AlpacaRestError(f"{url} did not answer within {self._timeout_s:g} s", retryable=True) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise AlpacaRestError(f"{url} is no URL that can be asked: {error}", retryable=False) from error
        except httpx2.RequestError as error:
            raise AlpacaRestError(
                f"{url} cannot be reached: {error or type(error).__name__}", retryable=True
            ) from error
        self._note_mode(answer.headers.get(SIMULATOR_HEADER))
        if answer.status_code != httpx2.codes.OK:
            raise _refusal(url, answer, bytes(body))
        return bytes(body)

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            # A proxy from the environment is for the internet, not for a simulator on this machine.
            is_local = all(urlsplit(url).hostname in _LOOPBACK for url in (self._data_url, self._trading_url))
            self._http = httpx2.AsyncClient(timeout=self._timeout_s, trust_env=not is_local)
        return self._http

    def _note_mode(self, header: str | None) -> None:
        played = {Mode.SIMULATED.value: Mode.SIMULATED, Mode.REPLAY.value: Mode.REPLAY}
        if header is not None:
            self.simulator_mode = played.get(header.strip().lower(), Mode.SIMULATED)


async def _without_refused(symbols: Sequence[str], ask: Callable[[Sequence[str]], Awaitable[Sequence[T]]]) -> list[T]:
    """Ask for all symbols, in as many requests as needed; a refused one is searched out by halving and left out."""
    found: list[T] = []
    splits_left = _MOST_SPLITS
    waiting = deque(in_requests(sorted(set(symbols))))
    while waiting:
        asked = waiting.popleft()
        try:
            found += await ask(asked)
        except AlpacaRestError as error:
            if error.status not in _BAD_REQUEST or not splits_left:
                raise
            splits_left -= 1
            if len(asked) > 1:
                middle = len(asked) // 2
                waiting += (asked[:middle], asked[middle:])
    return found


def _refusal(url: str, answer: httpx2.Response, body: bytes) -> AlpacaRestError:
    status = answer.status_code
    is_retryable = status in _RETRYABLE_STATUSES or status >= httpx2.codes.INTERNAL_SERVER_ERROR
    message = f"{url} answered {status}{_said(body)}"
    if status in _REFUSED:
        message += " (wrong key, a live key with ALPACA_PAPER=true or the reverse, or a feed the plan does not include)"
    # The limit's reset says something of our own haste alone, not of a server in trouble.
    is_told = status == httpx2.codes.TOO_MANY_REQUESTS or "Retry-After" in answer.headers
    wait_s = _retry_after_s(answer.headers, datetime.now(UTC)) if is_retryable and is_told else None
    return AlpacaRestError(message, status=status, retryable=is_retryable, retry_after_s=wait_s)


def _unreadable(url: str, error: Exception) -> AlpacaRestError:
    # A proxy's HTML page under status 200 passes; so this is worth another try.
    return AlpacaRestError(f"{url} answered 200 with an unreadable body: {error}", status=200, retryable=True)


class _ErrorBody(msgspec.Struct):
    """The data host's and the trading host's errors: `{"message":"..."}`, sometimes with a `code`."""

    message: str = ""


def _said(body: bytes) -> str:
    """Return what the server gave as its reason, shortened to one printable line; nothing for HTML."""
    try:
        message = msgspec.json.decode(body, type=_ErrorBody).message
    except _UNREADABLE:
        return ""
    line = "".join(character if character.isprintable() else " " for character in message[:200])
    return f": {line}" if line else ""


def _retry_after_s(headers: httpx2.Headers, now: datetime) -> float | None:
    """Return the seconds that the server asks us to wait: Retry-After (seconds or a date), else the limit's reset.

    At most ten minutes: a server's clock may be wrong.
    """
    asked = headers.get("Retry-After", "").strip()
    try:
        if asked.isdecimal() and asked.isascii():
            return min(float(asked), _LONGEST_WAIT_S)
        until = (
            parsedate_to_datetime(asked) if asked else datetime.fromtimestamp(int(headers["X-RateLimit-Reset"]), tz=UTC)
        )
        return min(max(0.0, (until - now).total_seconds()), _LONGEST_WAIT_S)
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
