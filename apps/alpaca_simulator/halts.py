"""Which symbols are halted, and the status messages that say so. Pure.

The codes depend on the tape (Alpaca, "Real-time Stock Data", trading statuses).
"""

from collections.abc import Mapping
from typing import Final

from apps.alpaca_simulator.points import Status

QUOTING_RESUMES: Final = "Q"
"""Tapes C and O: quotes flow again, trading does not yet."""

_CTA: Final = frozenset("AB")
_STATUSES: Final[Mapping[bool, Mapping[str, str]]] = {
    True: {
        "2": "Trading Halt", "3": "Resume", "5": "Price Indication", "6": "Trading Range Indication",
        "7": "Market Imbalance Buy", "8": "Market Imbalance Sell", "E": "Short Sale Restriction",
        "F": "Limit Up-Limit Down",
    },
    False: {
        "H": "Trading Halt", "P": "Volatility Trading Pause", QUOTING_RESUMES: "Quotation Resumption",
        "T": "Trading Resumption",
    },
}  # fmt: skip
_REASONS: Final[Mapping[bool, Mapping[str, str]]] = {
    True: {
        "D": "News Released (formerly News Dissemination)", "I": "Order Imbalance",
        "M": "Limit Up-Limit Down (LULD) Trading Pause", "P": "News Pending", "X": "Operational",
    },
    False: {
        "T1": "Halt News Pending", "T2": "Halt News Dissemination", "T3": "News and Resumption Times",
        "T12": "Trading Halted; For information requested by NASDAQ", "LUDP": "Volatility Trading Pause",
        "MWC1": "Market Wide Circuit Breaker Halt - Level 1", "R4": "Qualifications Issues Reviewed/Resolved",
    },
}  # fmt: skip


class Halts:
    """The halted symbols. A halt outlives every connection; whoever subscribes later is not told, as at Alpaca."""

    def __init__(self) -> None:
        self.halted: frozenset[str] = frozenset()
        """Trading is halted."""
        self.silent: frozenset[str] = frozenset()
        """No quotes are made either: the halted ones less those whose quoting has resumed. Replaced, never changed."""

    def halt(self, symbol: str, code: str | None, reason: str | None, tape: str, time_ns: int) -> Status:
        """Halt a symbol and return the message; without codes an ordinary halt for news."""
        self.halted |= {symbol}
        self.silent |= {symbol}
        is_cta = tape in _CTA
        return _status(symbol, code or ("2" if is_cta else "H"), reason or ("P" if is_cta else "T1"), tape, time_ns)

    def resume(self, symbol: str, code: str | None, reason: str | None, tape: str, time_ns: int) -> Status:
        """End a halt and return the message. With the code `Q` only the quotes come back: trading stays halted."""
        is_cta = tape in _CTA
        self.silent -= {symbol}
        if is_cta or code != QUOTING_RESUMES:
            self.halted -= {symbol}
        return _status(symbol, code or ("3" if is_cta else "T"), reason or ("D" if is_cta else "T3"), tape, time_ns)


def _status(symbol: str, code: str, reason: str, tape: str, time_ns: int) -> Status:
    """Return the message; a code that is in no table carries no text."""
    is_cta = tape in _CTA
    return Status(
        symbol, code, _STATUSES[is_cta].get(code, ""), reason, _REASONS[is_cta].get(reason, ""), time_ns, tape
    )
