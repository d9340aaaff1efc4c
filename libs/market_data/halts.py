"""Which symbols the venue has halted, from its trading status messages. Pure.

Status codes depend on the tape (Alpaca, "Real-time Stock Data", trading statuses): on A and B `2` halts and `3`
resumes, on C and O `H` and `P` (volatility pause) halt, `T` resumes trading, and `Q` resumes quoting alone. Other codes
(price indications, imbalances, short-sale restriction, limit states) say something else and change nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

_CTA_HALTS: Final = frozenset({"2"})
_CTA_RESUMES: Final = frozenset({"3"})
_UTP_HALTS: Final = frozenset({"H", "P"})
_UTP_RESUMES: Final = frozenset({"T"})
_CTA_TAPES: Final = frozenset({"A", "B"})


@dataclass(frozen=True, slots=True)
class TradingStatus:
    """One word of the venue on `symbol`. `at` is the venue's clock (aware UTC), None when it sent none."""

    symbol: str
    code: str
    reason: str
    tape: str | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Halt:
    """Trading in a symbol is halted since `at` (the venue's clock, else ours), for `reason`."""

    reason: str
    at: datetime


def halts(status: TradingStatus) -> bool | None:
    """Say whether `status` halts trading (True), resumes it (False), or is about something else (None)."""
    if status.tape in _CTA_TAPES:
        halting, resuming = _CTA_HALTS, _CTA_RESUMES
    else:
        halting, resuming = _UTP_HALTS, _UTP_RESUMES
    return True if status.code in halting else False if status.code in resuming else None


@dataclass(slots=True)
class Halts:
    """The halted symbols, and those that trade again of which no quote has come since.

    A resumption may be missed while the link is down, so a new connection questions all halts.
    """

    _halted: dict[str, Halt] = field(default_factory=dict)
    _questioned: set[str] = field(default_factory=set)
    _unquoted: set[str] = field(default_factory=set)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols now halted."""
        return frozenset(self._halted)

    @property
    def unquoted(self) -> frozenset[str]:
        """The symbols that trade again, but the newest quote is of before: it may be far from where they trade now."""
        return frozenset(self._unquoted)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._halted

    def __bool__(self) -> bool:
        return bool(self._halted or self._unquoted)

    def of(self, symbol: str) -> Halt | None:
        """Return the halt of `symbol`; None when it trades."""
        return self._halted.get(symbol)

    def take(self, status: TradingStatus, received_at: datetime) -> bool:
        """Take in the venue's word; return whether it changed which symbols are halted."""
        is_halt = halts(status)
        if is_halt is None:
            return False
        self._questioned.discard(status.symbol)
        was_halted = status.symbol in self._halted
        if is_halt:
            self._halted[status.symbol] = Halt(status.reason, status.at or received_at)
            self._unquoted.discard(status.symbol)
        elif was_halted:
            del self._halted[status.symbol]
            self._unquoted.add(status.symbol)
        return is_halt is not was_halted

    def question(self) -> None:
        """Note that statuses may have been missed: from now on a good quote shows that a symbol trades again."""
        self._questioned = set(self._halted)

    def quoted(self, symbol: str) -> bool:
        """Take in that the stream brought a good quote; return whether that changed what may be said of the symbol."""
        if symbol in self._unquoted:
            self._unquoted.discard(symbol)
            return True
        if symbol not in self._questioned:
            return False
        self._questioned.discard(symbol)
        del self._halted[symbol]
        return True

    def keep_only(self, symbols: Collection[str]) -> bool:
        """Forget every symbol but these; return whether one of the forgotten was halted."""
        self._unquoted.intersection_update(symbols)
        gone = [symbol for symbol in self._halted if symbol not in symbols]
        for symbol in gone:
            del self._halted[symbol]
            self._questioned.discard(symbol)
        return bool(gone)
