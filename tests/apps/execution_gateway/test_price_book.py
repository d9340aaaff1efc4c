from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.price_book import PriceBook, Verdict
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Price
from tests.support.gateway import streaming

NOON = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def quote(
    seconds: float = 0, *, symbol: str = "AAPL", mid: object = 100, epoch: str | None = "e1", seq: int | None = 1
):
    return Price(symbol, Decimal(str(mid)), at(seconds), received_at=at(seconds), epoch=epoch, seq=seq)


def heard(status: FeedStatus, seconds: float = 0) -> PriceBook:
    book = PriceBook()
    book.hear(status, at(seconds))
    return book


def test_an_unknown_symbol_has_no_price():
    assert PriceBook().price("AAPL") is None
    assert PriceBook().last_vouched_at("AAPL") is None


def test_the_next_in_sequence_replaces():
    book = PriceBook()
    assert book.offer(quote(seq=1), is_live=True) is Verdict.ACCEPTED
    assert book.offer(quote(1, seq=2, mid=101), is_live=True) is Verdict.ACCEPTED
    assert book.price("AAPL").mid == 101
    assert len(book) == 1


def test_what_a_key_says_of_newer_quotes_is_taken_over_without_a_new_sequence():
    book = PriceBook()
    held = replace(
        quote(seq=2), suspect_since=at(1), suspect_reason="one_sided", suspect_quotes=1, newest_ask=Decimal(149)
    )
    assert book.offer(held, is_live=True) is Verdict.ACCEPTED
    assert book.offer(held, is_live=False) is Verdict.UNCHANGED
    for change in ({"suspect_quotes": 2}, {"newest_ask": Decimal(148)}, {"suspect_reason": "crossed"}):
        held = replace(held, **change)
        assert book.offer(held, is_live=False) is Verdict.ACCEPTED
        assert book.price("AAPL") is held


def test_a_lower_sequence_of_the_same_epoch_is_outdated_whatever_its_time():
    book = PriceBook()
    book.offer(quote(seq=5), is_live=True)
    assert book.offer(quote(9, seq=4, mid=1), is_live=True) is Verdict.OUTDATED
    assert book.price("AAPL").mid == 100


def test_a_message_after_a_gap_is_not_believed_and_the_key_is():
    book = PriceBook()
    book.offer(quote(seq=1), is_live=True)
    assert book.offer(quote(1, seq=3, mid=777), is_live=True) is Verdict.GAP
    assert book.offer(quote(1, seq=10**12, mid=777), is_live=True) is Verdict.GAP
    assert book.price("AAPL").mid == 100
    assert book.offer(quote(2, seq=9), is_live=False) is Verdict.ACCEPTED


def test_two_messages_with_one_sequence_are_not_both_believed():
    book = PriceBook()
    book.offer(quote(seq=5), is_live=True)
    assert book.offer(quote(0, seq=5, mid=777), is_live=True) is Verdict.GAP
    assert book.offer(quote(1, seq=5, mid=777), is_live=True) is Verdict.GAP
    assert book.offer(quote(-1, seq=5, mid=777), is_live=True) is Verdict.OUTDATED
    assert book.price("AAPL").mid == 100


def test_the_key_of_the_present_connection_wins_over_what_arrived_before_it_was_asked_for():
    book = heard(streaming("AAPL"))
    book.offer(quote(seq=5), is_live=True, at_s=10.0)
    # Forged: the next in sequence, and of the future.
    book.offer(quote(99, seq=6, mid=777), is_live=True, at_s=11.0)
    assert book.offer(quote(1, seq=5, mid=101), is_live=False, at_s=11.0) is Verdict.OUTDATED
    assert book.offer(quote(1, seq=5, mid=101), is_live=False, at_s=11.1) is Verdict.ACCEPTED
    assert book.price("AAPL").mid == 101
    assert book.offer(quote(2, seq=6, mid=102), is_live=True, at_s=12.0) is Verdict.ACCEPTED


def test_the_key_of_a_connection_of_before_does_not_win():
    book = heard(streaming("AAPL", epoch="e2"))
    book.offer(quote(seq=1, epoch="e2"), is_live=True, at_s=10.0)
    assert book.offer(quote(99, seq=7, epoch="e1", mid=777), is_live=False, at_s=20.0) is Verdict.OUTDATED


def test_of_another_programs_prices_the_one_read_later_is_right():
    book = PriceBook()
    book.offer(quote(5, epoch=None, seq=None), is_live=False, at_s=10.0)
    assert book.offer(quote(4, epoch=None, seq=None, mid=101), is_live=False, at_s=11.0) is Verdict.ACCEPTED
    assert book.price("AAPL").mid == 101


def test_what_only_messages_said_is_unconfirmed_until_the_key_was_read():
    book = heard(streaming("AAPL", "MSFT"))
    book.offer(quote(), is_live=True, at_s=10.0)
    book.offer(quote(symbol="MSFT"), is_live=False, at_s=10.0)
    held = ["AAPL", "MSFT", "KO"]
    assert book.unconfirmed(held, before_s=10.0) == []
    assert book.unconfirmed(held, before_s=10.5) == ["AAPL"]
    assert book.unconfirmed(["MSFT"], before_s=10.5) == []
    book.confirm(held, asked_at_s=10.0)
    assert book.unconfirmed(held, before_s=10.5) == ["AAPL"], "asked as it arrived: the answer may be of before"
    book.confirm(held, asked_at_s=10.4)
    assert book.unconfirmed(held, before_s=10.5) == []
    book.offer(quote(1, seq=2), is_live=True, at_s=11.0)
    book.forget_price("AAPL")
    assert (book.price("AAPL"), book.unconfirmed(held, before_s=99.0)) == (None, [])


def test_a_new_connection_counts_from_one_and_may_have_a_gap_too():
    book = PriceBook()
    book.offer(quote(seq=7), is_live=True)
    assert book.offer(quote(1, epoch="e2", seq=1), is_live=True) is Verdict.ACCEPTED
    assert book.offer(quote(2, epoch="e3", seq=2), is_live=True) is Verdict.GAP


def test_another_programs_price_shows_no_gap():
    book = PriceBook()
    book.offer(quote(epoch=None, seq=None), is_live=True)
    assert book.offer(quote(1, seq=9), is_live=True) is Verdict.ACCEPTED
    assert book.offer(quote(2, epoch=None, seq=None), is_live=True) is Verdict.ACCEPTED


def test_a_quote_released_by_its_connection_replaces_itself_and_is_vouched_for_no_more():
    book = heard(streaming("AAPL"))
    book.offer(quote(seq=200), is_live=True)
    assert book.last_vouched_at("AAPL") == NOON
    released = quote(epoch=None, seq=201)
    assert book.offer(released, is_live=True) is Verdict.ACCEPTED
    assert book.last_vouched_at("AAPL") is None
    # Fetched by REST on its return, and so known since the venue made it, a moment before it was received.
    again = Price("AAPL", Decimal(100), NOON, received_at=at(-0.01), epoch="e1", seq=202)
    assert book.offer(again, is_live=True) is Verdict.ACCEPTED
    assert book.last_vouched_at("AAPL") == NOON


def test_what_is_forgotten_is_not_vouched_for_when_it_comes_back():
    book = heard(streaming("AAPL", "MSFT"))
    book.offer(quote(), is_live=True)
    book.offer(quote(symbol="MSFT"), is_live=True)
    book.hear(streaming("MSFT"), at(10))
    book.keep_only(["MSFT"])
    assert (book.price("AAPL"), book.price("MSFT").seq) == (None, 1)
    book.offer(quote(), is_live=False)
    assert book.last_vouched_at("AAPL") is None


def test_the_same_sequence_with_a_newer_time_refreshes():
    book = PriceBook()
    book.offer(quote(seq=5), is_live=True)
    assert book.offer(quote(1, seq=5), is_live=False) is Verdict.ACCEPTED
    assert book.offer(quote(0, seq=5), is_live=False) is Verdict.OUTDATED
    assert book.price("AAPL").received_at == at(1)


def test_the_same_price_again_is_no_news():
    book = PriceBook()
    book.offer(quote(), is_live=True)
    assert book.offer(quote(), is_live=False) is Verdict.UNCHANGED


def test_the_feeds_epoch_wins_over_an_older_one_whatever_the_times():
    book = heard(streaming("AAPL", epoch="e2"))
    book.offer(quote(5, epoch="e1", seq=70), is_live=False)
    assert book.offer(quote(4, epoch="e2", seq=1, mid=101), is_live=True) is Verdict.ACCEPTED
    assert book.offer(quote(9, epoch="e1", seq=71), is_live=False) is Verdict.OUTDATED
    assert book.price("AAPL").mid == 101


def test_epochs_that_the_feed_does_not_know_are_ordered_by_time():
    book = heard(streaming(epoch="e3"))
    book.offer(quote(5, epoch="e1"), is_live=True)
    assert book.offer(quote(4, epoch="e2"), is_live=True) is Verdict.OUTDATED
    assert book.offer(quote(6, epoch="e2"), is_live=True) is Verdict.ACCEPTED


def test_another_programs_price_is_ordered_by_time():
    book = heard(streaming("AAPL"))
    book.offer(quote(5), is_live=True)
    assert book.offer(quote(4, epoch=None, seq=None), is_live=False) is Verdict.OUTDATED
    assert book.offer(quote(6, epoch=None, seq=None, mid=102), is_live=False) is Verdict.ACCEPTED
    assert book.offer(quote(5, seq=2), is_live=True) is Verdict.OUTDATED
    assert book.price("AAPL").mid == 102


def test_only_so_many_symbols_are_held():
    book = PriceBook(max_symbols=2)
    for symbol in ("A", "B", "C"):
        book.offer(quote(symbol=symbol), is_live=True)
    assert (len(book), book.evicted) == (2, 1)
    assert book.price("A") is None


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1))
def test_whatever_the_order_the_newest_of_an_epoch_is_kept(offers: list[tuple[int, bool]]):
    book = PriceBook()
    newest = 0
    for seq, is_live in offers:
        verdict = book.offer(quote(seq, seq=seq, mid=seq), is_live=is_live)
        # The first is taken as it is, a key too; of messages the next one only.
        is_next = newest == 0 or not is_live or seq == newest + 1
        assert (verdict is Verdict.ACCEPTED) == (is_next and seq > newest)
        newest = max(newest, seq) if is_next else newest
    assert book.price("AAPL").seq == newest


@given(st.lists(st.tuples(st.sampled_from(["real", "forged", "read"]), st.integers(1, 2**63)), max_size=40))
def test_whatever_is_forged_the_key_is_right_once_it_was_read(steps: list[tuple[str, int]]):
    """The writer sets the key, then publishes; a forger publishes what he likes, with the right epoch."""
    book = heard(streaming("AAPL"))
    key, clock_s = quote(seq=1), 1.0
    book.offer(key, is_live=True, at_s=clock_s)
    for step, seq in steps:
        clock_s += 1
        if step == "real":
            key = quote(clock_s, seq=key.seq + 1, mid=100 + key.seq)
            book.offer(key, is_live=True, at_s=clock_s)
        elif step == "forged":
            book.offer(quote(clock_s, seq=seq, mid=777), is_live=True, at_s=clock_s)
        else:
            book.offer(key, is_live=False, at_s=clock_s)
            assert book.price("AAPL") == key
    book.offer(key, is_live=False, at_s=clock_s + 1)
    assert book.price("AAPL") == key


def test_hearing_the_same_again_is_no_news():
    status = streaming("AAPL")
    book = PriceBook()
    assert book.hear(status, at(0))
    assert not book.hear(status, at(2))
    assert book.heard_at == at(2)


def test_silence():
    book = PriceBook()
    assert book.is_silent(at(0))
    assert not book.forget_feed()
    book.hear(streaming(), at(0))
    assert not book.is_silent(at(6))
    assert book.is_silent(at(6.1))
    assert book.is_silent(at(-6.1)), "the clock was set back"
    assert book.forget_feed()
    assert book.feed is None
    assert book.last_feed is not None


def test_a_quiet_price_is_vouched_for_until_the_last_heartbeat_that_did():
    book = heard(streaming("AAPL"))
    book.offer(quote(), is_live=True)
    book.hear(streaming("AAPL"), at(100))
    book.hear(streaming("AAPL", state=LinkState.BACKING_OFF, connected=False), at(102))
    assert book.last_vouched_at("AAPL") == at(100)
    book.forget_feed()
    assert book.last_vouched_at("AAPL") == at(100)


def test_a_closed_market_vouches_for_nothing():
    book = heard(streaming("AAPL", market=MarketPhase.CLOSED))
    book.offer(quote(), is_live=True)
    assert book.last_vouched_at("AAPL") is None


def test_unsubscribing_ends_the_vouching_of_that_symbol():
    book = heard(streaming("AAPL", "MSFT"))
    book.offer(quote(), is_live=True)
    book.offer(quote(symbol="MSFT"), is_live=True)
    book.hear(streaming("MSFT"), at(50))
    assert book.last_vouched_at("AAPL") == at(0)
    assert book.last_vouched_at("MSFT") == at(50)


def test_doubt_ends_the_vouching_and_a_halt_does_not():
    book = heard(streaming("AAPL", "MSFT"))
    book.offer(quote(), is_live=True)
    book.offer(quote(symbol="MSFT"), is_live=True)
    book.hear(streaming("AAPL", "MSFT", doubted=frozenset({"AAPL"}), halted=frozenset({"MSFT"})), at(50))
    assert book.last_vouched_at("AAPL") == at(0)
    assert book.last_vouched_at("MSFT") == at(50)
    book.hear(streaming("AAPL", "MSFT", doubted=frozenset({"*"})), at(60))
    assert book.last_vouched_at("MSFT") == at(50)
    book.hear(streaming("AAPL", "MSFT"), at(70))
    assert book.last_vouched_at("AAPL") == book.last_vouched_at("MSFT") == at(70)


def test_a_new_epoch_vouches_for_its_own_prices_only():
    book = heard(streaming("AAPL", "MSFT", epoch="e1"))
    book.offer(quote(), is_live=True)
    book.hear(streaming("AAPL", epoch="e2"), at(10))
    book.hear(streaming("AAPL", epoch="e3"), at(20))
    assert book.last_vouched_at("AAPL") == at(0)
    book.offer(quote(21, epoch="e3"), is_live=True)
    assert book.last_vouched_at("AAPL") == at(20)


def test_a_wildcard_covers_every_symbol():
    book = heard(streaming("*"))
    book.offer(quote(), is_live=True)
    assert book.last_vouched_at("AAPL") == at(0)
    book.hear(streaming("MSFT"), at(10))
    assert book.last_vouched_at("AAPL") == at(0)


def test_another_programs_price_is_never_vouched_for():
    book = heard(streaming("AAPL"))
    book.offer(quote(epoch=None), is_live=False)
    assert book.last_vouched_at("AAPL") is None


@pytest.mark.parametrize("ahead_s", [62, 70, 3_600, 3.2e9])
@pytest.mark.parametrize(("held_epoch", "epoch"), [(None, None), (None, "e1"), ("e1", None), ("e1", "e2")])
def test_a_price_stamped_far_ahead_holds_up_no_later_one(ahead_s, held_epoch, epoch):
    book = PriceBook()
    ahead = replace(quote(epoch=held_epoch, seq=None), timestamp=at(ahead_s), received_at=None)
    assert book.offer(ahead, is_live=False, now=NOON) is Verdict.ACCEPTED
    assert book.offer(quote(1, mid=101, epoch=epoch), is_live=False, now=at(1)) is Verdict.ACCEPTED
    assert book.price("AAPL").mid == 101
    assert book.offer(quote(-5, mid=99, epoch=epoch), is_live=False, now=at(1)) is not Verdict.UNCHANGED


def test_a_link_that_is_late_vouches_for_nothing_more():
    book = heard(streaming("AAPL"))
    book.offer(quote(), is_live=True)
    book.hear(streaming("AAPL", lag_s=60.0), at(2))
    assert book.last_vouched_at("AAPL") == at(0)
