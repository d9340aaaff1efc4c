from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.freshness import (
    UNAVAILABLE,
    ClosingPrice,
    FeedWord,
    Mark,
    PriceSource,
    choose_mark,
    live_feed,
    word_of,
)
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
    usual = {"word": FeedWord.NOTHING, "last_vouched_at": None, "close": CLOSE, "market": MarketPhase.OPEN, "now": NOW}
    return choose_mark(one, **(usual | {"stale_after_s": 15, "ttl_s": 300} | asked))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "asked", "expected"),
    [
        (price(14.9), {}, PriceSource.REAL_TIME),
        (price(15), {}, PriceSource.STALE),
        (price(3600), {"word": FeedWord.VOUCHED}, PriceSource.REAL_TIME),
        (price(1), {"word": FeedWord.DOUBTED}, PriceSource.STALE),
        (price(1, feed="delayed_sip"), {"word": FeedWord.DOUBTED}, PriceSource.STALE),
        (price(1), {"word": FeedWord.DOUBTED, "market": MarketPhase.CLOSED}, PriceSource.CLOSING),
        (price(301), {"word": FeedWord.DOUBTED, "close": None}, PriceSource.UNAVAILABLE),
        (price(1), {"word": FeedWord.HALTED}, PriceSource.HALTED),
        (price(36_000), {"word": FeedWord.HALTED, "close": None}, PriceSource.HALTED),
        (price(1, feed="delayed_sip"), {"word": FeedWord.HALTED}, PriceSource.HALTED),
        (price(36_000), {"word": FeedWord.HALTED, "market": MarketPhase.CLOSED}, PriceSource.CLOSING),
        (None, {"word": FeedWord.HALTED}, PriceSource.CLOSING),
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
        (price(-7200), {"word": FeedWord.VOUCHED}, PriceSource.STALE),
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
    word=st.sampled_from(FeedWord),
    close=st.sampled_from([None, CLOSE]),
    market=st.sampled_from(MarketPhase),
)
def test_a_mark_is_whole_whatever_the_circumstances(
    age_s: float, vouched_s: float | None, word: FeedWord, close: ClosingPrice | None, market: MarketPhase
) -> None:
    last = None if vouched_s is None else NOW - timedelta(seconds=vouched_s)
    mark = mark_of(price(age_s), word=word, last_vouched_at=last, close=close, market=market)
    assert (mark.price is None) == (mark.source is PriceSource.UNAVAILABLE)
    assert (mark.closing_date is not None) == (mark.source is PriceSource.CLOSING)
    assert (mark.age_s is None) == (mark.source in {PriceSource.CLOSING, PriceSource.UNAVAILABLE})
    if mark.source is PriceSource.UNAVAILABLE:
        assert close is None
    if mark.source is PriceSource.REAL_TIME:
        assert word is FeedWord.VOUCHED or age_s < 15
        assert word is not FeedWord.DOUBTED
        assert word is not FeedWord.HALTED or market is MarketPhase.CLOSED


@pytest.mark.parametrize(
    ("feed", "one", "heard_s", "expected"),
    [
        (FEED, price(), 0, True),
        (FEED, price(), 6, True),
        (replace(FEED, doubted=frozenset({"MSFT"})), price(), 0, True),
        (replace(FEED, doubted=frozenset({"AAPL"})), price(), 0, False),
        (replace(FEED, halted=frozenset({"AAPL"})), price(), 0, False),
        (FEED, price(), 6.001, False),
        (FEED, price(), -6.001, False),  # our clock was set back since
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
    assert (word_of(live_feed(feed, heard_at, NOW), one) is FeedWord.VOUCHED) is expected


DOUBTING = replace(FEED, doubted=frozenset({"AAPL"}))
HALTING = replace(FEED, halted=frozenset({"AAPL"}))
OFF_LINE = {"state": LinkState.BACKING_OFF, "connected": False, "symbols": frozenset[str]()}


@pytest.mark.parametrize(
    ("feed", "heard_s", "expected"),
    [
        (DOUBTING, 0, FeedWord.DOUBTED),
        (replace(FEED, doubted=frozenset({"*"})), 0, FeedWord.DOUBTED),
        (replace(DOUBTING, **OFF_LINE), 0, FeedWord.DOUBTED),  # type: ignore[arg-type]
        (DOUBTING, 7, FeedWord.NOTHING),
        (HALTING, 0, FeedWord.HALTED),
        (replace(HALTING, doubted=frozenset({"AAPL"})), 0, FeedWord.HALTED),
        (replace(HALTING, epoch="e2"), 0, FeedWord.HALTED),
        (replace(HALTING, **OFF_LINE), 0, FeedWord.NOTHING),  # type: ignore[arg-type]
        (HALTING, 7, FeedWord.NOTHING),
        (FEED, 0, FeedWord.VOUCHED),
    ],
)
def test_what_the_feed_says_of_a_price(feed: FeedStatus, heard_s: float, expected: FeedWord) -> None:
    assert word_of(live_feed(feed, NOW - timedelta(seconds=heard_s), NOW), price()) is expected
