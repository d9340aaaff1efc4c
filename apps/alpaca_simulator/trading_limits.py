"""How many trading REST calls a minute are allowed, and what the trading faults make of one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Final

from aiohttp import web

from apps.alpaca_simulator.data_stream import retry_after
from apps.alpaca_simulator.faults import Faults

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

UNLIMITED: Final = 10_000
"""What the headers say when there is no limit."""
_WINDOW_S: Final = 60
_HTML_FROM: Final = 500
_GARBAGE: Final = ('[{"symbol": "AAPL", "qty": "1', "null", '"unavailable"', '[{"symbol": 7}, null, {"qty": "x"}]')


class RateWindow:
    """Counts calls in the running minute. No clock of its own: moments are seconds since 1970."""

    def __init__(self, limit: int | None) -> None:
        self.limit = UNLIMITED if limit is None else limit
        self._is_limited = limit is not None
        self._resets_at = 0
        self._count = 0

    def takes(self, now_s: float) -> bool:
        """Count a call; False when it is one too many."""
        if now_s >= self._resets_at:
            self._resets_at, self._count = int(now_s) + _WINDOW_S, 0
        self._count += 1
        return not self._is_limited or self._count <= self.limit

    def headers(self) -> dict[str, str]:
        """Return what every answer says about it."""
        remaining = max(0, self.limit - self._count)
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(self._resets_at),
        }

    def wait_s(self, now_s: float) -> int:
        """Return after how many seconds calls are taken again."""
        return max(1, ceil(self._resets_at - now_s))


class TradingLimits:
    """Stands before the guarded handlers of the trading host."""

    def __init__(self, limit: int | None, faults: Callable[[], Faults]) -> None:
        self._window = RateWindow(limit)
        self._faults = faults
        self._garbage_answers = 0

    def guard(self, handler: Handler) -> Handler:
        """Return `handler` behind the limit and the faults."""

        async def limited(request: web.Request) -> web.StreamResponse:
            if not self._window.takes(time.time()):
                response: web.StreamResponse = too_many(self._window.wait_s(time.time()))
            else:
                response = await self._misbehaves(request) or await handler(request)
            response.headers.update(self._window.headers())
            return response

        return limited

    async def _misbehaves(self, request: web.Request) -> web.Response | None:
        faults = self._faults()
        if not request.path.startswith(faults.trading_rest_path):
            return None
        if faults.trading_rest_delay_s:
            await asyncio.sleep(faults.trading_rest_delay_s)
        if faults.trading_rest_status is not None:
            return _refused(faults.trading_rest_status, faults.trading_rest_retry_after_s)
        if faults.trading_rest_garbage:
            self._garbage_answers += 1
            text = _GARBAGE[self._garbage_answers % len(_GARBAGE)]
            return web.Response(text=text, content_type="application/json")
        return None


def too_many(wait_s: float) -> web.Response:
    """Return the refusal of one call too many."""
    body = {"code": 42910000, "message": "rate limit exceeded"}
    return web.json_response(body, status=429, headers=retry_after(wait_s))


def _refused(status: int, wait_s: float | None) -> web.Response:
    headers = retry_after(wait_s)
    if status >= _HTML_FROM:
        text = f"<html><body>{status}</body></html>"
        return web.Response(status=status, text=text, content_type="text/html", headers=headers)
    body = {"code": int(f"{status}10000"), "message": "refused by the simulator"}
    return web.json_response(body, status=status, headers=headers)
