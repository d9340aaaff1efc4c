"""Alpaca's trading REST calls: clock, calendar, account, positions, activities. All numbers are strings."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import localcontext
from itertools import pairwise
from typing import Any, Final

from aiohttp import web

from apps.alpaca_simulator.account_book import Book
from apps.alpaca_simulator.account_entries import sync_day
from apps.alpaca_simulator.activities import LARGEST_PAGE, Wanted, WrongPageTokenError, page_of_activities
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.lots import COSTS, NOTHING
from apps.alpaca_simulator.market import MarketSetting
from apps.alpaca_simulator.position_figures import PositionFigures, account_body
from apps.alpaca_simulator.rest_access import RefusedError, RestAccess, asked_moment
from apps.alpaca_simulator.session_calendar import SessionCalendar
from apps.alpaca_simulator.trading_desk import TradingDesk
from apps.alpaca_simulator.trading_limits import TradingLimits
from libs.market_data.trading_sessions import NEW_YORK, TradingSession

CODE_SUFFIX: Final = "10000"
_SETTLES_WITHIN: Final = timedelta(days=14)


class TradingRest:
    """The trading host of one simulated account, but for its orders."""

    def __init__(self, desk: TradingDesk, calendar: SessionCalendar, faults: Callable[[], Faults]) -> None:
        self._desk = desk
        self._calendar = calendar
        self._faults = faults

    def routes(self, access: RestAccess, limits: TradingLimits) -> list[web.RouteDef]:
        """Return the guarded routes."""
        handlers = {
            "/v2/clock": self._clock,
            "/v2/calendar": self._sessions,
            "/v2/account": self._account,
            "/v2/positions": self._positions,
            # A crypto symbol has a slash in it.
            "/v2/positions/{symbol:.+}": self._position,
            "/v2/account/portfolio/history": self._portfolio_history,
            "/v2/account/activities": self._activities,
            "/v2/account/activities/{kind}": self._activities,
        }
        return [
            web.get(path, limits.guard(access.guard(handler, code_suffix=CODE_SUFFIX)))
            for path, handler in handlers.items()
        ]

    async def _clock(self, _request: web.Request) -> web.Response:
        now = self._desk.now()
        next_open, next_close = await self._calendar.next_hours(now)
        return web.json_response(
            {
                "timestamp": _new_york(now + timedelta(seconds=self._faults().clock_skew_s)),
                "is_open": self._is_open(next_open, next_close),
                "next_open": _new_york(next_open),
                "next_close": _new_york(next_close),
            }
        )

    def _is_open(self, next_open: datetime, next_close: datetime) -> bool:
        """Say whether the market is on, by the account's clock."""
        if self._calendar.setting is MarketSetting.AUTO:
            return next_close < next_open
        return self._calendar.setting is MarketSetting.OPEN

    async def _sessions(self, request: web.Request) -> web.Response:
        now = self._desk.now()
        first = asked_moment(request, "start", now - timedelta(days=365)).astimezone(NEW_YORK).date()
        last = asked_moment(request, "end", now + timedelta(days=90)).astimezone(NEW_YORK).date()
        sessions = await self._calendar.sessions(first, last + _SETTLES_WITHIN)
        return web.json_response(
            [_session_body(session, settles.date) for session, settles in pairwise(sessions) if session.date <= last]
        )

    async def _account(self, _request: web.Request) -> web.Response:
        book = self._book()
        session = await self._desk.prices.session_before(sync_day(self._desk.now()))
        every = [self._figures(book, symbol, session) for symbol in book.holdings]
        with localcontext(COSTS):
            last_equity = book.cash_at_sync + sum((figures.lastday_value for figures in every), NOTHING)
            return web.json_response(account_body(every, book.cash, last_equity, session))

    async def _portfolio_history(self, _request: web.Request) -> web.Response:
        """Answer with what the account began with; the series has the one point of now."""
        book, account = self._book(), self._desk.account
        session = await self._desk.prices.session_before(sync_day(self._desk.now()))
        every = [self._figures(book, symbol, session) for symbol in book.holdings]
        with localcontext(COSTS):
            equity = book.cash + sum((figures.market_value for figures in every), NOTHING)
            gain = equity - account.base_value
        return web.json_response(
            {
                "timestamp": [int(self._desk.now().timestamp())],
                "equity": [float(equity)],
                "profit_loss": [float(gain)],
                "profit_loss_pct": [float(gain / account.base_value) if account.base_value else 0.0],
                "base_value": float(account.base_value),
                "base_value_asof": session.isoformat(),
                "timeframe": "1D",
            }
        )

    async def _positions(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._position_bodies())

    async def _position(self, request: web.Request) -> web.Response:
        named = request.match_info["symbol"]
        for body in await self._position_bodies():
            if named in {body.get("symbol"), body.get("asset_id")}:
                return web.json_response(body)
        raise RefusedError(404, "position does not exist")

    async def _position_bodies(self) -> list[dict[str, Any]]:
        """Return every position as it is shown: the model's, and what was put over or beside it."""
        book = self._book()
        session = await self._desk.prices.session_before(sync_day(self._desk.now()))
        account = self._desk.account
        bodies = {symbol: self._figures(book, symbol, session).body() for symbol in book.open_positions()}
        for symbol, fields in account.exotic.items():
            bodies[symbol] = bodies.get(symbol, {}) | fields
        for symbol, names in account.left_out.items():
            bodies[symbol] = {name: value for name, value in bodies.get(symbol, {}).items() if name not in names}
        return list(bodies.values())

    def _book(self) -> Book:
        return self._desk.account.book(self._desk.now(), self._desk.recorded_before(self._faults().positions_lag_s))

    def _figures(self, book: Book, symbol: str, session: date) -> PositionFigures:
        desk, held = self._desk, book.held(symbol)
        lastday = desk.prices.lastday(symbol, session)
        ordered = desk.account.orders.open_qty(symbol, "sell" if held.qty > 0 else "buy")
        return PositionFigures(symbol, held, desk.prices.current(symbol, lastday), lastday, ordered)

    async def _activities(self, request: web.Request) -> web.Response:
        faults = self._faults()
        recorded = self._desk.recorded_before(faults.activities_lag_s)
        try:
            page = page_of_activities(
                self._desk.account, _wanted(request), recorded=recorded, show_busted=faults.busted_stay
            )
        except WrongPageTokenError as fault:
            raise RefusedError(422, str(fault)) from fault
        return web.json_response(page)


def _wanted(request: web.Request) -> Wanted:
    query = request.query
    named = request.match_info.get("kind") or query.get("activity_types", "")
    day = asked_day(request, "date")
    if day is not None and ("after" in query or "until" in query):
        raise RefusedError(422, "date cannot be combined with after or until")
    return Wanted(
        kinds=frozenset(kind.strip().upper() for kind in named.split(",") if kind.strip()),
        after=asked_moment_or_none(request, "after"),
        until=asked_moment_or_none(request, "until"),
        day=day,
        is_descending=asked_descending(request),
        page_size=asked_count(request, "page_size", LARGEST_PAGE, LARGEST_PAGE),
        token=query.get("page_token") or None,
    )


def asked_descending(request: web.Request) -> bool:
    """Return whether the newest are to come first, the default. Raises RefusedError (422)."""
    direction = request.query.get("direction") or "desc"
    if direction not in {"asc", "desc"}:
        raise RefusedError(422, f"invalid direction: {direction[:40]}")
    return direction == "desc"


def asked_count(request: web.Request, name: str, default: int, most: int) -> int:
    """Return how many are asked for. Raises RefusedError (422)."""
    text = request.query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
        raise RefusedError(422, f"invalid {name}: {text[:40]}, 1 to {most} are allowed")
    return int(text)


def asked_moment_or_none(request: web.Request, name: str) -> datetime | None:
    """Return a moment that is asked for, None when none is. Raises RefusedError (400)."""
    return asked_moment(request, name, datetime.now(UTC)) if request.query.get(name) else None


def asked_day(request: web.Request, name: str) -> date | None:
    """Return the date in New York that is asked for, None when none is. Raises RefusedError (400)."""
    moment = asked_moment_or_none(request, name)
    return None if moment is None else moment.astimezone(NEW_YORK).date()


def _session_body(session: TradingSession, settles: date) -> dict[str, str]:
    """Return a day of the calendar: local times, in the API's two different formats."""
    return {
        "date": session.date.isoformat(),
        "open": f"{session.opens_at.astimezone(NEW_YORK):%H:%M}",
        "close": f"{session.closes_at.astimezone(NEW_YORK):%H:%M}",
        "session_open": "0400",
        "session_close": "2000",
        "settlement_date": settles.isoformat(),
    }


def _new_york(moment: datetime) -> str:
    return moment.astimezone(NEW_YORK).isoformat()
