"""What the wire says never becomes the name of a counter, and so never a label of a metric."""

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.session import ErrorCode, Session, counted_code
from tests.support.quotes import NOON

KNOWN = {value for name, value in vars(ErrorCode).items() if name.isupper()}


def test_the_codes_that_decide_something_are_counted_by_their_numbers() -> None:
    assert {counted_code(code) for code in KNOWN} == {str(code) for code in KNOWN}


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_however_many_codes_come_there_is_a_counter_for_each_documented_one_and_one_more(codes: list[int]) -> None:
    session = Session(None)
    for code in codes:
        list(session.receive(msgpack.packb([{"T": "error", "code": code, "msg": "m"}]), NOON))
    documented = {f"error_{code}" for code in (*KNOWN, 403, 500)}
    assert session.counts.keys() <= documented | {"error_other", "unreadable_messages"}
    assert sum(session.counts.values()) == len(codes)
