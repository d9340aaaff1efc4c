"""The market data points that the simulator can send: what they say, not how they are written on a wire.

Prices are floats here and nowhere else in the product: Alpaca's wire carries float64, and the simulator is that wire.
Structs, not dataclasses: a flood makes tens of thousands a second.
"""

from enum import StrEnum
from typing import ClassVar

import msgspec


class Channel(StrEnum):
    """The channels of the stock stream, by their names in a subscribe message."""

    TRADES = "trades"
    QUOTES = "quotes"
    BARS = "bars"
    UPDATED_BARS = "updatedBars"
    DAILY_BARS = "dailyBars"
    STATUSES = "statuses"
    LULDS = "lulds"
    IMBALANCES = "imbalances"


class Feed(StrEnum):
    """The stock feeds, by the last part of their path."""

    IEX = "iex"
    SIP = "sip"
    DELAYED_SIP = "delayed_sip"
    TEST = "test"


class Quote(msgspec.Struct, frozen=True):
    """One quote, sizes in shares, time in nanoseconds since 1970. A price of 0 means that side has no quote."""

    symbol: str
    bid_price: float
    bid_size: int
    bid_exchange: str
    ask_price: float
    ask_size: int
    ask_exchange: str
    time_ns: int
    conditions: tuple[str, ...] = ("R",)
    tape: str = "C"

    channel: ClassVar[Channel] = Channel.QUOTES


class Trade(msgspec.Struct, frozen=True):
    """One trade, size in shares, time in nanoseconds since 1970."""

    symbol: str
    trade_id: int
    exchange: str
    price: float
    size: int
    time_ns: int
    conditions: tuple[str, ...] = ("@",)
    tape: str = "C"

    channel: ClassVar[Channel] = Channel.TRADES


class TradeCorrection(msgspec.Struct, frozen=True):
    """One trade that was reported wrongly, and what it should have been; follows the trades."""

    symbol: str
    exchange: str
    original_id: int
    original_price: float
    original_size: int
    original_conditions: tuple[str, ...]
    corrected_id: int
    corrected_price: float
    corrected_size: int
    corrected_conditions: tuple[str, ...]
    time_ns: int
    tape: str = "C"

    channel: ClassVar[Channel] = Channel.TRADES


class TradeCancel(msgspec.Struct, frozen=True):
    """One trade that is none: `action` is C for a cancel, E for an error; follows the trades."""

    symbol: str
    trade_id: int
    exchange: str
    price: float
    size: int
    action: str
    time_ns: int
    tape: str = "C"

    channel: ClassVar[Channel] = Channel.TRADES


class Bar(msgspec.Struct, frozen=True):
    """One bar of trades, volume in shares; `time_ns` is its beginning."""

    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: int
    time_ns: int
    trade_count: int
    vwap: float

    channel: ClassVar[Channel] = Channel.BARS


class Status(msgspec.Struct, frozen=True):
    """One change of a symbol's trading status, time in nanoseconds since 1970. The codes depend on the tape."""

    symbol: str
    status_code: str
    status_message: str
    reason_code: str
    reason_message: str
    time_ns: int
    tape: str = "C"

    channel: ClassVar[Channel] = Channel.STATUSES


Point = Quote | Trade | TradeCorrection | TradeCancel | Bar | Status
