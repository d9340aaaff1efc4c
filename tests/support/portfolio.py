"""Ledger entries for tests: a short way to write one, books of them, and hypothesis strategies for any of them."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import strategies as st

from libs.market_data.freshness import Mark
from libs.portfolio.adjustments import Adjustment, AdjustmentKind
from libs.portfolio.book import Book
from libs.portfolio.days import DayActivity, Held, overnight_value
from libs.portfolio.entries import Arrival, Entry
from libs.portfolio.fills import Fill, Side
from libs.portfolio.folding import News, advance
from libs.portfolio.pnl import PositionPnl
from libs.portfolio.positions import Position
from libs.portfolio.valuation import Valuable, value_position

OPENING = datetime(2025, 10, 20, 13, 30, tzinfo=UTC)


def fill(signed_qty: object, price: object, **fields: object) -> Fill:
    """Write a fill as signed shares at a price; bought when positive."""
    qty = Decimal(str(signed_qty))
    known = {"fill_id": "f", "symbol": "AAPL", "fee": Decimal(0), "filled_at": OPENING} | fields
    side = Side.BUY if qty > 0 else Side.SELL
    return Fill(side=side, qty=qty.copy_abs(), price=Decimal(str(price)), **known)  # type: ignore[arg-type]


def adjustment(kind: AdjustmentKind, at: datetime = OPENING, symbol: str = "AAPL", **fields: object) -> Adjustment:
    """Write an adjustment; numbers may be plain."""
    numbers = {
        name: Decimal(str(value))
        if name in {"ratio_new", "ratio_old", "qty", "amount"} and value is not None
        else value
        for name, value in fields.items()
    }
    known = {"adjustment_id": "a", "reason": "test"} | numbers
    return Adjustment(kind=kind, symbol=symbol, effective_at=at, **known)  # type: ignore[arg-type]


def arrive(entries: Iterable[Entry]) -> News:
    """Number entries as they come, fills and adjustments apart."""
    fills = [one for one in entries if isinstance(one, Fill)]
    others = [one for one in entries if not isinstance(one, Fill)]
    return News(
        fills=[Arrival(seq, one) for seq, one in enumerate(fills, start=1)],
        adjustments=[Arrival(seq, one) for seq, one in enumerate(others, start=1)],
    )


def book_of(*entries: Entry) -> Book:
    """Fold entries, recorded in the order given."""
    return advance(Book(), arrive(entries))


def day_activity(entries: Iterable[Entry], session_date: date, symbol: str = "AAPL") -> DayActivity:
    """Return what a day did to one symbol."""
    return book_of(*entries).day(session_date)[symbol]


def held(qty: object, symbol: str = "AAPL") -> DayActivity:
    """Return an idle day that began with `qty` shares."""
    shares = Decimal(str(qty))
    return DayActivity((Held(symbol, shares),) if shares else (), shares)


def valuable(position: Position, day: DayActivity, mark: Mark, previous_close: Decimal | None) -> Valuable:
    """Put together what a row is computed from."""
    return Valuable(position, day, mark, previous_close, overnight_value(day, lambda _symbol: previous_close))


def valued(position: Position, day: DayActivity, mark: Mark, previous_close: Decimal | None) -> PositionPnl:
    """Value one position."""
    return value_position(valuable(position, day, mark, previous_close))


amounts = st.decimals("0.000000001", "1000000000", places=9)
fees = st.decimals("0", "100", places=4)
# Few distinct moments and sizes, so that ties, exact closes and flips through zero happen often.
moments = st.integers(0, 8).map(lambda minutes: OPENING + timedelta(hours=minutes * 7))
quantities = st.integers(1, 5).map(Decimal) | st.decimals("0.000000001", "3", places=9) | amounts


@st.composite
def fill_lists(draw: st.DrawFn, *, symbols: tuple[str, ...] = ("AAPL",), max_size: int = 15) -> list[Fill]:
    """Draw fills with ids of their own, in the order of arrival."""
    size = draw(st.integers(1, max_size))
    return [
        Fill(
            f"f{number}",
            draw(st.sampled_from(symbols)),
            draw(st.sampled_from(Side)),
            draw(quantities),
            draw(amounts),
            draw(fees),
            draw(moments),
        )
        for number in range(size)
    ]
