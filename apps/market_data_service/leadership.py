"""Sees to it that one instance at a time dials Alpaca and writes to Redis: the one that holds the lease of the feed.

`Tenure` decides from what the lease says; `Leadership` asks the lease and tells stream, writer and announcer. That an
instance which has not noticed its loss yet writes nothing is the fence's business, not theirs.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum, auto
from typing import Final, Protocol, assert_never

import structlog

from libs.redis_client.client import RedisUnavailableError
from libs.redis_client.lease import LEASE_S, LeaseAnswer

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 0.5
ABSENT_FOR_S: Final = 2.0
"""A leader whose lease the server has forgotten takes it again within LOOK_EVERY_S: a standby lets it go first."""
QUIET_AFTER_FAULT_S: Final = LEASE_S + 10.0
"""So does a leader that had lost Redis: a standby waits this long after the last fault that it has seen."""
_UNBROKEN_S: Final = 2.0
"""Looks further apart than this do not prove that the lease was absent between them: we may have slept."""
_LEAST_REST_S: Final = 0.1


class Role(StrEnum):
    """What an instance is: the one that leads, or one that waits."""

    LEADER = "leader"
    STANDBY = "standby"


class Question(Enum):
    """What to ask of the lease."""

    CLAIM = auto()
    LOOK = auto()


class Verdict(Enum):
    """What follows from an answer."""

    GO_ON = auto()
    LEAD = auto()
    WRITE_AGAIN = auto()
    STEP_DOWN = auto()


@dataclass(slots=True)
class Tenure:
    """Who leads, as far as the lease has told. Order: `next_question`, then `heard` or `faulted`. Pure.

    `now_s` is any one steady clock. `holder` is who holds the lease, None: nobody, or not known.
    """

    instance: str
    role: Role = Role.STANDBY
    holder: str | None = None
    _server: str | None = None
    _has_asked: bool = False
    _has_faulted_since_answer: bool = False
    _faulted_at_s: float | None = None
    _looked_at_s: float | None = None
    _absent_since_s: float | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this instance leads."""
        return self.role is Role.LEADER

    def may_write(self) -> bool:
        """Say whether this instance may try to write: as long as it leads, for all it knows."""
        return self.is_leader

    def next_question(self, now_s: float) -> Question:
        """Return what to ask now: a leader claims, so does a newcomer; a standby looks until it may claim."""
        is_newcomer = not self._has_asked
        self._has_asked = True
        return Question.CLAIM if self.is_leader or is_newcomer or self._may_claim(now_s) else Question.LOOK

    def faulted(self, now_s: float) -> None:
        """Note that Redis has given no answer. A leader stays one: nobody else can have become it meanwhile."""
        self._faulted_at_s = now_s
        self._has_faulted_since_answer = True
        self._absent_since_s = None
        if not self.is_leader:
            self.holder = None

    def heard(self, answer: LeaseAnswer, now_s: float) -> Verdict:
        """Return what follows from the answer to the last question."""
        self.holder = answer.holder
        has_server_changed = self._server is not None and answer.server is not None and answer.server != self._server
        self._server = answer.server or self._server
        had_faulted, self._has_faulted_since_answer = self._has_faulted_since_answer, False
        if answer.holder != self.instance:
            was_leader, self.role = self.is_leader, Role.STANDBY
            self._note_absence(answer, now_s)
            return Verdict.STEP_DOWN if was_leader else Verdict.GO_ON
        if not self.is_leader:
            self.role = Role.LEADER
            return Verdict.LEAD
        # Whatever was between us and the server, or has become of it: what it holds may not be what we wrote last.
        return Verdict.WRITE_AGAIN if answer.was_free or had_faulted or has_server_changed else Verdict.GO_ON

    def _note_absence(self, answer: LeaseAnswer, now_s: float) -> None:
        is_unbroken = self._looked_at_s is not None and now_s - self._looked_at_s <= _UNBROKEN_S
        self._looked_at_s = now_s
        if answer.holder is not None:
            self._absent_since_s = None
        elif self._absent_since_s is None or not is_unbroken:
            self._absent_since_s = now_s

    def _may_claim(self, now_s: float) -> bool:
        if self._faulted_at_s is not None and now_s - self._faulted_at_s < QUIET_AFTER_FAULT_S:
            return False
        if self._looked_at_s is None or now_s - self._looked_at_s > _UNBROKEN_S:
            return False
        return self._absent_since_s is not None and now_s - self._absent_since_s >= ABSENT_FOR_S


class _Lease(Protocol):
    """What leadership needs of the lease. Both raise RedisUnavailableError."""

    async def claim(self) -> LeaseAnswer: ...

    async def look(self) -> LeaseAnswer: ...


class _Stream(Protocol):
    def stand_by(self, reason: str) -> None: ...

    def take_over(self) -> None: ...


class _Writer(Protocol):
    def start_afresh(self) -> None: ...

    def write_all_again(self) -> None: ...


class _Announcer(Protocol):
    def start_afresh(self) -> None: ...

    def announce_soon(self) -> None: ...


@dataclass(slots=True)
class Leadership:
    """Asks the lease every half second and acts on the verdict. `stream` begins in standby.

    `look_now`: set it to have the lease asked at once, because the fence has refused a write.
    `fault` is why the last question went unanswered, None when it was answered. `changes` counts how often this
    instance began or ceased to lead; `since` is when it last did, or began to wait.
    """

    tenure: Tenure
    lease: _Lease
    stream: _Stream
    writer: _Writer
    announcer: _Announcer
    look_now: asyncio.Event = field(default_factory=asyncio.Event)
    fault: str | None = None
    has_asked: bool = False
    changes: int = 0
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    _told_holder: str | None = None

    def __post_init__(self) -> None:
        self.stream.stand_by("the lease of the feed has not been asked for yet")

    @property
    def is_leader(self) -> bool:
        """Whether this instance dials and writes."""
        return self.tenure.is_leader

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            began_s = time.monotonic()
            self.look_now.clear()
            await self.ask()
            rest_s = max(_LEAST_REST_S, LOOK_EVERY_S - (time.monotonic() - began_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self.look_now.wait()

    async def ask(self) -> None:
        """Ask the lease once and act on the answer. A fault of Redis changes no role."""
        question = self.tenure.next_question(time.monotonic())
        try:
            answer = await (self.lease.claim() if question is Question.CLAIM else self.lease.look())
        except RedisUnavailableError as error:
            self.tenure.faulted(time.monotonic())
            if self.fault is None:
                log.warning("lease_not_known", role=self.tenure.role, reason=str(error))
            self.fault = str(error)
            return
        finally:
            self.has_asked = True
        if self.fault is not None:
            log.info("lease_known_again", role=self.tenure.role, holder=answer.holder)
        self.fault = None
        self._act(self.tenure.heard(answer, time.monotonic()), answer)

    def _act(self, verdict: Verdict, answer: LeaseAnswer) -> None:
        match verdict:
            case Verdict.GO_ON:
                if not self.is_leader:
                    self._tell_holder(answer)
            case Verdict.LEAD:
                log.info("leading", instance=self.tenure.instance)
                self._change_role()
                self.stream.take_over()
                self.announcer.announce_soon()
            case Verdict.WRITE_AGAIN:
                log.info("writing_all_again", was_free=answer.was_free)
                self.writer.write_all_again()
                self.announcer.announce_soon()
            case Verdict.STEP_DOWN:
                log.warning("lease_lost", holder=answer.holder)
                self._change_role()
                self.stream.stand_by(f"another instance ({answer.holder}) holds the feed")
                self._tell_holder(answer)
            case _:
                assert_never(verdict)

    def _change_role(self) -> None:
        """Begin without what belongs to the time before: old prices must not come up again when we lead again."""
        self.changes += 1
        self.since = datetime.now(UTC)
        self._told_holder = None
        self.writer.start_afresh()
        self.announcer.start_afresh()

    def _tell_holder(self, answer: LeaseAnswer) -> None:
        if answer.holder is not None and answer.holder != self._told_holder:
            log.warning(
                "standing_by",
                reason="another instance holds the feed",
                holder=answer.holder,
                lease_ends_in_s=answer.remaining_s,
            )
            self._told_holder = answer.holder
