"""The random walk: believable, reproducible, odd only where it is told to be."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.bars import BarBuilder
from apps.alpaca_simulator.listings import UNIVERSE, listing_of, unit_hash
from apps.alpaca_simulator.market import DELAY_NS, Habits, Lottery, RandomWalkMarket, as_seen_on
from apps.alpaca_simulator.points import Bar, Feed, Quote, Trade
from apps.alpaca_simulator.replay import ReplayMarket

NOW_NS = 1_760_884_215_000_000_000


def market(seed=1, habits=None):
    return RandomWalkMarket(seed, lambda symbol: listing_of(symbol).base_price, habits)


@given(st.sampled_from([*sorted(UNIVERSE), "ZZZT", "QX1", "A.B"]), st.integers(0, 50))
def test_every_quote_is_believable(symbol, seed):
    walk = market(seed)
    base = listing_of(symbol).base_price
    times = []
    for _ in range(200):
        quote = walk.step(symbol, NOW_NS)
        times.append(quote.time_ns)
        assert 0 < quote.bid_price < quote.ask_price
        mid = (quote.bid_price + quote.ask_price) / 2
        assert quote.ask_price - quote.bid_price <= max(0.02, mid * 0.03)
        assert abs(mid / base - 1) < 0.2
        assert quote.bid_size >= 100
        assert quote.ask_size >= 100
        assert quote.bid_price == round(quote.bid_price, 2)
    assert times == sorted(set(times))


def test_the_same_seed_gives_the_same_path_whatever_else_is_traded():
    alone, busy, other = market(), market(), market(seed=2)
    expected = [alone.step("AAPL", NOW_NS + n) for n in range(20)]
    seen = []
    for n in range(20):
        busy.step("MSFT", NOW_NS + n)
        seen.append(busy.step("AAPL", NOW_NS + n))
    assert seen == expected
    assert [other.step("AAPL", NOW_NS + n) for n in range(20)] != expected


def test_prices_move():
    walk = market()
    assert len({walk.step("AAPL", NOW_NS + n).bid_price for n in range(200)}) > 10


def test_a_silent_symbol_has_no_quote_at_all():
    walk = market(habits=Habits(silent=frozenset({"KO"})))
    assert walk.activity("KO") == 0
    assert walk.latest_quote("KO", Feed.IEX, NOW_NS) is None


def test_a_one_sided_symbol_has_no_ask():
    walk = market(habits=Habits(one_sided=frozenset({"F"})))
    quote = as_seen_on(Feed.IEX, walk.step("F", NOW_NS))
    assert (quote.ask_price, quote.ask_size, quote.ask_exchange) == (0.0, 0, " ")
    assert quote.bid_price > 0
    assert walk.trade(quote).price == quote.bid_price


def test_rest_sees_what_the_stream_sent():
    walk = market()
    first = walk.latest_quote("AAPL", Feed.SIP, NOW_NS)
    assert first == walk.latest_quote("AAPL", Feed.SIP, NOW_NS + 10)
    assert walk.step("AAPL", NOW_NS + 20) == walk.latest_quote("AAPL", Feed.SIP, NOW_NS + 30)


def test_a_quote_put_from_outside_is_shown_as_given_and_walked_on_from():
    walk = market()
    given_quote = Quote("AAPL", 99.99, 1, "Q", 100.01, 1, "P", NOW_NS)
    walk.put(given_quote)
    assert walk.latest_quote("AAPL", Feed.IEX, NOW_NS) == given_quote
    assert walk.step("AAPL", NOW_NS).bid_exchange in "QPZTKV"


def test_a_one_sided_quote_from_outside_does_not_move_the_walk():
    walk = market()
    walk.put(Quote("AAPL", 5.0, 1, "V", 0.0, 0, " ", NOW_NS))
    assert walk.step("AAPL", NOW_NS).bid_price > 100


def test_feeds_show_the_same_point_differently():
    quote = Quote("AAPL", 99.99, 1, "Q", 100.01, 1, "P", NOW_NS)
    trade = Trade("AAPL", 1, "Q", 100.0, 5, NOW_NS)
    bar = Bar("AAPL", 1, 2, 1, 2, 100, NOW_NS, 3, 1.5)
    assert (as_seen_on(Feed.IEX, quote).bid_exchange, as_seen_on(Feed.IEX, quote).ask_exchange) == ("V", "V")
    assert as_seen_on(Feed.IEX, trade).exchange == "V"
    assert as_seen_on(Feed.IEX, bar) is bar
    assert as_seen_on(Feed.SIP, quote) is quote
    assert as_seen_on(Feed.DELAYED_SIP, quote).time_ns == NOW_NS - DELAY_NS


def test_unknown_symbols_follow_from_their_names():
    assert listing_of("QWERT") == listing_of.__wrapped__("QWERT")
    assert 8 <= listing_of("QWERT").base_price <= 320
    assert 0 <= unit_hash("x", 1) < 1


def test_busy_symbols_are_drawn_more_often():
    lottery = Lottery({"AAPL", "BRK.B", "NONE"}, lambda s: {"AAPL": 9.0, "BRK.B": 1.0}.get(s, 0.0), Random(1))
    drawn = Counter(lottery.draw(5_000))
    assert drawn["AAPL"] > 5 * drawn["BRK.B"] > 0
    assert drawn["NONE"] == 0
    assert lottery.total_activity == 10.0
    assert Lottery((), lambda _s: 1.0, Random(1)).draw(5) == []


def test_bars_are_made_of_their_interval_only():
    minute_ns = 60_000_000_000
    begin_ns = NOW_NS // minute_ns * minute_ns
    builder = BarBuilder(minute_ns)
    for offset_ns, price, size in [(0, 10.0, 100), (1, 12.0, 50), (2, 9.0, 50), (minute_ns, 99.0, 1)]:
        builder.add(Trade("AAPL", 1, "Q", price, size, begin_ns + offset_ns))
    assert builder.finish(begin_ns + minute_ns - 1) == []
    assert builder.finish(begin_ns + minute_ns) == [Bar("AAPL", 10.0, 12.0, 9.0, 9.0, 200, begin_ns, 3, 10.25)]
    assert [bar.open for bar in builder.finish(begin_ns + 3 * minute_ns)] == [99.0]


@pytest.mark.parametrize("symbol", ["BRK.B", "KO", "F"])
def test_trades_happen_at_a_side_of_the_quote(symbol):
    walk = market()
    ids = set()
    for n in range(50):
        quote = walk.step(symbol, NOW_NS + n)
        trade = walk.trade(quote)
        ids.add(trade.trade_id)
        assert trade.price in {quote.bid_price, quote.ask_price}
        assert trade.time_ns == quote.time_ns
        assert ("I" in trade.conditions) == (trade.size < 100)
    assert len(ids) == 50


def test_the_last_trade_is_known_and_shown_as_the_feed_shows_it():
    walk = market()
    assert walk.latest_trade("KO", Feed.SIP, NOW_NS) is None
    trades = [walk.trade(walk.step("KO", NOW_NS + n)) for n in range(20)]
    last = [trade for trade in trades if "I" not in trade.conditions][-1]
    assert walk.latest_trade("KO", Feed.SIP, NOW_NS) == last
    on_iex = walk.latest_trade("KO", Feed.IEX, NOW_NS)
    assert (on_iex.exchange, on_iex.price) == ("V", last.price)
    given_trade = Trade("KO", 7, "Q", 60.0, 100, NOW_NS)
    walk.put_trade(given_trade)
    assert walk.latest_trade("KO", Feed.IEX, NOW_NS) == given_trade


@pytest.mark.parametrize("make", [market, ReplayMarket])
def test_a_split_changes_what_quotes_and_trades_cost(make):
    venue = make()
    venue.rescale("AAPL", 0.5)
    venue.put(Quote("AAPL", 200.0, 1, "Q", 200.04, 1, "P", NOW_NS))
    venue.put_trade(Trade("AAPL", 7, "Q", 200.01, 100, NOW_NS))
    venue.rescale("AAPL", 0.25)
    quote = venue.latest_quote("AAPL", Feed.SIP, NOW_NS)
    assert (quote.bid_price, quote.ask_price) == (50.0, 50.01)
    assert venue.latest_trade("AAPL", Feed.SIP, NOW_NS).price == 50.0


def test_after_a_split_the_walk_goes_on_around_the_new_price():
    walk = market()
    walk.step("AAPL", NOW_NS)
    walk.rescale("AAPL", 0.25)
    usual = listing_of("AAPL").base_price / 4
    for n in range(1, 200):
        quote = walk.step("AAPL", NOW_NS + n)
        assert abs((quote.bid_price + quote.ask_price) / 2 / usual - 1) < 0.2
