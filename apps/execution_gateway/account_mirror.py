"""Keeps the ledger a mirror of the Alpaca account: fills from the trading stream, the rest and every gap by REST.

The shell around `libs/broker/mirror.py` (what to ask, what is new) and `reconcile.py` (who is right): it waits, asks,
and lets the ledger record. Until the account has said what it holds, nothing is said here either.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, TypeVar

import structlog

from apps.execution_gateway.account_view import AccountReading, AccountView, MirrorHealth, OpeningBalance, WholeAccount
from apps.execution_gateway.database import BookUnavailableError, DatabaseUnavailableError
from apps.execution_gateway.ledger_facts import LedgerFacts, ledger_facts
from apps.execution_gateway.mirror_state import MirrorState, MirrorStateStore
from apps.execution_gateway.mirrored_ledger import (
    MirroredLedger,
    last_executions,
    lately_appeared,
    numbered,
    our_positions,
)
from libs.broker.account_messages import AccountSummary, PositionsAnswer
from libs.broker.account_parity import AccountCircumstances
from libs.broker.account_rest import PAGE_SIZE, AccountRest
from libs.broker.commands import Command
from libs.broker.executions import Unreadable
from libs.broker.known_executions import REMEMBERED
from libs.broker.mirror import CatchUp, Mirror
from libs.broker.reconcile import CENT, Circumstances, Difference, Outcome, Reason, Reconciler, compare
from libs.broker.reorganizations import symbols_awaiting_cost
from libs.broker.trade_updates import StreamEvent
from libs.broker.trading_stream import TradingStream
from libs.market_data.alpaca_rest import AlpacaRestError
from libs.market_data.prices import LinkState
from libs.portfolio.book import Book
from libs.portfolio.fills import EXACT, ZERO

MOST_WAITING: Final = 10_000
"""Events that wait while the database is away; more than that, and a catch-up by REST tells what they would have."""
REFUSED_PAUSE_S: Final = 60.0
_RETRY_S: Final = 1.0
_PATIENCE: Final = timedelta(minutes=3)
"""How long a difference must stand before the broker is taken at its word: activities may lag behind positions."""
_READ_HELD_FOR: Final = timedelta(seconds=1)
_LONGEST_PAUSE_S: Final = 2.0
_SETTLED: Final = frozenset({Reason.ROUNDING, Reason.COST_METHOD})
_ACTIVE_ROUND: Final = timedelta(seconds=60)
_CUT_SHORT: Final = "the list of activities is cut short: its pages do not go on"

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


OPENING_NAMED: Final = "activities"
OPENING_HISTORY: Final = "portfolio_history"
OPENING_READ: Final = "first_reading"
OPENING_CONFIRMED: Final = "confirmed"
"""What the cash that no activity names was taken from; activities: there is none."""


class AccountUnknownError(BookUnavailableError):
    """The account has not said yet what it holds, or this database mirrors another one."""


class AccountMirror:
    """One account's mirror. `run` and `stream.run` do the work, each in a task of its own."""

    def __init__(
        self,
        ledger: MirroredLedger,
        store: MirrorStateStore,
        rest: AccountRest,
        open_stream: Callable[[Callable[[StreamEvent], None]], TradingStream],
        on_change: Callable[[Iterable[str]], None],
        now: Callable[[], datetime],
        round_every: timedelta = _ACTIVE_ROUND,
    ) -> None:
        self.ledger = ledger
        self._store = store
        self._rest = rest
        self.stream = open_stream(self._take)
        self._on_change = on_change
        self._now = now
        self._round_every = round_every
        self._inbox: deque[tuple[StreamEvent, datetime]] = deque()
        self._has_mail = asyncio.Event()
        self._may_ask = asyncio.Event()
        self._turn = asyncio.Lock()
        self._reading_turn = asyncio.Lock()
        self._mirror: Mirror | None = None
        self._reconciler = Reconciler(patience=min(_PATIENCE, 2 * round_every))
        self._state: MirrorState | None = None
        self._is_confirmed = False
        self._trouble: MirrorHealth | None = None
        self._outcome = Outcome(())
        self._unreadable_holdings: tuple[Unreadable, ...] = ()
        self._opening: frozenset[str] = frozenset()
        self.reading: AccountReading | None = None
        self._cash: tuple[Decimal | None, datetime] | None = None
        self.on_reading: Callable[[AccountReading], Awaitable[None]] | None = None
        """Called with the reading of each round."""
        self.summary: AccountSummary | None = None
        self.last_error: str | None = None
        self.overflows = 0
        self.faults = 0

    async def run(self) -> None:
        """Mirror for ever; returns only by cancellation. Where the database mirrors another account, do nothing."""
        mirror = await self._open()
        if mirror is None:
            await asyncio.Event().wait()
            return
        self._mirror = mirror
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(mirror), name="account-events")
            tasks.create_task(self._keep_asking(mirror), name="account-questions")

    async def read_now(self) -> AccountReading:
        """Ask the account for its positions, and set the ledger beside them; changes nothing.

        What was asked within the last second is answered again: the account's rate limit is not for us alone. Raises
        AccountUnknownError, AlpacaRestError and DatabaseUnavailableError.
        """
        async with self._reading_turn:
            mirror, last = self._mirror, self.reading
            if mirror is None:
                raise AccountUnknownError(f"the Alpaca account has not been read yet: {self.last_error or 'starting'}")
            if last is not None and timedelta() <= self._now() - last.at < _READ_HELD_FOR:
                return last
            if self._rest.pause_s > _LONGEST_PAUSE_S:
                raise AlpacaRestError("the account's rate limit is used up for now", retryable=True)
            await asyncio.sleep(self._rest.pause_s)
            asked_at = self._now()
            answer, summaries = await self._ask()
            book, now = await self._book()
            differences = compare(our_positions(book, now), answer, self._circumstances(mirror, book, now))
            self.reading = await self._reading(answer, book, asked_at, differences, summaries)
            return self.reading

    async def confirm_opening(self, amount: Decimal) -> OpeningBalance:
        """Fix the cash that no activity names, as somebody knows it.

        Raises AccountUnknownError before the account was read, and DatabaseUnavailableError.
        """
        if self._mirror is None:
            raise AccountUnknownError(f"the Alpaca account has not been read yet: {self.last_error or 'starting'}")
        await self._store.confirm_opening(amount, OPENING_CONFIRMED, self._now())
        await self._read_opening()
        return OpeningBalance(amount, OPENING_CONFIRMED, is_confirmed=True)

    async def _ask(self) -> tuple[PositionsAnswer, tuple[AccountSummary, AccountSummary]]:
        """Ask for the positions, and for cash and equity before and after: prices move meanwhile."""
        before = await self._rest.account()
        answer = await self._rest.positions()
        return answer, (before, await self._rest.account())

    async def _reading(
        self,
        answer: PositionsAnswer,
        book: Book,
        asked_at: datetime,
        differences: tuple[Difference, ...],
        summaries: tuple[AccountSummary, AccountSummary],
    ) -> AccountReading:
        before, after = summaries
        self.summary = after
        facts = await asyncio.to_thread(ledger_facts, book, self.ledger.journal.values())
        circumstances = self._whole_circumstances(differences, before, after)
        await self._read_opening()
        await self._fix_opening(facts, after, circumstances)
        opening = self._opening_balance()
        amount = None if opening is None else opening.amount
        whole = WholeAccount(after, facts, replace(circumstances, opening_cash=amount))
        return AccountReading(answer, book, asked_at, differences, whole, opening)

    def _whole_circumstances(
        self, differences: tuple[Difference, ...], before: AccountSummary, after: AccountSummary
    ) -> AccountCircumstances:
        mirror = self._mirror
        is_read = mirror is not None and mirror.caught_up_at is not None and not mirror.unreadable
        is_settling = (
            mirror is None
            or not mirror.is_in_step
            or bool(self.ledger.applied.waiting)
            or not self._is_cash_caught_up(before, after)
            or any(one.reason is Reason.TIMING for one in differences)
        )
        drift = ZERO
        if before.equity is not None and after.equity is not None:
            drift = abs(before.equity - after.equity)
        return AccountCircumstances(is_read and self._is_history_complete, None, is_settling=is_settling, drift=drift)

    @property
    def _is_history_complete(self) -> bool:
        """Whether the cash of every activity since the account's beginning is known."""
        return self._state is not None and self._state.is_cash_complete and not self.ledger.unknown_cash

    def _is_cash_caught_up(self, before: AccountSummary, after: AccountSummary) -> bool:
        """Say whether the cash is the same since before the last catch-up, which then knows all that moved it."""
        if before.cash != after.cash or self._cash is None or self._cash[0] != after.cash:
            self._cash = (after.cash, self._now())
        caught_up_at = None if self._mirror is None else self._mirror.caught_up_at
        return caught_up_at is not None and self._cash[1] < caught_up_at

    async def _fix_opening(
        self, facts: LedgerFacts, summary: AccountSummary, circumstances: AccountCircumstances
    ) -> None:
        """Fix what the account had that no activity names, once: at the first complete reading."""
        state = self._state
        if state is None or state.opening_cash is not None or summary.cash is None:
            return
        if not circumstances.is_complete or circumstances.is_settling:
            return
        missing = EXACT.subtract(summary.cash, facts.totals.paid)
        amount, source = ZERO, OPENING_NAMED
        if abs(missing) > CENT:
            began_with = await self._began_with()
            amount, source = (missing, OPENING_READ) if began_with is None else (began_with, OPENING_HISTORY)
        await self._store.fix_opening(amount, source)
        await self._read_opening()

    async def _read_opening(self) -> None:
        """Take over what the database has: it may have been fixed or confirmed through another gateway."""
        kept = await self._store.load()
        if kept is not None and self._state is not None:
            self._state = replace(
                self._state,
                opening_cash=kept.opening_cash,
                opening_source=kept.opening_source,
                opening_confirmed_at=kept.opening_confirmed_at,
            )

    async def _began_with(self) -> Decimal | None:
        try:
            return await self._rest.base_value()
        except AlpacaRestError as error:
            log.warning("portfolio_history_unavailable", reason=error.message)
            return None

    def _opening_balance(self) -> OpeningBalance | None:
        state = self._state
        if state is None or state.opening_cash is None:
            return None
        source = state.opening_source or OPENING_READ
        is_confirmed = state.opening_confirmed_at is not None or source == OPENING_NAMED
        return OpeningBalance(state.opening_cash, source, is_confirmed)

    async def aclose(self) -> None:
        """Close what the questions opened."""
        await self._rest.aclose()

    def look(self) -> AccountView:
        """Return how the mirror is."""
        mirror, state = self._mirror, self._state
        return AccountView(
            self._health(),
            None if state is None else state.account_number,
            None if state is None else state.confirmed_at,
            None if mirror is None else mirror.caught_up_at,
            self.stream.link.state,
            self.last_error,
            self._outcome.differences,
            (*self._unreadable_holdings, *(() if mirror is None else mirror.unreadable.values())),
            self.ledger.applied.unresolved,
            self._opening_balance(),
            is_history_complete=mirror is None or mirror.caught_up_at is None or self._is_history_complete,
        )

    def check(self, book: Book) -> Book:
        """Return `book` when it may be shown. Raises AccountUnknownError.

        A book with positions may be shown once the account has confirmed one, before a restart as well; an empty one
        only when the account has said so since, and named no holding that could not be read.
        """
        if self._trouble is MirrorHealth.OTHER_ACCOUNT:
            raise AccountUnknownError(self.last_error or "another account")
        was_confirmed = self._state is not None and self._state.confirmed_at is not None
        if was_confirmed and (book.open_positions or (self._is_confirmed and not self._unreadable_holdings)):
            return book
        why = f": {self.last_error}" if self.last_error else ""
        if was_confirmed and self._unreadable_holdings:
            raise AccountUnknownError(
                "the Alpaca account names a holding that cannot be read: " + self._unreadable_holdings[0].why
            )
        raise AccountUnknownError(f"the Alpaca account has not said yet what it holds{why}")

    async def book(self) -> Book:
        """Return the mirrored positions. Raises AccountUnknownError and DatabaseUnavailableError."""
        return self.check(await self.ledger.book())

    def _health(self) -> MirrorHealth:
        if self._trouble is not None:
            return self._trouble
        if self._mirror is None or not self._is_confirmed:
            return MirrorHealth.STARTING
        is_whole = self._mirror.is_in_step and self.stream.is_listening and not self._inbox
        return MirrorHealth.IN_STEP if is_whole else MirrorHealth.CATCHING_UP

    # --- beginning --------------------------------------------------------------------------------------------------

    async def _open(self) -> Mirror | None:
        """Learn whose account it is and what the ledger knows of it; None when the database mirrors another."""
        while True:
            try:
                self._state = self._state or await self._store.load()
                await self.ledger.open_journal()
                self.summary = await self._rest.account()
                if not await self._is_ours(self.summary.account_number):
                    return None
                state = self._state
                # Of a ledger from before its cash was kept, all activities are asked for once more.
                is_cash_complete = state is not None and state.is_cash_complete
                now, cursor = self._now(), state.caught_up_to if state is not None and is_cash_complete else None
                seeds = await self.ledger.executions_since(min(now, cursor or now) - REMEMBERED)
                self._trouble = None
                return Mirror(now, seeds=seeds, cursor=cursor, round_every=self._round_every)
            except AlpacaRestError as error:
                await self._rest_after(error)
            except DatabaseUnavailableError as error:
                await self._wait_for_database(error)

    async def _is_ours(self, account_number: str) -> bool:
        state = self._state
        if state is None:
            self._state = MirrorState(account_number)
            await self._store.save(self._state)
        elif state.account_number != account_number:
            self._trouble = MirrorHealth.OTHER_ACCOUNT
            self.last_error = (
                f"this database mirrors account {state.account_number}, the keys belong to {account_number}: "
                "name another database in DATABASE_URL, or use the other keys"
            )
            log.error("account_is_another", reason=self.last_error)
            return False
        return True

    # --- the stream -------------------------------------------------------------------------------------------------

    def _take(self, event: StreamEvent) -> None:
        if len(self._inbox) >= MOST_WAITING:
            self._inbox.popleft()
            self.overflows += 1
        self._inbox.append((event, self._now()))
        self._has_mail.set()

    async def _follow(self, mirror: Mirror) -> None:
        seen_overflows = 0
        while True:
            await self._has_mail.wait()
            self._has_mail.clear()
            async with self._turn:
                while self._inbox:
                    # Taken out first: while the database is away, the box may overflow at this very end.
                    event, at = self._inbox.popleft()
                    await self._carry_out(mirror.receive(event, at))
                if self.overflows > seen_overflows:
                    seen_overflows = self.overflows
                    mirror.want_catch_up(deep=True)
            self._may_ask.set()

    # --- REST -------------------------------------------------------------------------------------------------------

    async def _keep_asking(self, mirror: Mirror) -> None:
        while True:
            request = mirror.next_request(self._now())
            if request is None:
                self._may_ask.clear()
                try:
                    async with asyncio.timeout(mirror.wait_s(self._now())):
                        await self._may_ask.wait()
                except TimeoutError:
                    pass
                continue
            try:
                await (self._catch_up(mirror, request) if isinstance(request, CatchUp) else self._compare(mirror))
            except AlpacaRestError as error:
                mirror.failed(self._now(), retry_after_s=error.retry_after_s)
                await self._rest_after(error)
            else:
                self._trouble = self.last_error = None
                if self.stream.link.state is LinkState.REFUSED:
                    # The keys are good: what refused them there may have been a moment's trouble.
                    self.stream.reconnect()

    async def _catch_up(self, mirror: Mirror, request: CatchUp) -> None:
        token: str | None = None
        unreadable: list[Unreadable] = []
        while True:
            await asyncio.sleep(self._rest.pause_s)
            page = await self._rest.activities(after=request.after, page_token=token)
            unreadable += page.unreadable
            async with self._turn:
                await self._carry_out(mirror.take_page(page))
            if page.count < PAGE_SIZE:
                break
            if page.last_id is None or page.last_id == token:
                unreadable.append(Unreadable(None, _CUT_SHORT, may_be_execution=True))
                break
            token = page.last_id
        async with self._turn:
            self._tell(await self._persist(self.ledger.apply_activities))
            mirror.caught_up(unreadable)
            is_whole = request.after is None and not unreadable and not self.ledger.unknown_cash
            await self._keep_state(caught_up_to=mirror.cursor, is_cash_complete=is_whole)

    async def _compare(self, mirror: Mirror) -> None:
        await asyncio.sleep(self._rest.pause_s)
        asked_at = self._now()
        answer, summaries = await self._ask()
        async with self._turn:
            mirror.positions_read()
            self._unreadable_holdings = answer.unreadable
            book, now = await self._persist(self._book)
            outcome = self._reconciler.take(our_positions(book, now), answer, self._circumstances(mirror, book, now))
            adjustments = numbered(outcome.adjustments, book)
            self._tell(await self._persist(lambda: self.ledger.carry_out(outcome.voids, adjustments)))
            for void in outcome.voids:
                mirror.voided(void.execution_id)
            self._note(outcome, mirror)
            self._note_openings(outcome)
            await self._keep_state(confirmed_at=now)
            # With nothing left to record the ledger is as it was compared.
            is_whole = not outcome.adjustments and not outcome.voids
            reading = AccountReading(answer, book, asked_at, outcome.differences)
            if is_whole:
                reading = await self._persist(
                    lambda: self._reading(answer, book, asked_at, outcome.differences, summaries)
                )
            self.reading = reading
        if self.on_reading is not None:
            await self.on_reading(reading)
        if not self._is_confirmed:
            self._is_confirmed = True
            # From now on the book may be shown, whether anything in it is new or not.
            self._on_change([position.symbol for position in book.open_positions])

    def _circumstances(self, mirror: Mirror, book: Book, now: datetime) -> Circumstances:
        state = self._state
        return Circumstances(
            now,
            mirror.caught_up_at,
            is_opening=state is None or state.confirmed_at is None,
            opening=self._opening,
            unsettled=mirror.unsettled(now),
            absent=mirror.absent,
            unhandled=self.ledger.applied.doubtful_symbols,
            awaiting_cost=symbols_awaiting_cost(self.ledger.applied.waiting),
            appeared=lately_appeared(book, now),
            last_execution_at=last_executions(book),
        )

    def _note_openings(self, outcome: Outcome) -> None:
        """Remember what the first reading of the account could not settle: it was held before we looked, too."""
        # A cent, or another cost method, has been settled: it explains itself and nothing that comes later.
        settled = {one.symbol for one in outcome.differences if one.is_explained and one.reason in _SETTLED}
        left = {one.symbol for one in outcome.differences} - {one.symbol for one in outcome.adjustments} - settled
        is_first = self._state is None or self._state.confirmed_at is None
        self._opening = frozenset(left if is_first else self._opening & left)

    def _note(self, outcome: Outcome, mirror: Mirror) -> None:
        for difference in outcome.differences:
            if difference not in self._outcome.differences:
                log.warning(
                    "account_differs",
                    symbol=difference.symbol,
                    reason=difference.reason,
                    explained=difference.is_explained,
                    ours=str(difference.ours_qty),
                    theirs=str(difference.theirs_qty),
                )
        self._outcome = outcome
        if outcome.wants_catch_up and not outcome.adjustments:
            mirror.want_catch_up(deep=True)

    # --- the ledger -------------------------------------------------------------------------------------------------

    async def _carry_out(self, commands: list[Command]) -> None:
        if commands:
            self._tell(await self._persist(lambda: self.ledger.carry_out(commands)))

    async def _keep_state(
        self,
        *,
        caught_up_to: datetime | None = None,
        confirmed_at: datetime | None = None,
        is_cash_complete: bool = False,
    ) -> None:
        state = self._state
        if state is not None:
            kept = replace(
                state,
                caught_up_to=caught_up_to or state.caught_up_to,
                confirmed_at=confirmed_at or state.confirmed_at,
                is_cash_complete=is_cash_complete or state.is_cash_complete,
            )
            self._state = kept
            await self._persist(lambda: self._store.save(kept))

    async def _book(self) -> tuple[Book, datetime]:
        """Return the positions as recorded, and as of when. What they cost by Alpaca's method is known by then."""
        book, now = await self.ledger.book(), self._now()
        await asyncio.to_thread(book.alpaca_holdings, now)
        return book, now

    async def _persist(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do `work` until the database has done it: what the account said must not be lost."""
        while True:
            try:
                return await work()
            except DatabaseUnavailableError as error:
                await self._wait_for_database(error)

    def _tell(self, symbols: Collection[str]) -> None:
        if symbols:
            self._on_change(symbols)

    async def _wait_for_database(self, error: DatabaseUnavailableError) -> None:
        if self.last_error != str(error):
            log.warning("account_mirror_waits_for_database", reason=str(error))
        self.last_error = str(error)
        self.faults += 1
        await asyncio.sleep(_RETRY_S)

    async def _rest_after(self, error: AlpacaRestError) -> None:
        """Note what REST answered, and wait as long as it asks for."""
        is_refused = error.status in {401, 403}
        self._trouble = MirrorHealth.REFUSED if is_refused else MirrorHealth.UNREACHABLE
        if self.last_error != error.message:
            log.warning("account_unreachable", reason=error.message, retryable=error.retryable)
        self.last_error = error.message
        self.faults += 1
        await asyncio.sleep(REFUSED_PAUSE_S if is_refused else max(_RETRY_S, error.retry_after_s or 0.0))
