import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from libs.market_data.market_hours import AccountClock, MarketClock, MarketHours, SaidBy, read_clock
from libs.market_data.prices import MarketPhase, Mode
from tests.support.waiting import eventually

SUNDAY = datetime(2025, 10, 19, 15, 0, tzinfo=UTC)
MONDAY_NOON = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def hours() -> MarketHours:
    return MarketHours()


class TestTheExchangeCalendar:
    def test_is_loaded_by_the_first_question(self) -> None:
        hours = MarketHours()
        assert not hours.is_loaded
        assert hours.phase(MONDAY_NOON) is MarketPhase.OPEN
        assert hours.is_loaded

    def test_knows_weekends(self, hours: MarketHours) -> None:
        assert hours.phase(SUNDAY) is MarketPhase.CLOSED
        assert hours.next_change(SUNDAY) == datetime(2025, 10, 20, 13, 30, tzinfo=UTC)
        assert hours.session_date(SUNDAY) == date(2025, 10, 17)
        assert hours.last_completed_session(SUNDAY) == date(2025, 10, 17)

    def test_knows_early_closes(self, hours: MarketHours) -> None:
        black_friday = datetime(2024, 11, 29, 17, 59, tzinfo=UTC)
        assert hours.is_open(black_friday)
        assert not hours.is_open(black_friday + timedelta(minutes=1))
        assert hours.last_completed_session(black_friday) == date(2024, 11, 27)
        assert hours.last_completed_session(black_friday + timedelta(minutes=1)) == date(2024, 11, 29)

    def test_knows_the_change_to_winter_time(self, hours: MarketHours) -> None:
        assert hours.is_open(datetime(2025, 10, 31, 13, 30, tzinfo=UTC))
        assert not hours.is_open(datetime(2025, 11, 3, 13, 30, tzinfo=UTC))
        assert hours.is_open(datetime(2025, 11, 3, 14, 30, tzinfo=UTC))

    def test_counts_a_moment_to_new_yorks_date(self, hours: MarketHours) -> None:
        monday_evening_in_new_york = datetime(2025, 10, 21, 3, 0, tzinfo=UTC)
        assert hours.session_date(monday_evening_in_new_york) == date(2025, 10, 20)
        before_the_bell = datetime(2025, 10, 20, 8, 0, tzinfo=UTC)
        assert hours.session_date(before_the_bell) == date(2025, 10, 20)
        assert hours.last_completed_session(before_the_bell) == date(2025, 10, 17)

    def test_skips_holidays_backwards(self, hours: MarketHours) -> None:
        assert hours.previous_session(date(2024, 11, 29)) == date(2024, 11, 27)
        assert hours.session_on_or_before(date(2024, 12, 25)) == date(2024, 12, 24)

    def test_lists_sessions(self, hours: MarketHours) -> None:
        assert hours.sessions_between(date(2024, 11, 27), date(2024, 12, 1)) == (date(2024, 11, 27), date(2024, 11, 29))
        assert hours.sessions_between(date(2024, 12, 1), date(2024, 11, 27)) == ()

    def test_reaches_as_far_as_it_is_asked(self, hours: MarketHours) -> None:
        assert hours.session_on_or_before(date(2014, 1, 1)) == date(2013, 12, 31)
        assert hours.phase(MONDAY_NOON) is MarketPhase.OPEN

    def test_bridges_the_longest_closure_of_our_time(self, hours: MarketHours) -> None:
        assert hours.previous_session(date(2001, 9, 17)) == date(2001, 9, 10)

    async def test_loads_in_a_thread_while_another_asks(self) -> None:
        hours = MarketHours()
        await asyncio.gather(asyncio.to_thread(hours.load), asyncio.to_thread(hours.is_open, MONDAY_NOON))
        assert hours.is_loaded


class TestReadingAClock:
    def test_the_sample(self) -> None:
        clock = read_clock(
            b'{"timestamp":"2025-06-24T14:15:22.123456789-04:00","is_open":true,'
            b'"next_open":"2025-06-25T09:30:00-04:00","next_close":"2025-06-24T16:00:00-04:00"}'
        )
        assert clock == AccountClock(
            is_open=True,
            next_change=datetime(2025, 6, 24, 20, 0, tzinfo=UTC),
            timestamp=datetime(2025, 6, 24, 18, 15, 22, 123457, tzinfo=UTC),
        )

    @pytest.mark.parametrize(
        "time", ['"soon"', '"2025-06-24T14:15:22"', "null", "12", "{}", '"0001-01-01T00:00:00+23:59"', '""']
    )
    def test_a_time_that_cannot_be_read_costs_nothing_else(self, time: str) -> None:
        hours = '"next_open":"2025-06-25T09:30:00-04:00","next_close":"2025-06-24T16:00:00-04:00"'
        clock = read_clock(f'{{"timestamp":{time},"is_open":true,{hours}}}'.encode())
        assert (clock.is_open, clock.timestamp) == (True, None)

    def test_closed_changes_at_the_opening(self) -> None:
        clock = read_clock(
            b'{"is_open":false,"next_open":"2025-06-25T09:30:00-04:00","next_close":"2025-06-25T16:00:00-04:00"}',
            Mode.REPLAY,
        )
        assert clock == AccountClock(
            is_open=False, next_change=datetime(2025, 6, 25, 13, 30, tzinfo=UTC), simulator_mode=Mode.REPLAY
        )

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>",
            b"",
            b"null",
            b"{}",
            b'{"is_open":"yes","next_open":"2025-06-25T09:30:00-04:00","next_close":"2025-06-25T16:00:00-04:00"}',
            b'{"is_open":true,"next_open":"2025-06-25T09:30:00","next_close":"2025-06-25T16:00:00"}',
        ],
    )
    def test_anything_else_is_an_error(self, body: bytes) -> None:
        with pytest.raises(msgspec.MsgspecError):
            read_clock(body)


class Account:
    """An account whose clock the test sets; raises what it is told to raise."""

    def __init__(self, answer: AccountClock | Exception) -> None:
        self.answer = answer
        self.times_asked = 0

    async def __call__(self) -> AccountClock:
        self.times_asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def open_until(moment: datetime) -> AccountClock:
    return AccountClock(is_open=True, next_change=moment, simulator_mode=Mode.SIMULATED)


class TestTheClock:
    async def test_believes_the_account_even_on_a_sunday(self) -> None:
        hours = MarketHours()
        account = Account(open_until(SUNDAY + timedelta(hours=3)))
        clock = MarketClock(account, hours)
        state = await clock.state(SUNDAY)
        assert (state.phase, state.said_by, state.checked_at) == (MarketPhase.OPEN, SaidBy.ACCOUNT_CLOCK, SUNDAY)
        assert state.next_change == SUNDAY + timedelta(hours=3)
        assert clock.simulator_mode is Mode.SIMULATED
        assert clock.last_error is None
        assert not hours.is_loaded, "the calendar's 50 MB are for those who need them"

    async def test_asks_once_a_minute(self, hours: MarketHours) -> None:
        account = Account(open_until(SUNDAY + timedelta(hours=3)))
        clock = MarketClock(account, hours)
        for second in range(121):
            await clock.state(SUNDAY + timedelta(seconds=second))
        assert account.times_asked == 3

    async def test_never_believes_an_answer_past_its_next_change(self, hours: MarketHours) -> None:
        account = Account(open_until(SUNDAY + timedelta(seconds=5)))
        clock = MarketClock(account, hours)
        await clock.state(SUNDAY)
        after = SUNDAY + timedelta(seconds=5)
        assert clock.current(after).said_by is SaidBy.CALENDAR
        account.answer = AccountClock(is_open=False, next_change=SUNDAY + timedelta(hours=20))
        assert (await clock.state(after)).phase is MarketPhase.CLOSED
        assert account.times_asked == 2

    async def test_a_next_change_that_was_already_past_says_nothing(self, hours: MarketHours) -> None:
        clock = MarketClock(Account(open_until(SUNDAY - timedelta(days=1))), hours)
        await clock.state(SUNDAY)
        later = clock.current(SUNDAY + timedelta(seconds=30))
        assert (later.phase, later.said_by) == (MarketPhase.OPEN, SaidBy.ACCOUNT_CLOCK)

    @pytest.mark.parametrize("fault", [OSError("no route"), ValueError("<html>"), TimeoutError()])
    async def test_falls_back_to_the_calendar(self, fault: Exception) -> None:
        clock = MarketClock(Account(fault), MarketHours())
        state = await clock.state(MONDAY_NOON)
        assert (state.phase, state.said_by) == (MarketPhase.OPEN, SaidBy.CALENDAR)
        assert state.next_change == datetime(2025, 10, 20, 20, 0, tzinfo=UTC)
        assert clock.last_error == (str(fault) or "TimeoutError")
        assert clock.faults == 1

    async def test_keeps_the_last_answer_for_its_minute_when_the_account_falls_silent(self, hours: MarketHours) -> None:
        account = Account(open_until(SUNDAY + timedelta(hours=3)))
        clock = MarketClock(account, hours)
        await clock.state(SUNDAY)
        account.answer = OSError("gone")
        assert (await clock.state(SUNDAY + timedelta(seconds=59))).said_by is SaidBy.ACCOUNT_CLOCK
        assert (await clock.state(SUNDAY + timedelta(seconds=60))).said_by is SaidBy.CALENDAR
        assert clock.simulator_mode is Mode.SIMULATED

    async def test_a_clock_of_ours_that_is_set_back_makes_no_answer_hold_longer(self, hours: MarketHours) -> None:
        """Ours was an hour ahead when the account said "open until noon"; then it is set right, and noon comes."""
        noon = MONDAY_NOON
        account = Account(open_until(noon))
        clock = MarketClock(account, hours)
        await clock.state(noon + timedelta(minutes=30))
        account.answer = AccountClock(is_open=False, next_change=noon + timedelta(hours=20))
        after = noon + timedelta(seconds=1)
        assert clock.current(after).said_by is SaidBy.CALENDAR
        assert (await clock.state(after)).phase is MarketPhase.CLOSED
        assert account.times_asked == 2

    @pytest.mark.parametrize("by_s", [-3600, 3600])
    async def test_an_answer_holds_on_when_our_clock_is_corrected(self, by_s: int, hours: MarketHours) -> None:
        account, by = Account(open_until(SUNDAY + timedelta(hours=9))), timedelta(seconds=by_s)
        clock = MarketClock(account, hours)
        clock.shift(by)  # before anything was asked
        await clock.state(SUNDAY)
        clock.shift(by)
        held = clock.current(SUNDAY + by + timedelta(seconds=59))
        assert (held.said_by, held.checked_at) == (SaidBy.ACCOUNT_CLOCK, SUNDAY + by)
        await clock.state(SUNDAY + by + timedelta(seconds=61))
        assert account.times_asked == 2

    async def test_a_question_that_corrects_our_clock_holds_as_long_as_any(self, hours: MarketHours) -> None:
        by = timedelta(seconds=3600)

        async def ask() -> AccountClock:
            clock.shift(by)
            return open_until(SUNDAY + timedelta(hours=9))

        clock = MarketClock(ask, hours)
        await clock.state(SUNDAY)
        assert clock.current(SUNDAY + by + timedelta(seconds=59)).said_by is SaidBy.ACCOUNT_CLOCK

    async def test_does_not_hammer_a_failing_account(self, hours: MarketHours) -> None:
        account = Account(OSError("gone"))
        clock = MarketClock(account, hours)
        for second in range(30):
            await clock.state(SUNDAY + timedelta(seconds=second))
        # Three quick tries, for a slow start; then every 10 s.
        assert account.times_asked == 6
        account.answer = open_until(SUNDAY + timedelta(hours=3))
        assert (await clock.state(SUNDAY + timedelta(seconds=40))).said_by is SaidBy.ACCOUNT_CLOCK
        assert clock.last_error is None

    async def test_a_hanging_account_is_given_up(self, hours: MarketHours, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("libs.market_data.market_hours._PATIENCE_S", 0.05)
        clock = MarketClock(_never_answering(), hours)
        assert (await clock.state(SUNDAY)).said_by is SaidBy.CALENDAR
        assert clock.last_error == "TimeoutError"

    async def test_without_an_account_the_calendar_alone_is_asked(self, hours: MarketHours) -> None:
        clock = MarketClock(None, hours)
        assert (await clock.state(MONDAY_NOON)).said_by is SaidBy.CALENDAR
        assert clock.last_error is None

    async def test_many_who_ask_at_once_ask_the_account_once(self, hours: MarketHours) -> None:
        account = Account(open_until(SUNDAY + timedelta(hours=3)))
        clock = MarketClock(account, hours)
        await asyncio.gather(*(clock.state(SUNDAY) for _ in range(20)))
        assert account.times_asked == 1

    async def test_keeps_itself_current_in_the_background(self, hours: MarketHours) -> None:
        account = Account(open_until(datetime.now(UTC) + timedelta(milliseconds=200)))
        clock = MarketClock(account, hours)
        task = asyncio.create_task(clock.keep_current(lambda: datetime.now(UTC)))
        await eventually(lambda: account.times_asked == 1)
        account.answer = AccountClock(is_open=False, next_change=datetime.now(UTC) + timedelta(hours=3))
        await eventually(lambda: clock.current(datetime.now(UTC)).phase is MarketPhase.CLOSED)
        await eventually(lambda: account.times_asked == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_pauses_until_the_answer_runs_out(self, hours: MarketHours) -> None:
        account = Account(OSError("gone"))
        clock = MarketClock(account, hours)
        assert clock._pause_s(SUNDAY) == 45
        await clock.state(SUNDAY)
        assert clock._pause_s(SUNDAY) == 1
        for second in (1, 2, 3):
            await clock.state(SUNDAY + timedelta(seconds=second))
        assert clock._pause_s(SUNDAY) == 10
        account.answer = open_until(SUNDAY + timedelta(seconds=40))
        await clock.state(SUNDAY + timedelta(seconds=13))
        assert clock._pause_s(SUNDAY + timedelta(seconds=13)) == 27
        assert clock._pause_s(SUNDAY + timedelta(seconds=39.5)) == 1
        assert clock._pause_s(SUNDAY + timedelta(seconds=60)) == 45


def _never_answering() -> Callable[[], Awaitable[AccountClock]]:
    async def wait() -> AccountClock:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return wait
