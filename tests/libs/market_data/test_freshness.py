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
    MarkRule,
    MarkRules,
    MarkState,
    PriceSource,
    choose_mark,
    live_feed,
    word_of,
)
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price

NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)
MIDNIGHT = datetime(2025, 10, 20, 4, 0, tzinfo=UTC)
"""When the New York day of NOW began."""
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
    rules = MarkRules(15, 300, asked.pop("rule", MarkRule.MID), asked.pop("extended_hours", True))  # type: ignore[arg-type]
    usual = {
        "rules": rules,
        "word": FeedWord.NOTHING,
        "last_vouched_at": None,
        "close": CLOSE,
        "market": MarketPhase.OPEN,
        "now": NOW,
    }
    return choose_mark(one, **(usual | asked))  # type: ignore[arg-type]


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
    expected = Mark(
        PriceSource.REAL_TIME, one.mid, one.bid, one.ask, one.timestamp, 2.0, None, MarkState.LIVE, MarkRule.MID, None,
        None, one.feed, one.received_at,
    )  # fmt: skip
    assert mark_of(one) == expected


def test_a_closing_mark_carries_its_session_and_nothing_of_a_quote() -> None:
    assert mark_of(None) == Mark(
        PriceSource.CLOSING, CLOSE.price, closing_date=CLOSE.session, state=MarkState.FALLBACK, rule=MarkRule.CLOSE
    )


def test_nothing_known_is_said_to_be_nothing() -> None:
    assert mark_of(None, close=None) is UNAVAILABLE
    assert Mark(PriceSource.UNAVAILABLE) == UNAVAILABLE


def test_a_price_of_only_mid_and_timestamp_is_live_by_its_timestamp() -> None:
    assert mark_of(Price("AAPL", Decimal(152), NOW)) == Mark(
        PriceSource.REAL_TIME, Decimal(152), None, None, NOW, 0.0, None, MarkState.LIVE, MarkRule.MID
    )


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
    assert (word_of(live_feed(feed, heard_at, NOW), one, MIDNIGHT) is FeedWord.VOUCHED) is expected


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
    assert word_of(live_feed(feed, NOW - timedelta(seconds=heard_s), NOW), price(), MIDNIGHT) is expected


@pytest.mark.parametrize("rest", [False, True])
def test_a_quote_of_an_earlier_day_is_vouched_for_by_nobody(*, rest: bool) -> None:
    """However long the connection has stood: what REST fetched over it this morning may be Friday's."""
    friday = MIDNIGHT - timedelta(hours=60)
    one = replace(price(), timestamp=friday, received_at=friday if rest else friday + timedelta(seconds=1))
    feed = live_feed(FEED, NOW, NOW)
    assert word_of(feed, one, MIDNIGHT) is FeedWord.NOTHING
    assert word_of(feed, replace(one, timestamp=MIDNIGHT), MIDNIGHT) is FeedWord.VOUCHED
    assert word_of(live_feed(HALTING, NOW, NOW), one, MIDNIGHT) is FeedWord.HALTED, "as its age says, of that day"


@pytest.mark.parametrize(
    ("rule", "last", "is_short", "expected"),
    [
        (MarkRule.MID, "152.005", False, ("152.00", MarkRule.MID)),
        (MarkRule.LAST, "152.005", False, ("152.005", MarkRule.LAST)),
        (MarkRule.LAST, "151.99", True, ("151.99", MarkRule.LAST)),
        (MarkRule.LAST, "152.02", False, ("152.00", MarkRule.MID)),
        (MarkRule.LAST, "151.98", False, ("152.00", MarkRule.MID)),
        (MarkRule.LAST, None, False, ("152.00", MarkRule.MID)),
        (MarkRule.LIQUIDATION, "152.005", False, ("151.99", MarkRule.LIQUIDATION)),
        (MarkRule.LIQUIDATION, None, True, ("152.01", MarkRule.LIQUIDATION)),
    ],
)
def test_each_rule_names_the_price_it_took(
    rule: MarkRule, last: str | None, is_short: bool, expected: tuple[str, MarkRule]
) -> None:
    one = price(1, last=None if last is None else Decimal(last))
    mark = mark_of(one, rule=rule, is_short=is_short)
    assert (str(mark.price), mark.rule) == expected


@pytest.mark.parametrize("rule", MarkRule)
def test_a_price_without_sides_marks_at_its_mid_whatever_the_rule(rule: MarkRule) -> None:
    mark = mark_of(Price("AAPL", Decimal(152), NOW, last=Decimal(151)), rule=rule)
    assert (mark.price, mark.rule) == (152, MarkRule.MID)


def test_out_of_hours_a_quote_marks_only_where_the_settings_let_it() -> None:
    fresh = price(1)
    assert mark_of(fresh, market=MarketPhase.CLOSED).state is MarkState.LIVE
    shut = mark_of(fresh, market=MarketPhase.CLOSED, extended_hours=False)
    assert (shut.source, shut.state, shut.price) == (PriceSource.CLOSING, MarkState.CLOSED, CLOSE.price)
    assert shut.extended_price == fresh.mid
    unknown = mark_of(fresh, market=MarketPhase.CLOSED, extended_hours=False, close=None)
    assert (unknown.source, unknown.price, unknown.extended_price) == (PriceSource.UNAVAILABLE, None, fresh.mid)
    assert mark_of(price(20), market=MarketPhase.CLOSED, extended_hours=False).extended_price is None
    assert mark_of(fresh, extended_hours=False).state is MarkState.LIVE


def test_a_close_in_an_open_market_is_a_makeshift() -> None:
    assert mark_of(None).state is MarkState.FALLBACK
    assert mark_of(None, market=MarketPhase.CLOSED).state is MarkState.CLOSED


LATE_FEED = replace(FEED, lag_s=60.0)


@pytest.mark.parametrize("stale_after_s", [15, 3_600])
@pytest.mark.parametrize("market", MarketPhase)
@pytest.mark.parametrize("late_s", [15.5, 60, 240])
def test_a_late_stream_makes_nothing_live(late_s: float, market: MarketPhase, stale_after_s: float) -> None:
    came_late = replace(price(), timestamp=NOW - timedelta(seconds=late_s))
    word = word_of(live_feed(replace(LATE_FEED, market=market), NOW, NOW), came_late, MIDNIGHT)
    assert word is FeedWord.LATE
    mark = mark_of(came_late, word=word, market=market, close=None, rules=MarkRules(stale_after_s, 300))
    assert (mark.source, mark.age_s, mark.price) == (PriceSource.STALE, late_s, came_late.mid)
    assert mark.stale_reason == "late"


@pytest.mark.parametrize(
    ("one", "word", "reason"),
    [
        (price(20), FeedWord.NOTHING, "link"),
        (price(1), FeedWord.DOUBTED, "link"),
        (price(1), FeedWord.LATE, "late"),
        (price(-61), FeedWord.VOUCHED, "ahead"),
        (price(1), FeedWord.NOTHING, None),
        (price(100), FeedWord.VOUCHED, None),
        (price(100), FeedWord.HALTED, None),
        (price(301), FeedWord.NOTHING, None),
        (None, FeedWord.NOTHING, None),
    ],
)
def test_a_stale_mark_says_why_it_is_not_live(one: Price | None, word: FeedWord, reason: str | None) -> None:
    assert mark_of(one, word=word).stale_reason == reason


def test_what_came_later_than_the_longest_a_price_may_be_kept_is_no_mark() -> None:
    came_late = replace(price(), timestamp=NOW - timedelta(seconds=900))
    assert mark_of(came_late, word=FeedWord.LATE).source is PriceSource.CLOSING
    assert mark_of(came_late, word=FeedWord.LATE, close=None).source is PriceSource.UNAVAILABLE


def test_a_late_stream_says_nothing_of_prices_that_did_not_come_over_it() -> None:
    polled = price(1, epoch=None)
    assert word_of(live_feed(LATE_FEED, NOW, NOW), polled, MIDNIGHT) is FeedWord.NOTHING
    assert word_of(live_feed(LATE_FEED, NOW, NOW), price(1, epoch="e0"), MIDNIGHT) is FeedWord.LATE
    halted = replace(LATE_FEED, halted=frozenset({"AAPL"}))
    assert word_of(live_feed(halted, NOW, NOW), price(1), MIDNIGHT) is FeedWord.LATE, "the halt may be over"


@given(ahead_s=st.floats(60.001, 3.2e9), received_s=st.none() | st.floats(-1e5, 3.2e9), word=st.sampled_from(FeedWord))
def test_a_price_stamped_far_ahead_is_never_live(ahead_s: float, received_s: float | None, word: FeedWord) -> None:
    received_at = None if received_s is None else NOW + timedelta(seconds=received_s)
    one = replace(price(), timestamp=NOW + timedelta(seconds=ahead_s), received_at=received_at)
    assert mark_of(one, word=word).state is not MarkState.LIVE
