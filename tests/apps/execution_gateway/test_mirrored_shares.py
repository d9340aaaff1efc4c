"""Shares that corporate actions move, in a real ledger: in any order and rounds, after a restart, and read before."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.account_view import AccountView, MirrorHealth
from apps.execution_gateway.health_report import account_reasons
from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.mirrored_ledger import MirroredLedger, lately_appeared, numbered, our_positions
from libs.broker.account_messages import AccountPosition, PositionsAnswer
from libs.broker.commands import RecordActivity
from libs.broker.executions import Activity
from libs.broker.reconcile import Circumstances, Outcome, Reconciler
from libs.broker.reorganizations import symbols_awaiting_cost
from libs.market_data.prices import LinkState
from libs.portfolio.book import Book
from libs.portfolio.rounding import rounded_money
from tests.libs.broker.share_scenarios import SHARE_SCENARIOS, SPLIT_AFTER_A_SALE, SPUN_OFF, ShareScenario, bought

D = Decimal
NOW = datetime(2025, 10, 20, 17, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def ledger(engine: AsyncEngine) -> Ledger:
    return Ledger(engine, now=lambda: NOW)


def total(book: Book, marks: Mapping[str, str]) -> Decimal:
    """Return unrealized + realized + income - fees over the whole ledger, to the cent."""
    sum_of_all = D(0)
    for one in book.positions.values():
        unrealized = one.qty * D(marks[one.symbol]) - one.cost_basis if one.qty else D(0)
        sum_of_all += unrealized + one.realized_pnl + one.income - one.fees
    return rounded_money(sum_of_all)


def realized(book: Book) -> Decimal:
    return rounded_money(sum((one.realized_pnl for one in book.positions.values()), D(0)))


async def take(mirrored: MirroredLedger, activities: Iterable[Activity]) -> None:
    """Let one round report these activities."""
    await mirrored.carry_out([RecordActivity(one) for one in activities])
    await mirrored.apply_activities()


def rounds_of(scenario: ShareScenario, way: str) -> list[list[Activity]]:
    entries = list(scenario.activities)
    match way:
        case "at once":
            return [entries, []]
        case "reversed, one by one":
            return [[one] for one in reversed(entries)]
        case "one by one":
            return [[one] for one in entries]
        case _:
            Random(7).shuffle(entries)
            return [entries[:2], [], entries[2:], entries]


WAYS = ("at once", "one by one", "reversed, one by one", "shuffled and repeated")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", SHARE_SCENARIOS, ids=lambda one: one.name)
async def test_the_whole_is_cash_and_market_value(ledger: Ledger, scenario: ShareScenario, way: str) -> None:
    for one in scenario.fills:
        await ledger.record_fill(one)
    mirrored = MirroredLedger(ledger)
    for activities in rounds_of(scenario, way):
        await take(mirrored, activities)
    assert (mirrored.applied.waiting, mirrored.applied.unhandled) == ((), ())
    await hold(ledger, scenario)
    # After a restart everything is reported once more.
    again = MirroredLedger(ledger)
    await take(again, scenario.activities)
    await take(again, ())
    await hold(ledger, scenario)


async def hold(ledger: Ledger, scenario: ShareScenario) -> None:
    book = await ledger.book()
    assert (total(book, scenario.marks), realized(book)) == (D(scenario.total), D(scenario.realized))
    costs = {one.symbol: (one.qty, rounded_money(one.cost_basis)) for one in book.open_positions}
    assert costs | {symbol: (D(qty), D(cost)) for symbol, (qty, cost) in scenario.held.items()} == costs
    assert {one.symbol for one in book.open_positions} == scenario.marks.keys()


def position(symbol: str, qty: str, average: str) -> AccountPosition:
    return AccountPosition(symbol, "us_equity", D(qty), D(average), D(qty) * D(average))


class Account:
    """A mirror's rounds: each reads the positions, reconciles, and takes activities."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.mirrored = MirroredLedger(ledger)
        self.reconciler = Reconciler(patience=3 * MINUTE)
        self.minute = 0

    async def read(self, *positions: AccountPosition, minutes: int = 1) -> Outcome:
        """Read these positions once a minute."""
        for _ in range(minutes):
            self.minute += 1
            now = NOW + self.minute * MINUTE
            book = await self.ledger.book()
            circumstances = Circumstances(
                now,
                now - timedelta(seconds=5),
                unhandled=self.mirrored.applied.doubtful_symbols,
                awaiting_cost=symbols_awaiting_cost(self.mirrored.applied.waiting),
                appeared=lately_appeared(book, now),
            )
            outcome = self.reconciler.take(our_positions(book, now), PositionsAnswer(positions, ()), circumstances)
            await self.mirrored.carry_out((), numbered(outcome.adjustments, book))
        return outcome

    async def holds(self, *, marks: Mapping[str, str], all_in_all: str, realized_so_far: str = "0") -> Book:
        book = await self.ledger.book()
        assert (total(book, marks), realized(book)) == (D(all_in_all), D(realized_so_far))
        return book


SEM, CON = position("SEM", "100", "11.9203"), position("CON", "80.6971", "12.8328")


class TestPositionsBeforeActivities:
    """The account shows a spin-off long before its activities come: never a realized loss meanwhile."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("restarts", [False, True])
    async def test_the_positions_first(self, ledger: Ledger, way: str, restarts: bool) -> None:
        await ledger.record_fill(SPUN_OFF.fills[0])
        account = Account(ledger)
        await account.read(SEM, CON, minutes=40)
        book = await account.holds(marks=SPUN_OFF.marks, all_in_all="-0.26")
        assert [(one.symbol, one.qty) for one in book.open_positions] == [("CON", D("80.6971")), ("SEM", 100)]
        for activities in rounds_of(SPUN_OFF, way):
            if restarts:
                account = Account(ledger)
                activities = [*SPUN_OFF.activities[: 1 + len(activities)]]  # noqa: PLW2901 - the deep catch-up tells all
            await take(account.mirrored, activities)
            await account.read(SEM, CON, minutes=2)
            await account.holds(marks=SPUN_OFF.marks, all_in_all="-0.26")
        await take(account.mirrored, SPUN_OFF.activities)
        outcome = await account.read(SEM, CON, minutes=20)
        await account.holds(marks=SPUN_OFF.marks, all_in_all="-0.26")
        assert all(one.is_explained for one in outcome.differences)
        page = await ledger.adjustments.page(50)
        assert {one.adjustment.kind for one in page.adjustments if one.voided_at is None} == {"spin_off"}

    async def test_the_cost_changes_first(self, ledger: Ledger) -> None:
        await ledger.record_fill(SPUN_OFF.fills[0])
        account = Account(ledger)
        await account.read(SEM, minutes=12)
        await account.read(SEM, CON, minutes=30)
        await account.holds(marks=SPUN_OFF.marks, all_in_all="-0.26")

    async def test_the_new_shares_come_first(self, ledger: Ledger) -> None:
        await ledger.record_fill(SPUN_OFF.fills[0])
        account = Account(ledger)
        await account.read(position("SEM", "100", "22.276"), CON, minutes=12)
        await account.read(SEM, CON, minutes=30)
        await account.holds(marks=SPUN_OFF.marks, all_in_all="-0.26")
        await take(account.mirrored, SPUN_OFF.activities)
        await account.holds(marks=SPUN_OFF.marks, all_in_all="-0.26")

    async def test_a_holding_of_the_new_company_grows(self, ledger: Ledger) -> None:
        for one in (SPUN_OFF.fills[0], bought(5, 10, 10, "CON")):
            await ledger.record_fill(one)
        account = Account(ledger)
        grown = AccountPosition("CON", "us_equity", D("90.6971"), D("12.6"), D("1135.57"))
        await account.read(SEM, grown, minutes=30)
        # -2,227.60 - 100 + 1,192 + 90.6971 * 12.83
        await account.holds(marks=SPUN_OFF.marks, all_in_all="28.04")

    async def test_a_fraction_is_left_out(self, ledger: Ledger) -> None:
        await ledger.record_fill(SPUN_OFF.fills[0])
        account = Account(ledger)
        whole = position("CON", "80", "12.8328")
        await account.read(SEM, whole, minutes=17)
        # The cost of the fraction is with the whole shares until cash is paid for it.
        await account.holds(marks=SPUN_OFF.marks, all_in_all="-9.20")

    async def test_shares_that_fit_nothing_are_not_taken_for_a_loss(self, ledger: Ledger) -> None:
        await ledger.record_fill(SPUN_OFF.fills[0])
        account = Account(ledger)
        outcome = await account.read(SEM, position("XYZ", "10", "500"), minutes=60)
        assert [one.is_explained for one in outcome.differences] == [False, False]
        assert realized(await ledger.book()) == 0

    async def test_taken_back_in_the_positions(self, ledger: Ledger) -> None:
        await ledger.record_fill(SPUN_OFF.fills[0])
        account = Account(ledger)
        await account.read(SEM, CON, minutes=40)
        await account.read(position("SEM", "100", "22.276"), minutes=40)
        await account.holds(marks={"SEM": "22"}, all_in_all="-27.60")

    async def test_taken_back_in_the_activities(self, ledger: Ledger) -> None:
        await ledger.record_fill(SPUN_OFF.fills[0])
        account = Account(ledger)
        await take(account.mirrored, SPUN_OFF.activities)
        await account.holds(marks=SPUN_OFF.marks, all_in_all="-0.26")
        await take(account.mirrored, [replace(one, status="canceled") for one in SPUN_OFF.activities])
        await account.holds(marks={"SEM": "22"}, all_in_all="-27.60")


async def test_what_does_not_agree_is_named_and_booked_nowhere(ledger: Ledger) -> None:
    for one in SPLIT_AFTER_A_SALE.fills:
        await ledger.record_fill(one)
    mirrored = MirroredLedger(ledger)
    entries = [replace(one, qty=qty) for one, qty in zip(SPLIT_AFTER_A_SALE.activities, (D(-95), D(950)), strict=True)]
    await take(mirrored, entries)
    (held,) = (await ledger.book()).open_positions
    assert held.qty == 90
    # What is reported later does not make it forgotten.
    await take(mirrored, [Activity("fee", "FEE", entries[0].date, net_amount=D(-1))])
    await take(mirrored, [])
    assert [(one.activity.symbol, one.activity.activity_id) for one in mirrored.applied.unresolved] == [
        ("SPL", "1"),
        ("SPL", "2"),
    ]
    view = AccountView(
        MirrorHealth.IN_STEP, "PA1", NOW, NOW, LinkState.STREAMING, None, (), (), mirrored.applied.unresolved
    )
    assert view.unresolved_symbols == {"SPL"}
    (reason,) = account_reasons(view)
    assert reason.code == "activities_unresolved"
    assert "SPL, SPLIT 1: the shares before the split" in reason.detail
    # The fill that it was short of comes late; then the split is what its entries say.
    await ledger.record_fill(bought(10, -5, 1000, "SPL"))
    await take(mirrored, [])
    assert mirrored.applied.unresolved == ()
    (held,) = (await ledger.book()).open_positions
    assert held.qty == 940


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_stock_dividend_follows_the_shares_that_the_broker_corrects(ledger: Ledger, is_restarted: bool) -> None:
    await ledger.record_fill(bought(5, 100, 10, "SYM"))
    mirrored = MirroredLedger(ledger)
    # -1,000 + shares * 9; at first 112 * 9.
    for added, status, expected in (
        ("12", None, "8.00"),
        ("10", None, "-10.00"),
        ("10", None, "-10.00"),
        ("10", "canceled", "-100.00"),
        ("12", "executed", "8.00"),
    ):
        if is_restarted:
            mirrored = MirroredLedger(ledger)
        paid = Activity("1", "DIV", NOW.date(), "SYM", D(added), net_amount=D(0), status=status, sub_kind="SDIV")
        await take(mirrored, [paid])
        book = await ledger.book()
        (held,) = book.open_positions
        assert held.qty == (D(100) if status == "canceled" else 100 + D(added)), (added, status)
        assert (total(book, {"SYM": "9"}), realized(book), held.cost_basis) == (D(expected), 0, 1000)
