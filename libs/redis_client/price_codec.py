"""The JSON of `price:{symbol}`, `price.updated.{symbol}` and `feed:status`: what we write and what we believe.

Prices travel as JSON numbers and never pass through a float; times are ISO-8601 UTC.
"""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

import msgspec

from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price
from libs.market_data.wire_times import usable_time

_SMALLEST: Final = Decimal("1e-9")
_LARGEST: Final = Decimal(10) ** 12
"""USD per share, and shares: bounds that no real figure reaches, so that arithmetic on it cannot overflow."""
_MODES: Final = {mode.value: mode for mode in Mode}
_FLOAT_ROOM: Final = Decimal("1.000000001")
_MOST_SEQ: Final = 2**63 - 1


class UnreadableError(ValueError):
    """Something in Redis is not what it should be. Reading it again does not help; a new write may."""


class UnreadablePriceError(UnreadableError):
    """The bytes hold no price that may be believed."""


class UnreadableFeedStatusError(UnreadableError):
    """The bytes hold no feed status."""


class _PriceWire(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    symbol: str
    bid: Decimal | None
    ask: Decimal | None
    mid: Decimal
    bid_size: Decimal | None
    ask_size: Decimal | None
    timestamp: str
    exchange: str | None
    ask_exchange: str | None
    feed: str | None
    received_at: str | None
    epoch: str | None
    seq: int | None
    instance: str | None
    suspect_since: str | None
    suspect_reason: str | None
    mode: str | None
    # With a default, and so left out while nothing is known of a trade.
    last: Decimal | None = None
    last_timestamp: str | None = None
    last_size: Decimal | None = None
    # Likewise, while the price is not suspect.
    suspect_quotes: int | None = None
    newest_bid: Decimal | None = None
    newest_ask: Decimal | None = None
    newest_timestamp: str | None = None


class _ReadPriceWire(msgspec.Struct, frozen=True, gc=False):
    """As lenient as the contract: nothing but `mid` and `timestamp` must be there."""

    mid: Decimal
    timestamp: datetime
    symbol: str | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None
    exchange: str | None = None
    ask_exchange: str | None = None
    feed: str | None = None
    received_at: datetime | None = None
    epoch: str | None = None
    seq: int | None = None
    last: Decimal | None = None
    last_timestamp: datetime | None = None
    last_size: Decimal | None = None
    instance: str | None = None
    suspect_since: datetime | None = None
    suspect_reason: str | None = None
    mode: str | None = None
    suspect_quotes: int | None = None
    newest_bid: Decimal | None = None
    newest_ask: Decimal | None = None
    newest_timestamp: datetime | None = None


class _WriteWire(msgspec.Struct, frozen=True, gc=False):
    """What tells one write of a symbol's price from another. The rest of the entry is passed over: that is cheap."""

    received_at: datetime | None = None
    epoch: str | None = None
    seq: int | None = None
    instance: str | None = None
    mid: Decimal | None = None
    suspect_since: datetime | None = None


class _UpdateWire(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    symbol: str
    price: Decimal
    timestamp: str
    bid: Decimal | None
    ask: Decimal | None
    epoch: str | None
    seq: int | None
    received_at: str | None
    feed: str | None
    instance: str | None
    suspect_since: str | None
    suspect_reason: str | None
    mode: str | None
    last: Decimal | None = None
    last_timestamp: str | None = None
    suspect_quotes: int | None = None
    newest_bid: Decimal | None = None
    newest_ask: Decimal | None = None
    newest_timestamp: str | None = None


class _ReadUpdateWire(msgspec.Struct, frozen=True, gc=False):
    symbol: str
    price: Decimal
    timestamp: datetime
    bid: Decimal | None = None
    ask: Decimal | None = None
    epoch: str | None = None
    seq: int | None = None
    received_at: datetime | None = None
    feed: str | None = None
    last: Decimal | None = None
    last_timestamp: datetime | None = None
    instance: str | None = None
    suspect_since: datetime | None = None
    suspect_reason: str | None = None
    mode: str | None = None
    suspect_quotes: int | None = None
    newest_bid: Decimal | None = None
    newest_ask: Decimal | None = None
    newest_timestamp: datetime | None = None


class _FeedStatusWire(msgspec.Struct, frozen=True):
    state: LinkState
    connected: bool
    since: str
    epoch: str | None
    feed: str
    mode: Mode
    symbols: list[str]
    market: MarketPhase
    halted: list[str]
    doubted: list[str]
    instance: str | None
    lag_s: float | None
    clock_offset_s: float
    at: str | None


class _ReadFeedStatusWire(msgspec.Struct, frozen=True):
    state: LinkState
    connected: bool
    since: datetime
    feed: str
    mode: Mode
    symbols: list[str]
    market: MarketPhase
    epoch: str | None = None
    halted: list[str] = []
    doubted: list[str] = []
    instance: str | None = None
    lag_s: float | None = None
    clock_offset_s: float = 0.0
    at: datetime | None = None


_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_price = msgspec.json.Decoder(_ReadPriceWire).decode
_decode_write = msgspec.json.Decoder(_WriteWire).decode
_decode_update = msgspec.json.Decoder(_ReadUpdateWire).decode
_decode_feed_status = msgspec.json.Decoder(_ReadFeedStatusWire).decode


def encode_price(price: Price) -> bytes:
    """Return the content of `price:{symbol}`. Raises ValueError for a price that is not positive and finite.

    Sample: `{"symbol":"AAPL","bid":151.99,"ask":152.01,"mid":152.00,"bid_size":300,"ask_size":100,
    "timestamp":"2025-10-19T14:30:15.123456+00:00","exchange":"V","ask_exchange":"V","feed":"iex",
    "received_at":"2025-10-19T14:30:15.130002+00:00","epoch":"c1","seq":7,"instance":"host-1-ab12",
    "suspect_since":null,"suspect_reason":null,"mode":"paper"}`, and once a trade is
    known `"last":152.01,"last_timestamp":"2025-10-19T14:30:14.900000+00:00","last_size":100`.
    A suspect price also carries `"suspect_quotes":2,"newest_ask":149,
    "newest_timestamp":"2025-10-19T14:30:17.000000+00:00"`.
    """
    received_at = price.received_at
    return _encode(
        _PriceWire(
            price.symbol,
            price.bid,
            price.ask,
            _writable(price.mid),
            price.bid_size,
            price.ask_size,
            utc_text(price.timestamp),
            price.exchange,
            price.ask_exchange,
            price.feed,
            None if received_at is None else utc_text(received_at),
            price.epoch,
            price.seq,
            price.instance,
            _known_text(price.suspect_since),
            price.suspect_reason,
            price.mode,
            price.last,
            _known_text(price.last_timestamp),
            price.last_size,
            price.suspect_quotes,
            price.newest_bid,
            price.newest_ask,
            _known_text(price.newest_timestamp),
        )
    )


def decode_price(data: bytes, symbol: str | None = None, max_spread_pct: Decimal | None = None) -> Price:
    """Return the price in the content of `price:{symbol}`.

    Where it has sides they are checked as the writer checks them; `max_spread_pct` None: however wide they are.
    `symbol` is the one of the key: it stands in for a missing one and must agree with a given one.
    `{"mid":152.00,"timestamp":"2025-10-19T14:30:15+00:00"}` is enough. Raises UnreadablePriceError.
    """
    try:
        wire = _decode_price(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadablePriceError(str(error)) from error
    named = wire.symbol or symbol
    if not named or (symbol is not None and named != symbol):
        raise UnreadablePriceError(f"expected a price of {symbol!r}, found one of {wire.symbol!r}")
    _check_prices(wire.mid, wire.bid, wire.ask, wire.last)
    _check_spread(wire.bid, wire.ask, max_spread_pct)
    _check_seq(wire.seq)
    _check_sides(wire.newest_bid, wire.newest_ask)
    _check_sizes(wire.bid_size, wire.ask_size, wire.last_size)
    return Price(
        named,
        wire.mid,
        _utc(wire.timestamp),
        wire.bid,
        wire.ask,
        wire.bid_size,
        wire.ask_size,
        wire.exchange,
        wire.ask_exchange,
        wire.feed,
        None if wire.received_at is None else _utc(wire.received_at),
        wire.epoch,
        wire.seq,
        wire.last,
        None if wire.last_timestamp is None else _utc(wire.last_timestamp),
        wire.last_size,
        wire.instance,
        None if wire.suspect_since is None else _utc(wire.suspect_since),
        wire.suspect_reason,
        _mode(wire.mode),
        wire.suspect_quotes,
        wire.newest_bid,
        wire.newest_ask,
        None if wire.newest_timestamp is None else _utc(wire.newest_timestamp),
    )


def is_same_write(data: bytes, price: Price) -> bool:
    """Say whether the content of `price:{symbol}` is surely `price`, at a fifth of what decoding it would cost."""
    if price.epoch is None:
        return False
    try:
        write = _decode_write(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    if price.suspect_since is not None or write.suspect_since is not None:
        return False  # what is known of newer quotes changes without a message
    return (write.seq, write.epoch, write.received_at, write.instance, write.mid) == (
        price.seq,
        price.epoch,
        price.received_at,
        price.instance,
        price.mid,
    )


def encode_price_update(price: Price) -> bytes:
    """Return the message of `price.updated.{symbol}`. Raises ValueError like `encode_price`.

    Sample: `{"symbol":"AAPL","price":152.00,"timestamp":"2025-10-19T14:30:15.123456+00:00","bid":151.99,
    "ask":152.01,"epoch":"c1","seq":7,"received_at":"2025-10-19T14:30:15.130002+00:00","feed":"iex",
    "instance":"host-1-ab12","suspect_since":null,"suspect_reason":null,"mode":"paper"}`, and once a trade is
    known `"last":152.01,"last_timestamp":"2025-10-19T14:30:14.900000+00:00"`.
    """
    received_at = price.received_at
    return _encode(
        _UpdateWire(
            price.symbol,
            _writable(price.mid),
            utc_text(price.timestamp),
            price.bid,
            price.ask,
            price.epoch,
            price.seq,
            None if received_at is None else utc_text(received_at),
            price.feed,
            price.instance,
            _known_text(price.suspect_since),
            price.suspect_reason,
            price.mode,
            price.last,
            _known_text(price.last_timestamp),
            price.suspect_quotes,
            price.newest_bid,
            price.newest_ask,
            _known_text(price.newest_timestamp),
        )
    )


def decode_price_update(data: bytes, max_spread_pct: Decimal | None = None) -> Price:
    """Return the price in a message of `price.updated.{symbol}`, checked like a key. Raises UnreadablePriceError."""
    try:
        wire = _decode_update(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadablePriceError(str(error)) from error
    if not wire.symbol:
        raise UnreadablePriceError("the update names no symbol")
    _check_prices(wire.price, wire.bid, wire.ask, wire.last)
    _check_spread(wire.bid, wire.ask, max_spread_pct)
    _check_seq(wire.seq)
    _check_sides(wire.newest_bid, wire.newest_ask)
    return Price(
        symbol=wire.symbol,
        mid=wire.price,
        timestamp=_utc(wire.timestamp),
        bid=wire.bid,
        ask=wire.ask,
        feed=wire.feed,
        received_at=None if wire.received_at is None else _utc(wire.received_at),
        epoch=wire.epoch,
        seq=wire.seq,
        last=wire.last,
        last_timestamp=None if wire.last_timestamp is None else _utc(wire.last_timestamp),
        instance=wire.instance,
        suspect_since=None if wire.suspect_since is None else _utc(wire.suspect_since),
        suspect_reason=wire.suspect_reason,
        mode=_mode(wire.mode),
        suspect_quotes=wire.suspect_quotes,
        newest_bid=wire.newest_bid,
        newest_ask=wire.newest_ask,
        newest_timestamp=None if wire.newest_timestamp is None else _utc(wire.newest_timestamp),
    )


def encode_feed_status(status: FeedStatus) -> bytes:
    """Return the content of `feed:status` and of its heartbeat.

    Sample: `{"state":"streaming","connected":true,"since":"2025-10-19T13:29:58+00:00","epoch":"c1","feed":"iex",
    "mode":"paper","symbols":["AAPL","MSFT"],"market":"open","halted":["MSFT"],"doubted":[],"instance":"host-1-ab12","lag_s":null,
    "clock_offset_s":0.0,"at":"2025-10-19T14:30:16+00:00"}`
    """
    return _encode(
        _FeedStatusWire(
            state=status.state,
            connected=status.connected,
            since=utc_text(status.since),
            epoch=status.epoch,
            feed=status.feed,
            mode=status.mode,
            symbols=sorted(status.symbols),
            market=status.market,
            halted=sorted(status.halted),
            doubted=sorted(status.doubted),
            instance=status.instance,
            lag_s=status.lag_s,
            clock_offset_s=status.clock_offset_s,
            at=_known_text(status.at),
        )
    )


def decode_feed_status(data: bytes) -> FeedStatus:
    """Return the status in the content of `feed:status`. Raises UnreadableFeedStatusError."""
    try:
        wire = _decode_feed_status(data)
        since = _utc(wire.since)
        at = None if wire.at is None else _utc(wire.at)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableFeedStatusError(str(error)) from error
    return FeedStatus(
        state=wire.state,
        connected=wire.connected,
        since=since,
        epoch=wire.epoch,
        feed=wire.feed,
        mode=wire.mode,
        symbols=frozenset(wire.symbols),
        market=wire.market,
        halted=frozenset(wire.halted),
        doubted=frozenset(wire.doubted),
        instance=wire.instance,
        lag_s=wire.lag_s,
        clock_offset_s=wire.clock_offset_s,
        at=at,
    )


def _writable(mid: Decimal) -> Decimal:
    # msgspec would write NaN bare, which is no JSON: every reader would drop the price.
    if not (mid.is_finite() and mid > 0):
        raise ValueError(f"a price of {mid} cannot be written")
    return mid


@lru_cache(maxsize=8)  # the cached price and its message carry the same two times
def utc_text(time: datetime) -> str:
    """Return an aware time as `2025-10-19T14:30:15.123456+00:00`. Raises ValueError for a naive one.

    Ours are UTC already; another zone is converted, and a naive time fails here rather than shift silently.
    """
    if time.tzinfo is not UTC:
        if time.tzinfo is None:
            raise ValueError("a naive time cannot be written")
        time = time.astimezone(UTC)
    # msgspec's text, with its "Z" spelt out: several times faster than isoformat().
    return _encode(time)[1:-2].decode() + "+00:00"


def _known_text(time: datetime | None) -> str | None:
    return None if time is None else utc_text(time)


def _check_prices(mid: Decimal, bid: Decimal | None, ask: Decimal | None, last: Decimal | None) -> None:
    try:
        if (
            _SMALLEST <= mid <= _LARGEST
            and (bid is None or _SMALLEST <= bid <= mid)
            and (ask is None or mid <= ask <= _LARGEST)
            and (last is None or _SMALLEST <= last <= _LARGEST)
        ):
            return
    except InvalidOperation:  # NaN cannot be compared
        pass
    raise UnreadablePriceError(
        f"expected positive prices, the mid between bid and ask, found {mid}, bid {bid}, ask {ask}, last {last}"
    )


def _check_spread(bid: Decimal | None, ask: Decimal | None, max_spread_pct: Decimal | None) -> None:
    """Refuse a quote that the writer would not have written (`why_unmarkable`, which computes with floats)."""
    if max_spread_pct is None or bid is None or ask is None:
        return
    if (ask - bid) * 200 > max_spread_pct * (ask + bid) * _FLOAT_ROOM:
        raise UnreadablePriceError(f"bid {bid} and ask {ask} lie further apart than MAX_SPREAD_PCT={max_spread_pct}")


def _mode(text: str | None) -> Mode | None:
    """Return the mode that a price names; None for a word of another program."""
    return _MODES.get(text) if text is not None else None


def _check_seq(seq: int | None) -> None:
    if seq is not None and not 0 <= seq <= _MOST_SEQ:
        raise UnreadablePriceError(f"expected a seq from 0 to {_MOST_SEQ}")


def _check_sides(*sides: Decimal | None) -> None:
    try:
        if all(side is None or _SMALLEST <= side <= _LARGEST for side in sides):
            return
    except InvalidOperation:  # NaN cannot be compared
        pass
    raise UnreadablePriceError(f"expected positive sides of the newest quote, found {', '.join(map(str, sides))}")


def _check_sizes(*sizes: Decimal | None) -> None:
    try:
        if all(size is None or 0 <= size <= _LARGEST for size in sizes):
            return
    except InvalidOperation:  # NaN cannot be compared
        pass
    raise UnreadablePriceError(f"expected sizes in shares, found {', '.join(map(str, sizes))}")


def _utc(time: datetime) -> datetime:
    usable = usable_time(time)
    if usable is None:
        raise UnreadablePriceError(f"{time} has no time zone or is out of range")
    return usable
