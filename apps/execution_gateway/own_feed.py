"""Decides which messages on Redis belong to the feed of this gateway's own database. Pure: time is an argument.

Pub/sub knows no database number, so the messages of every system on the server arrive here. Ours are those of the
process and connection that `feed:status` of our own database names; the others are counted and named.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from libs.market_data.prices import FeedStatus, Price

LASTING_AFTER: Final = timedelta(seconds=5)
"""A process that takes over is unknown for a moment; what is foreign for longer than this keeps coming."""
ENDED_AFTER: Final = timedelta(seconds=15)
NAMELESS: Final = "a program that gives no instance"
_MOST_NAMED: Final = 16
_NAME_LENGTH: Final = 80


@dataclass(slots=True)
class _Spell:
    """Since when the messages of one foreign feed have come, and when the last one did."""

    first_at: datetime
    last_at: datetime


class OwnFeed:
    """The identity of our own feed, and who else publishes on this server.

    Order: `learn` whenever the key was read; `owns_price` or `owns_status` for each message; `note_foreign` for one
    that was not ours. `foreign_messages` counts those.
    """

    def __init__(self) -> None:
        self._instance: str | None = None
        self._epoch: str | None = None
        self._is_known = False
        self._foreign: dict[str, _Spell] = {}
        self.foreign_messages = 0

    @property
    def instance(self) -> str | None:
        """The process that writes our database's feed; None when that is not known."""
        return self._instance

    def learn(self, status: FeedStatus | None) -> None:
        """Take over what the key of our own database holds; None when there is no such key."""
        self._is_known = status is not None
        self._instance = None if status is None else status.instance
        self._epoch = None if status is None else status.epoch
        if status is not None:
            self._foreign.pop(_name(status.instance), None)

    def owns_price(self, price: Price) -> bool:
        """Say whether a published price came over the connection that our key names. Without a sequence it did not."""
        return (
            price.instance is not None
            and price.epoch is not None
            and price.seq is not None
            and price.instance == self._instance
            and price.epoch == self._epoch
        )

    def owns_status(self, status: FeedStatus) -> bool:
        """Say whether a heartbeat comes from the process, and speaks of the connection, that our key names."""
        return status.instance is not None and status.instance == self._instance and status.epoch == self._epoch

    def is_foreign(self, instance: str | None) -> bool:
        """Say whether `instance` is not the one that our key names."""
        return not self._is_known or instance != self._instance

    def note_foreign(self, instance: str | None, at: datetime) -> None:
        """Count a message of another feed."""
        self.foreign_messages += 1
        name = _name(instance)
        spell = self._foreign.get(name)
        if spell is not None and timedelta(0) <= at - spell.last_at <= ENDED_AFTER:
            spell.last_at = at
            return
        if spell is None and len(self._foreign) >= _MOST_NAMED:
            del self._foreign[min(self._foreign, key=lambda one: self._foreign[one].last_at)]
        self._foreign[name] = _Spell(at, at)

    def lasting(self, now: datetime) -> list[str]:
        """Return the foreign processes whose messages keep coming."""
        return sorted(
            name
            for name, spell in self._foreign.items()
            if spell.last_at - spell.first_at >= LASTING_AFTER and abs(now - spell.last_at) <= ENDED_AFTER
        )


def _name(instance: str | None) -> str:
    if not instance:
        return NAMELESS
    # It comes from the wire and is shown to people.
    return "".join(letter if letter.isprintable() else "?" for letter in instance[:_NAME_LENGTH])
