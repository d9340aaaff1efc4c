"""What stands on the tape after corrections and cancels."""

import pytest

from apps.alpaca_simulator.points import Trade
from apps.alpaca_simulator.trade_tape import TradeTape, may_be_last


def trade(trade_id=1, price=10.0, exchange="V", conditions=("@",), tape="C"):
    return Trade("AAPL", trade_id, exchange, price, 100, 7, conditions, tape)


def tape_of(*trades):
    tape = TradeTape()
    for each in trades:
        tape.add(each)
    return tape


def last_price(tape):
    last = tape.last("AAPL")
    return None if last is None else last.trade.price


def test_an_empty_tape():
    assert TradeTape().last("AAPL") is None
    assert TradeTape().find("AAPL", 1) is None
    TradeTape().rescale("AAPL", 2.0)


def test_a_cancel_takes_one_trade_away():
    tape = tape_of(trade(1, 10.0), trade(2, 11.0), trade(3, 12.0))
    cancel = tape.cancel(tape.find("AAPL", 2), "E", 99)
    assert (cancel.trade_id, cancel.price, cancel.action, cancel.time_ns) == (2, 11.0, "E", 99)
    assert last_price(tape) == 12.0
    tape.cancel(tape.find("AAPL"), "C", 99)
    assert last_price(tape) == 10.0
    assert tape.find("AAPL", 2) is None


def test_a_correction_stands_in_the_same_place_under_a_new_id():
    tape = tape_of(trade(1, 10.0), trade(2, 11.0))
    correction = tape.correct(tape.find("AAPL", 1), 99, price=9.5, size=None, conditions=None)
    assert (correction.original_id, correction.original_price) == (1, 10.0)
    assert (correction.corrected_id, correction.corrected_price) == (1_000_000_001, 9.5)
    assert last_price(tape) == 11.0
    tape.correct(tape.find("AAPL", 2), 99, price=None, size=3, conditions=("@", "I"))
    assert last_price(tape) == 9.5


def test_an_id_belongs_to_its_exchange():
    tape = tape_of(trade(1, 10.0, "V"), trade(1, 11.0, "Q"))
    assert tape.find("AAPL", 1, "V").trade.price == 10.0
    assert tape.find("AAPL", 1).trade.price == 11.0
    assert tape.find("AAPL", 1, "Z") is None


@pytest.mark.parametrize(
    ("conditions", "tape", "may"),
    [
        (("@",), "C", True), ((), "A", True), (("@", "F", "T"), "C", True), (("@", "I"), "C", False),
        ((" ", "B"), "A", False), (("@", "B"), "C", True), (("@", "T", "I"), "C", False), (("@", "W"), "C", False),
    ],
)  # fmt: skip
def test_what_may_be_the_last(conditions, tape, may):
    assert may_be_last(trade(conditions=conditions, tape=tape)) is may
