"""Whatever moves shares, in whatever order it is reported: all gains are cash and market value, to the cent."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.broker.activity_results import Applied, HeldBefore, Known
from libs.broker.corporate_actions import apply_activities
from libs.broker.executions import Activity
from libs.broker.reconcile import OurPosition
from libs.portfolio.adjustments import Adjustment
from libs.portfolio.book import Book
from libs.portfolio.days import day_start
from libs.portfolio.entries import Arrival
from libs.portfolio.fills import Fill
from libs.portfolio.folding import News, Voiding, advance
from tests.libs.broker.share_scenarios import ADD, DAY, REMOVE, booked, bought
from tests.support.portfolio import arrive

D = Decimal
CENT = D("0.01")


@dataclass
class Story:
    """What happens to an account, with its cash and shares as one would keep them on paper."""

    dice: Random
    fills: list[Fill] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)
    cash: Decimal = Decimal(0)
    shares: dict[str, Decimal] = field(default_factory=dict)

    def trade(self, symbol: str, days_before: int, qty: Decimal, price: Decimal) -> None:
        self.fills.append(bought(days_before, qty, price, symbol))
        self.cash -= qty * price
        self.shares[symbol] = self.shares.get(symbol, D(0)) + qty

    def book(self, kind: str, symbol: str, qty: Decimal | None, **fields: object) -> None:
        name = f"a{len(self.activities):03}"
        self.activities.append(Activity(name, kind, DAY, symbol, qty=qty, **fields))  # type: ignore[arg-type]
        self.shares[symbol] = self.shares.get(symbol, D(0)) + (qty or 0)
        paid = fields.get("net_amount")
        self.cash += paid if isinstance(paid, Decimal) else D(0)

    def happen(self, symbol: str, what: str) -> None:
        dice, held = self.dice, self.shares[symbol]
        sign, kid = (1 if held > 0 else -1), f"{symbol}K"
        if what == "spin-off":
            before, kids = D(dice.randint(200, 999)) / 10, sign * D(dice.randint(1, 50))
            # The part of the cost that leaves is a round sum, so that four decimals of price name it exactly.
            moved = abs(held) * before / 4
            self.book("SPIN", symbol, -held, price=before, description="REMOVE")
            self.book("SPIN", symbol, held, price=before * 3 / 4, description="ADD")
            self.book("SPIN", kid, kids, price=(moved / abs(kids)).quantize(D("0.0001")))
        elif what == "merger":
            self.book("MA", symbol, -held, price=D(7), description=f"{symbol} merged")
            self.book("MA", kid, held * 2, price=D(3), description=f"{symbol} merged")
            if dice.random() < 0.5:
                self.book("MA", kid, None, net_amount=sign * D(dice.randint(1, 999)), description=f"{symbol} merged")
        elif what == "cash merger":
            self.book("MA", symbol, -held, description=f"{symbol} sold")
            self.book("MA", symbol, None, net_amount=held * 9, description=f"{symbol} proceeds")
        elif what == "worthless":
            self.book("REORG", symbol, -held, net_amount=D(0), description="Worthless Removal")
        elif what == "stock dividend":
            self.book("DIV", symbol, held / 5, net_amount=D(0), per_share_amount=D("1.12"))
        elif what == "split":
            self.book("SPLIT", symbol, -held, description=f"REMOVE, From QTY:{held}, To QTY:{held * 3}")
            self.book("SPLIT", symbol, held * 3, description=f"ADD, From QTY:{held}, To QTY:{held * 3}")


WHATS = ("spin-off", "merger", "cash merger", "worthless", "stock dividend", "split", "nothing")


def tell(seed: int) -> Story:
    story = Story(Random(seed))
    dice = story.dice
    for number in range(dice.randint(1, 4)):
        symbol = f"S{chr(65 + number)}"
        sign = dice.choice((1, 1, -1))
        for days_before in range(20, 20 - dice.randint(1, 3), -1):
            story.trade(symbol, days_before, sign * D(dice.randint(1, 40)) * 5, D(dice.randint(1, 9999)) / 100)
        if dice.random() < 0.4 and abs(story.shares[symbol]) > 5:
            story.trade(symbol, 5, -sign * D(5), D(dice.randint(1, 9999)) / 100)
        story.happen(symbol, dice.choice(WHATS))
    return story


class PaperLedger:
    """The ledger in memory: what is recorded under an id stands."""

    def __init__(self, fills: Sequence[Fill]) -> None:
        self.book = advance(Book(), arrive(fills))
        self.recorded: set[str] = set()
        self.adjustments: list[Adjustment] = []
        self.waiting: tuple[Activity, ...] = ()
        self.applied = Applied()

    def held(self) -> HeldBefore:
        def held(symbol: str, day: date) -> OurPosition:
            position = self.book.position_before(symbol, day_start(day))
            return OurPosition(position.qty, position.cost_basis)

        return held

    def take(self, activities: Sequence[Activity]) -> None:
        known = Known({one.activity_id for one in self.waiting}, self.recorded)
        self.applied = apply_activities((*self.waiting, *activities), self.held(), known)
        for gone in self.recorded.intersection(self.applied.undone):
            symbol = next(one.symbol for one in self.adjustments if one.adjustment_id == gone)
            seq = self.book.revision.adjustment_voids + 1
            self.book = advance(self.book, News(adjustment_voids=[Voiding(seq, gone, symbol)]))
            self.recorded.remove(gone)
        new = [one for one in self.applied.adjustments if one.adjustment_id not in self.recorded]
        self.recorded |= {one.adjustment_id for one in new}
        self.adjustments += new
        first = self.book.revision.adjustments + 1
        self.book = advance(self.book, News(adjustments=[Arrival(seq, one) for seq, one in enumerate(new, first)]))
        self.waiting = self.applied.waiting


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.integers(0, 2**32 - 1))
def test_the_whole_is_cash_and_market_value_in_any_order_and_rounds(seed: int, order: int) -> None:
    story, dice = tell(seed), Random(order)
    ledger = PaperLedger(story.fills)
    activities = list(story.activities)
    dice.shuffle(activities)
    while activities:
        size = dice.randint(1, len(activities))
        ledger.take(activities[:size])
        activities = activities[size:]
    for _ in range(2):
        ledger.take(())
    # A restart reports all of them again.
    ledger.take(story.activities)
    assert ledger.applied.unhandled == ()
    ledger.take(())
    assert ledger.applied.waiting == ledger.applied.unhandled == ()
    shares = {symbol: qty for symbol, qty in story.shares.items() if qty}
    assert {one.symbol: one.qty for one in ledger.book.open_positions} == shares
    marks = {symbol: D(dice.randint(1, 99_999)) / 100 for symbol in shares}
    gains = D(0)
    for one in ledger.book.positions.values():
        unrealized = one.qty * marks[one.symbol] - one.cost_basis if one.qty else D(0)
        gains += unrealized + one.realized_pnl + one.income - one.fees
    assert abs(gains - story.cash - sum(qty * marks[symbol] for symbol, qty in shares.items())) < CENT


LATE_PARTS = {
    "shares and cash for shares": (
        (bought(5, 100, "6.04", "ABC"),),
        [
            booked("1", "REO", "ABC", -100, "6.04", sub_kind="REOSC"),
            booked("2", "REO", "ABC", 500, "1.208", sub_kind="REOSC"),
            Activity("3", "REO", DAY, "ABC", net_amount=D(995), sub_kind="REOSC"),
        ],
        # -604 + 995 + 500 * 1.50
        {"ABC": (D(500), D("1.5"))},
        D(1141),
    ),
    "rights that are exercised": (
        (bought(5, 10, 1, "RGT"),),
        [booked("1", "VOF", "RGT", -10), booked("2", "VOF", "SYM", 10, net_amount=-50)],
        # -10 - 50 + 90
        {"SYM": (D(10), D(9))},
        D(30),
    ),
    "a split of two entries that say nothing": (
        (bought(5, 105, 10, "SYM"),),
        [
            booked("1", "SPLIT", "SYM", -105),
            booked("2", "SPLIT", "SYM", 10),
            Activity("3", "CIL", DAY, "SYM", net_amount=D(55)),
        ],
        # -1,050 + 55 + 1,100
        {"SYM": (D(10), D(110))},
        D(105),
    ),
    "option contracts and cash for option contracts": (
        (bought(5, 1, 1000, "AAPL251219C00400000"),),
        [
            booked("1", "OPCA", "AAPL251219C00400000", -1),
            booked("2", "OPCA", "AAPL1251219C00400000", 1),
            Activity("3", "OPCA", DAY, "AAPL251219C00400000", net_amount=D(50)),
        ],
        # -1,000 + 50 + 900
        {"AAPL1251219C00400000": (D(1), D(900))},
        D(-50),
    ),
    "a spin-off": (
        (bought(5, 100, 10, "SYM"),),
        [
            booked("1", "SPIN", "SYM", -100, 10, description=REMOVE),
            booked("2", "SPIN", "SYM", 100, 8, description=ADD),
            booked("3", "SPIN", "KID", 10, 20),
        ],
        {"SYM": (D(100), D(8)), "KID": (D(10), D(21))},
        D(10),
    ),
}


@pytest.mark.parametrize("name", LATE_PARTS)
@pytest.mark.parametrize("rounds_between", [0, 2])
def test_no_order_of_the_entries_loses_or_doubles_a_cost(name: str, rounds_between: int) -> None:
    """Each entry in a round of its own, with so many empty rounds between: what was read too early is mended."""
    fills, entries, held, total = LATE_PARTS[name]
    for order in permutations(entries):
        ledger = PaperLedger(fills)
        for one in order:
            ledger.take([one])
            for _ in range(rounds_between):
                ledger.take(())
        for _ in range(2):
            ledger.take(())
            ledger.take(entries)
        assert {one.symbol: one.qty for one in ledger.book.open_positions} == {
            symbol: qty for symbol, (qty, _) in held.items()
        }, order
        gains = D(0)
        for one in ledger.book.positions.values():
            unrealized = one.qty * held[one.symbol][1] - one.cost_basis if one.qty else D(0)
            gains += unrealized + one.realized_pnl + one.income - one.fees
        assert abs(gains - total) < CENT, order
