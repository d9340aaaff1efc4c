"""The mirror of the account: what the stream and REST say becomes commands to the ledger, each execution counted once.

Pure, on the caller's clock. `receive` and `take_page` return commands; `next_request` says what to ask REST next, one
question at a time. Which executions are repeats or corrections is decided in `known_executions.py`.

The order of calls: `next_request` -> for CatchUp every page through `take_page`, then `caught_up`; for ReadPositions
`positions_read`; `failed` instead of either when the question was not answered in full. Commands come first in the
ledger: call `caught_up` only when those of all pages are recorded, for the cursor moves with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, assert_never

from libs.broker.account_messages import ActivitiesPage
from libs.broker.commands import Command, RecordActivity
from libs.broker.executions import Activity, Execution, Unreadable
from libs.broker.known_executions import LONGEST_LAG, REMEMBERED, KnownExecutions, LedgerExecution, Source
from libs.broker.trade_updates import (
    TRADE_UPDATES,
    Authorized,
    Busted,
    Corrected,
    Disconnected,
    Executed,
    Ignored,
    Listening,
    OrderEvent,
    Refused,
    StreamError,
    StreamEvent,
)

OVERLAP: Final = LONGEST_LAG
"""How far before the last execution REST has named a catch-up begins."""
DEEP_OVERLAP: Final = timedelta(days=7)
"""The same, once an hour and on demand: activities are booked under earlier dates, and corrected days later."""

_DEEP_EVERY: Final = timedelta(hours=1)
_AFTER_CONNECT: Final = (timedelta(seconds=5), timedelta(seconds=25))
"""The first rounds after a connect come soon: REST may not yet have shown what happened while nobody listened."""
_LEAST_GAP: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(seconds=60)
_CLOCK_TOLERANCE: Final = timedelta(seconds=5)
_POSITIONS_GAP: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Ask for all activities after `after`, oldest first, all pages. None: since the account was opened."""

    after: datetime | None


@dataclass(frozen=True, slots=True)
class ReadPositions:
    """Ask for the positions, to compare them with the ledger's."""


Request = CatchUp | ReadPositions


@dataclass(slots=True)
class _Question:
    """The request in flight. `after` is a catch-up's; `demand` is the newest demand that it answers."""

    request: Request
    after: datetime | None
    asked_at: datetime
    demand: int
    is_deep: bool
    listed: set[str] = field(default_factory=set)
    newest: datetime | None = None


class _Told(NamedTuple):
    """An activity as REST told it last, and when that was asked."""

    activity: Activity
    at: datetime


class Mirror:
    """What is known of the account. `seeds` are the ledger's executions of the last eight days, void ones included.

    `cursor` is the time of the last execution that a completed catch-up had named, as kept from before; None: never.
    `round_every` is the time from one catch-up and comparison to the next.
    """

    def __init__(
        self,
        now: datetime,
        *,
        seeds: Iterable[LedgerExecution] = (),
        cursor: datetime | None = None,
        round_every: timedelta = timedelta(seconds=60),
    ) -> None:
        self._executions = KnownExecutions(seeds, now=now)
        self._activities: dict[str, _Told] = {}
        self._round_every = round_every
        self._positions_gap = min(_POSITIONS_GAP, round_every)
        self._question: _Question | None = None
        self._demand, self._answered = 1, 0
        self._is_deep_wanted = True
        self._deep_at = now
        self._next_round_at = now
        self._not_before = now
        self._looked_at = now
        self._rounds_since_connect = 0
        self._positions_at: datetime | None = None
        self._failures = 0
        self.cursor = cursor
        self.is_listening = False
        self.caught_up_at: datetime | None = None
        self.unreadable: dict[str, Unreadable] = {}
        """What the last complete catch-up could not read, by its description."""
        self.demands = 0
        """How often the stream told us that it had left something out."""

    @property
    def is_in_step(self) -> bool:
        """Whether the stream is listened to, and a catch-up begun since then and since every known gap is complete."""
        return self.is_listening and self._answered >= self._demand

    @property
    def absent(self) -> tuple[Execution, ...]:
        """Executions that count, and that REST leaves out: see `KnownExecutions.absent`."""
        return self._executions.absent

    def unsettled(self, now: datetime) -> frozenset[str]:
        """Return the symbols of which REST may not show the latest yet, or has left out what it showed before."""
        return self._executions.unsettled(now) | {execution.symbol for execution in self._executions.suspected}

    def voided(self, execution_id: str) -> None:
        """Note that the ledger has voided an execution for a reason of its own, such as an `absent` one."""
        self._executions.voided(execution_id)

    # --- the stream -------------------------------------------------------------------------------------------------

    def receive(self, event: StreamEvent, now: datetime) -> list[Command]:
        """Take what the stream says; return what the ledger has to do about it."""
        match event:
            case Executed(execution=execution):
                if self._executions.follows_a_gap(execution):
                    self._note_gap()
                return self._executions.told(execution, Source.STREAM, now)
            case Busted(execution_id=execution_id):
                return self._executions.busted(execution_id, now)
            case Corrected(execution_id=execution_id, execution=execution, at=at):
                return self._executions.corrected(execution_id, execution, at, now)
            case Unreadable(may_be_execution=may_be_execution):
                if may_be_execution:
                    self._note_gap()
            case Listening(streams=streams):
                self._connected(now, is_listening=TRADE_UPDATES in streams)
            case Disconnected() | Refused() | StreamError():
                self.is_listening = False
            case Authorized() | OrderEvent() | Ignored():
                pass
            case _:
                assert_never(event)
        return []

    def want_catch_up(self, *, deep: bool = False) -> None:
        """Ask for a catch-up as soon as may be, `deep` for one that begins seven days back."""
        self._demand += 1
        self._is_deep_wanted |= deep

    # --- REST -------------------------------------------------------------------------------------------------------

    def next_request(self, now: datetime) -> Request | None:
        """Return what to ask now, None for nothing. It is in flight from then on."""
        self._heed_clock(now)
        if self._question is not None or now < self._not_before:
            return None
        is_deep = self._is_deep_wanted or now >= self._deep_at
        after = self._after(is_deep=is_deep)
        # Positions before the next round, or rounds in quick succession would never let them be read.
        if self._answered >= self._demand and self._positions_are_due(now):
            request: Request = ReadPositions()
        elif self._answered < self._demand or now >= self._next_round_at:
            request = CatchUp(after)
        else:
            return None
        self._question = _Question(request, after, now, self._demand, is_deep)
        return request

    def wait_s(self, now: datetime) -> float:
        """Return the seconds after which to call `next_request` again; an event or an answer may make it sooner."""
        if self._question is not None:
            return self._round_every.total_seconds()
        due = self._not_before
        if self._answered >= self._demand and not self._positions_are_due(max(now, due)):
            due = max(due, self._next_round_at)
        return max(0.0, (due - now).total_seconds())

    def take_page(self, page: ActivitiesPage) -> list[Command]:
        """Take one page of the catch-up in flight; return what the ledger has to do about it.

        Raises ValueError when no catch-up is in flight.
        """
        question = self._catch_up_in_flight()
        commands: list[Command] = []
        for execution in page.executions:
            question.listed.add(execution.execution_id)
            question.newest = max(question.newest or execution.executed_at, execution.executed_at)
            commands += self._executions.told(execution, Source.REST, question.asked_at)
        for activity in page.activities:
            told = self._activities.get(activity.activity_id)
            # Under the same id it may still be executed, or be taken back.
            if told is None or not _is_alike(told.activity, activity):
                self._activities[activity.activity_id] = _Told(activity, question.asked_at)
                commands.append(RecordActivity(activity))
        return commands

    def caught_up(self, unreadable: Iterable[Unreadable] = ()) -> None:
        """Note that all pages came and are recorded. `unreadable`: what could not be read on any of them.

        Raises ValueError when no catch-up is in flight.
        """
        question = self._catch_up_in_flight()
        asked_at = question.asked_at
        self._executions.listing_completed(question.after, asked_at, question.listed)
        self._question, self._failures = None, 0
        self.unreadable = {one.why: one for one in unreadable}
        self._answered, self.caught_up_at = question.demand, asked_at
        if question.is_deep:
            self._deep_at = asked_at + _DEEP_EVERY
            # What REST seems to have dropped may lie outside the next ordinary catch-up.
            self._is_deep_wanted = bool(self._executions.suspected)
        self._move_cursor(question)
        self._not_before = asked_at + _LEAST_GAP
        self._next_round_at = asked_at + self._gap_to_next_round()

    def positions_read(self) -> None:
        """Note that the positions came. Raises ValueError when they were not asked for."""
        if self._question is None or not isinstance(self._question.request, ReadPositions):
            raise ValueError("positions were not asked for")
        self._positions_at = self._question.asked_at
        self._question, self._failures = None, 0

    def failed(self, now: datetime, *, retry_after_s: float | None = None) -> None:
        """Note that the request in flight was not answered in full; wait before the next, longer each time."""
        self._question = None
        pause = min(_LONGEST_PAUSE, timedelta(seconds=2.0 ** min(self._failures, 10)))
        self._failures += 1
        self._not_before = now + max(pause, timedelta(seconds=min(retry_after_s or 0.0, 600.0)))

    def _heed_clock(self, now: datetime) -> None:
        """Begin anew where the clock has been set back: what was to be done at a time then would wait for hours."""
        if now < self._looked_at - _CLOCK_TOLERANCE:
            self._not_before = self._next_round_at = self._deep_at = now
            self._positions_at = None
        self._looked_at = now

    # --- within -----------------------------------------------------------------------------------------------------

    def _connected(self, now: datetime, *, is_listening: bool) -> None:
        self.is_listening = is_listening
        if is_listening:
            self._demand += 1
            self._rounds_since_connect = 0
            self._next_round_at = now

    def _note_gap(self) -> None:
        self.demands += 1
        self._demand += 1

    def _after(self, *, is_deep: bool) -> datetime | None:
        return None if self.cursor is None else self.cursor - (DEEP_OVERLAP if is_deep else OVERLAP)

    def _positions_are_due(self, now: datetime) -> bool:
        """Once after every catch-up, though not too often."""
        if self.caught_up_at is None:
            return False
        read_at = self._positions_at
        return read_at is None or (read_at < self.caught_up_at and now - read_at >= self._positions_gap)

    def _catch_up_in_flight(self) -> _Question:
        if self._question is None or not isinstance(self._question.request, CatchUp):
            raise ValueError("no catch-up is in flight")
        return self._question

    def _gap_to_next_round(self) -> timedelta:
        number = self._rounds_since_connect
        self._rounds_since_connect += 1
        return min(_AFTER_CONNECT[number], self._round_every) if number < len(_AFTER_CONNECT) else self._round_every

    def _move_cursor(self, question: _Question) -> None:
        """Move to the newest execution named: by the broker's clock, which ours may disagree with, yet never ahead."""
        if question.newest is not None:
            newest = min(question.newest, question.asked_at)
            self.cursor = newest if self.cursor is None else max(self.cursor, newest)
        oldest = min(self.cursor or question.asked_at, question.asked_at) - REMEMBERED
        self._executions.forget_before(oldest)
        self._activities = {name: told for name, told in self._activities.items() if told.at >= oldest}


def _is_alike(told: Activity, activity: Activity) -> bool:
    """Say whether an activity has the status and the numbers that it was told with."""
    return (
        told.status == activity.status
        and told.qty == activity.qty
        and told.net_amount == activity.net_amount
        and told.per_share_amount == activity.per_share_amount
        and told.price == activity.price
    )
