"""Is a silent symbol quiet, dead, or is the whole connection mute? Decides what to ask REST, and what its answer means.

A venue says nothing when nothing changes, so silence alone proves nothing. It is judged by the symbol's own usual rate,
by its peers on the same connection, by the market being open, by halts, and then by one REST probe: does REST know a
newer quote than the stream brought? Pure: clocks are arguments. `alpaca_stream.py` asks and acts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from math import exp
from typing import Final, NamedTuple

_UNLIKELY: Final = 8.0
"""A silence in which this many quotes were to be expected has, for independent quotes, a chance of e^-8: 1 in 3,000."""
_HOPELESS: Final = 25.0
"""And in one of this many, 1 in 70 billion: then no probe is needed to call a connection mute."""
_LINK_LIMIT_S: Final = (5.0, 15.0)
"""How long a whole connection may be silent before REST is asked, at least and at most."""
_SYMBOL_LIMIT_S: Final = (10.0, 60.0)
_DOUBT_AFTER_S: Final = 20.0
"""A connection silent for this long since it was last heard or proven quiet is not vouched for any more."""
_MUTE_AFTER_S: Final = 30.0
_SEVERAL: Final = 2
_SAME: Final = timedelta(milliseconds=50)
"""Both ways tell the venue's own time, cut to other digits: within this a REST quote is the stream's."""
_STREAM_LAGS_S: Final = 2.0
"""A quote may be seen by REST before the stream brings it: so long it gets."""
_PROBE_PAUSE_S: Final = 5.0
_RATE_MEMORY_S: Final = 120.0
_RATE_KNOWN_FROM: Final = 3.0
MOST_PER_PROBE: Final = 100


class Heard(NamedTuple):
    """What the stream has brought of a symbol: quotes so far, and the venue's time of the newest known.

    `time` is that of the last streamed quote, else of the one fetched at the subscription; None when there is none.
    """

    quotes: int
    time: datetime | None


class Silence(StrEnum):
    """What the connection's silence amounts to."""

    NONE = "none"
    """Nothing unusual: data flows, or its absence is proven to be quiet, or none is to be expected."""
    DOUBTED = "doubted"
    """Silent for too long to vouch for, and not proven quiet."""
    MUTE = "mute"
    """Quotes are made, and this connection does not bring them."""


@dataclass(slots=True)
class _Symbol:
    silent_since_s: float
    count: int = 0
    seen: float = 0.0
    over_s: float = 0.0
    heard_at_s: float | None = None
    proven_at_s: float = 0.0
    first_time: datetime | None = None
    missed: datetime | None = None
    missed_at_s: float = 0.0
    is_dead: bool = False

    @property
    def rate_per_s(self) -> float:
        """Quotes per second of late; 0 before enough were seen to tell."""
        return self.seen / self.over_s if self.seen >= _RATE_KNOWN_FROM and self.over_s > 0 else 0.0

    def hear(self, count: int, now_s: float) -> None:
        if self.heard_at_s is not None:
            elapsed_s = now_s - self.heard_at_s
            memory = exp(-elapsed_s / _RATE_MEMORY_S)
            self.seen = self.seen * memory + (count - self.count)
            self.over_s = self.over_s * memory + elapsed_s
        self.heard_at_s = self.silent_since_s = now_s
        self.missed, self.is_dead = None, False

    def excuse(self, now_s: float) -> None:
        """Count its silence from now on only: none of it so far says anything, nor does it change its usual pace."""
        self.silent_since_s, self.heard_at_s = now_s, None
        self.missed, self.is_dead = None, False

    def restart(self, now_s: float) -> None:
        """Count anew on a new connection, or after a new subscription. What was dead is so until proven otherwise."""
        self.silent_since_s, self.heard_at_s, self.missed = now_s, None, None

    def unproven_s(self, now_s: float) -> float:
        return now_s - max(self.silent_since_s, self.proven_at_s)


@dataclass(slots=True)
class SilenceJudge:
    """Order: `begin` with each connection, `look` about once a second, `answered` after each probe that was answered.

    `silence` is the judgement of the last call.
    """

    silence: Silence = Silence.NONE
    _known: dict[str, _Symbol] = field(default_factory=dict)
    _watched: dict[str, _Symbol] = field(default_factory=dict)
    _heard_s: float = 0.0
    _proven_s: float = 0.0
    _probed_s: float = 0.0
    _tried: set[str] = field(default_factory=set)
    _is_expecting: bool = False
    _was_mute: bool = False

    @property
    def dead(self) -> frozenset[str]:
        """Symbols of which the stream brings nothing, though they quote."""
        return frozenset(symbol for symbol, one in self._watched.items() if one.is_dead)

    def silent_s(self, now_s: float) -> float:
        """Return for how long the connection has been silent while data was to be expected."""
        return now_s - self._heard_s

    def begin(self, now_s: float) -> None:
        """Start over for a new connection. After a mute one it is doubted until it brings something."""
        self._heard_s = self._proven_s = now_s
        self._probed_s = now_s - _PROBE_PAUSE_S
        if self.silence is Silence.MUTE:
            # What it did not bring says nothing of the symbols: that was the connection.
            self._was_mute = True
            for one in self._known.values():
                one.is_dead = False
        self.silence = Silence.DOUBTED if self._was_mute else Silence.NONE
        self._watched = {}

    def keep_only(self, wanted: Collection[str]) -> None:
        """Forget every symbol but these."""
        for symbol in [symbol for symbol in self._known if symbol not in wanted]:
            del self._known[symbol]
            self._tried.discard(symbol)

    def look(
        self, now_s: float, heard: Mapping[str, Heard], *, is_open: bool, halted: Collection[str]
    ) -> tuple[str, ...]:
        """Take in what was heard of each confirmed symbol; return the symbols to ask REST for now, mostly none."""
        self._watch(now_s, heard)
        self._is_expecting = False
        for symbol, one in self._watched.items():
            count = heard[symbol].quotes
            if count > one.count:
                one.hear(count, now_s)
                self._tried.discard(symbol)
                self._heard_s, self._was_mute = now_s, False
            one.count = count
            if not is_open or symbol in halted:
                one.excuse(now_s)
            else:
                self._is_expecting = True
        if not self._is_expecting:
            self._heard_s = self._proven_s = now_s
        self._confirm_losses(now_s, heard)
        self.silence = self._judge(now_s)
        return self._to_probe(now_s) if self._is_expecting else ()

    def answered(
        self, now_s: float, asked: Collection[str], latest: Mapping[str, datetime], heard: Mapping[str, Heard]
    ) -> None:
        """Take in what REST knows: the venue's time of the latest quote of each of `asked` that has one."""
        found_quiet = found_newer = False
        for symbol in asked:
            one, time = self._watched.get(symbol), latest.get(symbol)
            if one is None or time is None:
                continue
            known = (heard[symbol].time if symbol in heard else None) or one.first_time
            if known is None:
                one.first_time = time
            elif time > known + _SAME:
                found_newer = True
                if one.missed is None:
                    one.missed, one.missed_at_s = time, now_s
            else:
                found_quiet = True
                one.proven_at_s, one.is_dead = now_s, False
        # The rest being quiet proves nothing for a connection that has lost one.
        if found_quiet and not found_newer and not self._lost_untried():
            self._proven_s = now_s

    def _watch(self, now_s: float, heard: Mapping[str, Heard]) -> None:
        watched = {}
        for symbol in heard:
            one = self._known.get(symbol)
            if one is None:
                one = self._known[symbol] = _Symbol(now_s, heard[symbol].quotes)
            if symbol not in self._watched:
                one.restart(now_s)
            watched[symbol] = one
        self._watched = watched

    def _confirm_losses(self, now_s: float, heard: Mapping[str, Heard]) -> None:
        for symbol, one in self._watched.items():
            if one.missed is None or now_s - one.missed_at_s < _STREAM_LAGS_S:
                continue
            time = heard[symbol].time
            if time is not None and time >= one.missed:
                one.missed = None
            else:
                one.is_dead = True

    def _judge(self, now_s: float) -> Silence:
        if not self._is_expecting:
            # Nothing can be missed.
            self._was_mute = False
            return Silence.NONE
        unproven_s = self._unproven_s(now_s)
        if self._is_mute(now_s, unproven_s):
            return Silence.MUTE
        if self._proven_s > self._heard_s and unproven_s < _DOUBT_AFTER_S:
            self._was_mute = False
        return Silence.DOUBTED if self._was_mute or unproven_s >= _DOUBT_AFTER_S else Silence.NONE

    def _is_mute(self, now_s: float, unproven_s: float) -> bool:
        """Say whether the connection is mute: REST knows better of several symbols, or of the only one.

        One of many may be the venue's own fault, so it is given longer. Without an answer of REST only a silence that
        is beyond all chance will do.
        """
        lost = self._lost_untried()
        dead_since_s = [self._watched[symbol].missed_at_s for symbol in lost if self._watched[symbol].is_dead]
        is_mute = bool(dead_since_s) and (
            len(dead_since_s) >= min(_SEVERAL, len(self._watched)) or now_s - min(dead_since_s) >= _MUTE_AFTER_S
        )
        is_mute = is_mute or (unproven_s >= _MUTE_AFTER_S and self._rate_per_s * unproven_s >= _HOPELESS)
        if is_mute and len(lost) < min(_SEVERAL, len(self._watched)):
            self._tried |= lost
        return is_mute

    def _lost_untried(self) -> set[str]:
        """Return the symbols lost since anything was heard, but for one that a new connection did not bring back."""
        return {
            symbol
            for symbol, one in self._watched.items()
            if symbol not in self._tried and one.missed_at_s > self._heard_s and (one.is_dead or one.missed is not None)
        }

    def _to_probe(self, now_s: float) -> tuple[str, ...]:
        if now_s - self._probed_s < _PROBE_PAUSE_S:
            return ()
        candidates = [symbol for symbol, one in self._watched.items() if one.missed is None]
        if self._unproven_s(now_s) < _limit_s(self._rate_per_s, _LINK_LIMIT_S):
            candidates = [symbol for symbol in candidates if _is_overdue(self._watched[symbol], now_s)]
        if not candidates:
            return ()
        self._probed_s = now_s
        # The busiest tell most; of those without a pace the longest unproven come first.
        candidates.sort(
            key=lambda symbol: (-self._watched[symbol].rate_per_s, -self._watched[symbol].unproven_s(now_s))
        )
        return tuple(candidates[:MOST_PER_PROBE])

    def _unproven_s(self, now_s: float) -> float:
        return now_s - max(self._heard_s, self._proven_s)

    @property
    def _rate_per_s(self) -> float:
        return sum(one.rate_per_s for one in self._watched.values() if not one.is_dead)


def _is_overdue(one: _Symbol, now_s: float) -> bool:
    # A dead one that was subscribed anew may be quiet by now: that is worth knowing soon.
    limit_s = _LINK_LIMIT_S[0] if one.is_dead else _limit_s(one.rate_per_s, _SYMBOL_LIMIT_S)
    return one.unproven_s(now_s) >= limit_s


def _limit_s(rate_per_s: float, bounds_s: tuple[float, float]) -> float:
    """Return after which silence one asks: when it has become unlikely, within bounds."""
    low_s, high_s = bounds_s
    return high_s if rate_per_s <= 0 else min(high_s, max(low_s, _UNLIKELY / rate_per_s))
