"""Alpaca's trading REST calls that the services use: clock, calendar, account, positions. All numbers are strings."""

import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from aiohttp import web

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.history import DailyHistory
from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.market import QuoteSource
from apps.alpaca_simulator.points import Feed
from apps.alpaca_simulator.rest_access import RefusedError, RestAccess, asked_moment
from apps.alpaca_simulator.session_calendar import SessionCalendar
from libs.market_data.trading_sessions import NEW_YORK, TradingSession

_CODE_SUFFIX: Final = "10000"
_CASH_USD: Final = Decimal(100_000)
_EXCHANGES: Final = {"A": "NYSE", "B": "ARCA", "C": "NASDAQ"}
_SETTLES_WITHIN: Final = timedelta(days=14)
_LAST_SESSIONS: Final = timedelta(days=14)
_CENT: Final = Decimal("0.01")


class TradingRest:
    """The trading host of one simulated account; it takes no orders."""

    def __init__(
        self,
        holdings: tuple[HeldPosition, ...],
        market: QuoteSource,
        history: DailyHistory,
        calendar: SessionCalendar,
    ) -> None:
        self._holdings = holdings
        self._market = market
        self._history = history
        self._calendar = calendar

    def routes(self, access: RestAccess) -> list[web.RouteDef]:
        """Return the guarded routes."""
        handlers = {
            "/v2/clock": self._clock,
            "/v2/calendar": self._sessions,
            "/v2/account": self._account,
            "/v2/positions": self._positions,
            "/v2/positions/{symbol}": self._position,
        }
        return [web.get(path, access.guard(handler, code_suffix=_CODE_SUFFIX)) for path, handler in handlers.items()]

    async def _clock(self, _request: web.Request) -> web.Response:
        now = datetime.now(UTC)
        next_open, next_close = await self._calendar.next_hours(now)
        return web.json_response(
            {
                "timestamp": _new_york(now),
                "is_open": self._calendar.is_open(),
                "next_open": _new_york(next_open),
                "next_close": _new_york(next_close),
            }
        )

    async def _sessions(self, request: web.Request) -> web.Response:
        now = datetime.now(UTC)
        first = asked_moment(request, "start", now - timedelta(days=365)).astimezone(NEW_YORK).date()
        last = asked_moment(request, "end", now + timedelta(days=90)).astimezone(NEW_YORK).date()
        sessions = await self._calendar.sessions(first, last + _SETTLES_WITHIN)
        return web.json_response(
            [_session_body(session, settles.date) for session, settles in pairwise(sessions) if session.date <= last]
        )

    async def _account(self, _request: web.Request) -> web.Response:
        last_session = await self._last_completed_session()
        positions = [self._position_figures(holding, last_session) for holding in self._holdings]
        long_usd = sum((figures.market_value for figures in positions if figures.market_value > 0), Decimal())
        short_usd = sum((figures.market_value for figures in positions if figures.market_value < 0), Decimal())
        last_equity = _CASH_USD + sum((figures.qty * figures.lastday_price for figures in positions), Decimal())
        return web.json_response(_account_body(long_usd, short_usd, last_equity, last_session))

    async def _positions(self, _request: web.Request) -> web.Response:
        last_session = await self._last_completed_session()
        return web.json_response([self._position_figures(held, last_session).body() for held in self._holdings])

    async def _position(self, request: web.Request) -> web.Response:
        named = request.match_info["symbol"]
        last_session = await self._last_completed_session()
        for held in self._holdings:
            if named in {held.symbol, asset_id(held.symbol)}:
                return web.json_response(self._position_figures(held, last_session).body())
        raise RefusedError(404, "position does not exist")

    async def _last_completed_session(self) -> date:
        now = datetime.now(UTC)
        sessions = await self._calendar.sessions((now - _LAST_SESSIONS).date(), now.date())
        return next(session.date for session in reversed(sessions) if session.closes_at <= now)

    def _position_figures(self, held: HeldPosition, last_session: date) -> "_Figures":
        lastday_price = Decimal(repr(self._history.close(held.symbol, last_session)))
        quote = self._market.latest_quote(held.symbol, Feed.SIP, time.time_ns())
        price = lastday_price
        if quote is not None and quote.bid_price > 0 and quote.ask_price > 0:
            price = ((Decimal(repr(quote.bid_price)) + Decimal(repr(quote.ask_price))) / 2).quantize(_CENT)
        return _Figures(held, price, lastday_price)


class _Figures:
    """What a position is worth. `unrealized_pl` = (current - entry) * signed quantity, `plpc` a fraction of |cost|.

    All of it counts as held overnight: intraday figures start at the last close.
    """

    def __init__(self, held: HeldPosition, price: Decimal, lastday_price: Decimal) -> None:
        self.held = held
        self.qty = held.qty
        self.price = price
        self.lastday_price = lastday_price
        self.market_value = held.qty * price
        self.cost_basis = held.qty * held.avg_entry_price

    def body(self) -> dict[str, Any]:
        """Return the position as the API writes it."""
        symbol, profit = self.held.symbol, self.market_value - self.cost_basis
        lastday_value = self.qty * self.lastday_price
        intraday = self.market_value - lastday_value
        return {
            "asset_id": asset_id(symbol),
            "symbol": symbol,
            "exchange": _EXCHANGES[listing_of(symbol).tape],
            "asset_class": "us_equity",
            "asset_marginable": True,
            "qty": _text(self.qty),
            "qty_available": _text(self.qty),
            "avg_entry_price": _text(self.held.avg_entry_price),
            "side": "long" if self.qty > 0 else "short",
            "market_value": _text(self.market_value),
            "cost_basis": _text(self.cost_basis),
            "unrealized_pl": _text(profit),
            "unrealized_plpc": _text(_fraction(profit, abs(self.cost_basis))),
            "unrealized_intraday_pl": _text(intraday),
            "unrealized_intraday_plpc": _text(_fraction(intraday, abs(lastday_value))),
            "current_price": _text(self.price),
            "lastday_price": _text(self.lastday_price),
            "change_today": _text(_fraction(self.price - self.lastday_price, self.lastday_price)),
        }


def asset_id(symbol: str) -> str:
    """Return the symbol's made-up asset id, always the same."""
    return str(uuid5(NAMESPACE_URL, f"simulated-asset:{symbol}"))


def _account_body(long_usd: Decimal, short_usd: Decimal, last_equity: Decimal, balance_asof: date) -> dict[str, Any]:
    equity = _CASH_USD + long_usd + short_usd
    half = _text((long_usd - short_usd) / 2)
    none_at_all = dict.fromkeys(
        ("accrued_fees", "pending_transfer_in", "pending_transfer_out", "pending_reg_taf_fees", "sma"), "0"
    )
    never = dict.fromkeys(("trading_blocked", "transfers_blocked", "account_blocked", "trade_suspended_by_user"), False)
    return none_at_all | never | {
        "id": asset_id("account"),
        "account_number": "PASIMULATED",
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "cash": _text(_CASH_USD),
        "equity": _text(equity),
        "last_equity": _text(last_equity),
        "portfolio_value": _text(equity),
        "buying_power": _text(equity * 2),
        "regt_buying_power": _text(equity * 2),
        "non_marginable_buying_power": _text(equity),
        "effective_buying_power": _text(equity * 2),
        "options_buying_power": "0",
        "long_market_value": _text(long_usd),
        "short_market_value": _text(short_usd),
        "position_market_value": _text(long_usd - short_usd),
        "initial_margin": half,
        "maintenance_margin": half,
        "last_maintenance_margin": half,
        "multiplier": "2",
        "shorting_enabled": True,
        "balance_asof": balance_asof.isoformat(),
        "options_approved_level": 0,
        "options_trading_level": 0,
        "crypto_tier": 0,
        "created_at": "2023-01-01T18:20:20.272275Z",
        "admin_configurations": {},
        "user_configurations": None,
    }  # fmt: skip


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


def _fraction(part: Decimal, whole: Decimal) -> Decimal:
    return part / whole if whole else Decimal()


def _text(number: Decimal) -> str:
    """Return a number without an exponent and without needless zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
