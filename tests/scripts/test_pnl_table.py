import io
import re
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from scripts.local_services import read_body
from scripts.pnl_table import mode_words, plain_lines, pnl_view

BODY = """{"positions":[
 {"symbol":"AAPL","unrealized_pnl":200.00,"current_price":152.00,"price_source":"real-time",
  "last_updated":"2025-10-20T14:30:15.123456+00:00","qty":100,"avg_entry_price":150.123456789,"market_value":15200.00,
  "cost_basis":15000.00,"unrealized_pnl_pct":1.3333,"realized_pnl":0.00,"fees":0.00,"day_pnl":120.00,
  "bid":151.99,"ask":152.01,"previous_close":150.80,"price_age_seconds":0.212,"closing_date":null},
 {"symbol":"XOM","unrealized_pnl":-1234.50,"current_price":114.5,"price_source":"closing","last_updated":null,
  "qty":-50.5,"avg_entry_price":90,"market_value":-5782.25,"cost_basis":-4545.00,"unrealized_pnl_pct":-27.1617,
  "realized_pnl":12.00,"fees":1.00,"day_pnl":null,"bid":null,"ask":null,"previous_close":null,
  "price_age_seconds":null,"closing_date":"2025-10-17"},
 {"symbol":"ZZZZ","unrealized_pnl":null,"current_price":null,"price_source":"unavailable","last_updated":null,
  "qty":1,"avg_entry_price":5,"market_value":null,"cost_basis":5.00,"unrealized_pnl_pct":null,"realized_pnl":0.00,
  "fees":0.00,"day_pnl":null,"bid":null,"ask":null,"previous_close":null,"price_age_seconds":null,"closing_date":null}],
 "total_unrealized":-1034.50,"total_realized":12.00,"total_fees":1.00,"total_day_pnl":120.00,
 "total_market_value":9417.75,"realized_closed":0.00,"complete":false,"unpriced":["ZZZZ"],"mode":"simulated",
 "feed":{"connected":true,"state":"streaming","since":"2025-10-20T14:00:00+00:00"},
 "calculated_at":"2025-10-20T14:30:15.335456+00:00","calculation_id":"1"}"""


def drawn(body: dict[str, Any], width: int = 145) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(pnl_view(body, width))
    return console.export_text()


def row_of(screen: str, symbol: str) -> list[str]:
    line = next(line for line in screen.splitlines() if f" {symbol} " in line)
    return re.split(r" {2,}", line.strip())


def test_the_table_shows_the_figures_as_they_were_answered() -> None:
    screen = drawn(read_body(BODY))
    assert row_of(screen, "AAPL") == [
        *("AAPL", "100", "150.1235", "151.99", "152.01", "152.00", "15,200.00"),
        *("+200.00", "+1.33", "+120.00", "0.00", "real-time", "0.2 s"),
    ]
    assert row_of(screen, "XOM") == [
        *("XOM", "-50.5", "90.00", "—", "—", "114.50", "-5,782.25"),
        *("-1,234.50", "-27.16", "—", "+12.00", "closing 2025-10-17", "—"),
    ]
    assert row_of(screen, "ZZZZ")[5:] == ["—", "—", "—", "—", "—", "0.00", "unavailable", "—"]
    assert row_of(screen, "Total") == ["Total", "9,417.75", "-1,034.50", "+120.00", "+12.00"]


def test_a_halted_symbol_is_priced_and_shown_as_halted_with_the_age_of_its_quote() -> None:
    body = read_body(BODY)
    body["positions"] = [body["positions"][0] | {"price_source": "halted", "price_age_seconds": Decimal("7412.5")}]
    assert row_of(drawn(body), "AAPL")[6:] == ["15,200.00", "+200.00", "+1.33", "+120.00", "0.00", "halted", "2 h"]
    assert row_of(drawn(body, 80), "AAPL")[-2:] == ["halted", "2 h"]
    assert plain_lines(body)[1].endswith("source=halted age=2h")


def test_whose_money_it_is_and_what_is_left_out_stand_beside_it() -> None:
    screen = drawn(read_body(BODY))
    assert screen.splitlines()[0].strip() == "SIMULATED: made-up prices, no real money"
    assert "The totals leave out, for want of a price: ZZZZ" in screen
    assert "Feed connected (streaming since Mon 10:00:00 New York" in screen
    assert "As of Mon 10:30:15 New York" in screen
    assert "Fees 1.00, not deducted." in screen
    assert "late" not in screen


def test_a_late_stream_is_named() -> None:
    body = read_body(BODY)
    body["feed"] = body["feed"] | {"lag_seconds": Decimal("60.0")}
    assert "The stream is late: quotes come 60.0 s after they were made, none is live" in drawn(body)


@pytest.mark.parametrize(
    ("width", "figures"),
    [
        (80, ["XOM", "-50.5", "114.50", "-1,234.50", "—", "closing 10-17", "—"]),
        (90, ["XOM", "-50.5", "114.50", "-1,234.50", "-27.16", "—", "closing 10-17", "—"]),
        (100, ["XOM", "-50.5", "90.00", "114.50", "-1,234.50", "-27.16", "—", "closing 2025-10-17", "—"]),
    ],
)
def test_a_narrow_terminal_sees_what_matters_most_uncut(width: int, figures: list[str]) -> None:
    screen = drawn(read_body(BODY), width)
    assert row_of(screen, "XOM") == figures
    assert "…" not in screen


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("simulated", "SIMULATED: made-up prices, no real money"),
        ("replay", "REPLAY: recorded prices, no real money"),
        ("paper", "PAPER: real prices, no real money"),
        ("live", "LIVE: real money"),
        ("other", "MODE UNKNOWN (other)"),
        (None, "MODE UNKNOWN"),
    ],
)
def test_every_mode_is_named(mode: object, words: str) -> None:
    assert mode_words(mode) == words
    body = read_body(BODY) | {"mode": mode}
    assert words in drawn(body)
    assert plain_lines(body)[0] == words


def test_plain_lines() -> None:
    lines = plain_lines(read_body(BODY))
    assert lines[1:5] == [
        "AAPL qty=100 price=152.00 unrealized=+200.00 day=+120.00 source=real-time age=0.2s",
        "XOM qty=-50.5 price=114.50 unrealized=-1,234.50 day=— source=closing:2025-10-17 age=—",
        "ZZZZ qty=1 price=— unrealized=— day=— source=unavailable age=—",
        "total unrealized=-1,034.50 day=+120.00 realized=+12.00 value=9,417.75",
    ]
    assert lines[5] == "The totals leave out, for want of a price: ZZZZ"


def test_a_total_of_nothing_but_unknown_figures_is_unknown() -> None:
    body = read_body(BODY)
    assert "The day's total leaves out what has no known previous close: XOM" in drawn(body)
    body |= {"positions": body["positions"][1:], "total_day_pnl": Decimal(0)}
    assert row_of(drawn(body), "Total") == ["Total", "9,417.75", "-1,034.50", "—", "+12.00"]
    assert " day=— realized" in plain_lines(body)[3]
    body |= {"positions": body["positions"][1:], "total_unrealized": Decimal(0), "total_market_value": Decimal(0)}
    assert row_of(drawn(body), "Total") == ["Total", "—", "—", "—", "+12.00"]
    assert plain_lines(body)[2] == "total unrealized=— day=— realized=+12.00 value=—"
    assert "previous close" not in drawn(body), "it is said already that there is no price"


def test_an_empty_book_is_said_to_be_empty() -> None:
    body = read_body(BODY) | {"positions": [], "complete": True, "unpriced": []}
    screen = drawn(body)
    assert "No open positions. Realized +12.00." in screen
    assert "leave out" not in screen


def test_a_body_that_lacks_things_is_shown_as_far_as_it_goes() -> None:
    for body in ({}, {"positions": None, "feed": None}, {"positions": [None, {"symbol": "[red]A"}], "complete": False}):
        assert "MODE UNKNOWN" in drawn(body)
        assert plain_lines(body)
    assert "[red]A" in drawn({"positions": [{"symbol": "[red]A"}]})


@pytest.mark.parametrize(
    ("price", "shown"),
    [("152", "152.00"), ("0.00012", "0.0001"), ("1234.5", "1,234.50"), ("1.2345", "1.2345"), ("1E+3", "1,000.00")],
)
def test_prices_have_two_to_four_places(price: str, shown: str) -> None:
    row = {"symbol": "A", "current_price": Decimal(price)}
    assert f"price={shown} " in plain_lines({"positions": [row]})[1]


def test_a_loss_that_rounds_to_nothing_has_no_sign() -> None:
    row = {"symbol": "A", "unrealized_pnl": Decimal("-0.001")}
    assert "unrealized=0.00 " in plain_lines({"positions": [row]})[1]


@pytest.mark.parametrize(
    ("account", "said"),
    [
        ({"state": "in_step", "in_step": True, "confirmed_at": None, "unexplained": 0}, "mirror the Alpaca account"),
        (
            {"state": "catching_up", "in_step": False, "confirmed_at": "2025-10-20T14:30:15+00:00", "unexplained": 0},
            "The Alpaca account is catching up: executions may be missing, confirmed Mon 10:30:15 New York",
        ),
        (
            {"state": "in_step", "in_step": True, "confirmed_at": None, "unexplained": 2},
            "2 positions differ unexplained",
        ),
    ],
)
def test_how_well_the_account_is_known_is_said(account: dict[str, object], said: str) -> None:
    body = {**read_body(BODY), "account": account, "session": "pre"}
    assert said in drawn(body).replace("\n", " ")
    assert any("pre-market" in line for line in plain_lines(body))
