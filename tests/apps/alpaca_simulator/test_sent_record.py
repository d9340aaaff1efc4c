"""What was sent: only good quotes, the newest by arrival, and since when the same content."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.points import Quote
from apps.alpaca_simulator.sent_record import SentRecord, is_good

S = 1_000_000_000


def quote(bid=10.0, ask=10.1, time_ns=100 * S, symbol="AAPL", conditions=("R",)):
    return Quote(symbol, bid, 100, "V", ask, 100, "V", time_ns, conditions)


def told(record, symbol="AAPL"):
    sent = record.by_symbol[symbol]
    return sent.quote.bid_price, sent.sent_unix_s, sent.first_sent_unix_s


def test_the_newest_content_and_since_when():
    record = SentRecord()
    record.wrote([quote(10.0), None, quote(5.0, 5.1, symbol="F")], 1.0)
    record.wrote([quote(10.0, time_ns=101 * S)], 2.0)
    assert told(record) == (10.0, 2.0, 1.0)
    record.wrote([quote(10.05, time_ns=102 * S)], 3.0)
    assert told(record) == (10.05, 3.0, 3.0)
    record.wrote([quote(10.0, time_ns=103 * S), quote(10.0, time_ns=104 * S)], 4.0)
    assert told(record) == (10.0, 4.0, 4.0)
    assert told(record, "F") == (5.0, 1.0, 1.0)


def test_a_run_that_is_interrupted_within_a_frame_begins_anew():
    record = SentRecord()
    record.wrote([quote(10.0)], 1.0)
    record.wrote([quote(10.05), quote(10.0)], 2.0)
    assert told(record) == (10.0, 2.0, 2.0)


def test_arrival_decides_unless_a_time_is_far_behind():
    record = SentRecord()
    record.wrote([quote(10.0, time_ns=100 * S)], 1.0)
    record.wrote([quote(10.02, time_ns=98 * S)], 2.0)
    assert told(record) == (10.02, 2.0, 2.0)
    record.wrote([quote(10.04, time_ns=98 * S - 1)], 3.0)
    assert told(record) == (10.02, 2.0, 2.0), "the newest time is still that of the first"
    assert record.by_symbol["AAPL"].newest_ns == 100 * S


@pytest.mark.parametrize(
    "bad",
    [
        quote(bid=0.0), quote(ask=0.0), quote(bid=10.2), quote(bid=-1.0), quote(bid=math.nan), quote(ask=math.nan),
        quote(ask=math.inf), quote(bid=math.inf, ask=math.inf), quote(ask=11.2), quote(conditions=("N",)),
        quote(conditions=("R", "Y")),
    ],
)  # fmt: skip
def test_a_bad_quote_is_never_remembered(bad):
    record = SentRecord()
    assert not is_good(bad)
    record.wrote([bad], 1.0)
    assert record.by_symbol == {}
    record.wrote([quote(9.9), bad], 2.0)
    assert told(record) == (9.9, 2.0, 2.0)


@pytest.mark.parametrize("good", [quote(10.1), quote(conditions=("O",)), quote(conditions=()), quote(10.0, 11.0)])
def test_locked_and_openings_are_good(good):
    assert is_good(good)


@given(st.lists(st.lists(st.sampled_from([10.0, 10.02, 10.04]), max_size=4), max_size=12))
def test_it_agrees_with_the_plain_rule(frames):
    record, sent = SentRecord(), []
    for number, prices in enumerate(frames):
        record.wrote([quote(price) for price in prices], float(number))
        sent += [(price, float(number)) for price in prices]
    if not sent:
        assert record.by_symbol == {}
        return
    last, when = sent[-1]
    run = sent[next((n + 1 for n in reversed(range(len(sent))) if sent[n][0] != last), 0) :]
    assert told(record) == (last, when, run[0][1])
