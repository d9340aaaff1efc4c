"""Decides whose prices may mark whose account: prices that somebody made up never mark real money. Pure."""

from typing import Final

from libs.market_data.prices import Mode

_MADE_UP: Final = frozenset({Mode.SIMULATED, Mode.REPLAY})


def is_real_account(account: Mode) -> bool:
    """Say whether `account` is one at the broker, paper money included."""
    return account not in _MADE_UP


def is_foreign_mode(account: Mode, prices: Mode | None) -> bool:
    """Say whether prices of mode `prices` mark nothing in `account`. None: nobody has said what they are."""
    return is_real_account(account) and prices in _MADE_UP


def body_mode(account: Mode, prices: Mode | None) -> Mode:
    """Return whose money a report speaks of: the account's where it is real, else what the prices are."""
    return account if prices is None or is_real_account(account) else prices


def simulator_mode(header: str | None) -> Mode | None:
    """Return what a simulator says of itself in its header; None when there is none."""
    said = (header or "").strip().lower()
    if not said:
        return None
    return Mode.REPLAY if said == Mode.REPLAY else Mode.SIMULATED
