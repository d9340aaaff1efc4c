from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from libs.broker.account_messages import read_account, read_activities, read_positions
from libs.broker.trade_updates import Executed, read_message
from libs.broker.wire_values import day, decode_fields, moment, number
from tests.libs.broker.samples import DIVIDEND, FILL, PARTIAL_FILL, POSITION
from tests.libs.broker.test_account_messages import body
from tests.libs.broker.test_trade_updates import update

TOO_LARGE = b"1e99999999999999999999"


def poisoned(frame: bytes, name: str, value: object) -> bytes:
    """Return the frame with a number in place of a text that no Decimal can hold."""
    quoted = f'"{name}": "{value}"'.encode()
    assert quoted in frame
    return frame.replace(quoted, f'"{name}": '.encode() + TOO_LARGE)


def test_a_number_that_nothing_can_hold_is_not_told() -> None:
    fields = decode_fields(b'{"large":1e99999999999999999999,"small":-1.5e-99999999999999999999,"sane":1.10}')
    assert [number(fields[name]) for name in ("large", "small", "sane")] == [None, None, Decimal("1.10")]
    assert number("1e99999999999999999999") is None


def test_a_number_that_nothing_can_hold_costs_its_own_element_alone() -> None:
    answer = read_positions(poisoned(body(POSITION, POSITION | {"symbol": "KO", "qty": "7"}), "qty", 7))
    assert ([one.symbol for one in answer.positions], [one.symbol for one in answer.unreadable]) == (["AAPL"], ["KO"])
    page = read_activities(poisoned(body(DIVIDEND, FILL), "price", FILL["price"]))
    assert (len(page.activities), len(page.executions), [one.may_be_execution for one in page.unreadable]) == (
        1, 0, [True],
    )  # fmt: skip
    assert read_account(b'{"account_number":"P","cash":1e99999999999999999999}').cash is None


@pytest.mark.parametrize(("name", "is_read"), [("price", False), ("qty", False), ("position_qty", True)])
def test_an_update_with_a_number_that_nothing_can_hold(name, is_read) -> None:
    assert isinstance(read_message(poisoned(update(), name, PARTIAL_FILL[name])), Executed) is is_read


@pytest.mark.parametrize("year", ["0001", "1969", "9001", "9999"])
def test_a_time_of_no_sane_year_is_not_told(year) -> None:
    assert (moment(f"{year}-01-01T00:00:00Z"), day(f"{year}-01-01")) == (None, None)
    page = read_activities(body(FILL | {"transaction_time": f"{year}-01-01T00:00:00Z"}))
    assert [one.may_be_execution for one in page.unreadable] == [True]


def test_times_and_days() -> None:
    assert moment("1970-01-01T00:00:00Z") == datetime(1970, 1, 1, tzinfo=UTC)
    assert day("2200-12-31T10:00:00Z") == date(2200, 12, 31)
    assert [moment(odd) for odd in ("2026-02-20T10:00:00", "2026-02-20", "", 7, None)] == [None] * 5
    assert [day(odd) for odd in ("2026-02", "x", 20260220, None)] == [None] * 4
