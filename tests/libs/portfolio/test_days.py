"""What a day did: New York dates, and the identity that holds it to the change of equity, to the last digit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.market_data.freshness import ClosingPrice
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.closes import SessionDates, day_closes, needed_closes
from libs.portfolio.days import day_gain, day_start
from libs.portfolio.entries import Entry
from libs.portfolio.fills import EXACT, ZERO, Fill
from libs.portfolio.folding import News, Voiding, advance
from libs.portfolio.positions import fold_fills
from tests.support.portfolio import OPENING, adjustment, arrive, book_of, day_activity, fill, fill_lists

# `make test-deep` loads a profile of many more.
EXAMPLES = 2_000 if settings.default is not None and settings.default.max_examples < 1_000 else 100_000
MONDAY, TUESDAY = date(2025, 10, 20), date(2025, 10, 21)
DATES = SessionDates(TUESDAY, MONDAY, MONDAY)
SYMBOLS = ("A", "B", "C")


def exact_sum(numbers: list[Decimal]) -> Decimal:
    total = ZERO
    for number in numbers:
        total = EXACT.add(total, number)
    return total


def test_a_day_is_new_yorks() -> None:
    day = date(2025, 10, 20)
    before = fill(100, 150, filled_at=datetime(2025, 10, 20, 3, 59, 59, 999999, tzinfo=UTC), fee=Decimal(9))
    first = fill(-30, 160, filled_at=datetime(2025, 10, 20, 4, tzinfo=UTC), fee=Decimal(1))
    weekend = fill(10, 155, filled_at=datetime(2025, 10, 25, 12, tzinfo=UTC), fee=Decimal(2))
    activity = day_activity([first, before, weekend], day)
    assert activity.overnight_qty == 100
    assert activity.net_cost == -30 * 160 + 10 * 155
    assert activity.fees == 3


def test_winter_time_moves_the_days_start() -> None:
    late = fill(1, 1, filled_at=datetime(2025, 11, 10, 4, 30, tzinfo=UTC))
    assert day_activity([late], date(2025, 11, 10)).overnight_qty == 1
    assert day_activity([late], date(2025, 11, 9)).overnight_qty == 0


@given(fills=fill_lists())
def test_overnight_and_todays_shares_are_all_shares(fills: list[Fill]) -> None:
    activity = day_activity(fills, date(2025, 10, 21))
    since = [one.signed_qty for one in fills if one.filled_at >= datetime(2025, 10, 21, 4, tzinfo=UTC)]
    assert exact_sum([activity.overnight_qty, *since]) == fold_fills(fills).qty


def test_a_day_is_the_whole_of_its_parts() -> None:
    history = [
        fill(100, 50, fill_id="1", filled_at=OPENING - timedelta(days=5)),
        adjustment(AdjustmentKind.SPLIT, day_start(TUESDAY), ratio_new=4, ratio_old=1),
        adjustment(AdjustmentKind.DIVIDEND, day_start(TUESDAY), amount="12.50", adjustment_id="d"),
        fill(-100, 14, fill_id="2", fee=Decimal(1), filled_at=OPENING + timedelta(days=1)),
    ]
    day = book_of(*history).day(TUESDAY)["AAPL"]
    assert [(one.symbol, one.qty) for one in day.overnight] == [("AAPL", 100)]
    assert day.overnight_qty == 400
    assert (day.net_cost, day.fees, day.income, day.realized) == (-1400, 1, Decimal("12.50"), 150)
    # 100 shares at 52 became 300 at 13.5 and 1,400 in cash.
    assert day_gain(day, Decimal(4050), Decimal(5200)) == 4050 + 1400 - 5200 - 1 + Decimal("12.50")


class Closes:
    """Closing prices of one session."""

    def __init__(self, prices: Mapping[str, Decimal]) -> None:
        self.prices = prices

    def close(self, symbol: str, session: date) -> ClosingPrice | None:
        assert session == MONDAY
        return ClosingPrice(self.prices[symbol], session) if symbol in self.prices else None


@dataclass
class Account:
    """An account as one would keep it on paper: shares and cash, in fractions; shares none of the ledger's code.

    `external` is what came from outside: the cost at which shares were transferred in, less that of those moved out.
    With `closes`, the prices of the night before, shares that cross the edge count at those instead. A name that was
    given up has none any more: who has it now is another company, and a day with shares of it that cross is unknown.
    """

    cash: Fraction = Fraction(0)
    external: Fraction = Fraction(0)
    shares: dict[str, Fraction] = field(default_factory=dict)
    closes: dict[str, Fraction | None] | None = None
    is_day_unknown: bool = False

    def gained(self, prices: Mapping[str, Decimal]) -> Fraction:
        """Return the equity at these prices less what came from outside."""
        equity = self.cash + sum(qty * Fraction(prices[symbol]) for symbol, qty in self.shares.items())
        return equity - self.external

    def take(self, entry: Entry) -> None:
        symbol = entry.symbol
        if isinstance(entry, Fill):
            sign = 1 if entry.side.value == "buy" else -1
            self.shares[symbol] = self.shares.get(symbol, Fraction(0)) + sign * Fraction(entry.qty)
            self.cash -= sign * Fraction(entry.qty) * Fraction(entry.price) + Fraction(entry.fee)
        else:
            self.adjust(entry)

    def adjust(self, entry: Adjustment) -> None:  # noqa: C901 - one case for each kind
        symbol, amount = entry.symbol, Fraction(entry.amount or 0)
        match entry.kind:
            case AdjustmentKind.DIVIDEND | AdjustmentKind.CASH_IN_LIEU:
                self.cash += amount
            case AdjustmentKind.FEE:
                self.cash -= amount
            case AdjustmentKind.TRANSFER:
                self.shares[symbol] = self.shares.get(symbol, Fraction(0)) + Fraction(entry.qty or 0)
                # Cost alone is no money, unless there is nothing that it could be the cost of.
                if entry.qty and self.closes is not None:
                    close = self.closes[symbol]
                    self.is_day_unknown |= close is None
                    amount = Fraction(entry.qty) * (close or 0)
                self.external += amount if entry.qty or not self.shares[symbol] else 0
            case AdjustmentKind.MOVE:
                self.shares[symbol] = self.shares.get(symbol, Fraction(0)) + Fraction(entry.qty or 0)
                self.external += amount
            case AdjustmentKind.SPIN_OFF:
                new = str(entry.new_symbol)
                self.shares[new] = self.shares.get(new, Fraction(0)) + Fraction(entry.qty or 0)
            case AdjustmentKind.SYMBOL_CHANGE:
                moved, new = self.shares.pop(symbol, Fraction(0)), str(entry.new_symbol)
                if self.closes is not None:
                    if not self.shares.get(new):
                        self.closes[new] = self.closes[symbol]
                    self.closes[symbol] = None
                self.shares[new] = self.shares.get(new, Fraction(0)) + moved
            case AdjustmentKind.SPLIT:
                exact = (
                    self.shares.get(symbol, Fraction(0))
                    * Fraction(entry.ratio_new or 1)
                    / Fraction(entry.ratio_old or 1)
                )
                kept = Fraction(int(exact * 10**9), 10**9)
                self.shares[symbol] = kept
                if self.closes is not None and (close := self.closes[symbol]) is not None:
                    self.closes[symbol] = close * Fraction(entry.ratio_old or 1) / Fraction(entry.ratio_new or 1)
                self.cash += Fraction(round((exact - kept) * amount * 10**12), 10**12)


def history(dice: Random) -> list[Entry]:
    """Make up entries on the day and before: trades with fees, fractions, shorts, flips, and every adjustment."""
    entries: list[Entry] = []
    for number in range(dice.randint(1, 14)):
        days = dice.choice((-3, -1, 0, 0, 1, 1, 1))
        at = OPENING + timedelta(days=days, minutes=dice.randint(0, 300))
        symbol = dice.choice(SYMBOLS)
        qty = Decimal(dice.randint(1, 9_000_000_000)).scaleb(dice.choice((-9, -8, -4, 0)))
        price = Decimal(dice.randint(1, 99_999)).scaleb(dice.choice((-4, -2)))
        what = dice.random()
        if what < 0.6:
            signed = qty.copy_negate() if dice.random() < 0.45 else qty
            fee = Decimal(dice.randint(0, 500)).scaleb(-2)
            entries.append(fill(signed, price, fill_id=f"f{number}", symbol=symbol, fee=fee, filled_at=at))
            continue
        start, known = day_start(at.date()), {"adjustment_id": f"a{number}", "symbol": symbol}
        if what < 0.72:
            ratio = {"ratio_new": dice.randint(1, 20), "ratio_old": dice.randint(1, 20)}
            entries.append(adjustment(AdjustmentKind.SPLIT, start, **known, **ratio, amount=price))
        elif what < 0.8:
            amount = Decimal(dice.choice((-1, 1)) * dice.randint(1, 9999)).scaleb(-2)
            entries.append(adjustment(AdjustmentKind.DIVIDEND, at, **known, amount=amount))
        elif what < 0.86:
            entries.append(adjustment(AdjustmentKind.FEE, at, **known, amount=price))
        elif what < 0.9:
            entries.append(adjustment(AdjustmentKind.CASH_IN_LIEU, at, **known, amount=price))
        elif what < 0.95:
            moved = dice.choice((qty, qty.copy_negate(), ZERO))
            kind = dice.choice((AdjustmentKind.TRANSFER, AdjustmentKind.MOVE))
            entries.append(adjustment(kind, dice.choice((at, start)), **known, qty=moved, amount=price))
        elif what < 0.97:
            new = dice.choice([other for other in SYMBOLS if other != symbol])
            part = {"ratio_new": dice.randint(1, 20), "ratio_old": 20, "qty": dice.choice((qty, qty.copy_negate()))}
            entries.append(adjustment(AdjustmentKind.SPIN_OFF, start, **known, **part, new_symbol=new))
        else:
            new = dice.choice([other for other in SYMBOLS if other != symbol])
            entries.append(adjustment(AdjustmentKind.SYMBOL_CHANGE, start, **known, new_symbol=new))
    return entries


@settings(max_examples=EXAMPLES)
@example(seed=19_497)  # shares of a name that was given up that morning came in from outside
@example(seed=16_222)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_days_pnl_is_the_change_in_equity_less_external_cash_to_the_last_digit(seed: int) -> None:
    dice = Random(seed)
    entries = history(dice)
    closes = {symbol: Decimal(dice.randint(1, 99_999)).scaleb(-2) for symbol in SYMBOLS}
    marks = {symbol: Decimal(dice.randint(1, 9_999_999)).scaleb(-4) for symbol in SYMBOLS}

    account, started = Account(), None
    order = sorted(enumerate(entries), key=lambda one: (one[1].at, isinstance(one[1], Fill), one[0]))
    for _, entry in order:
        if entry.at >= day_start(TUESDAY) and started is None:
            started = account.gained(closes)
            account.closes = {symbol: Fraction(close) for symbol, close in closes.items()}
        account.take(entry)
    started = account.gained(closes) if started is None else started

    book = book_of(*entries)
    day_of_all = book.day(TUESDAY)
    found = day_closes(book, Closes(closes), DATES)
    total = found.closed.day_pnl
    overnights = {one.symbol: found.symbols[one.symbol].overnight_value for one in book.open_positions}
    assert (total is None or None in overnights.values()) is account.is_day_unknown
    if total is None:
        return
    for position in book.open_positions:
        overnight = overnights[position.symbol]
        if overnight is None:
            return
        value = EXACT.multiply(position.qty, marks[position.symbol])
        total = EXACT.add(total, day_gain(day_of_all[position.symbol], value, overnight))
    # Shares that came after a split of the same day are a fraction of those of the night before, without an end.
    assert abs(Fraction(total) - (account.gained(marks) - started)) < Fraction(1, 10**40)
    assert {symbol: Fraction(one.qty) for symbol, one in book.positions.items() if one.is_open} == {
        symbol: qty for symbol, qty in account.shares.items() if qty
    }


@given(seed=st.integers(0, 2**32 - 1))
def test_realized_unrealized_fees_and_income_since_the_beginning_are_all_there_is(seed: int) -> None:
    dice = Random(seed)
    entries = history(dice)
    marks = {symbol: Decimal(dice.randint(1, 9_999_999)).scaleb(-4) for symbol in SYMBOLS}
    account = Account()
    for entry in sorted(entries, key=lambda one: (one.at, isinstance(one, Fill))):
        account.take(entry)
    total = Fraction(0)
    for position in book_of(*entries).positions.values():
        unrealized = Fraction(position.qty) * Fraction(marks[position.symbol]) - Fraction(position.cost_basis)
        total += unrealized + Fraction(position.realized_pnl) - Fraction(position.fees) + Fraction(position.income)
    assert total == account.gained(marks)


@given(seed=st.integers(0, 2**32 - 1))
def test_entry_by_entry_the_book_is_that_of_all_at_once(seed: int) -> None:
    dice = Random(seed)
    entries = history(dice)
    dice.shuffle(entries)
    book, told = Book(), arrive([])
    for number in range(len(entries) + 1):
        told = arrive(entries[:number])
        assert_same(book := advance(book, told), advance(Book(), told))
    dice.shuffle(entries)
    voids: dict[bool, list[Voiding]] = {True: [], False: []}
    for entry in entries:
        is_fill = isinstance(entry, Fill)
        entry_id = entry.fill_id if isinstance(entry, Fill) else entry.adjustment_id
        voids[is_fill].append(Voiding(len(voids[is_fill]) + 1, entry_id, entry.symbol))
        told = News(told.fills, voids[True], told.adjustments, voids[False])
        assert_same(book := advance(book, told), advance(Book(), told))
    assert book.positions == {}


def assert_same(book: Book, afresh: Book) -> None:
    """Hold the book to one that was folded at once, and so what it keeps of its predecessors."""
    assert book == afresh
    assert book.day(TUESDAY) == afresh.day(TUESDAY)
    now = day_start(TUESDAY) + timedelta(hours=20)
    assert book.alpaca_holdings(now) == afresh.alpaca_holdings(now)


def test_overnight_shares_are_split_under_whatever_name_they_had_then() -> None:
    monday, tuesday = day_start(MONDAY), day_start(TUESDAY)
    entries = [
        fill(10, 100, symbol="A", fill_id="a", filled_at=monday),
        fill(3, 100, symbol="B", fill_id="b", filled_at=monday),
        adjustment(AdjustmentKind.SPLIT, tuesday, adjustment_id="1", symbol="B", ratio_new=5, ratio_old=1),
        adjustment(AdjustmentKind.SYMBOL_CHANGE, tuesday, adjustment_id="2", symbol="A", new_symbol="C"),
        adjustment(AdjustmentKind.SPLIT, tuesday, adjustment_id="3", symbol="C", ratio_new=2, ratio_old=1),
        adjustment(AdjustmentKind.SYMBOL_CHANGE, tuesday, adjustment_id="4", symbol="C", new_symbol="B"),
    ]
    day = book_of(*entries).day(TUESDAY)["B"]
    assert day.overnight_qty == 10 * 2 + 3 * 5
    assert {held.symbol: held.qty for held in day.overnight} == {"A": 10, "B": 3}


def test_the_order_of_an_adjustment_in_the_ledger_does_not_matter() -> None:
    late: Adjustment = adjustment(AdjustmentKind.SPLIT, day_start(MONDAY), ratio_new=2, ratio_old=1)
    buys = fill(10, 100, filled_at=OPENING - timedelta(days=4))
    sells = fill(-5, 55, fill_id="2", filled_at=OPENING)
    position = book_of(buys, sells, late).positions["AAPL"]
    assert (position.qty, position.cost_basis, position.realized_pnl) == (15, 750, 25)
    assert book_of(late, buys, sells).positions == {"AAPL": position}


class TestEdgeOfTheAccount:
    """Shares that cross it count at market in the day's P&L, and at cost in the basis."""

    def days(self, *entries: Entry, close: object = 180, mark: object = 180) -> tuple[Decimal | None, Decimal]:
        """Return the day's P&L and what all has realized, of AAPL closing at `close` the night before."""
        book = book_of(*entries)
        found = day_closes(book, Closes({} if close is None else {"AAPL": Decimal(str(close))}), DATES)
        position = book.positions["AAPL"]
        if not position.is_open:
            return found.closed.day_pnl, position.realized_pnl
        overnight = found.symbols["AAPL"].overnight_value
        if overnight is None:
            return None, position.realized_pnl
        value = EXACT.multiply(position.qty, Decimal(str(mark)))
        return day_gain(book.day(TUESDAY)["AAPL"], value, overnight), position.realized_pnl

    def test_transferred_out_today(self) -> None:
        bought = fill(6, 100, filled_at=OPENING - timedelta(days=5))
        out = adjustment(AdjustmentKind.TRANSFER, day_start(TUESDAY), qty=-6, amount=-600)
        assert self.days(bought, out) == (0, 0)

    def test_a_gift_in_counts_from_the_close_on(self) -> None:
        gift = adjustment(AdjustmentKind.TRANSFER, OPENING + timedelta(days=1), qty=6, amount=600)
        assert self.days(gift) == (0, 0)
        assert self.days(gift, mark=185) == (30, 0)

    def test_half_out_and_a_short_that_comes_in(self) -> None:
        bought = fill(10, 100, filled_at=OPENING - timedelta(days=5))
        out = adjustment(AdjustmentKind.TRANSFER, day_start(TUESDAY), qty=-5, amount=-500)
        assert self.days(bought, out, mark=182) == (10, 0)
        short = adjustment(AdjustmentKind.TRANSFER, day_start(TUESDAY), qty=-4, amount=-400)
        assert self.days(short, mark=182) == (-8, 0)

    def test_sold_after_it_came_in(self) -> None:
        gift = adjustment(AdjustmentKind.TRANSFER, day_start(TUESDAY), qty=6, amount=600)
        sold = fill(-6, 190, filled_at=OPENING + timedelta(days=1))
        assert self.days(gift, sold) == (60, 540)

    def test_in_and_split_on_one_day(self) -> None:
        split = adjustment(AdjustmentKind.SPLIT, day_start(TUESDAY), adjustment_id="s", ratio_new=2, ratio_old=1)
        gift = adjustment(AdjustmentKind.TRANSFER, OPENING + timedelta(days=1), qty=6, amount=300)
        assert self.days(split, gift, mark=91) == (6, 0)

    def test_no_market_price_no_day(self) -> None:
        gift = adjustment(AdjustmentKind.TRANSFER, day_start(TUESDAY), qty=6, amount=600)
        assert self.days(gift, close=None) == (None, 0)
        assert ("AAPL", MONDAY) in needed_closes(book_of(gift), DATES)


def test_a_spin_off_moves_cost_and_realizes_nothing() -> None:
    bought = fill(100, "22.276", symbol="SEM", fill_id="1", filled_at=OPENING - timedelta(days=5))
    spun = adjustment(
        AdjustmentKind.SPIN_OFF, day_start(TUESDAY), symbol="SEM", new_symbol="CON", qty="80.6971",
        ratio_new="1035.57", ratio_old="2227.60",
    )  # fmt: skip
    book = book_of(bought, spun)
    sem, con = book.positions["SEM"], book.positions["CON"]
    assert (sem.qty, sem.cost_basis, sem.realized_pnl) == (100, Decimal("1192.03"), 0)
    assert (con.qty, con.cost_basis, con.realized_pnl) == (Decimal("80.6971"), Decimal("1035.57"), 0)
    # A purchase that is reported late takes its part of the cost along, too.
    late = fill(100, 20, symbol="SEM", fill_id="2", filled_at=OPENING - timedelta(days=4))
    later = advance(book, arrive([bought, late, spun]))
    assert later.positions["CON"].cost_basis + later.positions["SEM"].cost_basis == Decimal("4227.60")
    holdings = book.alpaca_holdings(day_start(TUESDAY) + timedelta(hours=20))
    assert (holdings["SEM"].cost, holdings["CON"].cost) == (Decimal("1192.03"), Decimal("1035.57"))
