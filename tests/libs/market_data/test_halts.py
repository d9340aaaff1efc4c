from datetime import timedelta

import pytest

from libs.market_data.halts import Halts, TradingStatus, halts
from tests.support.quotes import NOON


def status(code: str, symbol: str = "AAPL", tape: str | None = "C") -> TradingStatus:
    return TradingStatus(symbol, code, "News pending", tape, NOON)


@pytest.mark.parametrize(
    ("tape", "code", "meaning"),
    [
        ("A", "2", True), ("B", "2", True), ("A", "3", False),
        ("A", "5", None), ("A", "E", None), ("A", "F", None), ("A", "H", None),
        ("C", "H", True), ("C", "P", True), ("O", "H", True), ("C", "T", False), ("C", "Q", None), ("C", "2", None),
        (None, "H", True), ("C", "", None),
    ],
)  # fmt: skip
def test_a_code_means_what_its_tape_says(tape: str | None, code: str, meaning: bool | None) -> None:
    assert halts(status(code, tape=tape)) is meaning


def test_a_halt_lasts_until_trading_resumes() -> None:
    known = Halts()
    assert not known.take(status("T"), NOON), "resumed, and never halted: nothing new"
    assert known.take(status("H"), NOON)
    assert not known.take(status("P"), NOON), "halted still"
    assert not known.take(status("Q"), NOON), "quoting again is not trading again"
    assert known.symbols == {"AAPL"}
    halt = known.of("AAPL")
    assert halt is not None
    assert (halt.at, halt.reason) == (NOON, "News pending")
    assert known.take(status("T"), NOON)
    assert known.of("AAPL") is None
    assert known.symbols == frozenset()


def test_after_a_halt_only_a_new_quote_says_where_it_trades() -> None:
    known = Halts()
    assert not known.take(status("T"), NOON)
    assert not known.unquoted, "nobody had halted it"
    known.take(status("H"), NOON)
    assert not known.unquoted, "it does not trade"
    known.take(status("T"), NOON)
    assert known
    assert known.unquoted == {"AAPL"}
    known.question()
    assert known.unquoted == {"AAPL"}, "a new connection brings no quote by itself"
    assert known.quoted("AAPL")
    assert not known.quoted("AAPL")
    assert not known


def test_a_halt_upon_a_halt_is_no_resumption() -> None:
    known = Halts()
    for code in "HTH":
        known.take(status(code), NOON)
    assert (known.symbols, known.unquoted) == ({"AAPL"}, frozenset())
    known.take(status("T"), NOON)
    assert not known.keep_only({"MSFT"})
    assert not known


def test_quotes_do_not_end_a_halt_that_was_heard_of_on_this_connection() -> None:
    known = Halts()
    known.take(status("H"), NOON)
    assert not known.quoted("AAPL")
    assert "AAPL" in known


def test_after_a_reconnect_a_good_quote_shows_that_it_trades_again() -> None:
    known = Halts()
    known.take(status("H"), NOON)
    known.take(status("H", "MSFT"), NOON)
    known.question()
    assert known.symbols == {"AAPL", "MSFT"}, "as long as nothing says otherwise"
    assert known.quoted("AAPL")
    assert not known.quoted("AAPL")
    assert known.take(status("H", "MSFT"), NOON + timedelta(minutes=1)) is False
    assert not known.quoted("MSFT"), "the venue has said so again"
    assert known.symbols == {"MSFT"}


def test_what_nobody_wants_is_forgotten() -> None:
    known = Halts()
    known.take(status("H"), NOON)
    known.question()
    assert known.keep_only({"MSFT"})
    assert not known.keep_only({"MSFT"})
    assert not known.quoted("AAPL")
    assert not known
