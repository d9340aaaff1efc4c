import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.broker.executions import Execution, Unreadable
from libs.broker.trade_updates import (
    Authorized,
    Busted,
    Corrected,
    Executed,
    Ignored,
    Listening,
    OrderEvent,
    Refused,
    StreamError,
    read_message,
)
from libs.portfolio.fills import Side
from tests.libs.broker.samples import ORDER, PARTIAL_FILL
from tests.libs.broker.test_account_messages import json_values

D = Decimal


def update(**changes: object) -> bytes:
    return json.dumps({"stream": "trade_updates", "data": PARTIAL_FILL | changes}).encode()


EXECUTION = Execution(
    PARTIAL_FILL["execution_id"],
    "o-1",
    "AAPL",
    "us_equity",
    Side.BUY,
    D(40),
    D("105.89"),
    D(40),
    datetime(2026, 2, 20, 15, 30, 0, 695570, UTC),
)


class TestExecutions:
    def test_a_partial_fill_in_a_binary_frame_and_in_text(self) -> None:
        assert read_message(update()) == Executed(EXECUTION, D(140), is_partial=True)
        assert read_message(update().decode()) == Executed(EXECUTION, D(140), is_partial=True)

    def test_a_fill_with_numbers_offsets_and_unknown_words(self) -> None:
        order = ORDER | {"status": "levitating", "asset_class": "ipo", "side": "sell_short", "order_class": ""}
        event = read_message(
            update(event="fill", qty=40, price=105.89, timestamp="2026-02-20T10:30:00.69557-05:00", order=order)
        )
        assert isinstance(event, Executed)
        assert not event.is_partial
        assert event.execution.price == D("105.89")
        assert (event.execution.asset_class, event.execution.side) == ("ipo", Side.SELL)
        assert event.execution.executed_at == EXECUTION.executed_at

    @pytest.mark.parametrize(
        "changes",
        [
            {"execution_id": None},
            {"price": "0"},
            {"qty": "-3"},
            {"order": None},
            {"order": ORDER | {"symbol": "", "legs": [ORDER]}},
            {"timestamp": None, "at": None},
            {"event": None},
            {"event": "levitated"},
        ],
    )
    def test_what_may_have_been_an_execution_says_so(self, changes) -> None:
        event = read_message(update(**changes))
        assert isinstance(event, Unreadable)
        assert event.may_be_execution

    @pytest.mark.parametrize("event", ["fill", "trade_bust", "trade_correct", "canceled", "levitated"])
    def test_a_coin_is_named_in_its_one_form(self, event) -> None:
        order = ORDER | {"symbol": "ETHUSD", "asset_class": "crypto"}
        told = read_message(update(event=event, order=order))
        execution = told.execution if isinstance(told, Executed | Corrected) else told
        assert execution.symbol == "ETH/USD"

    def test_the_servers_time_stands_in_for_the_executions(self) -> None:
        event = read_message(update(timestamp=None))
        assert isinstance(event, Executed)
        assert event.execution.executed_at == datetime(2026, 2, 20, 15, 30, 0, 700950, UTC)


class TestAmendments:
    AT = datetime(2026, 2, 20, 15, 30, 0, 700950, UTC)

    def test_a_bust_names_what_it_takes_back(self) -> None:
        own = read_message(update(event="trade_bust", execution_id="own", previous_execution_id="x", qty="-40"))
        assert own == Busted("x", "o-1", "AAPL", self.AT)
        assert read_message(update(event="trade_bust", execution_id="x")) == own
        nameless = read_message(update(event="trade_bust", execution_id=None))
        assert isinstance(nameless, Unreadable)
        assert nameless.may_be_execution

    def test_a_correction_with_an_id_of_its_own_and_without(self) -> None:
        event = read_message(update(event="trade_correct", execution_id="own", previous_execution_id="x", price="1"))
        assert isinstance(event, Corrected)
        assert (event.execution_id, event.execution.execution_id, event.execution.price) == ("x", "own", 1)
        assert (event.at, event.event_id) == (self.AT, PARTIAL_FILL["event_id"])
        event = read_message(update(event="trade_correct", execution_id="x"))
        assert isinstance(event, Corrected)
        assert (event.execution_id, event.execution.execution_id) == ("x", "x")

    def test_a_correction_without_figures_must_be_asked_for(self) -> None:
        event = read_message(update(event="trade_correct", price=None))
        assert isinstance(event, Unreadable)
        assert event.may_be_execution


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"\x01", Ignored("heartbeat")),
        ("\x01", Ignored("heartbeat")),
        (b"", Ignored("heartbeat")),
        (b'{"stream":"authorization","data":{"status":"authorized","action":"authenticate"}}', Authorized()),
        (b'{"stream":"authorization","data":{"status":"unauthorized","action":"listen"}}', Refused("listen")),
        (b'{"stream":"authorization","data":null}', Refused("authenticate")),
        (b'{"stream":"listening","data":{"streams":["trade_updates"]}}', Listening(("trade_updates",))),
        (b'{"stream":"listening","data":{"streams":null}}', Listening(())),
        (b'{"action":"error","data":{"error_message":"internal server error"}}', StreamError("internal server error")),
        (b'{"action":"error"}', StreamError("unnamed error")),
        (b'{"stream":"account_updates","data":{}}', Ignored("stream account_updates, action None")),
        (update(event="levitated", execution_id=None), OrderEvent("levitated", "o-1", "AAPL")),
        (update(event="canceled", execution_id=None, order=None), OrderEvent("canceled", None, None)),
    ],
)
def test_other_messages(frame, expected) -> None:
    assert read_message(frame) == expected


@pytest.mark.parametrize(
    "frame", [b"{", b"[]", b"null", b"\xff\xfe", "\ud800", b'{"stream":"trade_updates","data":null}', b"[" * 3000]
)
def test_what_cannot_be_read_may_have_been_an_execution(frame) -> None:
    event = read_message(frame)
    assert isinstance(event, Unreadable)
    assert event.may_be_execution


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_no_frame_raises(frame) -> None:
    read_message(frame)


@given(st.dictionaries(st.sampled_from(sorted(PARTIAL_FILL)), json_values))
def test_a_spoiled_fill_is_either_read_or_asked_for_again(changes) -> None:
    event = read_message(update(**changes | {"event": "fill"}))
    assert isinstance(event, Executed) or (isinstance(event, Unreadable) and event.may_be_execution)
