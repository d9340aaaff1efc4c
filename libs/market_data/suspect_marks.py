"""What a suspect price may still be used for: until when its quote marks, and which trade marks in its place. Pure.

Which quotes make a price suspect is decided in `suspect_quotes.py`.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from libs.market_data.prices import Price

SEVERAL: Final = 2
"""From so many rejected quotes in a row on, a single spoiled copy is no explanation."""
CONFIRMED_AFTER: Final = timedelta(seconds=1)
"""By then a single spoiled copy would have been followed by a good quote, or by a second rejected one."""
_CLOCK_SKEW: Final = timedelta(seconds=2)
"""How far ahead of ours the writer's clock may be; beyond that nobody knows for how long the price has been suspect."""


def is_overdue(price: Price, now: datetime, stale_after_s: float) -> bool:
    """Say whether the price has been suspect for so long that its quote is not live, whatever vouches for it."""
    suspect_for = _suspect_for(price, now)
    return suspect_for is not None and not -_CLOCK_SKEW <= suspect_for < timedelta(seconds=stale_after_s)


def is_withdrawn(price: Price, now: datetime) -> bool:
    """Say whether nobody can trade at the sides of the held quote any more: more than one spoiled copy says so."""
    suspect_for = _suspect_for(price, now)
    if suspect_for is None:
        return False
    is_confirmed = price.suspect_quotes is not None and price.suspect_quotes >= SEVERAL
    return is_confirmed or not -_CLOCK_SKEW <= suspect_for < CONFIRMED_AFTER


def has_later_trade(price: Price) -> bool:
    """Say whether the last trade came after the price had become suspect: the dead quote's sides do not bound it."""
    since, traded_at = price.suspect_since, price.last_timestamp
    return since is not None and price.last is not None and traded_at is not None and traded_at > since


def as_last_trade(price: Price) -> Price:
    """Return a price of nothing but the last trade, known since the venue made it. There must be one."""
    if price.last is None or price.last_timestamp is None:
        raise ValueError(f"no last trade of {price.symbol} is known")
    return replace(price, mid=price.last, timestamp=price.last_timestamp, bid=None, ask=None, received_at=None)


def _suspect_for(price: Price, now: datetime) -> timedelta | None:
    return None if price.suspect_since is None else now - price.suspect_since
