"""Who holds the one connection that Alpaca allows per key and path, and for how long after it was lost. No I/O."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Slot:
    holder: int
    held_until_s: float | None
    """None while the connection lives; after an unclean drop the moment the slot is freed."""


class ConnectionSlots:
    """One slot per key and path.

    A clean close frees it at once. After an unclean drop the server does not know that the client has gone, and
    keeps it for a while: about 90 s at Alpaca. Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._slots: dict[tuple[str, str], _Slot] = {}

    def claim(self, path: str, key: str, holder: int, now_s: float) -> bool:
        """Take the slot for `holder`; False when another connection has it (error 406)."""
        slot = self._slots.get((path, key))
        if slot is not None and slot.holder != holder and (slot.held_until_s is None or now_s < slot.held_until_s):
            return False
        self._slots[path, key] = _Slot(holder, None)
        return True

    def release(self, holder: int, now_s: float, *, hold_s: float) -> None:
        """Let go of whatever `holder` has after `hold_s` seconds: 0 after a clean close."""
        for place, slot in list(self._slots.items()):
            if slot.holder != holder:
                continue
            if hold_s <= 0:
                del self._slots[place]
            else:
                self._slots[place] = _Slot(holder, now_s + hold_s)

    def held_until_s(self, now_s: float) -> float | None:
        """Return when the last slot of a client that is gone will be free; None when none is held."""
        moments = [slot.held_until_s for slot in self._slots.values() if slot.held_until_s is not None]
        return max((moment for moment in moments if moment > now_s), default=None)

    def free_all(self) -> None:
        """Forget every holder, as a restarted server does."""
        self._slots.clear()
