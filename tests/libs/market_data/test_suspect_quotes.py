"""Which quotes make the price held of a symbol suspect, what ends that, and what of it is written and published."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.prices import Price, PriceWrite
from libs.market_data.quote_intake import QuoteIntake
from libs.market_data.quotes import Quote, QuoteOrigin, Unmarkable, usable_sides
from libs.market_data.suspect_marks import has_later_trade, is_overdue
from libs.market_data.suspect_quotes import Rejection, SuspectQuotes
from tests.support.quotes import NOON, make_quote, make_trade

REST = QuoteOrigin.REST


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@dataclass
class Feed:
    """Quotes in by the intake, prices out of the newest quotes, as main.py connects them."""

    latest: LatestQuotes
    intake: QuoteIntake
    epoch: str | None = "e1"

    def stream(self, quote: Quote) -> None:
        self.intake.take_streamed(quote)

    def fetch(self, quote: Quote) -> None:
        self.intake.take_fetched(replace(quote, origin=REST))

    def price(self) -> Price:
        price = self.latest.price("AAPL")
        assert price is not None
        return price

    def take(self, now_s: float) -> PriceWrite | None:
        writes = self.latest.take(now_s)
        return writes[0] if writes else None


def make_feed() -> Feed:
    latest = LatestQuotes("iex")
    feed = Feed(latest, QuoteIntake(lambda _symbol: True, 10.0))
    feed.intake.add_handler(lambda quote: latest.put(quote, feed.epoch))
    feed.intake.add_rejection_handler(latest.take_rejected)
    return feed


@pytest.fixture
def feed() -> Feed:
    made = make_feed()
    made.stream(make_quote(bid=149.99, ask=150.01))
    made.take(0.0)
    return made


REJECTED = [
    ({"bid": 0.0, "ask": 149.0}, "one_sided", (None, "149")),
    ({"bid": 148.0, "ask": 0.0}, "one_sided", ("148", None)),
    ({"bid": None, "ask": 149.0}, "one_sided", (None, "149")),
    ({"bid": 0.0, "ask": 0.0}, "one_sided", (None, None)),
    ({"bid": 151.0, "ask": 149.0}, "crossed", (None, None)),
    ({"bid": 100.0, "ask": 200.0}, "too_wide", ("100", "200")),
    ({"conditions": ("N",)}, "not_firm", (None, None)),
    ({"bid": 0.0, "conditions": ("N",)}, "one_sided", (None, None)),
    ({"bid": nan, "ask": 149.0}, "not_finite", (None, "149")),
    ({"bid": 149.0, "ask": inf}, "not_finite", ("149", None)),
    ({"bid": -1.0, "ask": 149.0}, "negative", (None, "149")),
    ({"bid": 1e-7, "ask": 149.0}, "absurd", (None, "149")),
    ({"bid": 149.0, "ask": 1e10}, "absurd", ("149", None)),
    ({"timestamp": None}, "untimed", (None, None)),
    ({"timestamp": at(3600)}, "ahead", (None, None)),
    ({"timestamp": at(-5)}, "out_of_order", (None, None)),
]


@pytest.mark.parametrize(("changes", "reason", "sides"), REJECTED)
def test_whatever_the_reason_a_newer_quote_that_may_not_mark_makes_the_price_suspect(
    feed: Feed, changes: dict[str, object], reason: str, sides: tuple[str | None, str | None]
) -> None:
    feed.stream(make_quote(**{"at_s": 1, **changes}))  # type: ignore[arg-type]
    write = feed.take(1.0)
    assert write is not None
    price = write.price
    assert write.publish
    assert (price.suspect_since, price.suspect_reason, price.suspect_quotes) == (at(1), reason, 1)
    assert (price.newest_bid, price.newest_ask) == tuple(None if side is None else Decimal(side) for side in sides)
    assert (price.bid, price.ask, price.mid, price.seq) == (Decimal("149.99"), Decimal("150.01"), 150, 2)
    assert (price.timestamp, price.received_at) == (NOON, NOON), "what is held is as old as before"


@pytest.mark.parametrize(("kind", "is_suspect"), [(None, True), ("q", True), ("t", False), ("s", False)])
def test_an_unreadable_message_makes_suspect_unless_it_was_not_a_quote(
    feed: Feed, kind: str | None, *, is_suspect: bool
) -> None:
    feed.intake.reject_malformed("AAPL", kind, at(1))
    assert (feed.price().suspect_reason == "malformed") is is_suspect
    assert feed.intake.records.of("AAPL").rejected["malformed"] == 1


def test_it_is_published_once_and_the_key_has_the_newest(feed: Feed) -> None:
    seen = []
    for second, ask in enumerate((149.0, 148.0, 147.0), start=1):
        feed.stream(make_quote(bid=0.0, ask=ask, at_s=second))
        write = feed.take(float(second))
        assert write is not None
        seen.append((write.publish, write.price.seq, write.price.newest_ask, write.price.suspect_quotes))
    feed.stream(make_quote(bid=150.0, ask=148.0, at_s=4))
    write = feed.take(4.0)
    assert write is not None
    seen.append((write.publish, write.price.seq, write.price.newest_ask, write.price.suspect_quotes))
    assert seen == [(True, 2, 149, 1), (False, 2, 148, 2), (False, 2, 147, 2), (False, 2, None, 2)]
    assert (write.price.suspect_since, write.price.suspect_reason) == (at(1), "crossed")
    feed.stream(make_quote(bid=149.99, ask=150.01, at_s=5))
    write = feed.take(5.0)
    assert write is not None
    assert (write.publish, write.price.seq, write.price.suspect_since) == (True, 3, None), "the same, and good again"


def test_rejections_renew_no_life_in_the_cache_and_a_good_quote_or_a_later_trade_does(feed: Feed) -> None:
    ages = []
    for second in (10, 20):
        feed.stream(make_quote(bid=0.0, ask=149.0, at_s=second))
        ages.append(write.age_s if (write := feed.take(float(second))) else None)
    feed.latest.renew(["AAPL"], "e1")
    assert feed.take(100.0) is None, "nothing vouches for it"
    feed.latest.mark_unwritten()
    ages.append(write.age_s if (write := feed.take(200.0)) else None)
    feed.latest.take_trade(make_trade(1, 150.0, at_s=5))
    ages.append(write.age_s if (write := feed.take(210.0)) else None)
    feed.latest.take_trade(make_trade(2, 124.0, at_s=215))
    ages.append(write.age_s if (write := feed.take(215.0)) else None)
    feed.stream(make_quote(at_s=220))
    ages.append(write.age_s if (write := feed.take(220.0)) else None)
    assert ages == [10, 20, 200, 210, 0, 0]


def test_a_trade_stamped_ahead_of_us_is_no_later_than_it_came(feed: Feed) -> None:
    """A print from before the withdrawal must not mark as one from after it, whatever its venue's clock says."""
    feed.latest.take_trade(make_trade(price=150.0, timestamp=at(59), received_at=at(1)))
    for second in (2, 3):
        feed.stream(make_quote(bid=0.0, ask=149.0, at_s=second))
    assert (feed.price().last_timestamp, has_later_trade(feed.price())) == (at(1), False)
    feed.latest.take_trade(make_trade(2, price=124.0, timestamp=at(62), received_at=at(4)))
    assert (feed.price().last_timestamp, has_later_trade(feed.price())) == (at(4), True)


def test_a_single_spoiled_copy_between_good_ones_leaves_nothing(feed: Feed) -> None:
    feed.stream(make_quote(bid=0.0, ask=149.0, at_s=1))
    feed.stream(make_quote(bid=149.99, ask=150.01, at_s=1))
    write = feed.take(1.0)
    assert write is not None
    assert (write.price.suspect_since, write.price.mid) == (None, 150)


def test_a_quote_by_rest_ends_it_only_when_it_is_later_than_all_that_is_known(feed: Feed) -> None:
    feed.stream(make_quote(bid=0.0, ask=149.0, timestamp=at(10), received_at=at(12)))
    for time in (5, 10, 11, 12):
        feed.fetch(make_quote(bid=149.98, ask=150.02, timestamp=at(time), received_at=at(20)))
        assert feed.price().suspect_since == at(12), time
    feed.fetch(make_quote(bid=149.98, ask=150.02, timestamp=at(12.001), received_at=at(20)))
    assert feed.price().suspect_since is None


def test_a_quote_by_rest_that_is_not_newer_says_nothing(feed: Feed) -> None:
    feed.fetch(make_quote(bid=0.0, ask=149.0, timestamp=at(-1), received_at=at(20)))
    feed.fetch(make_quote(bid=149.98, ask=150.02, timestamp=at(-1), received_at=at(20)))
    assert feed.intake.records.of("AAPL").rejected == {"one_sided": 1, "older_than_stream": 1}
    assert feed.price().suspect_since is None
    feed.fetch(make_quote(bid=0.0, ask=149.0, timestamp=at(1), received_at=at(20)))
    assert (feed.price().suspect_since, feed.price().suspect_quotes) == (at(20), 1)
    feed.fetch(make_quote(bid=0.0, ask=149.0, timestamp=at(1), received_at=at(25)))
    assert feed.price().suspect_quotes == 1, "the very same again"


def test_a_polled_symbol_is_suspect_too() -> None:
    feed = make_feed()
    feed.epoch = None
    feed.fetch(make_quote(bid=149.99, ask=150.01))
    feed.fetch(make_quote(bid=0.0, ask=148.0, at_s=5))
    assert (feed.price().suspect_reason, feed.price().newest_ask) == ("one_sided", 148)
    feed.fetch(make_quote(bid=147.99, ask=148.01, at_s=10))
    assert (feed.price().suspect_reason, feed.price().mid) == (None, 148)


def test_a_reconnect_does_not_end_it(feed: Feed) -> None:
    feed.stream(make_quote(bid=0.0, ask=149.0, at_s=1))
    feed.take(1.0)
    feed.epoch = "e2"
    feed.fetch(make_quote(bid=149.99, ask=150.01))
    write = feed.take(2.0)
    assert write is not None
    assert (write.price.epoch, write.publish, write.price.suspect_since) == ("e2", True, at(1))


def test_a_stream_behind_the_snapshot_is_not_locked_out_without_a_word() -> None:
    feed = make_feed()
    feed.fetch(make_quote(bid=149.99, ask=150.01, at_s=100))
    for second in (101, 102):
        feed.stream(make_quote(bid=139.99, ask=140.01, timestamp=at(second - 60), received_at=at(second)))
    assert (feed.price().suspect_reason, feed.price().suspect_since) == ("out_of_order", at(101))
    assert feed.price().mid == 150


def test_an_older_quote_by_rest_that_comes_after_the_rejected_one_is_suspect_at_once() -> None:
    feed = make_feed()
    feed.stream(make_quote(bid=0.0, ask=149.0, at_s=10))
    assert feed.latest.price("AAPL") is None
    feed.fetch(make_quote(bid=149.99, ask=150.01, timestamp=at(5), received_at=at(11)))
    assert (feed.price().suspect_since, feed.price().newest_ask) == (at(10), 149)


@pytest.mark.parametrize(
    ("held_at_s", "is_suspect"),
    [(0, True), (10, True), (12, True), (12.5, False)],
    ids=["same", "first", "last", "later"],
)
def test_a_new_process_takes_over_what_the_last_one_wrote(held_at_s: float, *, is_suspect: bool) -> None:
    """The last one held a quote of 0 s, and had two rejected, of 10 and 12 s."""
    old = make_feed()
    old.stream(make_quote(bid=149.99, ask=150.01))
    for second in (10, 12):
        old.stream(make_quote(bid=0.0, ask=149.0, at_s=second))
    feed = make_feed()
    feed.fetch(make_quote(bid=149.99, ask=150.01, timestamp=at(held_at_s), received_at=at(30)))
    assert list(feed.latest.to_recall) == ["AAPL"]
    feed.latest.recall(["AAPL"], [old.price()])
    assert list(feed.latest.to_recall) == []
    assert (feed.price().suspect_since == at(10)) is is_suspect
    if is_suspect:
        assert (feed.price().suspect_quotes, feed.price().newest_ask) == (2, 149)


def test_a_price_that_was_suspect_before_a_restart_is_not_live_again_for_a_while() -> None:
    """The new process has a quote rejected before REST shows it the withdrawn one: suspect since 10 s, not 200 s."""
    old = make_feed()
    old.stream(make_quote(bid=149.99, ask=150.01))
    old.stream(make_quote(bid=0.0, ask=149.0, at_s=10))
    feed = make_feed()
    feed.stream(make_quote(bid=0.0, ask=148.0, at_s=200))
    feed.fetch(make_quote(bid=149.99, ask=150.01, received_at=at(201)))
    feed.latest.recall(["AAPL"], [old.price()])
    price = feed.price()
    assert (price.suspect_since, price.suspect_quotes, price.newest_ask) == (at(10), 2, 148)
    assert is_overdue(price, at(201), 15)
    feed.fetch(make_quote(bid=147.99, ask=148.01, timestamp=at(200.5), received_at=at(202)))
    assert feed.price().suspect_since is None


def test_what_the_stream_has_brought_needs_no_word_of_an_earlier_process(feed: Feed) -> None:
    assert list(feed.latest.to_recall) == []
    other = make_feed()
    other.fetch(make_quote())
    other.stream(make_quote(at_s=1))
    assert list(other.latest.to_recall) == []


def test_a_correction_of_our_clock_corrects_since_when(feed: Feed) -> None:
    feed.stream(make_quote(bid=0.0, ask=149.0, at_s=1))
    feed.take(1.0)
    feed.latest.shift_received(timedelta(seconds=-60))
    write = feed.take(2.0)
    assert write is not None
    assert (write.price.suspect_since, write.publish) == (at(-59), True)


def test_what_nobody_wants_is_forgotten(feed: Feed) -> None:
    feed.stream(make_quote(bid=0.0, ask=149.0, at_s=1))
    assert list(feed.latest.suspects.symbols) == ["AAPL"]
    feed.latest.keep_only({"AAPL"})
    assert list(feed.latest.suspects.symbols) == ["AAPL"]
    feed.latest.keep_only(())
    assert list(feed.latest.suspects.symbols) == []


def test_a_handler_of_rejections_that_fails_costs_nothing_else(feed: Feed) -> None:
    def fail(_rejection: Rejection) -> None:
        raise RuntimeError

    feed.intake.add_rejection_handler(fail)
    feed.stream(make_quote(bid=0.0, at_s=1))
    assert feed.intake.counts["handler_errors"] == 1
    assert feed.price().suspect_since == at(1)


def test_the_sides_of_a_quote_crossed_beside_another_fault_are_not_usable() -> None:
    assert usable_sides(make_quote(bid=200.0, ask=100.0), Unmarkable.TOO_WIDE) == (None, None)


def test_a_recalled_price_without_details_counts_as_withdrawn() -> None:
    suspects = SuspectQuotes()
    price = Price("AAPL", Decimal(150), NOON, suspect_since=at(1))
    assert suspects.recall(price, make_quote(origin=REST))
    assert not suspects.recall(price, make_quote(origin=REST)), "known already"
    suspicion = suspects.of("AAPL")
    assert suspicion is not None
    assert (suspicion.reason, suspicion.quotes) == ("malformed", 2)


GOOD, BAD = "good", "bad"
STEPS = st.lists(
    st.tuples(
        st.sampled_from([QuoteOrigin.STREAM, REST]),
        st.sampled_from([GOOD, *(number for number, _ in enumerate(REJECTED[:13]))]),
        st.integers(-1, 3),
    ),
    max_size=40,
)


@given(STEPS)
def test_against_a_simple_model(steps: list[tuple[QuoteOrigin, object, int]]) -> None:
    """Each quote comes a second after the last; those by REST were made a while before."""
    feed = make_feed()
    feed.stream(make_quote(bid=149.99, ask=150.01))
    held, since, newest = 0.0, None, -1.0
    for second, (origin, kind, offset) in enumerate(steps, start=1):
        is_rest = origin is REST
        made = second - max(0, offset) - 0.5 if is_rest else float(second)
        changes = {} if kind == GOOD else REJECTED[kind][0]  # type: ignore[index, call-overload]
        quote = make_quote(**{"timestamp": at(made), "received_at": at(second), **changes})  # type: ignore[arg-type]
        (feed.fetch if is_rest else feed.stream)(quote)
        if kind == GOOD:
            if is_rest and made < held:
                continue
            if not is_rest or since is None or made > max(held, since, newest):
                since, newest = None, -1.0
            held = made if is_rest else max(made, held) if made < held else made
        elif not is_rest or made > max(held, newest):
            since, newest = float(second) if since is None else since, max(newest, made)
        assert feed.price().suspect_since == (None if since is None else at(since)), (second, origin, kind)
