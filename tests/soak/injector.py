"""Runs the faults one after another: begin, hold, end, wait until all is well, check that the last value arrives."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from tests.soak.judge import Finding, Wanted, what_is_missing
from tests.soak.kinds import Kind, Undo
from tests.soak.plan import OVERLAP_SHARE, Deck, companions
from tests.soak.samples import REAL_TIME
from tests.soak.watch import Watch
from tests.soak.world import CANARIES, SIMULATOR, WALKING
from tests.support.stack import GATEWAY, MARKET_DATA

RECOVERS_WITHIN_S: Final = 30.0
GIVES_UP_AFTER_S: Final = 75.0
LAST_VALUE_WITHIN_S: Final = 2.0
REDIS_FILLED_WITHIN_S: Final = 3.0
"""The newest values are to be in Redis within 1 s of its return; a busy machine is given more."""
_PROVEN_AFTER_S: Final = 10.5
_DIALS_LEFT: Final = ((2, 10.0), (12, 60.0))
"""A fault that makes the service dial waits while there were more than so many dials in so many seconds."""
_HASTE_SHARE: Final = 0.25
"""How often such a fault does not wait for the link to have proven itself: failures then add up."""
_HALT_SHOWN_AFTER_S: Final = 3.5
_LOOK_EVERY_S: Final = 0.05
TWO_AT_ONCE: Final = "two at once"


@dataclass(slots=True)
class Round:
    """One fault, or two at once, and how long recovery took, in seconds; None when it was not awaited to the end."""

    names: tuple[str, ...]
    began_s: float
    ended_s: float = 0.0
    recovery_s: float | None = None
    missing: str = ""

    @property
    def is_of(self) -> str:
        """The fault whose recovery was measured; of two at once neither's alone."""
        return self.names[0] if len(self.names) == 1 else TWO_AT_ONCE


@dataclass(slots=True)
class _UnderWay:
    kind: Kind
    undo: Undo
    ends_at_s: float


@dataclass(slots=True)
class Injector:
    """`rounds` are those that are over. `tell` is told of each. Two faults at once come from `pairs`."""

    watch: Watch
    deck: Deck[Kind]
    pairs: Deck[Kind]
    dice: Random
    tell: Callable[[Round], None]
    rounds: list[Round] = field(default_factory=list)
    under_way: list[_UnderWay] = field(default_factory=list)

    def names_under_way(self) -> tuple[str, ...]:
        """Return the names of the present faults, or of those that were the last."""
        now = tuple(one.kind.name for one in self.under_way)
        if now or not self.rounds:
            return now
        return tuple(f"after {name}" for name in self.rounds[-1].names)

    async def run(self, until_s: float) -> None:
        """Inject faults until the time is up; the last one is seen to its end."""
        began_s = await self.watch.world.quote_canaries()
        took_s, missing = await self._until_well(self._wanted(began_s, is_repaired=True), began_s)
        if took_s is None:
            raise RuntimeError(f"nothing was well before the first fault: {missing}")
        while time.time() < until_s:
            is_pair = self.dice.random() < OVERLAP_SHARE
            kind = await self._next(self.pairs if is_pair else self.deck, until_s)
            if kind is not None:
                await self.inject(kind, is_pair=is_pair)

    async def _next(self, deck: Deck[Kind], until_s: float) -> Kind | None:
        in_haste = self.dice.random() < _HASTE_SHARE
        while time.time() < until_s:
            kind = deck.draw(lambda one: self._is_possible(one, in_haste=in_haste), rather=lambda one: one.dials)
            if kind is not None:
                return kind
            await asyncio.sleep(0.25)
        return None

    def _is_possible(self, kind: Kind, *, in_haste: bool = False) -> bool:
        if not kind.dials:
            return True
        now_s = time.time()
        health = self.watch.health.get(MARKET_DATA)
        since_s = health.link_since_s if health is not None and health.link_state == "streaming" else None
        has_budget = all(self.watch.dials.within(span_s, now_s) <= most for most, span_s in _DIALS_LEFT)
        return has_budget and since_s is not None and (in_haste or now_s - since_s >= _PROVEN_AFTER_S)

    # --- one round ------------------------------------------------------------------------------------------------

    async def inject(self, kind: Kind, *, is_pair: bool) -> None:
        """Run one fault to its end and its recovery; of a pair the second begins meanwhile."""
        done = Round((), time.time())
        try:
            first = await self._begin(kind)
            companion = self._companion(first) if is_pair else None
            if companion is not None:
                await asyncio.sleep(max(0.0, first.ends_at_s - time.time()) * self.dice.uniform(0.3, 0.9))
                await self._begin(companion)
            kinds = [one.kind for one in self.under_way]
            is_known = await self._quote_meanwhile()
            await self._check_halts()
            measured_from_s = await self._end_all()
        finally:
            await self._end_whatever_is_left()
        done.names, done.ended_s = tuple(one.name for one in kinds), measured_from_s
        self.rounds.append(done)
        is_repaired = is_known and not any(one.loses_quotes for one in kinds)
        await self._recover(done, self._wanted(measured_from_s, is_repaired=is_repaired), kinds)
        self.tell(done)

    async def _begin(self, kind: Kind) -> _UnderWay:
        undo = await kind.begin(self.watch.world, self.dice)
        one = _UnderWay(kind, undo, time.time() + self.dice.uniform(*kind.hold_s))
        self.under_way.append(one)
        return one

    def _companion(self, first: _UnderWay) -> Kind | None:
        fits = companions(first.kind)
        return self.pairs.draw(lambda other: fits(other) and self._is_possible(other))

    async def _quote_meanwhile(self) -> bool:
        """At once, or in the middle of it all, the canaries quote; say whether the simulator could take that.

        At once falls into the gap that a lost connection makes: only REST knows the quote afterwards.
        """
        left_s = max(one.ends_at_s for one in self.under_way) - time.time()
        await asyncio.sleep(max(0.0, left_s) * self.dice.choice((0.0, 0.5)))
        if self.watch.world.expected_gone.isdisjoint({SIMULATOR}):
            await self.watch.world.quote_canaries()
            return True
        return False

    async def _end_all(self) -> float:
        """End each at its time, and return from when recovery counts: the latest of all."""
        measured_from_s = 0.0
        for one in sorted(self.under_way, key=lambda one: one.ends_at_s):
            await asyncio.sleep(max(0.0, one.ends_at_s - time.time()))
            self.under_way.remove(one)
            measured_from_s = max(measured_from_s, await one.undo())
        return measured_from_s

    async def _end_whatever_is_left(self) -> None:
        """After a cancellation or an error: the world is to be stopped in good order."""
        while self.under_way:
            with contextlib.suppress(Exception):
                await self.under_way.pop().undo()

    async def _check_halts(self) -> None:
        """A halted symbol is to be shown as such, when nothing else is wrong."""
        if [one.kind.name for one in self.under_way] != ["halt_resume"]:
            return
        await asyncio.sleep(max(0.0, self.under_way[0].ends_at_s - _LOOK_EVERY_S - time.time()))
        view = self.watch.pnl
        for symbol in self.watch.world.halted:
            source = view.rows[symbol].source if view is not None else "unknown"
            if source != "halted":
                detail = f"{source} though halted for at least {_HALT_SHOWN_AFTER_S} s"
                self.watch.verdicts.add(Finding("halt not shown", symbol, time.time(), detail))

    # --- recovery -------------------------------------------------------------------------------------------------

    def _wanted(self, since_s: float, *, is_repaired: bool) -> Wanted:
        """Return what must be shown: newer quotes of all that quotes, and what the canaries have quoted last.

        When that may have been lost for everybody, any price of theirs will do.
        """
        exactly = dict(self.watch.world.quoted) if is_repaired else {}
        newer = dict.fromkeys(WALKING, since_s)
        return Wanted(exactly, newer if exactly else newer | dict.fromkeys(CANARIES, 0.0))

    async def _recover(self, done: Round, wanted: Wanted, kinds: list[Kind]) -> None:
        if {name for kind in kinds for name in kind.touches} == {"redis"}:
            await self._check_redis_is_filled(done, wanted)
        if not wanted.exactly:
            # Lost for everybody: what quiet symbols are worth shows when they quote again.
            await self.watch.world.quote_canaries()
            wanted = wanted._replace(exactly=dict(self.watch.world.quoted))
        done.recovery_s, done.missing = await self._until_well(wanted, done.ended_s)
        if done.recovery_s is None or done.recovery_s > RECOVERS_WITHIN_S:
            took = "never" if done.recovery_s is None else f"after {done.recovery_s:.1f} s"
            detail = f"well again {took}; after {RECOVERS_WITHIN_S:.0f} s: {done.missing}"
            self.watch.verdicts.add(Finding("not recovered", "+".join(done.names), time.time(), detail))
        if done.recovery_s is None:
            # The next faults are to show what they do, not what this one left behind.
            await self.watch.world.operator_reconnects()
        else:
            await self._check_last_value(done)

    async def _until_well(self, wanted: Wanted, since_s: float) -> tuple[float | None, str]:
        """Wait until everything is well; return how long that took, and what was missing when it took too long."""
        missing = missing_then = "not looked yet"
        while time.time() < since_s + GIVES_UP_AFTER_S:
            missing = self._what_is_missing(wanted, since_s)
            if not missing:
                return max(0.0, self._seen_well_s() - since_s), missing_then
            if time.time() < since_s + RECOVERS_WITHIN_S:
                missing_then = missing
            await asyncio.sleep(_LOOK_EVERY_S)
        return None, missing

    def _what_is_missing(self, wanted: Wanted, since_s: float) -> str:
        truth = self.watch.truth
        if truth is None or truth.at_s <= since_s or not truth.is_linked:
            # REST alone may make everything look well for a while.
            return "no living client at the simulator"
        for module in (MARKET_DATA, GATEWAY):
            health = self.watch.health.get(module)
            if health is None or health.asked_at_s <= since_s:
                return f"{module}: no health yet"
            if health.status != "healthy":
                return f"{module}: {health.status} {', '.join(health.reasons)}"
        return what_is_missing(self.watch.pnl, wanted, since_s=since_s) or what_is_missing(
            self.watch.events, wanted, since_s=since_s
        )

    def _seen_well_s(self) -> float:
        """Return when the newest of the views that show it was made."""
        views = (self.watch.pnl, self.watch.events, *self.watch.health.values())
        return max(view.at_s for view in views if view is not None)

    # --- the last value -------------------------------------------------------------------------------------------

    async def _check_last_value(self, done: Round) -> None:
        """Have quiet symbols quote once more: exactly that must arrive everywhere."""
        quoted_at_s = await self.watch.world.quote_canaries()
        wanted = dict(self.watch.world.quoted)
        late = ""
        while time.time() < quoted_at_s + LAST_VALUE_WITHIN_S:
            late = await self._where_not_yet(wanted)
            if not late:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
        self.watch.verdicts.add(Finding("last value lost", "+".join(done.names), time.time(), late))

    async def _where_not_yet(self, wanted: dict[str, tuple[float, float]]) -> str:
        for symbol, quote in wanted.items():
            if (cached := await self._cached(symbol)) != quote:
                return f"Redis has {cached} of {symbol}, {quote} was sent"
            for view in (self.watch.pnl, self.watch.events):
                row = view.rows.get(symbol) if view is not None else None
                if row is None or (row.bid, row.ask) != quote or row.source != REAL_TIME:
                    return f"{row} of {symbol} is shown, {quote} was sent"
        return ""

    async def _cached(self, symbol: str) -> tuple[float, float] | None:
        text = await self.watch.world.cached(symbol)
        if text is None:
            return None
        price = msgspec.json.decode(text)
        return price["bid"], price["ask"]

    async def _check_redis_is_filled(self, done: Round, wanted: Wanted) -> None:
        """The newest value of every symbol is in Redis soon after its return, whatever happened meanwhile."""
        late = ""
        while time.time() < done.ended_s + REDIS_FILLED_WITHIN_S:
            late = ""
            for symbol, quote in wanted.exactly.items():
                if (cached := await self._cached(symbol)) != quote:
                    late = f"Redis has {cached} of {symbol}, {quote} was sent before its return"
            if not late:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
        self.watch.verdicts.add(Finding("Redis not filled", "+".join(done.names), time.time(), late))
