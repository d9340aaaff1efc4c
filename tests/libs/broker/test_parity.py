"""The parts of a difference add up to it, to the last digit, whatever ours and theirs are."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from libs.broker.account_messages import AccountPosition
from libs.broker.parity import Cause, OurFigures, compare_position
from libs.broker.reconcile import Difference, Reason
from libs.portfolio.days import overnight_value
from libs.portfolio.fills import EXACT, ZERO
from tests.libs.portfolio.test_days import history
from tests.support.portfolio import OPENING, book_of, fill

TUESDAY = date(2025, 10, 21)
NOW = OPENING + timedelta(days=1, hours=5)


def ours_of(*fills: object, mark: object = 152, close: object = 150) -> OurFigures:
    book = book_of(*fills)  # type: ignore[arg-type]
    day, price = book.day(TUESDAY)["AAPL"], Decimal(str(close))
    return OurFigures(
        book.positions["AAPL"],
        book.alpaca_holdings(NOW)["AAPL"],
        day,
        Decimal(str(mark)),
        price,
        overnight_value(day, lambda _: price),
    )


def theirs_of(**fields: object) -> AccountPosition:
    known = {
        "qty": 100, "avg_entry_price": 140, "cost_basis": 14_000, "current_price": 152, "lastday_price": 150,
        "unrealized_pl": 1200, "unrealized_intraday_pl": 200,
    }  # fmt: skip
    return AccountPosition("AAPL", "us_equity", **{name: Decimal(str(one)) for name, one in (known | fields).items()})


HELD = (fill(100, 140),)


def test_the_same_on_both_sides_is_no_difference() -> None:
    parity = compare_position("AAPL", ours_of(*HELD), theirs_of(), None)
    assert (parity.unrealized.difference, parity.day.difference) == (0, 0)
    assert parity.unrealized.parts == parity.day.parts == {}
    assert parity.is_explained


def test_each_cause_is_named() -> None:
    other_mark = compare_position("AAPL", ours_of(*HELD, mark="152.50"), theirs_of(), None)
    assert other_mark.unrealized.parts == other_mark.day.parts == {Cause.MARK: 50}
    other_close = compare_position("AAPL", ours_of(*HELD, close="149.90"), theirs_of(), None)
    assert other_close.day.parts == {Cause.PREVIOUS_CLOSE: 10}
    with_fee = compare_position(
        "AAPL",
        ours_of(*HELD, fill(10, 152, fill_id="2", fee=Decimal("0.35"), filled_at=OPENING + timedelta(days=1))),
        theirs_of(qty=110, cost_basis=15_520),
        None,
    )
    assert with_fee.day.parts == {Cause.FEE: Decimal("-0.35")}
    off_by_a_dollar = compare_position("AAPL", ours_of(*HELD), theirs_of(unrealized_pl=1199), None)
    assert (off_by_a_dollar.unrealized.unexplained, off_by_a_dollar.is_explained) == (1, False)
    off_by_a_cent = compare_position("AAPL", ours_of(*HELD), theirs_of(unrealized_pl="1199.99"), None)
    assert off_by_a_cent.unrealized.parts == {Cause.ROUNDING: Decimal("0.01")}


def test_a_difference_is_not_explained_by_its_mere_name() -> None:
    qty = Decimal(100)
    costs = Decimal(14_000), Decimal(13_000)
    found = Difference("AAPL", qty, qty, *costs, Reason.COST_METHOD, is_explained=False)
    theirs = theirs_of(cost_basis=13_000, unrealized_pl=2200)
    assert compare_position("AAPL", ours_of(*HELD), theirs, found).unrealized.unexplained == -1000
    explained = replace(found, is_explained=True)
    assert compare_position("AAPL", ours_of(*HELD), theirs, explained).is_explained


def test_what_one_side_does_not_know_is_compared_with_nothing() -> None:
    alone = compare_position("AAPL", ours_of(*HELD), None, None)
    assert (alone.unrealized.unexplained, alone.is_explained) == (1200, False)
    theirs = compare_position("AAPL", None, theirs_of(), None)
    assert (theirs.unrealized.unexplained, theirs.day.unexplained) == (-1200, -200)
    unknown = compare_position("AAPL", replace(ours_of(*HELD), mark=None), theirs_of(), None)
    assert (unknown.unrealized.difference, unknown.unrealized.parts, unknown.is_explained) == (None, {}, True)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_parts_add_up(seed: int) -> None:
    dice = Random(seed)
    book = book_of(*history(dice))

    def number() -> Decimal:
        return Decimal(dice.randint(-(10**9), 10**9)).scaleb(dice.choice((-9, -4, -2)))

    for position in book.open_positions:
        symbol = position.symbol
        close = abs(number())
        day = book.day(TUESDAY)[symbol]
        ours = OurFigures(
            position,
            book.alpaca_holdings(NOW)[symbol],
            day,
            abs(number()),
            close,
            overnight_value(day, lambda _, close=close: close),  # type: ignore[misc]
        )
        theirs = AccountPosition(symbol, "us_equity", *(number() for _ in range(8)))
        parity = compare_position(symbol, ours, theirs, None)
        for compared in (parity.unrealized, parity.day):
            total = ZERO
            for amount in compared.parts.values():
                total = EXACT.add(total, amount)
            assert total == compared.difference
