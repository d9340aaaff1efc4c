"""Trading statuses ride along: asked for last, given up first, and never in the way of a quote."""

from typing import Any

import msgpack
import pytest

from libs.market_data.channels import Channel, SideChannel
from libs.market_data.halts import TradingStatus
from libs.market_data.session import RequestRefused, Session, SubscriptionRequest
from tests.support.plan_server import Server, converge, frame
from tests.support.quotes import NOON


def with_statuses(**fields: Any) -> Session:
    return Session(sides=(SideChannel(Channel.STATUSES),), **fields)


def offers_statuses(session: Session) -> bool:
    side = session.side(Channel.STATUSES)
    return side is not None and side.is_offered


def test_statuses_are_asked_for_after_the_quotes() -> None:
    session, server = with_statuses(), Server()
    converge(session, ["A", "B"], server)
    assert server.seen == [
        {"action": "subscribe", "quotes": ["A", "B"]},
        {"action": "subscribe", "statuses": ["A", "B"]},
    ]
    converge(session, ["B"], server)
    assert server.subscribed == {"quotes": {"B"}, "statuses": {"B"}, "trades": set()}
    assert session.has_what_it_can(["B"])


@pytest.mark.parametrize("code", [400, 405, 410])
def test_a_server_without_statuses_streams_the_quotes(code: int) -> None:
    session, server = with_statuses(), Server(refuses={"statuses": code})
    converge(session, ["A", "B"], server)
    assert session.confirmed == {"A", "B"}
    assert not offers_statuses(session)
    assert session.refused == {}
    assert session.symbol_limit is None
    converge(session, ["A", "B", "C"], server)
    assert session.confirmed == {"A", "B", "C"}
    assert sum("statuses" in message for message in server.seen) == 1


def test_a_refusal_of_statuses_is_told_as_such() -> None:
    session = with_statuses(confirmed=frozenset("A"))
    request = session.next_request(["A"])
    assert request == SubscriptionRequest("subscribe", ("A",), Channel.STATUSES)
    assert session.receive(frame({"T": "error", "code": 410, "msg": "no"}), NOON) == [
        RequestRefused(410, "no", ("A",), Channel.STATUSES)
    ]


def test_statuses_that_are_acknowledged_but_left_out_are_not_asked_for_again() -> None:
    session = with_statuses(confirmed=frozenset("A"))
    session.next_request(["A"])
    session.receive(frame({"T": "subscription", "quotes": ["A"]}), NOON)
    assert not offers_statuses(session)
    assert session.next_request(["A"]) is None


def test_should_the_plan_count_statuses_quotes_win() -> None:
    session, server = with_statuses(), Server(limit=4, counted=("quotes", "statuses"))
    converge(session, ["A", "B"], server)
    assert server.subscribed == {"quotes": {"A", "B"}, "statuses": {"A", "B"}, "trades": set()}
    converge(session, ["A", "B", "C", "D"], server)
    assert server.subscribed == {"quotes": {"A", "B", "C", "D"}, "statuses": set(), "trades": set()}
    assert session.symbol_limit is None


def test_on_a_full_plan_statuses_stay_when_more_is_tried_again() -> None:
    session, server = with_statuses(), Server(limit=2)
    wanted = ["A", "B", "C"]
    converge(session, wanted, server)
    for _ in range(3):
        session.try_again(wanted)
        converge(session, wanted, server)
    assert server.subscribed == {"quotes": {"A", "B"}, "statuses": {"A", "B"}, "trades": set()}


def test_statuses_never_answered_are_given_up() -> None:
    session = with_statuses(confirmed=frozenset("A"))
    session.next_request(["A"])
    assert session.give_up_side()
    assert session.next_request(["A"]) is None


def test_a_status_is_an_event() -> None:
    sample = {
        "T": "s", "S": "AAPL", "sc": "H", "sm": "Trading Halt", "rc": "T12",
        "rm": "Trading Halted; For information requested by NASDAQ", "t": msgpack.Timestamp(1614021300), "z": "C",
    }  # fmt: skip
    [event] = Session().receive(frame(sample), NOON)
    assert isinstance(event, TradingStatus)
    assert (event.symbol, event.code, event.tape) == ("AAPL", "H", "C")
    assert event.reason.startswith("Trading Halted;")
    assert event.at is not None
    assert event.at.isoformat() == "2021-02-22T19:15:00+00:00"
    [bare] = Session().receive(frame({"T": "s", "S": "A", "sc": "H", "sm": "Trading Halt", "rm": ""}), NOON)
    assert isinstance(bare, TradingStatus)
    assert (bare.reason, bare.at) == ("Trading Halt", None)
