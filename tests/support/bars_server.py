"""The simulator's daily bars on a server that writes down what it is asked, and can stop answering."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date

from aiohttp import web

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.history import DailyHistory
from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.market import MarketSetting, RandomWalkMarket
from apps.alpaca_simulator.protocol import Credentials
from apps.alpaca_simulator.rest import MarketDataRest
from apps.alpaca_simulator.rest_access import RestAccess
from apps.alpaca_simulator.session_calendar import SessionCalendar


def _usual_price(symbol: str) -> float:
    return listing_of(symbol).base_price


class BarsServer:
    """`asked` has each question's symbols and its first and last date; `stalls_after` is how many are answered."""

    def __init__(self) -> None:
        self.url = ""
        self.history = DailyHistory(_usual_price)
        self.asked: list[tuple[str, date, date]] = []
        self.stalls_after: int | None = None
        self.delay_s = 0.0
        self.refuse: Callable[[web.Request], web.Response | None] = lambda _: None
        calendar = SessionCalendar(MarketSetting.CLOSED)
        rest = MarketDataRest(RandomWalkMarket(1, _usual_price), self.history, calendar)
        self.app = web.Application(middlewares=[self._note])
        self.app.add_routes(rest.routes(RestAccess(Credentials(), Faults)))

    @web.middleware
    async def _note(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        query = request.query
        begin, end = date.fromisoformat(query["start"]), date.fromisoformat(query["end"][:10])
        self.asked.append((query["symbols"], begin, end))
        if self.stalls_after is not None and len(self.asked) > self.stalls_after:
            await asyncio.Event().wait()
        await asyncio.sleep(self.delay_s)
        return self.refuse(request) or await handler(request)


@asynccontextmanager
async def bars_server() -> AsyncIterator[BarsServer]:
    """Run one for the length of a test."""
    server = BarsServer()
    runner = web.AppRunner(server.app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
