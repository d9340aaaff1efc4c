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
    keeps it for `hold_s` seconds: about 90 at Alpaca. Times are seconds of a monotonic clock.
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._slots: dict[tuple[str, str], _Slot] = {}

    def claim(self, path: str, key: str, holder: int, now_s: float) -> bool:
        """Take the slot for `holder`; False when another connection has it (error 406)."""
        slot = self._slots.get((path, key))
        if slot is not None and slot.holder != holder and (slot.held_until_s is None or now_s < slot.held_until_s):
            return False
        self._slots[path, key] = _Slot(holder, None)
        return True

    def release(self, holder: int, now_s: float, *, clean: bool) -> None:
        """Let go of whatever `holder` has: at once after a clean close, else after `hold_s` seconds."""
        for place, slot in list(self._slots.items()):
            if slot.holder != holder:
                continue
            if clean or self._hold_s <= 0:
                del self._slots[place]
            else:
                self._slots[place] = _Slot(holder, now_s + self._hold_s)

    def free_all(self) -> None:
        """Forget every holder, as a restarted server does."""
        self._slots.clear()
