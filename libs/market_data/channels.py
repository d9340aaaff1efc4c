"""The channels of the stream, why one is refused, and what is asked for beside the quotes. Pure.

Quotes mark positions; the other channels ride along: asked for last, of what streams already, in requests of their own,
and given up first. No quote ever waits for them.
"""

from dataclasses import dataclass
from enum import StrEnum


class Channel(StrEnum):
    """What a request is about, in the words of the wire. Corrections and cancels follow the trades by themselves."""

    QUOTES = "quotes"
    STATUSES = "statuses"
    TRADES = "trades"


class Refusal(StrEnum):
    """Why Alpaca does not stream a symbol that is wanted, or a channel."""

    MALFORMED = "malformed"
    OVER_LIMIT = "over_limit"
    NOT_OFFERED = "not_offered"
    NOT_CONFIRMED = "not_confirmed"


@dataclass(slots=True)
class SideChannel:
    """One channel beside the quotes: what of it is confirmed. `quoted` are the symbols whose quotes are.

    `refusal`: why the server does not have it, for all symbols and as long as the connection lasts; None while it may.
    """

    channel: Channel
    confirmed: frozenset[str] = frozenset()
    refusal: Refusal | None = None
    is_paused: bool = False
    """Whether it makes room, should the plan count it: a quote is worth more."""

    @property
    def is_offered(self) -> bool:
        """Whether the server has it, as far as it has told."""
        return self.refusal is None

    def surplus(self, quoted: frozenset[str]) -> frozenset[str]:
        """Return the symbols to unsubscribe."""
        return self.confirmed - quoted if self.is_offered and not self.is_paused else self.confirmed

    def missing(self, quoted: frozenset[str]) -> frozenset[str]:
        """Return the symbols still to be asked for."""
        return quoted - self.confirmed if self.is_offered else frozenset()

    def check_acknowledged(self, symbols: frozenset[str]) -> None:
        """Give the channel up when the server has left out what it was asked for: it will say no more about it."""
        if self.is_offered and not symbols <= self.confirmed:
            self.refusal = Refusal.NOT_CONFIRMED
