"""What the simulated market knows of each symbol: its usual price, tape, activity and spread.

Well-known symbols have believable figures of their own; any other symbol's follow from its name alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from libs.market_data.symbols import TEST_SYMBOL

_HASH_SPAN: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol's character.

    `base_price` in USD; `tape` A NYSE, B Arca and regional, C Nasdaq; `spread_bp` the usual spread in hundredths of a
    percent of the price; `activity` quotes per second in an ordinary minute.
    """

    symbol: str
    base_price: float
    tape: str
    spread_bp: float
    activity: float
    daily_volume: int


_BUSY, _USUAL, _CALM, _QUIET = 6.0, 2.5, 1.0, 0.15

_WELL_KNOWN: Final = {
    listing.symbol: listing
    for listing in (
        Listing("AAPL", 232.0, "C", 0.8, _BUSY, 48_000_000),
        Listing("MSFT", 498.0, "C", 0.9, _USUAL, 19_000_000),
        Listing("NVDA", 178.0, "C", 0.8, _BUSY, 180_000_000),
        Listing("AMZN", 226.0, "C", 0.9, _USUAL, 40_000_000),
        Listing("GOOGL", 247.0, "C", 0.9, _USUAL, 30_000_000),
        Listing("GOOG", 248.0, "C", 1.0, _CALM, 20_000_000),
        Listing("META", 712.0, "C", 1.2, _USUAL, 12_000_000),
        Listing("TSLA", 405.0, "C", 1.1, _BUSY, 85_000_000),
        Listing("AMD", 215.0, "C", 1.1, _USUAL, 45_000_000),
        Listing("INTC", 37.0, "C", 2.8, _CALM, 70_000_000),
        Listing("NFLX", 1120.0, "C", 2.0, _CALM, 3_500_000),
        Listing("JPM", 302.0, "A", 1.2, _USUAL, 9_000_000),
        Listing("BAC", 52.0, "A", 2.0, _CALM, 38_000_000),
        Listing("XOM", 114.0, "A", 1.3, _CALM, 15_000_000),
        Listing("KO", 68.0, "A", 1.5, _CALM, 16_000_000),
        Listing("PG", 152.0, "A", 1.4, _CALM, 8_000_000),
        Listing("JNJ", 189.0, "A", 1.3, _CALM, 8_000_000),
        Listing("WMT", 104.0, "A", 1.3, _CALM, 16_000_000),
        Listing("DIS", 112.0, "A", 1.6, _CALM, 9_000_000),
        Listing("F", 12.2, "A", 8.2, _CALM, 60_000_000),
        Listing("T", 26.0, "A", 3.9, _CALM, 35_000_000),
        Listing("V", 345.0, "A", 1.3, _CALM, 6_000_000),
        Listing("BRK.B", 494.0, "A", 2.4, _QUIET, 4_500_000),
        Listing("SPY", 668.0, "B", 0.3, _BUSY, 72_000_000),
        Listing("QQQ", 600.0, "C", 0.4, _BUSY, 52_000_000),
        Listing("IWM", 245.0, "B", 0.8, _USUAL, 30_000_000),
        Listing("GME", 23.0, "A", 8.7, _CALM, 9_000_000),
        Listing("PLTR", 178.0, "C", 1.2, _USUAL, 60_000_000),
        Listing(TEST_SYMBOL, 134.81, "A", 142.0, 0.2, 205),
    )
}

UNIVERSE: Final = frozenset(_WELL_KNOWN) - {TEST_SYMBOL}
"""What a wildcard subscription hears of, beside the symbols that somebody named."""


@lru_cache(maxsize=20_000)
def listing_of(symbol: str) -> Listing:
    """Return the listing of a symbol; one that is not well known is derived from its name, always the same."""
    known = _WELL_KNOWN.get(symbol)
    if known is not None:
        return known
    price = round(8.0 * 40.0 ** unit_hash("price", symbol), 2)
    activity = (_USUAL, _CALM, _CALM, _QUIET)[int(4 * unit_hash("activity", symbol))]
    volume = int(200_000 * 50.0 ** unit_hash("volume", symbol))
    return Listing(symbol, price, "ACC"[int(3 * unit_hash("tape", symbol))], 200.0 / price + 2.0, activity, volume)


def unit_hash(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but `parts`, in every process and on every machine."""
    digest = blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _HASH_SPAN
