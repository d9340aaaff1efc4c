"""What the simulator can be told to do once, as the control endpoint and a scenario file name it. Decides nothing else.

An act that happens to `POST /control/drop` (the samples are also tests): {"how": "close", "code": 1001}
"""

import base64
import binascii
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.market import IEX_EXCHANGE, MarketSetting
from apps.alpaca_simulator.points import Quote
from libs.market_data.symbols import MalformedSymbolError, parse_symbol

_REASON_MAX_BYTES: Final = 123
"""What a close frame has room for (RFC 6455, 5.5)."""
_NEVER_SENT: Final = frozenset({1004, 1005, 1006, 1015})
"""Close codes that must not stand in a frame (RFC 6455, 7.4)."""

Price = Annotated[float, Meta(ge=-1e12, le=1e12)]
Size = Annotated[int, Meta(ge=0, le=2**32 - 1)]
TradeId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TimeNs = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Code = Annotated[str, Meta(min_length=1, max_length=8)]
Tape = Literal["A", "B", "C", "N", "O"]


class Steered(Protocol):
    """What an act needs of the simulator."""

    market_setting: MarketSetting

    @property
    def connections(self) -> list[Any]:
        """The clients connected now."""

    async def drop_all(self, *, clean: bool, code: int = ..., reason: str = ...) -> None:
        """End every connection."""

    def drop_slow(self, with_message: bool = ...) -> int:
        """Treat every client as too slow."""

    def halt(self, symbol: str, code: str | None = None, reason: str | None = None, tape: str | None = None) -> int:
        """Halt a symbol."""

    def resume(self, symbol: str, code: str | None = None, reason: str | None = None, tape: str | None = None) -> int:
        """End a halt."""

    def send(self, quote: Quote) -> int:
        """Send one quote exactly as it is."""

    def trade(
        self,
        symbol: str,
        price: float,
        *,
        size: int = ...,
        trade_id: int | None = ...,
        exchange: str = ...,
        conditions: tuple[str, ...] = ...,
        tape: str | None = ...,
        time_ns: int | None = ...,
    ) -> int:
        """Send one trade."""

    def correct_trade(
        self,
        symbol: str,
        trade_id: int | None = None,
        exchange: str | None = None,
        *,
        price: float | None = ...,
        size: int | None = ...,
        conditions: tuple[str, ...] | None = ...,
    ) -> int:
        """Correct a trade."""

    def cancel_trade(
        self, symbol: str, trade_id: int | None = None, exchange: str | None = None, action: str = ...
    ) -> int:
        """Take a trade back."""

    def send_raw(self, data: bytes | str) -> int:
        """Send one raw frame."""


Result = Mapping[str, object]


class Drop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End every connection: by cutting TCP, or with a close frame."""

    how: Literal["tcp", "close"] = "tcp"
    code: Annotated[int, Meta(ge=1000, le=4999)] = 1001
    reason: str = "going away"

    def __post_init__(self) -> None:
        if self.code in _NEVER_SENT:
            raise ValueError(f"code: {self.code} never stands in a close frame")
        if len(self.reason.encode()) > _REASON_MAX_BYTES:
            raise ValueError(f"reason: longer than {_REASON_MAX_BYTES} bytes")

    async def carry_out(self, simulator: Steered) -> Result:
        """Return how many clients were there."""
        count = len(simulator.connections)
        await simulator.drop_all(clean=self.how == "close", code=self.code, reason=self.reason)
        return {"dropped": count}


class SlowClient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Treat every client as too slow."""

    with_message: bool = True

    async def carry_out(self, simulator: Steered) -> Result:
        """Return how many clients were there."""
        return {"dropped": simulator.drop_slow(self.with_message)}


class _OfSymbol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    symbol: str
    code: Code | None = None
    reason: Code | None = None
    tape: Tape | None = None

    def __post_init__(self) -> None:
        _check_symbol(self.symbol)


class Halt(_OfSymbol, frozen=True, forbid_unknown_fields=True):
    """Halt a symbol."""

    async def carry_out(self, simulator: Steered) -> Result:
        """Return how many clients were told."""
        return {"told": simulator.halt(parse_symbol(self.symbol), self.code, self.reason, self.tape)}


class Resume(_OfSymbol, frozen=True, forbid_unknown_fields=True):
    """End a halt."""

    async def carry_out(self, simulator: Steered) -> Result:
        """Return how many clients were told."""
        return {"told": simulator.resume(parse_symbol(self.symbol), self.code, self.reason, self.tape)}


class Market(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set what the clock says."""

    setting: MarketSetting

    async def carry_out(self, simulator: Steered) -> Result:
        """Return the new setting."""
        simulator.market_setting = self.setting
        return {"market": self.setting.value}


class GivenQuote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quote to be sent exactly as given; prices in USD, sizes in shares."""

    symbol: str
    bid: Price
    ask: Price
    bid_size: Size = 100
    ask_size: Size = 100
    bid_exchange: str = IEX_EXCHANGE
    ask_exchange: str = IEX_EXCHANGE
    conditions: tuple[str, ...] = ("R",)
    tape: str | None = None
    time_ns: TimeNs | None = None

    def __post_init__(self) -> None:
        _check_symbol(self.symbol)

    def as_quote(self, now_ns: int) -> Quote:
        """Return the quote, of now when it names no time."""
        symbol = parse_symbol(self.symbol)
        time_ns = now_ns if self.time_ns is None else self.time_ns
        return Quote(
            symbol, self.bid, self.bid_size, self.bid_exchange, self.ask, self.ask_size, self.ask_exchange, time_ns,
            self.conditions, self.tape or listing_of(symbol).tape,
        )  # fmt: skip


class Quotes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Send quotes exactly as given."""

    quotes: tuple[GivenQuote, ...]

    async def carry_out(self, simulator: Steered) -> Result:
        """Return for how many clients they were queued, all together."""
        return {"queued": sum(simulator.send(quote.as_quote(time.time_ns())) for quote in self.quotes)}


class GivenTrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trade to be sent exactly as given; price in USD, size in shares. An id is made up when none is given."""

    symbol: str
    price: Price
    size: Size = 100
    trade_id: TradeId | None = None
    exchange: str = IEX_EXCHANGE
    conditions: tuple[str, ...] = ("@",)
    tape: str | None = None
    time_ns: TimeNs | None = None

    def __post_init__(self) -> None:
        _check_symbol(self.symbol)

    def send(self, simulator: Steered) -> int:
        """Send it, of now when it names no time; return for how many clients it was queued."""
        return simulator.trade(
            parse_symbol(self.symbol),
            self.price,
            size=self.size,
            trade_id=self.trade_id,
            exchange=self.exchange,
            conditions=self.conditions,
            tape=self.tape,
            time_ns=self.time_ns,
        )


class Trades(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Send trades exactly as given, to those who subscribe them; REST shows the last that may be a last price."""

    trades: tuple[GivenTrade, ...]

    async def carry_out(self, simulator: Steered) -> Result:
        """Return for how many clients they were queued, all together."""
        return {"queued": sum(trade.send(simulator) for trade in self.trades)}


class CorrectTrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Correct a trade, the last one unless an id is given; what is not named stays. No such trade: nobody is told."""

    symbol: str
    trade_id: TradeId | None = None
    exchange: str | None = None
    price: Price | None = None
    size: Size | None = None
    conditions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_symbol(self.symbol)

    async def carry_out(self, simulator: Steered) -> Result:
        """Return how many clients were told."""
        told = simulator.correct_trade(
            parse_symbol(self.symbol),
            self.trade_id,
            self.exchange,
            price=self.price,
            size=self.size,
            conditions=self.conditions,
        )
        return {"told": told}


class CancelTrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take a trade back, the last one unless an id is given: cancelled (C), or an error (E)."""

    symbol: str
    trade_id: TradeId | None = None
    exchange: str | None = None
    action: Literal["C", "E"] = "C"

    def __post_init__(self) -> None:
        _check_symbol(self.symbol)

    async def carry_out(self, simulator: Steered) -> Result:
        """Return how many clients were told."""
        return {"told": simulator.cancel_trade(parse_symbol(self.symbol), self.trade_id, self.exchange, self.action)}


class Raw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Send a frame exactly as given to every client: a text frame, or a binary one."""

    text: str | None = None
    base64: str | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("give either text or base64")
        self._data()

    async def carry_out(self, simulator: Steered) -> Result:
        """Return how many clients it was queued for."""
        return {"queued": simulator.send_raw(self._data())}

    def _data(self) -> bytes | str:
        if self.text is not None:
            return self.text
        try:
            return base64.b64decode(self.base64 or "", validate=True)
        except binascii.Error as fault:
            raise ValueError(f"base64: {fault}") from fault


Act = Drop | SlowClient | Halt | Resume | Market | Quotes | Trades | CorrectTrade | CancelTrade | Raw

ACTS: Final[Mapping[str, type[Act]]] = {
    "drop": Drop,
    "slow_client": SlowClient,
    "halt": Halt,
    "resume": Resume,
    "market": Market,
    "quotes": Quotes,
    "trades": Trades,
    "correct_trade": CorrectTrade,
    "cancel_trade": CancelTrade,
    "raw": Raw,
}
"""Every act, by its name in a scenario; in a path `_` is written `-`."""


def _check_symbol(symbol: str) -> None:
    try:
        parse_symbol(symbol)
    except MalformedSymbolError as fault:
        raise ValueError(f"symbol: {fault}") from fault
