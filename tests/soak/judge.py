"""Decides what must never be seen from outside: a wrong or old figure called live, a health that says well when it is
not. Pure: samples in, findings out; looking, waiting and counting the same finding only once are left to others.

Every rule leans to the side of the system where the samples leave a doubt: what it accuses of is proven by samples
taken before the accused answer, or by a fact that the sample after it says to have lasted all the while.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.soak.samples import REAL_TIME, HealthView, PnlView, Row, Sent, Truth

_KEPT_S = 60.0
_SAME_S = 0.001
"""The P&L shows times to the microsecond, the venue's are to the nanosecond: no closer than this is newer."""


class Limits(NamedTuple):
    """For how long what is wrong may still look right, in seconds. `on_its_way_s` is what a quote may take to arrive.

    The age of a price counts from its arrival, so the simulator's clock is given that much more.
    """

    superseded_s: float = 15.0
    on_its_way_s: float = 0.5
    half_open_s: float = 17.0
    mute_s: float = 30.0
    unlinked_s: float = 17.0


LIMITS = Limits()


class Finding(NamedTuple):
    """A rule was broken: by what (a symbol, a service), when, and what was seen against what was known."""

    rule: str
    subject: str
    at_s: float
    detail: str


class Judge:
    """Remembers the ground truth and holds every view against it.

    Order: `learn` the ground truth before and after each view is asked for, then `pnl` and `health`. The simulator puts
    a time to all that it says, so what was learned late is as good. `market_open_since_s` (None while it is closed) and
    `dead_since_s` are set by whoever knows.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.market_open_since_s: float | None = 0.0
        self.dead_since_s: dict[str, float] = {}
        self.views = 0
        self._truth: Truth | None = None
        self._unlinked_since_s: float | None = None
        self._history: dict[str, deque[Sent]] = {}

    def learn(self, truth: Truth | None, at_s: float) -> None:
        """Take in the truth as of `at_s`; None when the simulator did not answer: then nobody is linked to it.

        What a simulator that has died since had sent remains sent.
        """
        self._truth = truth
        if truth is not None and truth.is_linked:
            self._unlinked_since_s = None
        elif self._unlinked_since_s is None:
            self._unlinked_since_s = at_s
        for symbol, sent in (truth.sent if truth is not None else {}).items():
            known = self._history.setdefault(symbol, deque())
            if not known or (known[-1].bid, known[-1].ask, known[-1].first_sent_at_s) != (
                sent.bid,
                sent.ask,
                sent.first_sent_at_s,
            ):
                known.append(sent)
            # The last one of before the span stays: it may be the newest for hours.
            while len(known) > 1 and known[1].first_sent_at_s < at_s - _KEPT_S:
                known.popleft()

    def pnl(self, view: PnlView) -> list[Finding]:
        """Return what is wrong with a P&L."""
        self.views += 1
        live = {symbol: row for symbol, row in view.rows.items() if row.source == REAL_TIME}
        found: list[Finding] = []
        for symbol, row in live.items():
            found += self._superseded(view, symbol, row)
            found += self._vouched_by_nobody(view, symbol, row)
        return found

    def health(self, view: HealthView) -> list[Finding]:
        """Return what is wrong with a health: it says `healthy` while the link is known to be broken."""
        if view.status != "healthy":
            return []
        # Broken from before the question on, and still: then also when it was answered.
        return [
            Finding(f"healthy while {name}", view.service, view.at_s, f"{name} for {view.at_s - began_s:.1f} s")
            for name, began_s, limit_s in self._broken()
            if view.asked_at_s - began_s > limit_s
        ]

    def _superseded(self, view: PnlView, symbol: str, row: Row) -> Iterator[Finding]:
        """Is a row live though the simulator has sent something newer, and different, long ago?"""
        sent = self._history.get(symbol)
        if sent is None or row.quoted_at_s is None:
            return
        before_s = view.at_s - self.limits.superseded_s - self.limits.on_its_way_s
        old = [one for one in sent if one.first_sent_at_s <= before_s]
        if not old or old[-1].quoted_at_s <= row.quoted_at_s + _SAME_S:
            return
        # What is shown may be right all the same: prices come back.
        shown = (row.bid, row.ask)
        if shown in {(one.bid, one.ask) for one in (old[-1], *(one for one in sent if one.first_sent_at_s > before_s))}:
            return
        newer = old[-1]
        yield Finding(
            "false live", symbol, view.at_s,
            f"{view.surface} shows {_quote(row)} as real-time; {view.at_s - newer.first_sent_at_s:.1f} s before, "
            f"{newer.bid:g}/{newer.ask:g} of {newer.quoted_at_s:.3f} was sent (the row is of {row.quoted_at_s:.3f})",
        )  # fmt: skip

    def _vouched_by_nobody(self, view: PnlView, symbol: str, row: Row) -> Iterator[Finding]:
        """Is a row live though nothing can stand behind it: the link is half-open, mute or gone, the symbol dead?"""
        is_fresh = row.quoted_at_s is not None and view.at_s - row.quoted_at_s <= (
            self.limits.superseded_s + self.limits.on_its_way_s
        )
        for name, began_s, limit_s in self._broken():
            # REST may know quotes of which the stream brings nothing: such a price is young by itself. But a link that
            # is half-open for so long must have been given up.
            if view.at_s - began_s > limit_s and (name == HALF_OPEN or not is_fresh):
                yield _unvouched(view, symbol, row, name, began_s)
        dead_s = self.dead_since_s.get(symbol)
        if dead_s is not None and view.at_s - dead_s > self.limits.mute_s and not is_fresh:
            yield _unvouched(view, symbol, row, "dead", dead_s)

    def _broken(self) -> Iterator[tuple[str, float, float]]:
        """Name what is wrong with the link, since when, and how long that may stay unseen.

        The last truth was read after the answer it judges, and says since when: it was so all the while.
        """
        truth = self._truth
        if truth is not None and truth.half_open_since_s is not None:
            yield HALF_OPEN, truth.half_open_since_s, self.limits.half_open_s
        if truth is not None and truth.mute_since_s is not None and self.market_open_since_s is not None:
            yield "mute", max(truth.mute_since_s, self.market_open_since_s), self.limits.mute_s
        if self._unlinked_since_s is not None:
            yield "unlinked", self._unlinked_since_s, self.limits.unlinked_s


HALF_OPEN = "half-open"


class Wanted(NamedTuple):
    """What a P&L must show for everything to be well again: a quote of each symbol, exactly or newer than a time."""

    exactly: dict[str, tuple[float, float]]
    newer_than_s: dict[str, float]


def what_is_missing(view: PnlView | None, wanted: Wanted, *, since_s: float) -> str:
    """Say what a P&L still lacks to be called well since `since_s`; empty when nothing does."""
    if view is None or view.at_s <= since_s:
        return "no answer yet"
    if view.feed_state != "streaming":
        return f"{view.surface}: the feed is {view.feed_state}"
    if not view.is_complete:
        return f"{view.surface}: not complete"
    lacks = (_lack(view.rows.get(symbol), symbol, wanted) for symbol in (*wanted.exactly, *wanted.newer_than_s))
    return next((f"{view.surface}: {symbol_lack}" for symbol_lack in lacks if symbol_lack), "")


def _lack(row: Row | None, symbol: str, wanted: Wanted) -> str:
    if row is None:
        return f"no row of {symbol}"
    if row.source != REAL_TIME:
        return f"{symbol} is {row.source}"
    if symbol in wanted.exactly and (row.bid, row.ask) != wanted.exactly[symbol]:
        return f"{symbol} shows {_quote(row)}, not {wanted.exactly[symbol]}"
    if symbol in wanted.newer_than_s and (row.quoted_at_s or 0.0) <= wanted.newer_than_s[symbol]:
        return f"{symbol} shows nothing newer"
    return ""


def _unvouched(view: PnlView, symbol: str, row: Row, name: str, began_s: float) -> Finding:
    return Finding(
        f"live while {name}", symbol, view.at_s,
        f"{view.surface} shows {_quote(row)} of {row.quoted_at_s or 0.0:.3f} as real-time; "
        f"{name} for {view.at_s - began_s:.1f} s",
    )  # fmt: skip


def _quote(row: Row) -> str:
    return f"{row.bid}/{row.ask}"
