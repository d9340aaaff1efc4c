"""What the account's activities come to in a real ledger, round by round."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway.adjustment_ledger import AdjustmentNotFoundError
from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.mirrored_ledger import MirroredLedger
from libs.broker.account_messages import read_activities
from libs.broker.cash_journal import total_of
from libs.broker.commands import RecordActivity, RecordExecution
from libs.broker.executions import Activity
from libs.market_data.freshness import UNAVAILABLE
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.cash import booked_cash
from libs.portfolio.pnl import ClosedPnl
from libs.portfolio.positions import Position
from libs.portfolio.valuation import Valuable, value_positions
from tests.support.portfolio import fill

D = Decimal
NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)
MONDAY = date(2025, 10, 20)
FRIDAY_NOON = datetime(2025, 10, 17, 16, tzinfo=UTC)


@pytest.fixture
def ledger(engine: AsyncEngine) -> Ledger:
    return Ledger(engine, now=lambda: NOW)


async def take(mirrored: MirroredLedger, *activities: Activity) -> None:
    """Let one round tell these activities."""
    await mirrored.carry_out([RecordActivity(one) for one in activities])
    await mirrored.apply_activities()


async def apple(ledger: Ledger) -> Position:
    return (await ledger.book()).positions["AAPL"]


async def test_a_dividend_counts_once_paid_and_no_longer_once_taken_back(ledger: Ledger) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON))
    mirrored = MirroredLedger(ledger)
    pending = Activity("d1", "DIV", MONDAY, "AAPL", net_amount=D(5), status="pending")
    expected = {"pending": 0, "executed": 5, "canceled": 0}
    for status, income in expected.items():
        await take(mirrored, replace(pending, status=status))
        assert (await apple(ledger)).income == income


@pytest.mark.parametrize("kind", ["FEE", "CFEE", "REG", "TAF", "CAT", "PTC"])
async def test_a_regulatory_fee_of_no_symbol_is_in_the_total_of_the_fees(ledger: Ledger, kind: str) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON, fee=D(1)))
    await take(MirroredLedger(ledger), Activity("f1", kind, MONDAY, net_amount=D("-0.02")))
    book = await ledger.book()
    day = {"AAPL": book.day(MONDAY)["AAPL"]}
    rows = [Valuable(book.positions["AAPL"], day["AAPL"], UNAVAILABLE, None, None)]
    closed = ClosedPnl(book.closed.realized, book.closed.fees, book.closed.income)
    totals = value_positions(rows, closed).totals
    assert (totals.total_fees, totals.closed.fees) == (D("1.02"), D("0.02"))


async def test_half_of_a_split_waits_a_round_and_the_split_is_recorded_once(ledger: Ledger) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON))
    new, old = Activity("s2", "SPLIT", MONDAY, "AAPL", D(20)), Activity("s1", "SPLIT", MONDAY, "AAPL", D(-10))
    mirrored = MirroredLedger(ledger)
    await take(mirrored, new)
    assert ((await apple(ledger)).qty, mirrored.applied.waiting) == (10, (new,))
    await take(mirrored, old)
    assert ((await apple(ledger)).qty, mirrored.applied.waiting) == (20, ())
    await take(MirroredLedger(ledger), old, new)
    assert (await apple(ledger)).qty == 20


async def test_an_entry_that_stays_alone_is_the_whole_split(ledger: Ledger) -> None:
    await ledger.record_fill(fill(10, 100, filled_at=FRIDAY_NOON))
    new, old = Activity("s2", "SPLIT", MONDAY, "AAPL", D(20)), Activity("s1", "SPLIT", MONDAY, "AAPL", D(-10))
    mirrored = MirroredLedger(ledger)
    await take(mirrored, new)
    await take(mirrored)
    assert (await apple(ledger)).qty == 30
    await take(MirroredLedger(ledger), old, new)
    assert (await apple(ledger)).qty == 20, "taken back when its other half comes, however late"


@pytest.mark.parametrize("is_cash_late", [False, True])
async def test_a_fraction_paid_in_cash_is_taken_out_once(ledger: Ledger, is_cash_late: bool) -> None:
    await ledger.record_fill(fill(15, 100, filled_at=FRIDAY_NOON))
    pair = (Activity("s1", "SPLIT", MONDAY, "AAPL", D(-15)), Activity("s2", "SPLIT", MONDAY, "AAPL", D(1)))
    paid = Activity("c1", "CIL", MONDAY, "AAPL", net_amount=D(700))
    mirrored = MirroredLedger(ledger)
    await take(mirrored, *pair, *(() if is_cash_late else (paid,)))
    await take(mirrored, *((paid,) if is_cash_late else ()))
    position = await apple(ledger)
    # Without the cash the ratio must be 1:15, and nothing of a fraction is known.
    assert (position.qty, position.cost_basis, position.realized_pnl) == (
        (1, 1500, 700) if is_cash_late else (1, 1000, 200)
    )
    await take(MirroredLedger(ledger), *pair, paid)
    assert await apple(ledger) == position


class TestCash:
    """What the cash of activities comes to, round by round and over restarts."""

    UNKNOWN = Activity("u1", "WARP", MONDAY, "AAPL", net_amount=D(995))

    async def test_an_unknown_kind_stays_unclassified_over_rounds_and_restarts(self, ledger: Ledger) -> None:
        for _ in range(2):
            mirrored = MirroredLedger(ledger)
            await mirrored.open_journal()
            await take(mirrored, self.UNKNOWN)
            await take(mirrored, self.UNKNOWN)
            book = await ledger.book()
            assert [(one.symbol, one.amount) for one in book.unclassified] == [("AAPL", 995)]
            assert total_of(mirrored.journal.values()) == 995
            assert book.closed == (0, 0, 0)

    @pytest.mark.parametrize(
        ("kind", "closed"),
        [
            (AdjustmentKind.INCOME, (0, 0, 995)),
            (AdjustmentKind.FEE, (0, -995, 0)),
            (AdjustmentKind.CASH_IN_LIEU, (995, 0, 0)),
            (AdjustmentKind.CASH, (0, 0, 0)),
        ],
    )
    async def test_what_somebody_classifies_is_so_from_then_on(self, ledger: Ledger, kind, closed) -> None:
        await take(MirroredLedger(ledger), self.UNKNOWN)
        for named in ("u1", "activity:u1"):
            await ledger.adjustments.classify(named, kind)
            await take(MirroredLedger(ledger), self.UNKNOWN)
            book = await ledger.book()
            assert (book.unclassified, book.closed) == ((), closed)
        # Another class takes its place; what the broker changes keeps the class; what it takes back is gone.
        await ledger.adjustments.classify("u1", AdjustmentKind.INCOME)
        await take(MirroredLedger(ledger), replace(self.UNKNOWN, net_amount=D(900)))
        assert (await ledger.book()).closed == (0, 0, 900)
        await take(MirroredLedger(ledger), replace(self.UNKNOWN, status="canceled"))
        assert ((await ledger.book()).closed, (await ledger.book()).unclassified) == ((0, 0, 0), ())

    @pytest.mark.parametrize("asset_class", ["crypto", None])
    async def test_a_coin_is_one_under_both_of_its_names(self, ledger: Ledger, asset_class) -> None:
        """Bought at 20,000 under one, a fee of 0.00025 at 60,000 taken, the rest sold at 30,000 under the other."""
        fields = {"asset_class": asset_class} if asset_class else {}
        bought, sold = (
            {"activity_type": "FILL", "id": f"1::{side}", "side": side, "qty": qty, "price": price, "symbol": symbol,
             "transaction_time": time, **fields}
            for side, qty, price, symbol, time in (
                ("buy", "1", "20000", "BTCUSD", "2025-10-17T15:00:00Z"),
                ("sell", "0.99975", "30000", "BTC/USD", "2025-10-20T15:00:00Z"),
            )
        )  # fmt: skip
        fee = {"activity_type": "CFEE", "id": "c1", "date": "2025-10-20", "symbol": "BTCUSD", "qty": "-0.00025",
               "price": "60000", "net_amount": "0"}  # fmt: skip
        page = read_activities(msgspec.json.encode([bought, sold, fee]))
        mirrored = MirroredLedger(ledger)
        await mirrored.carry_out([RecordExecution(one) for one in page.executions])
        await take(mirrored, *page.activities)
        book = await ledger.book()
        assert [*book.positions] == ["BTC/USD"]
        position = book.positions["BTC/USD"]
        assert (position.qty, position.fees) == (0, 15)
        # In 29,992.50, out 20,000: what is realized less the fee.
        assert position.realized_pnl - position.fees == D("9992.50")

    async def test_only_what_was_unclassified_can_be_classified(self, ledger: Ledger) -> None:
        await take(MirroredLedger(ledger), Activity("d1", "DIV", MONDAY, "AAPL", net_amount=D(5)))
        for named in ("d1", "u1", "x" * 300):
            with pytest.raises(AdjustmentNotFoundError):
                await ledger.adjustments.classify(named, AdjustmentKind.FEE)

    @pytest.mark.parametrize("kind", ["DIV", "FEE", "INT", "WARP", "OPCSH", "REORG"])
    async def test_what_the_broker_changes_or_takes_back_is_followed(self, ledger: Ledger, kind: str) -> None:
        mirrored = MirroredLedger(ledger)
        story = [("10", None, 10), ("12.34", None, "12.34"), ("12.34", "canceled", 0), ("12.34", "executed", "12.34")]
        for amount, status, expected in [*story, ("10", None, 10), ("10", "reversed", 0)]:
            await take(mirrored, Activity("a1", kind, MONDAY, "AAPL", net_amount=D(amount), status=status))
            booked = [arrival for arrival in await counting(ledger) if arrival.amount]
            assert [booked_cash(one) for one in booked] == ([D(expected)] if expected else []), (amount, status)
            assert total_of(mirrored.journal.values()) == D(expected)
            reopened = MirroredLedger(ledger)
            await reopened.open_journal()
            assert reopened.journal == mirrored.journal

    @pytest.mark.parametrize("at_once", [True, False])
    async def test_cash_of_a_merger_told_the_day_after_the_shares_left(self, ledger: Ledger, at_once: bool) -> None:
        await ledger.record_fill(fill(100, "6.04", filled_at=FRIDAY_NOON))
        mirrored = MirroredLedger(ledger)
        left = Activity("m1", "MA", MONDAY, "AAPL", D(-100), D(0))
        paid = Activity("m2", "MA", date(2025, 10, 21), "AAPL", net_amount=D(995))
        for told in ([left, paid], [paid]) if at_once else ([left], [paid], [left, paid]):
            await take(mirrored, *told)
        # 995.00 for what had cost 604.00.
        assert ((await apple(ledger)).qty, (await apple(ledger)).realized_pnl) == (0, 391)


async def counting(ledger: Ledger) -> list[Adjustment]:
    page = await ledger.adjustments.page(100)
    return [one.adjustment for one in page.adjustments if one.voided_at is None]
