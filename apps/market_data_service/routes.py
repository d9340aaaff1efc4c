"""The service's HTTP interface: what is subscribed, what the prices are, how the service is."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictStr, model_validator
from pydantic_core import PydanticCustomError
from starlette.convertors import StringConvertor, register_url_convertor

from apps.market_data_service.state import MarketDataService
from libs.market_data.gaps import Gap
from libs.market_data.halts import Halt
from libs.market_data.prices import Price
from libs.market_data.suspect_quotes import Suspicion
from libs.market_data.symbols import WILDCARD, MalformedSymbolError, parse_symbol
from libs.redis_client.client import RedisUnavailableError
from libs.redis_client.price_cache import encode_price
from libs.service.api_schema import problem_responses
from libs.service.health import overall, ready_response, reason_bodies
from libs.service.problems import standard_problem
from libs.service.version import VERSION

_CACHE_DEADLINE_S = 0.25
_MOST_SYMBOLS = 5_000
_MOST_NAMED = 50
_MOST_FAULTS = 20
_SHOWN = 40

_SYMBOL_PATTERN = (
    # No coin pair, whether written together or with a hyphen.
    r"^(?![A-Za-z0-9]{3}([Uu][Ss][Dd]|[Bb][Tt][Cc])$)(?![A-Za-z0-9]{2}[Uu][Ss][Dd][CTct]$)"
    r"(?!.*-([Uu][Ss][Dd][CTct]?|[Bb][Tt][Cc])$)"
    r"([A-Za-z][A-Za-z0-9]{0,5}((\.[A-Za-z0-9]{1,4}){0,2}|-[A-Za-z0-9]{1,4}|(\.[A-Za-z0-9]{1,4})?[/-][A-Za-z])"
    r"|[Ff][Aa][Kk][Ee][Pp][Aa][Cc][Aa])$"
)
_SYMBOL: dict[str, Any] = {"type": "string", "pattern": _SYMBOL_PATTERN, "examples": ["AAPL"]}
_SYMBOL_LIST: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": _MOST_SYMBOLS, "items": _SYMBOL}
_NULL = {"type": "null"}
_SUBSCRIBE_SCHEMA: dict[str, Any] = {
    "properties": {"symbol": {"anyOf": [_SYMBOL, _NULL]}, "symbols": {"anyOf": [_SYMBOL_LIST, _NULL]}},
    "oneOf": [
        {"required": ["symbol"], "properties": {"symbol": {"type": "string"}, "symbols": _NULL}},
        {"required": ["symbols"], "properties": {"symbols": {"type": "array"}, "symbol": _NULL}},
    ],
}
"""Exactly one of the two; null is as good as left out."""

SymbolInPath = Annotated[str, Path(json_schema_extra=_SYMBOL)]


class _SymbolConvertor(StringConvertor):
    """A symbol in a path, which may have one slash of its own: `BRK/B`."""

    regex = "[^/]+(?:/[^/]+)?"


register_url_convertor("symbol", _SymbolConvertor())
router = APIRouter()


class SubscribeBody(BaseModel):
    """`{"symbol":"AAPL"}` or `{"symbols":["AAPL","MSFT"]}`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=lambda schema: schema.update(_SUBSCRIBE_SCHEMA))

    symbol: StrictStr | None = None
    symbols: Annotated[list[StrictStr], Field(min_length=1, max_length=_MOST_SYMBOLS)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _bound_faults(cls, given: object) -> object:
        """Refuse many faults of one kind as one: naming each of thousands would hold up everybody else."""
        if not isinstance(given, dict):
            return given
        unknown = [name for name in given if name not in cls.model_fields]
        if len(unknown) > _MOST_FAULTS:
            named = ", ".join(ascii(name[:_SHOWN]) for name in unknown[:_MOST_FAULTS])
            others = f"{len(unknown) - _MOST_FAULTS:,}"
            raise PydanticCustomError(
                "unknown_fields", "{named} and {others} more are not known here", {"named": named, "others": others}
            )
        listed = given.get("symbols")
        wrong = sum(not isinstance(one, str) for one in listed) if isinstance(listed, list) else 0
        if wrong > _MOST_FAULTS:
            raise PydanticCustomError("no_strings", "{wrong} of the symbols are not strings", {"wrong": f"{wrong:,}"})
        return given


def attach(app: FastAPI, service: MarketDataService) -> None:
    """Give the routes the service that they speak for."""
    app.state.service = service
    app.include_router(router)


def _service(request: Request) -> MarketDataService:
    service: MarketDataService = request.app.state.service
    return service


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _parse(service: MarketDataService, text: str) -> str:
    if text == WILDCARD:
        if service.settings.allow_wildcard:
            return text
        raise standard_problem(422, "symbol: '*' asks for the whole market; set ALLOW_WILDCARD=true to allow it")
    try:
        return parse_symbol(text)
    except MalformedSymbolError as error:
        raise standard_problem(422, f"symbol: {error}") from None


@router.post("/api/v1/market-data/subscribe", responses=problem_responses(422))
async def subscribe(request: Request, body: SubscribeBody) -> Response:
    """Want one symbol, or several, by hand. Nothing changes when any of them is malformed."""
    service = _service(request)
    if (body.symbol is None) == (body.symbols is None):
        raise standard_problem(422, "symbol, symbols: send exactly one of the two")
    texts = [body.symbol] if body.symbol is not None else body.symbols or []
    symbols = list(dict.fromkeys(_parse(service, text) for text in texts))
    await service.stream.subscribe_symbols(symbols)
    left_out = service.stream.not_streamed
    not_streamed = [symbol for symbol in symbols if symbol in left_out]
    answer: dict[str, Any] = {"status": "subscribed"}
    if body.symbol is not None:
        answer["symbol"] = symbols[0]
    else:
        answer |= {"symbols": symbols, "not_streamed": not_streamed}
    return _json(answer | {"streamed": not not_streamed})


@router.delete("/api/v1/market-data/subscribe/{symbol:symbol}", responses=problem_responses(422))
async def unsubscribe(request: Request, symbol: SymbolInPath) -> Response:
    """Give up the manual ownership of a symbol; what a position holds stays."""
    service = _service(request)
    name = _parse(service, symbol)
    await service.stream.unsubscribe_symbols([name])
    return _json({"status": "unsubscribed", "symbol": name, "still_held_by": service.stream.owners(name)})


@router.get("/api/v1/market-data/subscriptions")
async def subscriptions(request: Request) -> Response:
    """List the wanted symbols, the most important first, and what is known of each."""
    service = _service(request)
    return _json({"symbols": service.stream.subscribed_symbols, "details": _details(service)})


def _details(service: MarketDataService) -> dict[str, dict[str, Any]]:
    # Each of these is worked out over all symbols: once, not once per symbol.
    stream, now = service.stream, service.clock_check.now()
    confirmed, left_out, halted, doubted = stream.confirmed, stream.not_streamed, stream.halted, stream.doubted
    trades, why_no_trades = stream.confirmed_trades, _why_no_trades(service)
    details = {}
    for symbol in stream.subscribed_symbols:
        record, price = stream.record(symbol), service.latest.price(symbol)
        details[symbol] = {
            "owners": stream.owners(symbol),
            "confirmed": symbol in confirmed,
            "streamed": symbol not in left_out,
            "why_not_streamed": left_out.get(symbol),
            "halted": symbol in halted,
            "doubted": symbol in doubted,
            "suspect": _suspicion(service.latest.suspects.of(symbol)),
            "trades": symbol in trades,
            "why_no_trades": None if symbol in trades else why_no_trades,
            "last_quote_at": _time(record.last_quote_at),
            "age_seconds": None if price is None else round(price.age_s(now), 3),
            "quotes": record.quotes,
            "rejected": dict(record.rejected),
        }
    return details


@router.get("/api/v1/market-data/prices/{symbol:symbol}", responses=problem_responses(404, 422, 503))
async def price(request: Request, symbol: SymbolInPath) -> Response:
    """Return the newest price of a symbol and its age."""
    service = _service(request)
    name = _parse(service, symbol)
    found = service.latest.price(name) or await _cached(service, name)
    if found is None:
        raise standard_problem(404, f"no price of {name} is known; subscribe to it, or wait for its first good quote")
    age_s = found.age_s(service.clock_check.now())
    # Spliced, not decoded and encoded again: a price keeps every digit that it came with.
    return Response(encode_price(found)[:-1] + b',"age_seconds":%.3f}' % age_s, media_type="application/json")


async def _cached(service: MarketDataService, symbol: str) -> Price | None:
    try:
        return (await service.cache.read([symbol], deadline_s=_CACHE_DEADLINE_S)).get(symbol)
    except RedisUnavailableError as error:
        raise standard_problem(503, f"no price of {symbol} in memory, and the cache cannot be read: {error}") from None


@router.post("/api/v1/market-data/reconnect", responses=problem_responses(409))
async def reconnect(request: Request) -> Response:
    """Drop the connection to Alpaca and dial again, within the dial budget."""
    service = _service(request)
    if service.stream.is_standing_by:
        holder = service.leadership.tenure.holder
        raise standard_problem(409, f"this instance is a standby and dials nothing; ask the one that leads ({holder})")
    service.stream.reconnect()
    return _json({"status": "reconnecting"})


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health(request: Request) -> Response:
    """Tell how the service is, with reasons. Always 200."""
    service = _service(request)
    stream, link, sync, leadership = service.stream, service.stream.link, service.sync, service.leadership
    market = service.clock.current(service.clock_check.now())
    reasons = service.reasons()
    fault, age_s = link.last_fault, service.last_frame_age_s
    return _json(
        {
            "status": overall(reasons),
            "websocket_connected": stream.is_connected(),
            "subscribed_symbols": len(stream.subscribed_symbols),
            "confirmed_symbols": len(stream.confirmed),
            "version": VERSION,
            "mode": service.mode,
            "feed": service.settings.alpaca_feed,
            "link": {
                "state": link.state,
                "since": _time(link.since),
                "last_frame_age_seconds": None if age_s is None else round(age_s, 3),
                "reconnects": link.reconnects,
                "attempts_ended": link.attempts_ended,
                "mute_connections": stream.watch.mute_connections,
                "silence": stream.watch.silence,
                "last_error": None
                if fault is None
                else {"message": fault.message, "code": fault.code, "at": _time(fault.at)},
                "history": [{"at": _time(c.at), "state": c.state, "reason": c.reason} for c in link.history],
            },
            "redis": {
                "connected": service.leadership.has_asked and service.redis_fault is None,
                "address": service.redis.address,
                "last_error": service.redis_fault,
                "waiting_to_be_written": service.latest.pending,
            },
            "lease": {
                "role": leadership.tenure.role,
                "holder": leadership.tenure.holder,
                "since": _time(leadership.since),
            },
            "position_sync": {
                "last_success_at": _time(sync.last_success_at),
                "last_error": sync.last_error,
                "failures": sync.failures,
                "positions": sync.positions,
                "not_streamable": sync.not_streamable,
            },
            "market": {
                "state": market.phase,
                "next_change": _time(market.next_change),
                "said_by": market.said_by,
                "last_error": service.clock.last_error,
                "clock_offset_seconds": round(service.clock_check.time.offset.total_seconds(), 3),
            },
            "snapshots": {"last_error": stream.last_snapshot_fault},
            "polling": {"symbols": sorted(stream.polled), "last_error": stream.poller.last_fault},
            "gaps": {
                "count": stream.gaps.closed,
                "open": [_gap(gap) for gap in stream.gaps.open],
                "last": [_gap(gap) for gap in stream.gaps.history],
            },
            "halts": {
                "known": stream.knows_halts,
                "symbols": {s: _halt(halt) for s in sorted(stream.halted) if (halt := stream.halt_of(s))},
            },
            "trades": _trades(service),
            "doubted": sorted(stream.doubted),
            "suspect": _suspects(service),
            "reasons": reason_bodies(reasons),
        }
    )


def _suspects(service: MarketDataService) -> dict[str, Any]:
    """Return the symbols whose newest quote may not mark. Normal after hours, when venues withdraw all quotes."""
    suspects = service.latest.suspects
    named = sorted(suspects.symbols)[:_MOST_NAMED]
    return {"count": len(suspects.symbols), "symbols": {symbol: _suspicion(suspects.of(symbol)) for symbol in named}}


def _suspicion(suspicion: Suspicion | None) -> dict[str, Any] | None:
    return None if suspicion is None else {"since": _time(suspicion.since), "reason": suspicion.reason}


def _trades(service: MarketDataService) -> dict[str, Any]:
    stream = service.stream
    return {
        "wanted": service.wants_trades,
        "confirmed": len(stream.confirmed_trades),
        "why_not": _why_no_trades(service),
        "told": dict(stream.trade_counts),
        "last_error": stream.last_trade_snapshot_fault,
    }


def _why_no_trades(service: MarketDataService) -> str | None:
    """Return why no symbol's trades are streamed; None when they are, or are about to be."""
    return service.stream.why_no_trades if service.wants_trades else "not_asked_for"


def _gap(gap: Gap) -> dict[str, Any]:
    symbols = sorted(gap.symbols)
    return {
        "from": _time(gap.began_at),
        "to": _time(gap.ended_at),
        "symbols": symbols[:_MOST_NAMED],
        "symbol_count": len(symbols),
        "reason": gap.reason,
    }


def _halt(halt: Halt) -> dict[str, Any]:
    return {"since": _time(halt.at), "reason": halt.reason}


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live")
async def live() -> Response:
    """Answer as long as the event loop runs."""
    return _json({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", responses=problem_responses(503))
async def ready(request: Request) -> Response:
    """Answer 200 once the service can do its work, 503 with reasons while it cannot."""
    return ready_response(_service(request).not_ready_reasons())
