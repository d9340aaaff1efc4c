"""Which executions are known, and as what: so that each counts once, however often and in whatever order it is told.

Decides what is a repeat, what a correction, and that a bust or a correction told before its execution waits for it.
Pure; times are arguments. Three accounts of one execution have to agree in the end: the stream (prompt, loses what
happens while it is down), REST (complete, but may lag), and the ledger (what was recorded before a restart).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Final, NamedTuple

from libs.broker.commands import Command, RecordExecution, VoidExecution
from libs.broker.executions import Execution
from libs.portfolio.fills import EXACT

LONGEST_LAG: Final = timedelta(minutes=10)
"""REST is believed to show the present after at most this long. Until then it never overrules the stream."""
REMEMBERED: Final = timedelta(days=8)
"""How long an execution is remembered here; the ledger ignores a repeat of an older one by itself."""
LONGEST_ID: Final = 128
"""The ledger has no room for longer ids."""

_MOST_REMEMBERED: Final = 20_000
_SAME_MOMENT: Final = timedelta(seconds=2)
"""The stream and REST round the time of one execution differently."""
_MISSES: Final = 2
_LONGEST_PLAIN_ID: Final = 40
"""The broker's ids are UUIDs of 36 letters. One longer than this may have to be told by its digest."""
_CORRECTION: Final = re.compile(r"(?P<root>.+?):c(?P<number>[0-9]{1,6})(:(?P<own_id>.+))?")
"""Our id of a corrected execution: the broker's id, a number, and the correction's own id if the broker gave one."""


class Source(Enum):
    """Who told of an execution."""

    STREAM = auto()
    REST = auto()


@dataclass(frozen=True, slots=True)
class LedgerExecution:
    """An execution that the ledger holds, under the ledger's id; the ledger may not know its order."""

    execution: Execution
    is_void: bool


@dataclass(slots=True)
class _Known:
    """One execution under all its names. `standing` is the version that counts; None when void or not yet recorded.

    `heard_at`: when we last learned something new of it, by our clock; `revised_at`: the broker's time of its last
    correction, `own_id` the id which the broker gave that correction, if any, or its digest. `is_over`: void for good;
    `is_confirmed`: REST has named what stands.
    """

    heard_at: datetime
    standing: Execution | None = None
    symbol: str | None = None
    is_seen: bool = False
    is_over: bool = False
    is_confirmed: bool = False
    revisions: int = 0
    revised_at: datetime | None = None
    successor: str | None = None
    told_by: set[Source] = field(default_factory=set)
    misses: int = 0
    is_absent: bool = False
    names: list[str] = field(default_factory=list)
    order_key: tuple[str, Decimal] | None = None
    own_id: str | None = None
    is_listed_by_own_id: bool = False

    @property
    def was_revised(self) -> bool:
        """Whether it has not always stood as it stands now."""
        return self.revisions > 0 or self.revised_at is not None


class _Version(NamedTuple):
    """What an id of the ledger says: the broker's id, the number of our correction of it (0: none), and its own id."""

    root: str
    number: int
    own_id: str | None


class KnownExecutions:
    """The executions of the last days. Every method that learns something returns the commands that follow from it."""

    def __init__(self, seeds: Iterable[LedgerExecution] = (), *, now: datetime) -> None:
        self._known: dict[str, _Known] = {}
        self._root_of: dict[str, str] = {}
        self._by_order: dict[tuple[str, Decimal], list[str]] = {}
        self._seed(seeds, now)

    def __len__(self) -> int:
        return len(self._known)

    def told(self, execution: Execution, source: Source, heard_at: datetime) -> list[Command]:
        """Take an execution from `source`. For REST `heard_at` is when it was asked."""
        root = self._root(execution.execution_id)
        known = self._known.get(root)
        if known is None:
            twin = self._twin_of(execution, source)
            if twin is not None:
                self._name(root, twin)
                return self._told_again(twin, execution, source, heard_at)
            known = self._remember(root, heard_at)
        if not known.is_seen:
            return self._first_told(root, known, execution, source)
        return self._told_again(root, execution, source, heard_at)

    def busted(self, execution_id: str, heard_at: datetime) -> list[Command]:
        """Take the news that an execution never happened. It is final."""
        root = self._chain(execution_id)[-1]
        known = self._known.get(root) or self._remember(root, heard_at)
        if known.is_over:
            return []
        known.is_over, known.heard_at, known.is_confirmed = True, heard_at, False
        # Not seen here, the execution may still stand in the ledger from before we remember.
        void_id = known.standing.execution_id if known.standing is not None else root
        known.standing = None
        return [VoidExecution(void_id, "busted")]

    def corrected(
        self, execution_id: str, execution: Execution, at: datetime | None, heard_at: datetime
    ) -> list[Command]:
        """Take the news that `execution_id` was really `execution`; `at` is the broker's time of that news."""
        root = self._chain(execution_id)[-1]
        new_root = self._root(execution.execution_id)
        known = self._known.get(root) or self._remember(root, heard_at)
        is_old_news = at is not None and known.revised_at is not None and at <= known.revised_at
        if known.is_over or is_old_news:
            return []
        known.revised_at, known.heard_at, known.is_confirmed = at or known.revised_at, heard_at, False
        if new_root != root and new_root in self._known:
            return self._succeed(root, known, new_root, execution)
        if new_root != root:
            self._name_own(execution.execution_id, root)
        if known.standing is not None and known.standing.is_alike(execution):
            return []
        own_id = None if execution.execution_id == execution_id else execution.execution_id
        return self._revise(root, known, execution, own_id)

    def voided(self, execution_id: str) -> None:
        """Note that the ledger has voided what stood under this id, for good."""
        known = self._known.get(self._root(execution_id))
        if known is not None and known.standing is not None and known.standing.execution_id == execution_id:
            known.standing, known.is_over = None, True

    def follows_a_gap(self, execution: Execution) -> bool:
        """Say whether its order had filled more before it than we know of: an execution was missed."""
        if execution.order_id is None or execution.cum_qty is None:
            return False
        before = EXACT.subtract(execution.cum_qty, execution.qty)
        return before > 0 and (execution.order_id, before) not in self._by_order

    def listing_completed(self, after: datetime | None, asked_at: datetime, listed_ids: Iterable[str]) -> None:
        """Note which executions a complete answer of REST, for all since `after`, named and which it left out."""
        listed = {self._chain(execution_id)[-1] for execution_id in listed_ids}
        for root, known in self._known.items():
            if root in listed:
                known.misses, known.is_absent = 0, False
            elif known.standing is not None and (after is None or known.standing.executed_at > after + _SAME_MOMENT):
                known.misses += 1
                known.is_absent = known.misses >= _MISSES and known.heard_at <= asked_at - LONGEST_LAG

    @property
    def absent(self) -> tuple[Execution, ...]:
        """Executions that count here and that REST has left out repeatedly, long after they happened.

        They may have been busted unheard. That alone voids nothing: the account's positions must say so too.
        """
        return self._left_out(is_absent=True)

    @property
    def suspected(self) -> tuple[Execution, ...]:
        """Executions that REST has left out, though not often or late enough to be `absent`."""
        return self._left_out(is_absent=False)

    def _left_out(self, *, is_absent: bool) -> tuple[Execution, ...]:
        return tuple(
            known.standing
            for known in self._known.values()
            if known.misses and known.is_absent is is_absent and known.standing is not None
        )

    def unsettled(self, now: datetime) -> frozenset[str]:
        """Return the symbols of which the stream told lately what REST need not show yet."""
        return frozenset(
            known.symbol
            for known in self._known.values()
            if known.symbol is not None and not known.is_confirmed and now - known.heard_at < LONGEST_LAG
        )

    def forget_before(self, moment: datetime) -> None:
        """Forget what happened before `moment` and was not heard of since, and the oldest of too many."""
        too_many = len(self._known) - _MOST_REMEMBERED
        for number, (root, known) in enumerate(list(self._known.items())):
            # An old execution may be corrected twice: the second time it must be known what stands since the first.
            executed_at = known.standing.executed_at if known.standing is not None else known.heard_at
            if max(executed_at, known.heard_at) < moment or number < too_many:
                self._forget(root, known)

    def _seed(self, seeds: Iterable[LedgerExecution], now: datetime) -> None:
        versions = [(_version_of(seed.execution.execution_id), seed) for seed in seeds]
        for version, seed in sorted(versions, key=lambda one: (one[0].number, one[0].root)):
            root = self._root(version.root)
            known = self._known.get(root) or self._remember(root, now)
            known.is_seen = True
            known.revisions = max(known.revisions, version.number)
            known.standing = known.standing if seed.is_void else seed.execution
            self._name(seed.execution.execution_id, root)
            if version.own_id is not None:
                self._name_own(version.own_id, root)
            self._index(root, known, seed.execution)
        for known in self._known.values():
            known.is_over = known.standing is None

    def _first_told(self, root: str, known: _Known, execution: Execution, source: Source) -> list[Command]:
        known.is_seen = True
        known.told_by.add(source)
        known.is_confirmed = source is Source.REST
        self._index(root, known, execution)
        if known.is_over or known.revisions or known.successor is not None:
            # Recorded all the same, so that the ledger knows it whenever it is told again.
            reason = "busted" if known.is_over else "corrected"
            return [RecordExecution(execution), VoidExecution(execution.execution_id, reason)]
        known.standing = execution
        return [RecordExecution(execution)]

    def _told_again(self, root: str, execution: Execution, source: Source, heard_at: datetime) -> list[Command]:
        first = self._known[root]
        first.told_by.add(source)
        root = self._chain(root)[-1]
        known = self._known.get(root)
        if source is Source.STREAM or known is None or known.standing is None:
            return []
        is_by_own_id = _digest(execution.execution_id) == known.own_id
        known.is_listed_by_own_id |= is_by_own_id
        if known.standing.is_alike(execution):
            known.is_confirmed = True
            return []
        # Beside the correction under its own id REST may go on listing what it replaced.
        is_beside = known.is_listed_by_own_id and not is_by_own_id
        is_replaced = known is not first or is_beside
        if is_replaced or (known.was_revised and heard_at - known.heard_at < LONGEST_LAG):
            return []
        # REST never had another version to lag behind with, or has had time enough: a correction went unheard.
        known.heard_at, known.is_confirmed = heard_at, True
        return self._revise(root, known, execution, None)

    def _revise(self, root: str, known: _Known, execution: Execution, own_id: str | None) -> list[Command]:
        """Let `execution` stand in place of what stood, under an id that tells a later start all it has to know."""
        replaced = known.standing
        known.revisions += 1
        revised = replace(
            execution,
            execution_id=_revised_id(root, known.revisions, own_id),
            executed_at=replaced.executed_at if replaced is not None else execution.executed_at,
        )
        known.standing, known.symbol = revised, revised.symbol
        self._name(revised.execution_id, root)
        return [
            VoidExecution(replaced.execution_id if replaced is not None else root, "corrected"),
            RecordExecution(revised),
        ]

    def _succeed(self, root: str, known: _Known, new_root: str, execution: Execution) -> list[Command]:
        """Let another execution that is known under the broker's own id stand in place of this one."""
        replaced, known.standing = known.standing, None
        known.successor = new_root
        void = VoidExecution(replaced.execution_id if replaced is not None else root, "corrected")
        successor = self._known[new_root]
        successor.revised_at = successor.revised_at or known.revised_at
        if successor.is_seen:
            return [void]
        return [void, *self._first_told(new_root, successor, execution, Source.STREAM)]

    def _chain(self, execution_id: str) -> list[str]:
        """Return the execution's first name and those that replaced it one after another, what stands now last."""
        chain = [self._root(execution_id)]
        while (known := self._known.get(chain[-1])) is not None and known.successor is not None:
            if known.successor in chain:
                break
            chain.append(known.successor)
        return chain

    def _twin_of(self, execution: Execution, source: Source) -> str | None:
        """Return the known execution that this is, under another id: the same part of the same order."""
        if execution.order_id is None or execution.cum_qty is None:
            return None
        for root in self._by_order.get((execution.order_id, execution.cum_qty), ()):
            known = self._known[root]
            standing = known.standing
            if standing is None or not standing.is_alike(execution):
                continue
            # One source giving two ids means two executions, unless they agree to the microsecond.
            apart = abs(standing.executed_at - execution.executed_at)
            if apart <= (timedelta() if source in known.told_by else _SAME_MOMENT):
                return root
        return None

    def _root(self, execution_id: str) -> str:
        found = self._root_of.get(execution_id)
        if found is not None or len(execution_id) <= _LONGEST_PLAIN_ID:
            return found or execution_id
        # An earlier start may have had no room for more than its digest.
        digest = _digest(execution_id)
        return self._root_of.get(digest, digest if digest in self._known else execution_id)

    def _remember(self, root: str, heard_at: datetime) -> _Known:
        known = self._known[root] = _Known(heard_at)
        self._name(_digest(root), root)
        return known

    def _name(self, execution_id: str, root: str) -> None:
        if execution_id != root:
            self._root_of[execution_id] = root
            self._known[root].names.append(execution_id)

    def _name_own(self, own_id: str, root: str) -> None:
        self._name(own_id, root)
        self._known[root].own_id = _digest(own_id)

    def _index(self, root: str, known: _Known, execution: Execution) -> None:
        known.symbol = execution.symbol
        if execution.order_id is not None and execution.cum_qty is not None and known.order_key is None:
            known.order_key = (execution.order_id, execution.cum_qty)
            self._by_order.setdefault(known.order_key, []).append(root)

    def _forget(self, root: str, known: _Known) -> None:
        del self._known[root]
        for name in known.names:
            self._root_of.pop(name, None)
        if known.order_key is not None:
            beside = self._by_order[known.order_key]
            beside.remove(root)
            if not beside:
                del self._by_order[known.order_key]


def is_correction(execution_id: str) -> bool:
    """Say whether the ledger's id is that of a correction: it stands in the place of what is voided beside it."""
    return _CORRECTION.fullmatch(execution_id) is not None


def _version_of(execution_id: str) -> _Version:
    found = _CORRECTION.fullmatch(execution_id)
    return _Version(found["root"], int(found["number"]), found["own_id"]) if found else _Version(execution_id, 0, None)


def _revised_id(root: str, number: int, own_id: str | None) -> str:
    """Return our id of a correction: always the same, and of a length that the ledger has room for."""
    own = None if own_id is None else _digest(own_id)
    ids = [
        _correction_id(*names) for names in ((root, number, own_id), (root, number, own), (_digest(root), number, own))
    ]
    return next((one for one in ids if len(one) <= LONGEST_ID), ids[-1])


def _correction_id(root: str, number: int, own_id: str | None) -> str:
    return f"{root}:c{number}" + (f":{own_id}" if own_id is not None else "")


def _digest(execution_id: str) -> str:
    """Return a short text that stands for an id; a short id, a digest among them, stands for itself."""
    if len(execution_id) <= _LONGEST_PLAIN_ID:
        return execution_id
    return "~" + hashlib.sha256(execution_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
