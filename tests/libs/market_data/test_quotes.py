from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from alpaca.data.models import Quote as SdkQuote
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.quotes import Quote, QuoteOrigin, Unmarkable, exact, mid_price, why_unmarkable
from tests.support.quotes import NOON, make_quote

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"bid": 150.27}, None),  # locked
        ({"bid": 0.0}, Unmarkable.ONE_SIDED),
        ({"ask": 0.0}, Unmarkable.ONE_SIDED),
        ({"bid": None}, Unmarkable.ONE_SIDED),
        ({"ask": None}, Unmarkable.ONE_SIDED),
        ({"bid": -1.0}, Unmarkable.NEGATIVE),
        ({"ask": -1.0}, Unmarkable.NEGATIVE),
        ({"bid": NAN}, Unmarkable.NOT_FINITE),
        ({"ask": NAN}, Unmarkable.NOT_FINITE),
        ({"ask": INF}, Unmarkable.NOT_FINITE),
        ({"bid": -INF}, Unmarkable.NOT_FINITE),
        ({"bid": 1e300, "ask": 1e300}, Unmarkable.ABSURD),
        ({"bid": 1e-300, "ask": 1e-300}, Unmarkable.ABSURD),
        ({"bid": 150.28}, Unmarkable.CROSSED),
        ({"timestamp": None}, Unmarkable.UNTIMED),
        ({"bid": 95.0, "ask": 105.0}, None),  # exactly 10 % of mid
        ({"bid": 95.0, "ask": 105.1}, Unmarkable.TOO_WIDE),
        ({"bid": 1.0, "ask": 400.0}, Unmarkable.TOO_WIDE),
        ({"conditions": ()}, None),
        ({"conditions": ("R", "N")}, Unmarkable.NOT_FIRM),
        ({"conditions": ("Y",)}, Unmarkable.NOT_FIRM),
        ({"conditions": ("Z",)}, Unmarkable.NOT_FIRM),
        ({"conditions": ("L",), "tape": "C"}, Unmarkable.NOT_FIRM),
        ({"conditions": ("C",), "tape": "C"}, None),
        ({"conditions": ("C",), "tape": "A"}, Unmarkable.NOT_FIRM),
        ({"conditions": ("C",), "tape": "B"}, Unmarkable.NOT_FIRM),
        ({"conditions": ("C",), "tape": None}, Unmarkable.NOT_FIRM),
        ({"conditions": ("O",), "tape": "A"}, None),
    ],
)
def test_only_a_believable_two_sided_quote_marks(changes: dict[str, object], why: Unmarkable | None) -> None:
    assert why_unmarkable(make_quote(**changes), 10.0) is why


def test_the_widest_spread_is_the_callers() -> None:
    quote = make_quote(bid=99.0, ask=101.0)
    assert why_unmarkable(quote, 2.0) is None
    assert why_unmarkable(quote, 1.9) is Unmarkable.TOO_WIDE


@given(bid=st.floats(), ask=st.floats())
def test_what_marks_has_a_finite_positive_mid_between_bid_and_ask(bid: float, ask: float) -> None:
    if why_unmarkable(make_quote(bid=bid, ask=ask), 10.0) is None:
        low, high = exact(bid), exact(ask)
        assert 0 < low <= mid_price(low, high) <= high
        assert (high - low) * 10 <= mid_price(low, high) * (1 + Decimal("1e-9"))


@given(cents=st.integers(1, 10**8), more=st.integers(0, 100))
def test_mid_keeps_every_digit(cents: int, more: int) -> None:
    bid, ask = Decimal(cents) / 100, Decimal(cents + more) / 100
    assert mid_price(exact(float(bid)), exact(float(ask))) * 2 == bid + ask


@pytest.mark.parametrize("conditions", [["R"], "R"])
def test_a_quote_of_the_sdk_is_taken_over(conditions: object) -> None:
    wire = {
        "t": NOON,
        "bp": 150.25,
        "bs": 100,
        "bx": "V",
        "ap": 150.27,
        "as": 200,
        "ax": "Q",
        "c": conditions,
        "z": "C",
    }
    received_at = datetime.now(UTC)
    assert Quote.from_sdk(SdkQuote("AAPL", wire), received_at) == make_quote(
        ask_exchange="Q", timestamp=NOON, received_at=received_at
    )


def test_same_content_is_about_prices_sizes_and_venues_only() -> None:
    quote = make_quote()
    assert quote.has_same_content(make_quote(at_s=5))
    assert not quote.has_same_content(make_quote(ask=150.28))
    assert not quote.has_same_content(make_quote(bid_size=1.0))
    assert not quote.has_same_content(make_quote(ask_exchange="Q"))


@pytest.mark.parametrize(
    ("ahead", "why"),
    [
        (timedelta(seconds=60), None),
        (timedelta(seconds=60, microseconds=1), Unmarkable.AHEAD),
        (timedelta(seconds=70), Unmarkable.AHEAD),
        (timedelta(hours=1), Unmarkable.AHEAD),
        (timedelta(days=36_525), Unmarkable.AHEAD),
        (timedelta(days=-36_525), None),
    ],
)
@pytest.mark.parametrize("origin", QuoteOrigin)
def test_a_quote_stamped_far_ahead_of_us_does_not_mark(
    ahead: timedelta, why: Unmarkable | None, origin: QuoteOrigin
) -> None:
    assert why_unmarkable(make_quote(timestamp=NOON + ahead, origin=origin), 10.0) is why
