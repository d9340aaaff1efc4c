"""An account, its stream and its REST side on virtual time, with every fault that a network and a broker can have.

It shares nothing with what it tests but the messages' types; the truth is a table of executions and what became of
each of them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, auto

from libs.broker.account_messages import AccountPosition, ActivitiesPage, PositionsAnswer
from libs.broker.executions import Execution, Unreadable
from libs.broker.trade_updates import Busted, Corrected, Disconnected, Executed, Listening, StreamEvent
from libs.portfolio.fills import Side

BEGIN = datetime(2025, 10, 20, 13, 30, tzinfo=UTC)
SYMBOLS = ("AAPL", "TSLA", "BRK.B")


class Naming(Enum):
    """How a correction is named, which differs and is documented for one of the broker's products only."""

    SAME_ID = auto()
    """The stream and REST keep the execution's id."""
    OWN_ID_STREAM = auto()
    """The stream gives the correction an id of its own, REST shows the corrected figures under the old one."""
    OWN_ID = auto()
    """Both give it an id of its own; the next correction names that one."""


@dataclass
class Happened:
    """What really happened: `versions` with the time of each, under the id that REST has for it; busted or not."""

    first: Execution
    versions: list[tuple[datetime, Execution]]
    busted_at: datetime | None = None

    @property
    def last(self) -> Execution:
        return self.versions[-1][1]


@dataclass
class Faults:
    lose: float = 0.0
    twice: float = 0.0
    rest_fails: float = 0.0
    longest_lag: timedelta = timedelta()
    garbled: float = 0.0


@dataclass
class ModelAccount:
    dice: random.Random
    naming: Naming = Naming.SAME_ID
    faults: Faults = field(default_factory=Faults)
    ids_differ: bool = False
    """REST has its own ids for executions: only order and running quantity tell that they are the same."""
    now: datetime = BEGIN
    is_connected: bool = False
    executions: list[Happened] = field(default_factory=list)
    in_flight: list[tuple[datetime, StreamEvent]] = field(default_factory=list)
    orders: dict[str, tuple[str, Side, Decimal]] = field(default_factory=dict)
    ids: int = 0

    # --- what happens ---------------------------------------------------------------------------------------------

    def execute(self) -> None:
        order_id, symbol, side, done = self._an_order()
        qty = Decimal(self.dice.randint(1, 900)) / self.dice.choice((1, 1, 10, 10**9))
        cum = done + qty
        self.orders[order_id] = (symbol, side, cum)
        price = Decimal(self.dice.randint(100, 50_000)) / 100
        execution = Execution(self._id("x"), order_id, symbol, "us_equity", side, qty, price, cum, self.now)
        self.executions.append(Happened(execution, [(self.now, execution)]))
        self._say(Executed(execution, None, is_partial=True))

    def bust(self) -> None:
        if (one := self._a_live_one()) is not None:
            one.busted_at = self.now
            self._say(Busted(self._name_on_the_stream(one), one.first.order_id, one.first.symbol, self.now))

    def correct(self) -> None:
        if (one := self._a_live_one()) is not None:
            old = self._name_on_the_stream(one)
            new = replace(
                one.last,
                price=one.last.price + self.dice.choice((Decimal("0.01"), Decimal(-1) / 100, Decimal(3))),
                qty=one.last.qty + self.dice.choice((Decimal(0), Decimal(1))),
                execution_id=old if self.naming is Naming.SAME_ID else self._id("n"),
            )
            if new.price <= 0:
                return
            one.versions.append((self.now, new))
            self._say(Corrected(old, new, self.now, None))

    # --- the stream -----------------------------------------------------------------------------------------------

    def connect(self) -> list[StreamEvent]:
        self.is_connected = True
        return [Listening(("trade_updates",))]

    def disconnect(self) -> list[StreamEvent]:
        """Lose what is in flight."""
        self.is_connected = False
        self.in_flight = []
        return [Disconnected("by the dice")]

    def arrivals(self) -> list[StreamEvent]:
        due = sorted((one for one in self.in_flight if one[0] <= self.now), key=lambda one: one[0])
        self.in_flight = [one for one in self.in_flight if one[0] > self.now]
        return [event for _, event in due]

    def _say(self, event: StreamEvent) -> None:
        if not self.is_connected or self.dice.random() < self.faults.lose:
            return
        if self.dice.random() < self.faults.garbled:
            event = Unreadable(None, "garbled", may_be_execution=True)
        for _ in range(2 if self.dice.random() < self.faults.twice else 1):
            delay = timedelta(seconds=self.dice.choice((0.01, 0.05, 0.3, 3.0)))
            self.in_flight.append((self.now + delay, event))

    # --- REST -----------------------------------------------------------------------------------------------------

    def pages(self, after: datetime | None) -> Iterator[ActivitiesPage] | None:
        """All pages as they were a while ago; None, or fewer of them and then None, when REST fails."""
        seen_at = self.now - self.dice.random() * self.faults.longest_lag
        rows = sorted(self._listed(after, seen_at), key=lambda one: one.executed_at)
        for start in range(0, len(rows), 7):
            if self.dice.random() < self.faults.rest_fails:
                yield None
                return
            part = tuple(rows[start : start + 7])
            yield ActivitiesPage(part, (), (), part[-1].execution_id, len(part))

    def positions(self) -> PositionsAnswer:
        held: dict[str, Decimal] = {}
        for one in self.executions:
            if one.busted_at is None:
                qty = one.last.qty if one.last.side is Side.BUY else -one.last.qty
                held[one.last.symbol] = held.get(one.last.symbol, Decimal(0)) + qty
        return PositionsAnswer(
            tuple(AccountPosition(s, "us_equity", q, Decimal(1), q) for s, q in held.items() if q), ()
        )

    def _listed(self, after: datetime | None, seen_at: datetime) -> list[Execution]:
        rows = []
        for one in self.executions:
            versions = [version for at, version in one.versions if at <= seen_at]
            is_busted = one.busted_at is not None and one.busted_at <= seen_at
            if not versions or is_busted or (after is not None and one.first.executed_at <= after):
                continue
            shown_id = versions[-1].execution_id if self.naming is Naming.OWN_ID else one.first.execution_id
            shown_id = f"r-{shown_id}" if self.ids_differ else shown_id
            rows.append(replace(versions[-1], execution_id=shown_id, executed_at=one.first.executed_at))
        return rows

    def truth(self) -> list[tuple[str, Side, Decimal, Decimal]]:
        """Every execution that counts in the end, with its last figures."""
        last = [one.last for one in self.executions if one.busted_at is None]
        return sorted((one.symbol, one.side, one.qty, one.price) for one in last)

    def _an_order(self) -> tuple[str, str, Side, Decimal]:
        if self.orders and self.dice.random() < 0.6:
            order_id = self.dice.choice(list(self.orders))
            return (order_id, *self.orders[order_id])
        return self._id("o"), self.dice.choice(SYMBOLS), self.dice.choice(list(Side)), Decimal(0)

    def _a_live_one(self) -> Happened | None:
        recent = [one for one in self.executions[-12:] if one.busted_at is None]
        return self.dice.choice(recent) if recent else None

    def _name_on_the_stream(self, one: Happened) -> str:
        return one.last.execution_id if self.naming is Naming.OWN_ID else one.first.execution_id

    def _id(self, letter: str) -> str:
        self.ids += 1
        return f"{letter}{self.ids}"
