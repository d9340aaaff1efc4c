from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.freshness import UNAVAILABLE, ClosingPrice, Mark, PriceSource, choose_mark, vouches, vouching_feed
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price

NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)
CLOSE = ClosingPrice(Decimal("150.80"), date(2025, 10, 17))
FEED = FeedStatus(
    state=LinkState.STREAMING,
    connected=True,
    since=NOW,
    epoch="e1",
    feed="iex",
    mode=Mode.PAPER,
    symbols=frozenset({"AAPL"}),
    market=MarketPhase.OPEN,
)


def price(age_s: float = 0, **fields: object) -> Price:
    at = NOW - timedelta(seconds=age_s)
    known = {"bid": Decimal("151.99"), "ask": Decimal("152.01"), "received_at": at, "epoch": "e1", "feed": "iex"}
    return Price("AAPL", Decimal("152.00"), at - timedelta(milliseconds=3), **(known | fields))  # type: ignore[arg-type]


def mark_of(one: Price | None, **asked: object) -> Mark:
    usual = {"is_vouched": False, "last_vouched_at": None, "close": CLOSE, "market": MarketPhase.OPEN, "now": NOW}
    return choose_mark(one, **(usual | {"stale_after_s": 15, "ttl_s": 300} | asked))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "asked", "expected"),
    [
        (price(14.9), {}, PriceSource.REAL_TIME),
        (price(15), {}, PriceSource.STALE),
        (price(3600), {"is_vouched": True}, PriceSource.REAL_TIME),
        (price(1, feed="delayed_sip"), {}, PriceSource.DELAYED),
        (price(16, feed="delayed_sip"), {}, PriceSource.STALE),
        (price(300), {}, PriceSource.STALE),
        (price(300.001), {}, PriceSource.CLOSING),
        (price(300.001), {"close": None}, PriceSource.UNAVAILABLE),
        (price(3600), {"last_vouched_at": NOW - timedelta(seconds=299)}, PriceSource.STALE),
        (price(3600), {"last_vouched_at": NOW - timedelta(seconds=301)}, PriceSource.CLOSING),
        (price(200), {"last_vouched_at": NOW - timedelta(seconds=9000)}, PriceSource.STALE),
        (None, {}, PriceSource.CLOSING),
        (None, {"close": None}, PriceSource.UNAVAILABLE),
        (price(1), {"market": MarketPhase.CLOSED}, PriceSource.REAL_TIME),
        (price(20), {"market": MarketPhase.CLOSED}, PriceSource.CLOSING),
        (price(20), {"market": MarketPhase.CLOSED, "close": None}, PriceSource.STALE),
        (price(301), {"market": MarketPhase.CLOSED, "close": None}, PriceSource.UNAVAILABLE),
        (price(-60), {}, PriceSource.REAL_TIME),
        (price(-60.001), {}, PriceSource.STALE),
        (price(-7200), {"is_vouched": True}, PriceSource.STALE),
    ],
)
def test_the_ladder(one: Price | None, asked: dict[str, object], expected: PriceSource) -> None:
    assert mark_of(one, **asked).source is expected


def test_a_quote_mark_carries_the_quote() -> None:
    one = price(2)
    expected = Mark(PriceSource.REAL_TIME, one.mid, one.bid, one.ask, one.timestamp, 2.0)
    assert mark_of(one) == expected


def test_a_closing_mark_carries_its_session_and_nothing_of_a_quote() -> None:
    assert mark_of(None) == Mark(PriceSource.CLOSING, CLOSE.price, closing_date=CLOSE.session)


def test_nothing_known_is_said_to_be_nothing() -> None:
    assert mark_of(None, close=None) is UNAVAILABLE
    assert Mark(PriceSource.UNAVAILABLE) == UNAVAILABLE


def test_a_price_of_only_mid_and_timestamp_is_live_by_its_timestamp() -> None:
    assert mark_of(Price("AAPL", Decimal(152), NOW)) == Mark(PriceSource.REAL_TIME, Decimal(152), None, None, NOW, 0.0)


def test_a_price_from_the_future_has_no_negative_age() -> None:
    assert mark_of(price(-3600)).age_s == 0.0


@given(
    age_s=st.floats(-1e5, 1e5),
    vouched_s=st.none() | st.floats(0, 1e5),
    is_vouched=st.booleans(),
    close=st.sampled_from([None, CLOSE]),
    market=st.sampled_from(MarketPhase),
)
def test_a_mark_is_whole_whatever_the_circumstances(
    age_s: float, vouched_s: float | None, is_vouched: bool, close: ClosingPrice | None, market: MarketPhase
) -> None:
    last = None if vouched_s is None else NOW - timedelta(seconds=vouched_s)
    mark = mark_of(price(age_s), is_vouched=is_vouched, last_vouched_at=last, close=close, market=market)
    assert (mark.price is None) == (mark.source is PriceSource.UNAVAILABLE)
    assert (mark.closing_date is not None) == (mark.source is PriceSource.CLOSING)
    assert (mark.age_s is None) == (mark.source in {PriceSource.CLOSING, PriceSource.UNAVAILABLE})
    if mark.source is PriceSource.UNAVAILABLE:
        assert close is None
    if mark.source is PriceSource.REAL_TIME:
        assert is_vouched or age_s < 15


@pytest.mark.parametrize(
    ("feed", "one", "heard_s", "expected"),
    [
        (FEED, price(), 0, True),
        (FEED, price(), 6, True),
        (FEED, price(), 6.001, False),
        (None, price(), 0, False),
        (FEED, price(), None, False),
        (FEED, price(epoch=None), 0, False),
        (FEED, price(epoch="e0"), 0, False),
        (replace(FEED, epoch=None), price(epoch=None), 0, False),
        (replace(FEED, connected=False), price(), 0, False),
        (replace(FEED, state=LinkState.BACKING_OFF), price(), 0, False),
        (replace(FEED, market=MarketPhase.CLOSED), price(), 0, False),
        (replace(FEED, symbols=frozenset({"MSFT"})), price(), 0, False),
        (replace(FEED, symbols=frozenset({"*"})), price(), 0, True),
    ],
)
def test_what_a_link_vouches_for(feed: FeedStatus | None, one: Price, heard_s: float | None, expected: bool) -> None:
    heard_at = None if heard_s is None else NOW - timedelta(seconds=heard_s)
    assert vouches(vouching_feed(feed, heard_at, NOW), one) is expected
