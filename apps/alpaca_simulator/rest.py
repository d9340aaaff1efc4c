"""Alpaca's market data REST calls that the services use: latest quotes and trades, snapshots, daily bars by pages."""

import base64
import binascii
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from apps.alpaca_simulator.history import DailyHistory, as_traded_on_iex
from apps.alpaca_simulator.market import QuoteSource
from apps.alpaca_simulator.points import Bar, Feed, Quote, Trade
from apps.alpaca_simulator.rest_access import RefusedError, RestAccess, asked_moment, asked_symbols
from apps.alpaca_simulator.session_calendar import SessionCalendar
from apps.alpaca_simulator.wire import rfc3339
from libs.market_data.symbols import is_symbol
from libs.market_data.trading_sessions import NEW_YORK, TradingSession

_FEEDS: Final = frozenset({"iex", "sip", "delayed_sip", "otc", "boats", "overnight"})
_DAILY: Final = frozenset({"1Day", "1D"})
_RECENT: Final = timedelta(minutes=15)
"""What a free plan may not ask of the consolidated tape."""
_PAGE_MAX: Final = 10_000
_PAGE_DEFAULT: Final = 1_000
_A_FEW_DAYS: Final = timedelta(days=10)


class MarketDataRest:
    """The data host, by its clock `now_ns`. Quotes come from the stream's market, bars from the made-up history."""

    def __init__(
        self,
        market: QuoteSource,
        history: DailyHistory,
        calendar: SessionCalendar,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._market = market
        self._history = history
        self._calendar = calendar
        self._now_ns = now_ns

    def routes(self, access: RestAccess) -> list[web.RouteDef]:
        """Return the guarded routes."""
        return [
            web.get("/v2/stocks/quotes/latest", access.guard(self._latest_quotes)),
            web.get("/v2/stocks/trades/latest", access.guard(self._latest_trades)),
            web.get("/v2/stocks/{symbol}/quotes/latest", access.guard(self._latest_quote)),
            web.get("/v2/stocks/snapshots", access.guard(self._snapshots)),
            web.get("/v2/stocks/bars", access.guard(self._bars)),
        ]

    async def _latest_quotes(self, request: web.Request) -> web.Response:
        feed = _asked_feed(request)
        found = {symbol: self._quote(symbol, feed) for symbol in asked_symbols(request)}
        return web.json_response({"quotes": {symbol: body for symbol, body in found.items() if body is not None}})

    async def _latest_quote(self, request: web.Request) -> web.Response:
        symbol = request.match_info["symbol"]
        if not is_symbol(symbol):
            raise RefusedError(400, f"invalid symbol: {symbol[:40]}")
        body = self._quote(symbol, _asked_feed(request))
        if body is None:
            raise RefusedError(404, f"no quote found for {symbol}")
        return web.json_response({"symbol": symbol, "quote": body})

    async def _latest_trades(self, request: web.Request) -> web.Response:
        feed = _asked_feed(request)
        found = {symbol: self._trade(symbol, feed) for symbol in asked_symbols(request)}
        return web.json_response({"trades": {symbol: body for symbol, body in found.items() if body is not None}})

    async def _snapshots(self, request: web.Request) -> web.Response:
        feed = _asked_feed(request)
        now = datetime.now(UTC)
        days = await self._calendar.with_previous((now - _A_FEW_DAYS).date(), now.astimezone(NEW_YORK).date())
        begun = [(session, before) for session, before in days if session.opens_at <= now]
        answer: dict[str, Any] = {}
        for symbol in asked_symbols(request):
            bars = [self._bar(symbol, session.date, before, session.closes_at > now) for session, before in begun[-2:]]
            answer[symbol] = {
                "latestTrade": self._trade(symbol, feed),
                "latestQuote": self._quote(symbol, feed),
                "minuteBar": None,
                "dailyBar": bar_body(bars[-1]),
                "prevDailyBar": bar_body(bars[-2]),
            }
        return web.json_response(answer)

    async def _bars(self, request: web.Request) -> web.Response:
        """Answer one page; bars are counted over all symbols, in the order of symbol, then time."""
        symbols = sorted(asked_symbols(request))
        if request.query.get("timeframe") not in _DAILY:
            raise RefusedError(400, "invalid timeframe: the simulator has daily bars only")
        now = datetime.now(UTC)
        midnight = now.astimezone(NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)
        start = asked_moment(request, "start", midnight)
        end = asked_moment(request, "end", now - _RECENT, end_of_day=True)
        is_iex = request.query.get("feed") == Feed.IEX
        if not is_iex and "end" in request.query and end > now - _RECENT:
            raise RefusedError(403, "subscription does not permit querying recent SIP data")
        limit = _asked_limit(request)
        resume = _read_page_token(request.query.get("page_token"))

        days = await self._days(start, min(end, now))
        wanted: list[Bar] = []
        for symbol in symbols:
            bars = [self._bar(symbol, session.date, before, session.closes_at > now) for session, before in days]
            wanted += [bar for bar in bars if resume is None or (symbol, bar.time_ns) > resume]
            if len(wanted) > limit:
                break
        page, has_more = wanted[:limit], len(wanted) > limit
        by_symbol: dict[str, list[dict[str, Any]]] = {}
        for bar in page:
            by_symbol.setdefault(bar.symbol, []).append(bar_body(as_traded_on_iex(bar) if is_iex else bar))
        return web.json_response({"bars": by_symbol, "next_page_token": _page_token(page[-1]) if has_more else None})

    async def _days(self, start: datetime, end: datetime) -> list[tuple[TradingSession, date]]:
        """Return the begun sessions whose midnight in New York lies from `start` to `end`, the running one included."""
        first, last = start.astimezone(NEW_YORK), end.astimezone(NEW_YORK).date()
        first_day = first.date() if first.time() == first.min.time() else first.date() + timedelta(days=1)
        days = await self._calendar.with_previous(first_day, last)
        return [(session, before) for session, before in days if session.opens_at <= end]

    def _bar(self, symbol: str, session: date, previous: date, is_running: bool) -> Bar:
        latest = self._market.latest_quote(symbol, Feed.SIP, self._now_ns()) if is_running else None
        if latest is None:
            return self._history.bar(symbol, session, previous)
        price = round((latest.bid_price + latest.ask_price) / 2, 2)
        return self._history.running_bar(symbol, session, previous, price)

    def _quote(self, symbol: str, feed: Feed) -> dict[str, Any] | None:
        quote = self._market.latest_quote(symbol, feed, self._now_ns())
        return None if quote is None else quote_body(quote)

    def _trade(self, symbol: str, feed: Feed) -> dict[str, Any] | None:
        trade = self._market.latest_trade(symbol, feed, self._now_ns())
        return None if trade is None else trade_body(trade)


def quote_body(quote: Quote) -> dict[str, Any]:
    """Return a quote as REST writes it, without its symbol."""
    return {
        "t": rfc3339(quote.time_ns),
        "ax": quote.ask_exchange, "ap": quote.ask_price, "as": quote.ask_size,
        "bx": quote.bid_exchange, "bp": quote.bid_price, "bs": quote.bid_size,
        "c": list(quote.conditions), "z": quote.tape,
    }  # fmt: skip


def trade_body(trade: Trade) -> dict[str, Any]:
    """Return a trade as REST writes it, without its symbol."""
    return {
        "t": rfc3339(trade.time_ns), "x": trade.exchange, "p": trade.price, "s": trade.size,
        "c": list(trade.conditions), "i": trade.trade_id, "z": trade.tape,
    }  # fmt: skip


def bar_body(bar: Bar) -> dict[str, Any]:
    """Return a bar as REST writes it, without its symbol."""
    return {
        "t": rfc3339(bar.time_ns), "o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close, "v": bar.volume,
        "n": bar.trade_count, "vw": bar.vwap,
    }  # fmt: skip


def _asked_feed(request: web.Request) -> Feed:
    """Return how quotes are to be shown; venues that the simulator does not have are shown as the whole tape."""
    named = request.query.get("feed", Feed.IEX)
    if named not in _FEEDS:
        raise RefusedError(400, f"invalid feed: {named[:40]}")
    return Feed(named) if named in frozenset(Feed) else Feed.SIP


def _asked_limit(request: web.Request) -> int:
    text = request.query.get("limit", str(_PAGE_DEFAULT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _PAGE_MAX:
        raise RefusedError(400, f"invalid limit: {text[:40]}")
    return int(text)


def _page_token(bar: Bar) -> str:
    """Return the token of the page after `bar`: base64 of `SYMBOL|D|time`, like Alpaca's; opaque to clients."""
    return base64.b64encode(f"{bar.symbol}|D|{bar.time_ns}".encode()).decode()


def _read_page_token(token: str | None) -> tuple[str, int] | None:
    if not token:
        return None
    try:
        symbol, _, time_ns = base64.b64decode(token, validate=True).decode().split("|")
        return symbol, int(time_ns)
    except (binascii.Error, UnicodeDecodeError, ValueError) as fault:
        raise RefusedError(400, "invalid page_token") from fault
