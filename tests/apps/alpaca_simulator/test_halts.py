"""Halts: the messages by tape, and who is silent when."""

import pytest

from apps.alpaca_simulator.halts import Halts


@pytest.mark.parametrize(
    ("tape", "halt", "resume"),
    [("A", "2", "3"), ("B", "2", "3"), ("C", "H", "T"), ("O", "H", "T")],
)
def test_the_codes_are_the_tapes(tape, halt, resume):
    halts = Halts()
    told = halts.halt("X", None, None, tape, 7)
    assert (told.symbol, told.status_code, told.status_message, told.tape, told.time_ns) == (
        "X", halt, "Trading Halt", tape, 7,
    )  # fmt: skip
    assert told.reason_code
    assert told.reason_message
    assert halts.halted == halts.silent == {"X"}
    assert halts.resume("X", None, None, tape, 8).status_code == resume
    assert halts.halted == halts.silent == frozenset()


def test_quoting_may_resume_before_trading():
    halts = Halts()
    halts.halt("AAPL", "P", "LUDP", "C", 1)
    told = halts.resume("AAPL", "Q", None, "C", 2)
    assert (told.status_code, told.status_message) == ("Q", "Quotation Resumption")
    assert (halts.halted, halts.silent) == ({"AAPL"}, frozenset())
    halts.resume("AAPL", None, None, "C", 3)
    assert halts.halted == frozenset()


def test_codes_of_ones_own():
    told = Halts().halt("AAPL", "H", "MWC1", "C", 1)
    assert (told.reason_code, told.reason_message) == ("MWC1", "Market Wide Circuit Breaker Halt - Level 1")
    unknown = Halts().halt("AAPL", "9", "??", "C", 1)
    assert (unknown.status_code, unknown.status_message, unknown.reason_message) == ("9", "", "")


def test_one_halt_does_not_touch_another_and_twice_is_once():
    halts = Halts()
    for symbol in ("AAPL", "MSFT", "AAPL"):
        halts.halt(symbol, None, None, "C", 1)
    halts.resume("AAPL", None, None, "C", 2)
    halts.resume("KO", None, None, "A", 2)
    assert halts.halted == halts.silent == {"MSFT"}
