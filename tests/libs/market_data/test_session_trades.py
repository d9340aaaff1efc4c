"""Trades ride along like trading statuses, after them, and make room for quotes before them."""

import msgpack
import pytest

from libs.market_data.channels import Channel, Refusal, SideChannel
from libs.market_data.session import Session, SubscriptionConfirmed
from libs.market_data.trades import Trade, TradeCancel, TradeCorrection
from tests.support.plan_server import Server, converge, frame
from tests.support.quotes import NOON

AT = msgpack.Timestamp(1_700_000_000, 5)


def with_trades(**fields: object) -> Session:
    return Session(sides=(SideChannel(Channel.STATUSES), SideChannel(Channel.TRADES)), **fields)  # type: ignore[arg-type]


def trades_of(session: Session) -> SideChannel:
    side = session.side(Channel.TRADES)
    assert side is not None
    return side


def test_trades_are_asked_for_last_in_requests_of_their_own() -> None:
    session, server = with_trades(), Server()
    converge(session, ["A", "B"], server)
    assert server.seen == [
        {"action": "subscribe", "quotes": ["A", "B"]},
        {"action": "subscribe", "statuses": ["A", "B"]},
        {"action": "subscribe", "trades": ["A", "B"]},
    ]
    assert trades_of(session).confirmed == {"A", "B"}
    converge(session, ["B"], server)
    assert server.subscribed == {"quotes": {"B"}, "statuses": {"B"}, "trades": {"B"}}


def test_without_being_wanted_they_are_not_asked_for() -> None:
    session, server = Session(sides=(SideChannel(Channel.STATUSES),)), Server()
    converge(session, ["A"], server)
    assert server.subscribed["trades"] == set()
    assert session.side(Channel.TRADES) is None


@pytest.mark.parametrize(
    ("code", "why"), [(400, Refusal.MALFORMED), (405, Refusal.OVER_LIMIT), (410, Refusal.NOT_OFFERED)]
)
def test_a_server_without_trades_streams_the_rest(code: int, why: Refusal) -> None:
    session, server = with_trades(), Server(refuses={"trades": code})
    converge(session, ["A", "B"], server)
    converge(session, ["A", "B", "C"], server)
    assert server.subscribed == {"quotes": {"A", "B", "C"}, "statuses": {"A", "B", "C"}, "trades": set()}
    assert trades_of(session).refusal is why
    assert session.refused == {}
    assert session.symbol_limit is None
    assert sum("trades" in message for message in server.seen) == 1


def test_trades_that_do_not_fit_beside_the_quotes_are_given_up_whole() -> None:
    session, server = with_trades(), Server(limit=4, counted=("quotes", "trades"))
    converge(session, ["A", "B"], server)
    assert server.subscribed["trades"] == {"A", "B"}
    converge(session, ["A", "B", "C"], server)
    assert server.subscribed == {"quotes": {"A", "B", "C"}, "statuses": {"A", "B", "C"}, "trades": set()}
    assert trades_of(session).refusal is Refusal.OVER_LIMIT
    assert session.symbol_limit is None


def test_trades_make_room_before_statuses_do() -> None:
    session, server = with_trades(), Server(limit=6, counted=("quotes", "statuses", "trades"))
    converge(session, ["A", "B"], server)
    server.seen.clear()
    converge(session, ["A", "B", "C"], server)
    assert [message for message in server.seen if message["action"] == "unsubscribe"] == [
        {"action": "unsubscribe", "trades": ["A", "B"]}
    ]
    assert server.subscribed == {"quotes": {"A", "B", "C"}, "statuses": {"A", "B", "C"}, "trades": set()}


def test_trades_never_answered_are_given_up_and_quotes_never_are() -> None:
    session = Session(sides=(SideChannel(Channel.TRADES),), confirmed=frozenset("A"))
    session.next_request(["A"])
    assert session.give_up_side()
    assert trades_of(session).refusal is Refusal.NOT_CONFIRMED
    assert session.next_request(["A"]) is None
    session.next_request(["A", "B"])
    assert not session.give_up_side()
    assert session.in_flight is not None


def test_a_confirmation_tells_of_which_symbols_trades_begin_and_end() -> None:
    session = with_trades()
    confirmed = {"T": "subscription", "quotes": ["A", "B"], "trades": ["A"], "corrections": ["A"]}
    assert session.receive(frame(confirmed), NOON) == [
        SubscriptionConfirmed(frozenset("AB"), frozenset(), frozenset("A"))
    ]
    assert session.receive(frame({"T": "subscription", "quotes": ["A", "B"], "trades": ["B"]}), NOON) == [
        SubscriptionConfirmed(frozenset(), frozenset(), frozenset("B"), frozenset("A"))
    ]


def test_trades_and_what_is_said_of_them_are_events_in_order() -> None:
    trade = {"T": "t", "i": 1, "S": "A", "x": "V", "p": 10.0, "s": 5, "c": ["@"], "z": "C", "t": AT}
    correction = {"T": "c", "S": "A", "x": "V", "oi": 1, "op": 10.0, "ci": 2, "cp": 11.0, "cs": 5, "z": "C", "t": AT}
    cancel = {"T": "x", "S": "A", "x": "V", "i": 2, "p": 11.0, "s": 5, "a": "C", "z": "C", "t": AT}
    events = with_trades().receive(frame(trade, {"T": "t"}, correction, cancel), NOON)
    assert [type(event) for event in events if not hasattr(event, "problem")] == [Trade, TradeCorrection, TradeCancel]
    assert len(events) == 4
