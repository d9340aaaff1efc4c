"""The mirror against a model of the account, on virtual time: whatever is lost, repeated or late, each counts once."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.broker.commands import Command, RecordActivity, RecordExecution, VoidExecution
from libs.broker.executions import Execution
from libs.broker.known_executions import LONGEST_LAG, LedgerExecution
from libs.broker.mirror import CatchUp, Mirror, ReadPositions
from libs.broker.reconcile import Circumstances, OurPosition, Reconciler
from libs.portfolio.fills import Side
from tests.libs.broker.model_account import BEGIN, Faults, ModelAccount, Naming

HARSH = Faults(lose=0.1, twice=0.1, rest_fails=0.1, longest_lag=timedelta(minutes=4), garbled=0.02)


@dataclass
class Ledger:
    """Does what the real one promises: an id counts once, a void is for ever, an unknown void does nothing."""

    rows: dict[str, Execution] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case RecordExecution(execution=execution):
                    held = self.rows.setdefault(execution.execution_id, execution)
                    assert held.is_alike(execution), f"{held} and {execution} share an id"
                case VoidExecution(execution_id=execution_id, reason=reason):
                    if execution_id in self.rows:
                        self.void.setdefault(execution_id, reason)
                case RecordActivity():
                    raise AssertionError("there are no activities here")

    @property
    def standing(self) -> list[Execution]:
        return [one for one in self.rows.values() if one.execution_id not in self.void]

    def positions(self) -> dict[str, OurPosition]:
        held: dict[str, Decimal] = {}
        for one in self.standing:
            held[one.symbol] = held.get(one.symbol, Decimal(0)) + (one.qty if one.side is Side.BUY else -one.qty)
        return {symbol: OurPosition(qty, qty) for symbol, qty in held.items()}

    def summary(self) -> list[tuple[str, Side, Decimal, Decimal]]:
        return sorted((one.symbol, one.side, one.qty, one.price) for one in self.standing)


@dataclass
class Run:
    """The mirror, its ledger and the account, and the loop that the gateway would run."""

    account: ModelAccount
    ledger: Ledger = field(default_factory=Ledger)
    mirror: Mirror = field(default_factory=lambda: Mirror(BEGIN))
    reconciler: Reconciler = field(default_factory=lambda: Reconciler(LONGEST_LAG))
    disconnects: int = 0
    adjusted: int = 0

    def connect(self) -> None:
        self._hear(self.account.connect())

    def disconnect(self) -> None:
        self.disconnects += 1
        self._hear(self.account.disconnect())

    def restart(self) -> None:
        """Build everything anew from what the ledger holds."""
        self.disconnect()
        seeds = [LedgerExecution(one, name in self.ledger.void) for name, one in self.ledger.rows.items()]
        self.mirror = Mirror(self.account.now, seeds=seeds, cursor=self.mirror.cursor)
        self.reconciler = Reconciler(LONGEST_LAG)

    def pass_time(
        self,
        span: timedelta,
        *,
        act: Callable[[], None] = lambda: None,
        steps_s: tuple[float, ...] = (0.02, 0.2, 1.0, 5.0),
    ) -> None:
        """Let `span` pass in small steps, something happening in each."""
        until = self.account.now + span
        while self.account.now < until:
            self.account.now += timedelta(seconds=self.account.dice.choice(steps_s))
            act()
            self._hear(self.account.arrivals())
            self._ask()

    def _hear(self, events: list) -> None:
        for event in events:
            self.ledger.carry_out(self.mirror.receive(event, self.account.now))

    def _ask(self) -> None:
        match self.mirror.next_request(self.account.now):
            case CatchUp(after=after):
                for page in self.account.pages(after):
                    if page is None:
                        self.mirror.failed(self.account.now)
                        return
                    self.ledger.carry_out(self.mirror.take_page(page))
                self.mirror.caught_up()
            case ReadPositions():
                self.mirror.positions_read()
                self._reconcile(self.account.now)
            case None:
                assert self.mirror.wait_s(self.account.now) > 0

    def _reconcile(self, now: datetime) -> None:
        circumstances = Circumstances(
            now, self.mirror.caught_up_at, unsettled=self.mirror.unsettled(now), absent=self.mirror.absent
        )
        outcome = self.reconciler.take(self.ledger.positions(), self.account.positions(), circumstances)
        self.ledger.carry_out(list(outcome.voids))
        for void in outcome.voids:
            self.mirror.voided(void.execution_id)
        if outcome.wants_catch_up:
            self.mirror.want_catch_up(deep=True)
        self.adjusted += len(outcome.adjustments)


def run_world(seed: int, disconnects: int, naming: Naming, *, ids_differ: bool = False) -> Run:
    dice = random.Random(seed)
    account = ModelAccount(dice, naming, HARSH, ids_differ=ids_differ)
    run = Run(account)

    def act() -> None:
        choice = dice.random()
        if choice < 0.10:
            account.execute()
        elif choice < 0.115 and not ids_differ:
            account.bust()
        elif choice < 0.13 and not ids_differ:
            account.correct()

    while run.disconnects < disconnects:
        run.connect()
        run.pass_time(timedelta(seconds=dice.choice((0.1, 2, 30, 200))), act=act)
        if dice.random() < 0.1 and not ids_differ:
            run.restart()
        else:
            run.disconnect()
        run.pass_time(timedelta(seconds=dice.choice((0, 0.5, 10, 90))), act=act)
    account.faults = Faults(longest_lag=HARSH.longest_lag)
    run.connect()
    run.pass_time(timedelta(minutes=75), steps_s=(10.0,))
    return run


def check(run: Run) -> None:
    """Nothing lost, nothing doubled, and nothing that had to be put right by an adjustment."""
    assert run.mirror.is_in_step
    assert run.ledger.summary() == run.account.truth()
    assert run.adjusted == 0


# `make test-deep` makes this 10,000 disconnects.
@given(seed=st.integers(0, 2**32), naming=st.sampled_from(Naming))
def test_none_lost_and_none_doubled(seed: int, naming: Naming) -> None:
    check(run_world(seed, 5, naming))


@pytest.mark.parametrize("naming", Naming)
def test_none_lost_and_none_doubled_on_a_bad_day(naming: Naming) -> None:
    check(run_world(1, 40, naming))


def test_the_same_when_rest_has_ids_of_its_own() -> None:
    run = run_world(2, 40, Naming.SAME_ID, ids_differ=True)
    check(run)
    assert not run.mirror.absent
    assert len(run.ledger.rows) == len(run.account.executions)


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(days=400)])
def test_a_clock_that_is_set_back_delays_nothing(back: timedelta) -> None:
    mirror, now = Mirror(BEGIN), BEGIN
    for _ in range(50):
        match mirror.next_request(now):
            case CatchUp():
                mirror.caught_up()
            case ReadPositions():
                mirror.positions_read()
        now += timedelta(seconds=5)
    now -= back
    asked = []
    for _ in range(20):
        request = mirror.next_request(now)
        asked.append(type(request))
        match request:
            case CatchUp():
                mirror.caught_up()
            case ReadPositions():
                mirror.positions_read()
        assert mirror.wait_s(now) <= 60
        now += timedelta(seconds=5)
    assert {CatchUp, ReadPositions} <= set(asked)


def test_the_model_does_lose_and_double_what_is_told() -> None:
    """Without the catch-ups the same worlds go wrong: the tests above can fail."""
    run = Run(ModelAccount(random.Random(1), faults=HARSH))
    run.mirror.next_request(run.account.now)  # never answered
    run.connect()
    run.pass_time(timedelta(minutes=10), act=run.account.execute)
    assert len(run.ledger.rows) < len(run.account.executions)
