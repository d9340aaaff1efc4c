"""What every simulated REST call shares: who may ask, the faults of the moment, and how a refusal looks."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from aiohttp import web

from apps.alpaca_simulator.data_stream import KEY_HEADER, SECRET_HEADER, retry_after
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.protocol import Credentials
from libs.market_data.symbols import is_symbol
from libs.market_data.trading_sessions import NEW_YORK

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HTML_FROM: Final = 500
"""From this status on Alpaca's answers may be a proxy's HTML instead of JSON."""
_CLOCK_PATH: Final = "/v2/clock"
_QUOTE_PATHS: Final = ("/quotes/latest", "/snapshots")
_GARBAGE: Final = ('{"quotes": null}', '{"quotes": {"AAPL": {"t": "2022-08-17T10:07')
_WHOLE_DAY: Final = timedelta(days=1)


class RefusedError(Exception):
    """A call is refused: the HTTP status, and the message for its JSON body."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


class RestAccess:
    """Guards REST handlers: credentials, faults, refusals."""

    def __init__(self, credentials: Credentials, faults: Callable[[], Faults]) -> None:
        self._credentials = credentials
        self._faults = faults
        self._garbage_answers = 0

    def guard(self, handler: Handler, *, code_suffix: str | None = None) -> Handler:
        """Return `handler` behind the guard.

        With `code_suffix` refusals carry a `code`, as the trading host's do; the data host's have none.
        """

        async def guarded(request: web.Request) -> web.StreamResponse:
            if (wrong := await self._misbehaves(request, code_suffix)) is not None:
                return wrong
            if not self._credentials.accept(request.headers.get(KEY_HEADER), request.headers.get(SECRET_HEADER)):
                return _refusal(401, "unauthorized.", code_suffix)
            try:
                return await handler(request)
            except RefusedError as refused:
                return _refusal(refused.status, refused.message, code_suffix)

        return guarded

    async def _misbehaves(self, request: web.Request, code_suffix: str | None) -> web.Response | None:
        """Wait and return what the faults of the moment make of a call; None when it is to be answered properly."""
        faults = self._faults()
        if not _concerns(faults, request.path):
            return None
        if faults.rest_delay_s:
            await asyncio.sleep(faults.rest_delay_s)
        if faults.rest_status is not None:
            refused = _refusal(faults.rest_status, "refused by the simulator", code_suffix)
            refused.headers.update(retry_after(faults.rest_retry_after_s))
            return refused
        if faults.rest_html:
            return web.Response(text="<html><body>one moment, please</body></html>", content_type="text/html")
        if faults.rest_garbage:
            self._garbage_answers += 1
            return web.Response(text=_GARBAGE[self._garbage_answers % 2], content_type="application/json")
        return None


def _concerns(faults: Faults, path: str) -> bool:
    match faults.rest_paths:
        case "all":
            return True
        case "quotes":
            return path.endswith(_QUOTE_PATHS)
        case "clock":
            return path == _CLOCK_PATH


def _refusal(status: int, message: str, code_suffix: str | None) -> web.Response:
    if status >= _HTML_FROM:
        return web.Response(status=status, text=f"<html><body>{status}</body></html>", content_type="text/html")
    body: dict[str, object] = {"message": message}
    if code_suffix is not None:
        body["code"] = int(f"{status}{code_suffix}")
    return web.json_response(body, status=status)


def asked_symbols(request: web.Request) -> list[str]:
    """Return the symbols of a list call, each once. Raises RefusedError (400) when none or a malformed one is named."""
    named = [symbol.strip() for symbol in request.query.get("symbols", "").split(",") if symbol.strip()]
    if not named:
        raise RefusedError(400, "symbols is required")
    for symbol in named:
        if not is_symbol(symbol):
            raise RefusedError(400, f"invalid symbol: {symbol[:40]}")
    return list(dict.fromkeys(named))


def asked_moment(request: web.Request, name: str, default: datetime, *, end_of_day: bool = False) -> datetime:
    """Return a moment (aware UTC) given as RFC 3339 or as a date of New York, by its beginning or its end.

    Raises RefusedError (400) when it is neither.
    """
    text = request.query.get(name)
    if not text:
        return default
    try:
        if len(text) == len("2025-01-02"):
            midnight = datetime.combine(date.fromisoformat(text), time(), NEW_YORK)
            return (midnight + _WHOLE_DAY - timedelta(microseconds=1) if end_of_day else midnight).astimezone(UTC)
        moment = datetime.fromisoformat(text)
    except ValueError as fault:
        raise RefusedError(400, f"invalid {name}: {text[:40]}") from fault
    # alpaca-py sends the text of a naive UTC datetime.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
