"""The ledger closes on the account's cash and equity, and each fault that one had is caught. Worked out by hand."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.ledger_facts import DayFacts, ledger_day, ledger_facts
from libs.broker.account_messages import AccountPosition, AccountSummary
from libs.broker.account_parity import AccountCircumstances, AccountParity, AccountPart, compare_account
from libs.broker.cash_journal import CashEntry
from libs.broker.parity import OurFigures
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.days import day_start, overnight_value
from libs.portfolio.entries import Entry
from tests.support.portfolio import book_of, fill

D = Decimal
MONDAY, TUESDAY, WEDNESDAY = date(2025, 10, 20), date(2025, 10, 21), date(2025, 10, 22)
NOW = datetime(2025, 10, 22, 18, tzinfo=UTC)
KNOWN = AccountCircumstances(is_complete=True, opening_cash=D(0))
DEPOSIT = CashEntry("d", "CSD", None, MONDAY, D(100_000))


def at(day: date, hour: int = 15) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def moved(kind: AdjustmentKind, symbol: str, qty: object, cost: object, *, name: str = "activity:a", **fields: object):
    numbers = {"qty": D(str(qty)), "amount": D(str(cost))}
    known = {"effective_at": day_start(WEDNESDAY), "reason": "SPIN"} | fields
    return Adjustment(f"{name}:{symbol}:{qty}:{cost}", kind, symbol, **(known | numbers))


def booked(kind: AdjustmentKind, symbol: str, amount: object, day: date = WEDNESDAY, **fields: object) -> Adjustment:
    known = {"adjustment_id": f"activity:{kind}:{symbol}:{amount}", "effective_at": day_start(day), "reason": "X"}
    return Adjustment(**(known | fields), kind=kind, symbol=symbol, amount=D(str(amount)))


class Account:
    """What the broker says: cash, and holdings as symbol: (shares, price, previous close)."""

    def __init__(self, cash: object, last_equity: object = None, **held: tuple[object, object, object]) -> None:
        self.positions = {
            symbol: AccountPosition(
                symbol, "us_equity", D(str(qty)), D(1), D(1),
                current_price=D(str(price)), lastday_price=D(str(close)),
            )
            for symbol, (qty, price, close) in held.items()
        }  # fmt: skip
        value = sum((one.qty * (one.current_price or 0) for one in self.positions.values()), D(0))
        equity = D(str(cash)) + value
        last = equity if last_equity is None else D(str(last_equity))
        self.summary = AccountSummary("A", None, "USD", D(str(cash)), equity, last, None, None, None, TUESDAY)

    def price_of(self, symbol: str) -> Decimal | None:
        theirs = self.positions.get(symbol)
        return None if theirs is None else theirs.current_price

    def compare(
        self,
        book: Book,
        journal: tuple[CashEntry, ...] = (DEPOSIT,),
        circumstances: AccountCircumstances = KNOWN,
        closes: dict[str, object] | None = None,
        mark: object = 0,
    ) -> AccountParity:
        """Compare with `book`, which knows the same prices, its marks higher by `mark`."""

        def close_of(symbol: str) -> Decimal | None:
            theirs = self.positions.get(symbol)
            if theirs is not None:
                return theirs.lastday_price
            return None if closes is None or symbol not in closes else D(str(closes[symbol]))

        day = book.day(WEDNESDAY)
        figures = {
            one.symbol: OurFigures(
                one, book.alpaca_holdings(NOW)[one.symbol], day[one.symbol],
                None if (price := self.price_of(one.symbol)) is None else price + D(str(mark)),
                close_of(one.symbol), overnight_value(day[one.symbol], close_of),
            )
            for one in book.open_positions
        }  # fmt: skip
        gains = D(0)
        for symbol, of_day in day.items():
            if not book.positions[symbol].is_open and not of_day.is_idle:
                night = overnight_value(of_day, close_of)
                gains += of_day.net_cash - (night or 0)
        facts = ledger_facts(book, journal)
        beside = ledger_day(
            facts, DayFacts(WEDNESDAY, TUESDAY, gains, close_of), self.positions, self.summary.balance_asof
        )
        return compare_account(facts.totals, beside, figures, self.summary, self.positions, circumstances)


def bought(qty: object, price: object, symbol: str = "AAPL", day: date = MONDAY, **fields: object) -> Entry:
    return fill(qty, price, symbol=symbol, filled_at=at(day), fill_id=f"{symbol}:{qty}:{price}:{day}", **fields)


def test_a_ledger_that_is_the_account_closes_to_the_last_digit() -> None:
    book = book_of(
        bought(100, 10),
        bought(-40, 12, day=WEDNESDAY),
        booked(AdjustmentKind.FEE, "ACCOUNT", "0.02"),
        booked(AdjustmentKind.DIVIDEND, "AAPL", 26),
    )
    journal = (
        DEPOSIT,
        CashEntry("f", "FEE", None, WEDNESDAY, D("-0.02")),
        CashEntry("v", "DIV", "AAPL", WEDNESDAY, D(26)),
        CashEntry("w", "CSW", None, WEDNESDAY, D(-500)),
    )
    # 100,000 - 1,000 + 480 - 0.02 + 26 - 500; 60 shares at 11. On Tuesday evening 99,000 and 100 shares at 10.50.
    parity = Account("99005.98", "100050", AAPL=(60, 11, "10.50")).compare(book, journal)
    assert parity.unexplained == ()
    assert (parity.cash.ours, parity.cash.difference, parity.cash.parts) == (D("99005.98"), 0, {})
    assert (parity.equity.ours, parity.equity.difference) == (D("99665.98"), 0)
    # 60 x 0.50 + 40 x 1.50 + 26 - 0.02 = 115.98 in the day; 60 x 1 + 40 x 2 + 26 - 0.02 = 165.98 in all.
    assert (parity.day_change.ours, parity.day_change.theirs) == (D("115.98"), D("-384.02"))
    assert parity.day_change.parts == {AccountPart.CASH_FROM_OUTSIDE: 500}
    assert (parity.total.ours, parity.total.theirs) == (D("165.98"), D("99665.98"))
    assert parity.total.parts == {AccountPart.CASH_FROM_OUTSIDE: -99_500}


class TestFaults:
    """Each fault that a ledger had with parity clean, put back in: its figure is off by just what was wrong."""

    def test_a_spin_off_that_realized_its_cost(self) -> None:
        book = book_of(
            bought(100, "22.276", "SEM"),
            moved(AdjustmentKind.TRANSFER, "SEM", 0, "-1035.57", name="reconciled", reason="cost_method"),
            moved(AdjustmentKind.TRANSFER, "CON", "80.6971", "1035.5697", name="reconciled", reason="transfer"),
        )
        account = Account("97772.40", SEM=(100, "11.92", "11.92"), CON=("80.6971", "12.83", "12.83"))
        parity = account.compare(book)
        assert "total" in parity.unexplained
        assert parity.total.unexplained is not None
        assert round(parity.total.unexplained, 2) == D("-1035.57")

    def test_cost_that_left_at_our_average_and_came_in_at_the_brokers(self) -> None:
        trades = (bought(100, 10), bought(50, 12), bought(30, 15, day=TUESDAY), bought(-120, 14, day=TUESDAY))
        account = Account("99630", AAPL=(60, 6, 6), CONB=(60, 7, 7))
        right = book_of(
            *trades, moved(AdjustmentKind.MOVE, "AAPL", 0, -360), moved(AdjustmentKind.MOVE, "CONB", 60, 360)
        )
        assert account.compare(right).total.ours == 410
        assert account.compare(right).total.unexplained == 0
        average = D(2050) / 180 * 60
        wrong = book_of(
            *trades,
            moved(AdjustmentKind.MOVE, "AAPL", -60, -average.quantize(D("1e-12"))),
            moved(AdjustmentKind.MOVE, "AAPL", 60, "409.998"),
            moved(AdjustmentKind.MOVE, "CONB", 60, 360),
        )
        parity = account.compare(wrong)
        assert parity.total.ours is not None
        assert round(parity.total.ours, 2) == D("323.34")
        assert "total" in parity.unexplained

    @pytest.mark.parametrize("sign", [1, -1])
    def test_shares_removed_for_nothing_without_a_loss(self, sign: int) -> None:
        book = book_of(
            bought(200 * sign, "1.50", "CLNNW"),
            moved(AdjustmentKind.MOVE, "CLNNW", -200 * sign, -300 * sign, reason="REORG"),
        )
        parity = Account(100_000 - 300 * sign).compare(book, closes={"CLNNW": "1.50"})
        assert parity.total.unexplained == 300 * sign

    def test_a_split_on_the_wrong_side_of_the_days_sales(self) -> None:
        # Sold 10 of 100 at 1,200 before ten for one: 11,000. After it: 11,900, and 90 shares too many.
        book = book_of(
            bought(100, 100),
            Adjustment("activity:s", AdjustmentKind.SPLIT, "AAPL", day_start(TUESDAY), "SPLIT", D(10), D(1)),
            bought(-10, 1200, day=TUESDAY),
            moved(AdjustmentKind.TRANSFER, "AAPL", -90, -900, name="reconciled", reason="unknown_execution"),
        )
        parity = Account(102_000, 209_900, AAPL=(900, 121, 120)).compare(book)
        assert (parity.total.unexplained, parity.cash.unexplained) == (900, 0)

    def test_a_stock_dividend_taken_for_cash(self) -> None:
        book = book_of(
            bought(100, 10),
            bought(-112, 9, day=TUESDAY),
            moved(AdjustmentKind.TRANSFER, "AAPL", 12, 108, name="reconciled", reason="missed_execution"),
        )
        parity = Account("100008").compare(book)
        assert (parity.total.ours, parity.total.unexplained) == (-100, -108)

    def test_a_coin_under_two_names(self) -> None:
        book = book_of(bought(1, 20_000, "BTCUSD"), bought(-1, 30_000, "BTC/USD", TUESDAY))
        leaving = moved(AdjustmentKind.TRANSFER, "BTCUSD", -1, -20_000, name="reconciled", reason="unknown_execution")
        coming = moved(AdjustmentKind.TRANSFER, "BTC/USD", 1, 30_000, name="reconciled", reason="missed_execution")
        assert book.open_positions
        parity = Account(110_000).compare(
            book_of(bought(1, 20_000, "BTCUSD"), bought(-1, 30_000, "BTC/USD", TUESDAY), leaving, coming)
        )
        assert (parity.total.ours, parity.total.unexplained) == (0, -10_000)

    def test_cash_that_was_dropped(self) -> None:
        paid = CashEntry("m", "MA", "NEW", WEDNESDAY, D(995))
        moves = (
            bought(100, "6.04"),
            moved(AdjustmentKind.MOVE, "AAPL", -100, -604),
            moved(AdjustmentKind.MOVE, "NEW", 500, 604),
        )
        account = Account(100_391, 100_000, NEW=(500, "1.208", "1.208"))
        dropped = account.compare(book_of(*moves), (DEPOSIT, paid))
        assert (dropped.total.unexplained, dropped.cash.unexplained) == (-995, 0)
        # Not even its activity is known: the cash itself does not close.
        assert account.compare(book_of(*moves)).cash.unexplained == -995
        kept = account.compare(book_of(*moves, booked(AdjustmentKind.CASH_IN_LIEU, "NEW", 995)), (DEPOSIT, paid))
        assert kept.total.unexplained == kept.cash.unexplained == 0
        unclassified = account.compare(
            book_of(*moves, booked(AdjustmentKind.UNCLASSIFIED, "NEW", 995)), (DEPOSIT, paid)
        )
        assert unclassified.total.parts[AccountPart.UNCLASSIFIED] == -995
        assert unclassified.total.unexplained == 0

    def test_shares_that_left_counted_at_cost_in_the_day(self) -> None:
        leaving = moved(AdjustmentKind.TRANSFER, "AAPL", -6, -600, reason="ACATS", effective_at=at(WEDNESDAY))
        # At market at the close: 99,400 + 6 x 180. Now the shares are gone.
        account = Account(99_400, 100_480)
        right = account.compare(book_of(bought(6, 100), leaving), closes={"AAPL": 180})
        assert (right.day_change.ours, right.day_change.parts) == (0, {AccountPart.SHARES_FROM_OUTSIDE: 1080})
        assert right.total.parts[AccountPart.SHARES_FROM_OUTSIDE] == 600
        assert right.unexplained == ()
        facts = ledger_facts(book_of(bought(6, 100), leaving), (DEPOSIT,))
        beside = ledger_day(
            facts, DayFacts(WEDNESDAY, TUESDAY, D(-480), lambda _: D(180)), {}, account.summary.balance_asof
        )
        wrong = compare_account(facts.totals, beside, {}, account.summary, {}, KNOWN)
        assert wrong.day_change.unexplained == -480

    def test_fees_that_are_in_no_total(self) -> None:
        fee = CashEntry("f", "FEE", None, TUESDAY, D("-0.02"))
        parity = Account("98999.98", "99999.98", AAPL=(100, 10, 10)).compare(book_of(bought(100, 10)), (DEPOSIT, fee))
        assert parity.total.unexplained == D("0.02")


class TestParts:
    HELD = (bought(100, 10),)

    def test_marks(self) -> None:
        parity = Account(99_000, 99_900, AAPL=(100, 10, 9)).compare(book_of(*self.HELD), mark="0.05")
        assert parity.total.parts == {AccountPart.MARK: 5, AccountPart.CASH_FROM_OUTSIDE: -100_000}
        assert parity.day_change.parts == {AccountPart.MARK: 5}
        assert parity.unexplained == ()

    def test_an_opening_balance_that_no_activity_names(self) -> None:
        known = replace(KNOWN, opening_cash=D(100_000))
        parity = Account(99_000, AAPL=(100, 10, 10)).compare(book_of(*self.HELD), (), known)
        assert parity.cash.parts == parity.total.parts == {AccountPart.OPENING_BALANCE: -100_000}
        assert (parity.cash.unexplained, parity.total.unexplained) == (0, 0)

    @pytest.mark.parametrize("circumstances", [replace(KNOWN, is_complete=False), replace(KNOWN, opening_cash=None)])
    def test_an_incomplete_history_leaves_unexplained_unknown(self, circumstances: AccountCircumstances) -> None:
        parity = Account(99_000, AAPL=(100, 10, 10)).compare(book_of(*self.HELD), (), circumstances)
        assert (parity.cash.unexplained, parity.total.unexplained) == (None, None)
        assert parity.unexplained == ()

    def test_an_account_in_another_currency_is_not_compared(self) -> None:
        account = Account(99_000, AAPL=(100, 10, 10))
        account.summary = replace(account.summary, currency="EUR")
        parity = account.compare(book_of(*self.HELD))
        assert {(one.ours, one.theirs, one.unexplained) for one in parity.by_name().values()} == {(None, None, None)}

    def test_an_equity_of_another_evening_is_no_beginning_of_this_day(self) -> None:
        account = Account(99_000, AAPL=(100, 10, 10))
        account.summary = replace(account.summary, balance_asof=MONDAY)
        assert account.compare(book_of(*self.HELD)).day_change.unexplained is None

    def test_fees_that_the_account_has_not_booked_yet(self) -> None:
        account = Account("98999.65", "98999.65", AAPL=(100, 10, 10))
        account.summary = replace(account.summary, pending_fees=D("0.35"), last_equity=D(100_000))
        parity = account.compare(book_of(*self.HELD))
        assert parity.cash.parts == {AccountPart.FEE: D("0.35")}
        assert parity.unexplained == ()

    def test_what_is_under_way_is_timing_and_not_a_fault(self) -> None:
        parity = Account(98_000, AAPL=(100, 10, 10)).compare(
            book_of(*self.HELD), circumstances=replace(KNOWN, is_settling=True)
        )
        assert parity.cash.parts == {AccountPart.TIMING: 1000}
        assert parity.unexplained == ()

    def test_a_position_that_only_the_account_has_is_unexplained(self) -> None:
        parity = Account(99_000, AAPL=(100, 10, 10), TSLA=(7, 200, 200)).compare(book_of(*self.HELD))
        assert parity.equity.unexplained == -1400


amounts = st.integers(1, 10_000).map(lambda cents: D(cents) / 100)
trades = st.tuples(st.sampled_from([-7, -2, 3, 5, D("0.125")]), amounts, st.sampled_from([MONDAY, TUESDAY, WEDNESDAY]))
cash = st.tuples(
    st.sampled_from([AdjustmentKind.DIVIDEND, AdjustmentKind.INCOME, AdjustmentKind.FEE, AdjustmentKind.CASH_IN_LIEU]),
    st.integers(-500, 500).filter(bool),
    st.sampled_from([MONDAY, TUESDAY, WEDNESDAY]),
)


@given(st.lists(trades, max_size=8), st.lists(cash, max_size=5), amounts, amounts, st.integers(-3, 3))
def test_whatever_happens_the_book_closes(traded, paid, price, close, mark) -> None:
    """An account of its own arithmetic: cash is what was paid, equity that and the shares; nothing is unexplained."""
    entries = [
        fill(qty, at_price, filled_at=at(day), fill_id=f"f{number}")
        for number, (qty, at_price, day) in enumerate(traded)
    ]
    entries += [
        booked(kind, "AAPL", amount, day, adjustment_id=f"activity:{number}")
        for number, (kind, amount, day) in enumerate(paid)
    ]
    moves = [(-qty * at_price, day) for qty, at_price, day in traded]
    signed = [(amount if kind is not AdjustmentKind.FEE else -amount, day) for kind, amount, day in paid]
    moves += [(D(amount), day) for amount, day in signed]
    journal = (DEPOSIT, *(CashEntry(f"{n}", "DIV", "AAPL", day, D(amount)) for n, (amount, day) in enumerate(signed)))
    balance = D(100_000) + sum((amount for amount, _ in moves), D(0))
    before = D(100_000) + sum((amount for amount, day in moves if day < WEDNESDAY), D(0))
    held, night = sum((D(q) for q, _, _ in traded), D(0)), sum((D(q) for q, _, d in traded if d < WEDNESDAY), D(0))
    account = Account(balance, before + night * close, **({"AAPL": (held, price, close)} if held else {}))
    parity = account.compare(book_of(*entries), journal, closes={"AAPL": close}, mark=D(mark) / 100)
    assert [one.unexplained for one in parity.by_name().values()] == [0, 0, 0, 0]
    for one in parity.by_name().values():
        assert one.difference == sum(one.parts.values(), D(0))
