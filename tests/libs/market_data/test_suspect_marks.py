"""What a suspect price may mark: long 100 at 140; 149.99/150.01, then the venue withdraws it."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.freshness import (
    ClosingPrice,
    FeedWord,
    Mark,
    MarkRule,
    MarkRules,
    MarkState,
    PriceSource,
    choose_mark,
)
from libs.market_data.prices import MarketPhase, Price
from libs.market_data.suspect_marks import as_last_trade
from libs.market_data.trading_sessions import TradingPhase

NOW = datetime(2025, 10, 20, 15, 0, tzinfo=UTC)
CLOSE = ClosingPrice(Decimal("145.00"), date(2025, 10, 17))


def suspect(for_s: float, quote_age_s: float = 3600, **fields: object) -> Price:
    """Return the price whose newer quotes have been rejected for `for_s` seconds."""
    at = NOW - timedelta(seconds=quote_age_s)
    known = {
        "bid": Decimal("149.99"), "ask": Decimal("150.01"), "received_at": at, "epoch": "e1", "feed": "iex",
        "suspect_since": NOW - timedelta(seconds=for_s), "suspect_reason": "one_sided", "suspect_quotes": 1,
        "newest_ask": Decimal(148),
    }  # fmt: skip
    return Price("SYM", Decimal("150.00"), at, **(known | fields))  # type: ignore[arg-type]


def mark_of(price: Price, rule: MarkRule = MarkRule.MID, **asked: object) -> Mark:
    usual = {
        "rules": MarkRules(15, 300, rule), "word": FeedWord.VOUCHED, "last_vouched_at": None, "close": CLOSE,
        "market": MarketPhase.OPEN, "now": NOW,
    }  # fmt: skip
    return choose_mark(price, **(usual | asked))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("for_s", "expected", "reason"),
    [
        (0, PriceSource.REAL_TIME, None),
        (14.9, PriceSource.REAL_TIME, None),
        (15, PriceSource.STALE, "one_sided"),
        (300, PriceSource.STALE, "one_sided"),
        (300.001, PriceSource.CLOSING, None),
        (-1.9, PriceSource.REAL_TIME, None),  # the writer's clock is a little ahead
        (-2.1, PriceSource.STALE, "one_sided"),  # nobody knows since when
    ],
)
def test_the_ladder_of_a_suspect_price_that_the_link_vouches_for(
    for_s: float, expected: PriceSource, reason: str | None
) -> None:
    mark = mark_of(suspect(for_s))
    assert (mark.source, mark.stale_reason) == (expected, reason)
    assert mark.suspect_since == NOW - timedelta(seconds=for_s)


def test_vouching_after_it_became_suspect_gives_no_longer_life() -> None:
    vouched_now = {"word": FeedWord.NOTHING, "last_vouched_at": NOW}
    assert mark_of(suspect(299), **vouched_now).source is PriceSource.STALE
    assert mark_of(suspect(301), **vouched_now).source is PriceSource.CLOSING
    assert mark_of(suspect(301), close=None, **vouched_now).source is PriceSource.UNAVAILABLE


def test_a_halt_precedes_it() -> None:
    mark = mark_of(suspect(3600), word=FeedWord.HALTED)
    assert (mark.source, mark.stale_reason, mark.exit_bid, mark.exit_ask) == (PriceSource.HALTED, None, None, 148)


@pytest.mark.parametrize("word", [FeedWord.DOUBTED, FeedWord.LATE])
def test_what_is_not_live_anyway_is_not_live(word: FeedWord) -> None:
    assert mark_of(suspect(1), word=word).source in {PriceSource.STALE, PriceSource.CLOSING}


@pytest.mark.parametrize(
    ("for_s", "quotes", "exits"),
    [
        (0.5, 1, (Decimal("149.99"), Decimal("150.01"))),
        (0.5, 2, (None, 148)),
        (1, 1, (None, 148)),
        (100, 2, (None, 148)),
        (301, 2, (None, None)),  # a close has no sides
    ],
)
def test_closing_meets_the_newest_quotes_usable_side(for_s: float, quotes: int, exits: tuple[object, object]) -> None:
    mark = mark_of(suspect(for_s, suspect_quotes=quotes))
    assert (mark.exit_bid, mark.exit_ask) == exits


@pytest.mark.parametrize(
    ("for_s", "source"), [(0.5, PriceSource.REAL_TIME), (1, PriceSource.STALE), (20, PriceSource.STALE)]
)
def test_marking_by_liquidation_is_not_live_once_the_side_is_gone(for_s: float, source: PriceSource) -> None:
    mark = mark_of(suspect(for_s), MarkRule.LIQUIDATION)
    assert (mark.source, mark.price) == (source, Decimal("149.99"))


def trade(age_s: float, for_s: float = 60, **fields: object) -> Price:
    return suspect(for_s, last=Decimal(124), last_timestamp=NOW - timedelta(seconds=age_s), **fields)


@pytest.mark.parametrize(
    ("age_s", "source", "price"),
    [
        (0, PriceSource.REAL_TIME, "124"),
        (14, PriceSource.REAL_TIME, "124"),
        (15, PriceSource.STALE, "124"),
        (59, PriceSource.STALE, "124"),
        (60, PriceSource.STALE, "150.00"),  # not later than suspect_since: the dead quote bounds it
        (61, PriceSource.STALE, "150.00"),
    ],
)
def test_a_later_trade_marks_by_its_own_age(age_s: float, source: PriceSource, price: str) -> None:
    mark = mark_of(trade(age_s), MarkRule.LAST)
    assert (mark.source, mark.price) == (source, Decimal(price))
    if price == "124":
        traded_at = NOW - timedelta(seconds=age_s)
        assert (mark.rule, mark.age_s, mark.last_updated) == (MarkRule.LAST, age_s, traded_at)
        assert (mark.bid, mark.ask, mark.received_at) == (None, None, None)
        assert (mark.exit_bid, mark.exit_ask) == (None, 148)


def test_a_later_trade_has_a_life_of_its_own_and_is_nothing_to_the_other_rules() -> None:
    assert mark_of(trade(299, for_s=400), MarkRule.LAST).price == 124
    assert mark_of(trade(301, for_s=400), MarkRule.LAST).source is PriceSource.CLOSING
    assert mark_of(trade(1), MarkRule.MID).price == 150
    assert mark_of(trade(1, feed="delayed_sip"), MarkRule.LAST).state is MarkState.DELAYED
    assert mark_of(trade(1), MarkRule.LAST, word=FeedWord.DOUBTED).source is PriceSource.STALE


def test_there_must_be_a_trade() -> None:
    with pytest.raises(ValueError, match="SYM"):
        as_last_trade(suspect(1))


@pytest.mark.parametrize("session", [TradingPhase.PRE, TradingPhase.POST, None])
@pytest.mark.parametrize(
    ("age_s", "expected", "at_night"),
    [
        (10, PriceSource.REAL_TIME, PriceSource.REAL_TIME),
        (20, PriceSource.STALE, PriceSource.CLOSING),
        (300, PriceSource.STALE, PriceSource.CLOSING),
        (301, PriceSource.CLOSING, PriceSource.CLOSING),
    ],
)
def test_before_and_after_the_session_a_stale_quote_comes_before_a_close(
    session: TradingPhase | None, age_s: float, expected: PriceSource, at_night: PriceSource
) -> None:
    """A quote every 20 s must not make the total jump between quote and close."""
    at = NOW - timedelta(seconds=age_s)
    price = Price("SYM", Decimal(150), at, received_at=at, epoch="e1")
    out = {"market": MarketPhase.CLOSED, "word": FeedWord.NOTHING, "session": session}
    mark = mark_of(price, **out)
    assert mark.source is (at_night if session is None else expected)
    assert mark.stale_reason == ("out_of_hours" if mark.source is PriceSource.STALE else None)
    assert mark.state is not MarkState.FALLBACK
    only_regular = mark_of(price, **out, rules=MarkRules(15, 300, extended_hours=False))
    assert only_regular.source is PriceSource.CLOSING, "as ever"
    assert mark_of(price, **out | {"session": TradingPhase.CLOSED}).source is at_night


def test_a_suspect_quote_marks_nothing_live_out_of_hours_either() -> None:
    out = {"market": MarketPhase.CLOSED, "word": FeedWord.NOTHING, "session": TradingPhase.POST}
    assert mark_of(suspect(16, quote_age_s=5), **out).source is PriceSource.STALE
    assert (
        mark_of(suspect(16, quote_age_s=5), **out, rules=MarkRules(15, 300, extended_hours=False)).extended_price
        is None
    )


@pytest.mark.parametrize(
    ("asked", "fields", "reason"),
    [
        ({"word": FeedWord.NOTHING}, {}, "link"),
        ({"word": FeedWord.NOTHING}, {"epoch": None}, "link"),
        ({"word": FeedWord.LATE}, {}, "late"),
        ({"word": FeedWord.DOUBTED}, {}, "link"),
        ({"word": FeedWord.VOUCHED}, {"received_at": NOW + timedelta(seconds=70)}, "ahead"),
    ],
)
def test_a_stale_mark_says_why(asked: dict[str, object], fields: dict[str, object], reason: str) -> None:
    at = NOW - timedelta(seconds=20)
    price = Price("SYM", Decimal(150), at, **({"received_at": at, "epoch": "e1"} | fields))  # type: ignore[arg-type]
    mark = mark_of(price, **asked)
    assert (mark.source, mark.stale_reason) == (PriceSource.STALE, reason)


@given(
    for_s=st.floats(-100, 1000), age_s=st.floats(0, 1000), traded_s=st.none() | st.floats(0, 1000),
    word=st.sampled_from(FeedWord), rule=st.sampled_from([MarkRule.MID, MarkRule.LAST, MarkRule.LIQUIDATION]),
    market=st.sampled_from(MarketPhase), session=st.sampled_from(TradingPhase),
)  # fmt: skip
def test_no_quote_is_live_once_it_has_been_suspect_for_15_s(
    for_s: float, age_s: float, traded_s: float | None, word: FeedWord, rule: MarkRule, market: MarketPhase,
    session: TradingPhase,
) -> None:  # fmt: skip
    fields = {} if traded_s is None else {"last": Decimal(124), "last_timestamp": NOW - timedelta(seconds=traded_s)}
    price = suspect(for_s, age_s, **fields)
    mark = mark_of(price, rule, word=word, market=market, session=session)
    if mark.source in {PriceSource.REAL_TIME, PriceSource.DELAYED} and for_s >= 15:
        assert rule is MarkRule.LAST
        assert traded_s is not None
        assert traded_s < 15
        assert traded_s < for_s
        assert mark.price == 124
    assert (mark.stale_reason is not None) == (mark.source is PriceSource.STALE)
