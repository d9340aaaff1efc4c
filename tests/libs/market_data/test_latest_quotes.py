from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.prices import PriceWrite
from libs.market_data.quotes import QuoteOrigin, Unmarkable
from libs.market_data.trades import Ineligible, TradeCancel, TradesInterrupted
from tests.support.quotes import NOON, make_quote, make_trade


@pytest.fixture
def latest() -> LatestQuotes:
    return LatestQuotes("iex")


def taken(latest: LatestQuotes, now_s: float = 0.0) -> dict[str, PriceWrite]:
    return {pending.price.symbol: pending for pending in latest.take(now_s)}


def test_the_price_carries_both_clocks_and_every_digit(latest: LatestQuotes) -> None:
    latest.put(make_quote(bid=150.25, ask=150.28, ask_size=1.5), "e1")
    price = taken(latest)["AAPL"].price
    assert (price.bid, price.ask, price.mid) == (Decimal("150.25"), Decimal("150.28"), Decimal("150.265"))
    assert (price.bid_size, price.ask_size) == (Decimal(100), Decimal("1.5"))
    assert (price.feed, price.epoch, price.seq) == ("iex", "e1", 1)
    assert price.timestamp == price.received_at == NOON


@pytest.mark.parametrize("size", [None, float("nan"), -1.0, float("inf")])
def test_an_unreadable_size_is_unknown_and_refuses_nothing(latest: LatestQuotes, size: float | None) -> None:
    assert latest.put(make_quote(bid_size=size), "e1") is None
    assert taken(latest)["AAPL"].price.bid_size is None


def test_only_the_newest_of_a_burst_is_written(latest: LatestQuotes) -> None:
    for step in range(100):
        latest.put(make_quote(bid=100 + step, ask=101 + step), "e1")
    assert latest.conflated == 99
    batch = latest.take(0.0)
    assert [pending.price.bid for pending in batch] == [199]
    assert latest.take(0.0) == []


def test_arrival_order_wins_within_what_clocks_can_explain(latest: LatestQuotes) -> None:
    latest.put(make_quote(at_s=10), "e1")
    late = make_quote(bid=150.1, timestamp=NOON + timedelta(seconds=8), received_at=NOON + timedelta(seconds=11))
    assert latest.put(late, "e1") is None
    too_late = make_quote(bid=1.0, timestamp=NOON + timedelta(seconds=7), received_at=NOON + timedelta(seconds=12))
    assert latest.put(too_late, "e1") is Unmarkable.OUT_OF_ORDER
    assert latest.price("AAPL").bid == Decimal("150.1")  # type: ignore[union-attr]


def test_a_time_in_the_future_does_not_make_the_rest_look_late(latest: LatestQuotes) -> None:
    latest.put(make_quote(timestamp=NOON + timedelta(days=365)), "e1")
    assert latest.put(make_quote(bid=150.0, at_s=1), "e1") is None


def test_our_clock_set_back_does_not_stop_the_feed(latest: LatestQuotes) -> None:
    latest.put(make_quote(at_s=3600), "e1")
    assert latest.put(make_quote(bid=150.0, at_s=0), "e1") is None
    assert latest.put(make_quote(bid=150.1, at_s=1), "e1") is None


def test_rest_never_replaces_an_equal_or_newer_quote(latest: LatestQuotes) -> None:
    latest.put(make_quote(at_s=10), "e1")
    older = make_quote(bid=1.0, at_s=9, origin=QuoteOrigin.REST)
    assert latest.put(older, "e1") is Unmarkable.OLDER_THAN_STREAM
    latest.put(make_quote(bid=149.0, at_s=10, origin=QuoteOrigin.REST), "e1")
    assert latest.price("AAPL").bid == Decimal("150.25")  # type: ignore[union-attr]
    latest.put(make_quote(bid=149.0, at_s=11, origin=QuoteOrigin.REST), "e1")
    assert latest.price("AAPL").bid == 149  # type: ignore[union-attr]


def test_the_same_quote_fetched_over_a_new_connection_is_vouched_for_again(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take(0.0)
    latest.put(make_quote(origin=QuoteOrigin.REST), "e2")
    pending = taken(latest)["AAPL"]
    assert (pending.price.epoch, pending.price.seq, pending.publish) == ("e2", 1, True)


def test_a_quote_that_says_the_same_again_is_cached_but_published_at_most_once_a_second(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    assert taken(latest, 100.0)["AAPL"].publish
    latest.put(make_quote(at_s=0.5), "e1")
    again = taken(latest, 100.5)["AAPL"]
    assert (again.publish, again.price.seq) == (False, 1)
    assert again.price.timestamp == NOON + timedelta(seconds=0.5)
    latest.put(make_quote(at_s=1), "e1")
    assert taken(latest, 101.0)["AAPL"].publish


def test_a_failed_write_waits_again_and_a_newer_quote_wins(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take(0.0)
    latest.put(make_quote(bid=150.26, at_s=1), "e1")
    latest.mark_unwritten(["AAPL", "GONE"])
    pending = taken(latest)["AAPL"]
    assert pending.publish
    assert pending.price.bid == Decimal("150.26")


def test_renewal_writes_without_a_message_and_only_what_the_connection_vouches_for(latest: LatestQuotes) -> None:
    latest.put(make_quote("OLD"), "e1")
    latest.put(make_quote("NEW"), "e2")
    latest.take(0.0)
    latest.renew(["OLD", "NEW", "NONE"], "e2")
    batch = taken(latest, 1000.0)
    assert list(batch) == ["NEW"]
    assert not batch["NEW"].publish


def test_what_nobody_wants_is_forgotten(latest: LatestQuotes) -> None:
    latest.put(make_quote("AAPL"), "e1")
    latest.put(make_quote("MSFT"), "e1")
    latest.keep_only({"MSFT"})
    assert list(latest.symbols) == list(taken(latest)) == ["MSFT"]
    assert latest.price("AAPL") is None


def test_what_is_streamed_no_more_is_told_once_as_nobodys_and_then_forgotten(latest: LatestQuotes) -> None:
    latest.put(make_quote("AAPL"), "e1")
    latest.put(make_quote("MSFT"), "e1")
    latest.put(make_quote("OLD"), "e0")
    latest.take(0.0)
    latest.release({"MSFT"}, "e1")
    latest.keep_only({"MSFT", "OLD"})
    batch = taken(latest, 100.0)
    assert list(batch) == ["AAPL"], "what an earlier connection left behind is nothing new"
    assert (batch["AAPL"].publish, batch["AAPL"].price.epoch, batch["AAPL"].price.seq) == (True, None, 2)
    latest.keep_only({"MSFT"})
    latest.mark_unwritten(["AAPL"])
    assert list(taken(latest, 101.0)) == ["AAPL"], "the first writing has failed"
    latest.note_written(["AAPL"])
    latest.keep_only({"MSFT"})
    assert list(latest.symbols) == ["MSFT"]
    latest.release({"MSFT"}, "e1")
    assert latest.pending == 0


def test_a_symbol_that_comes_back_on_the_same_connection_goes_on_counting(latest: LatestQuotes) -> None:
    for number in range(3):
        latest.put(make_quote(bid=150.0 + number / 100, at_s=number), "e1")
        latest.take(float(number))
    latest.keep_only(())
    latest.release((), "e1")
    latest.put(make_quote(bid=140.0, at_s=10), "e1")
    assert taken(latest, 10.0)["AAPL"].price.seq == 4
    latest.forget_all()
    latest.put(make_quote(bid=140.0, at_s=20), "e2")
    assert taken(latest, 20.0)["AAPL"].price.seq == 1
    latest.forget_all()
    latest.release((), "e3")
    assert latest._sequences == {}


def test_a_released_quote_that_rest_confirms_for_no_connection_is_still_told(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take(0.0)
    latest.release((), "e1")
    latest.put(make_quote(origin=QuoteOrigin.REST), None)
    latest.keep_only(())
    assert taken(latest)["AAPL"].price.epoch is None
    latest.put(make_quote(origin=QuoteOrigin.REST), "e1")
    latest.keep_only(())
    assert not latest.symbols, "a connection vouches for it again"


def test_an_untimed_quote_is_refused(latest: LatestQuotes) -> None:
    assert latest.put(make_quote(timestamp=None), "e1") is Unmarkable.UNTIMED


def test_the_last_trade_goes_with_the_quote_and_a_new_one_is_news(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    first = taken(latest, 100.0)["AAPL"].price
    assert (first.last, first.last_timestamp, first.last_size) == (None, None, None)
    assert latest.take_trade(make_trade(price=150.26, size=30.0, at_s=0.1)) is None
    write = taken(latest, 100.1)["AAPL"]
    assert (write.publish, write.price.seq, write.price.epoch) == (True, 2, "e1")
    assert (write.price.last, write.price.last_size) == (Decimal("150.26"), Decimal(30))
    assert write.price.last_timestamp == NOON + timedelta(seconds=0.1)
    assert write.price.timestamp == NOON
    latest.put(make_quote(at_s=0.2), "e1")
    assert not taken(latest, 100.2)["AAPL"].publish


def test_without_a_quote_a_trade_is_kept_but_not_written(latest: LatestQuotes) -> None:
    latest.take_trade(make_trade(price=150.26))
    assert latest.pending == 0
    latest.put(make_quote(), "e1")
    assert taken(latest)["AAPL"].price.last == Decimal("150.26")


def test_a_cancel_of_the_last_is_news_and_one_of_an_older_trade_is_none(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take_trade(make_trade(1, 150.25))
    latest.take_trade(make_trade(2, 150.26))
    latest.take(0.0)
    latest.take_trade(TradeCancel("AAPL", 1, "V"))
    assert latest.pending == 0
    latest.take_trade(TradeCancel("AAPL", 2, "V"))
    write = taken(latest)["AAPL"]
    assert (write.publish, write.price.last) == (True, None)


def test_an_ineligible_trade_changes_nothing(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take(0.0)
    assert latest.take_trade(make_trade(conditions=("@", "I"))) is Ineligible.CONDITION
    assert latest.pending == 0


def test_when_a_symbols_trades_end_its_price_is_written_without(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take_trade(make_trade())
    latest.take(0.0)
    latest.take_trade(TradesInterrupted(frozenset({"AAPL", "NEVER"})))
    write = taken(latest)["AAPL"]
    assert (write.publish, write.price.last) == (True, None)


def test_a_new_connection_writes_no_price_of_the_old_one_but_the_next_has_no_last(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take_trade(make_trade())
    latest.take(0.0)
    latest.take_trade(TradesInterrupted())
    assert latest.pending == 0
    latest.put(make_quote(at_s=1), "e2")
    assert taken(latest)["AAPL"].price.last is None


def test_a_last_trade_that_was_not_written_waits_again(latest: LatestQuotes) -> None:
    latest.put(make_quote(), "e1")
    latest.take_trade(make_trade(price=150.26))
    latest.take(0.0)
    latest.mark_unwritten(["AAPL"])
    assert taken(latest)["AAPL"].price.last == Decimal("150.26")
    latest.keep_only(())
    assert list(latest.trades.symbols) == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("ABC"), st.integers(1, 10_000)),
        st.tuples(st.just("write"), st.booleans(), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_writes_fail_the_last_quote_of_every_symbol_is_written_in_the_end(steps: list[tuple]) -> None:
    latest = LatestQuotes("iex")
    newest: dict[str, int] = {}
    written: dict[str, Decimal | None] = {}
    for number, (kind, first, second) in enumerate(steps):
        if kind == "put":
            latest.put(make_quote(first, bid=float(second), ask=float(second), at_s=number), "e1")
            newest[first] = second
        else:
            batch = latest.take(float(number), second)
            if first:
                written.update({p.price.symbol: p.price.bid for p in batch})
            else:
                latest.mark_unwritten(p.price.symbol for p in batch)
    written.update({p.price.symbol: p.price.bid for p in latest.take(1e6)})
    assert written == newest
    assert latest.pending == 0


@given(STEPS)
def test_seq_grows_by_one_with_every_message_of_a_symbol(steps: list[tuple]) -> None:
    latest = LatestQuotes("iex")
    seen: dict[str, int] = {}
    for number, (kind, first, second) in enumerate(steps):
        if kind == "put":
            latest.put(make_quote(first, bid=float(second), ask=float(second), at_s=number), "e1")
        else:
            for pending in latest.take(float(number), second):
                expected = seen.get(pending.price.symbol, 0) + pending.publish
                assert pending.price.seq == expected
                seen[pending.price.symbol] = expected


@pytest.mark.parametrize("origin", QuoteOrigin)
def test_a_quote_stamped_ahead_holds_up_no_quote_fetched_later(latest: LatestQuotes, origin: QuoteOrigin) -> None:
    latest.put(make_quote(bid=150.0, timestamp=NOON + timedelta(seconds=59), origin=origin), "e1")
    fetched = make_quote(bid=150.1, at_s=3, origin=QuoteOrigin.REST)
    assert latest.put(fetched, "e1") is None
    assert latest.price("AAPL").bid == Decimal("150.1")  # type: ignore[union-attr]


def test_a_clock_that_is_a_little_ahead_lets_rest_replace_nothing_newer(latest: LatestQuotes) -> None:
    latest.put(make_quote(bid=150.0, timestamp=NOON + timedelta(seconds=1)), "e1")
    older = make_quote(bid=149.0, timestamp=NOON + timedelta(seconds=0.5), origin=QuoteOrigin.REST)
    assert latest.put(older, "e1") is Unmarkable.OLDER_THAN_STREAM


def test_what_came_late_is_written_again_as_old_as_the_venue_says(latest: LatestQuotes) -> None:
    came_at = NOON + timedelta(seconds=60)
    latest.put(make_quote("AAPL", received_at=came_at), "e1")
    latest.put(make_quote("MSFT", timestamp=came_at, received_at=came_at), "e1")
    latest.take(0.0)
    latest.count_from_venue_time()
    (write,) = latest.take(10.0)
    assert (write.price.symbol, write.price.received_at, write.publish) == ("AAPL", NOON, True)
    latest.count_from_venue_time()
    assert latest.take(20.0) == []


def test_times_of_receipt_follow_a_corrected_clock(latest: LatestQuotes) -> None:
    by = timedelta(seconds=90)
    latest.put(make_quote("AAPL", timestamp=NOON + by), "e1")
    latest.put(make_quote("MSFT", timestamp=NOON + by / 2, origin=QuoteOrigin.REST), "e1")
    latest.put(make_quote("IBM", timestamp=NOON, received_at=NOON, origin=QuoteOrigin.REST), "e1")
    latest.take(0.0)
    latest.shift_received(by)
    received = {write.price.symbol: write.price.received_at for write in latest.take(1.0)}
    assert received == {"AAPL": NOON + by, "MSFT": NOON + by / 2}
    assert latest.put(make_quote("AAPL", bid=150.1, at_s=91), "e1") is None
