"""What was refused once may be accepted later, and what is confirmed may bring nothing: nobody needs to restart."""

from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.channels import Channel, Refusal, SideChannel
from libs.market_data.session import Session
from tests.support.plan_server import Server, converge

SYMBOLS = [f"S{letter}" for letter in "ABCDEFGHIJKL"]


@given(
    first=st.integers(0, 12),
    then=st.none() | st.integers(0, 12),
    wanted=st.lists(st.sampled_from(SYMBOLS), unique=True),
)
def test_a_limit_that_is_lifted_is_noticed_without_a_reconnect(first: int, then: int | None, wanted: list[str]) -> None:
    session, server = Session(sides=(SideChannel(Channel.STATUSES),)), Server(limit=first)
    converge(session, wanted, server)
    assert session.confirmed == set(wanted[:first])
    server.limit = None if then is None else max(first, then)
    for _ in range(2):
        session.try_again(wanted)
        converge(session, wanted, server)
    assert session.confirmed == set(wanted if server.limit is None else wanted[: server.limit])
    assert server.subscribed["statuses"] == session.confirmed


def test_the_configured_limit_is_never_exceeded() -> None:
    session, server = Session(2), Server()
    converge(session, ["A", "B", "C"], server)
    session.try_again(["A", "B", "C"])
    converge(session, ["A", "B", "C"], server)
    assert session.confirmed == {"A", "B"}


def test_trying_again_costs_one_request_for_one_symbol() -> None:
    session, server = Session(), Server(limit=3)
    wanted = list(SYMBOLS)
    converge(session, wanted, server)
    server.seen.clear()
    session.try_again(wanted)
    converge(session, wanted, server)
    assert server.seen == [{"action": "subscribe", "quotes": [wanted[3]]}]


def test_refused_symbols_take_turns() -> None:
    session = Session(confirmed=frozenset("A"), refused=dict.fromkeys("BC", Refusal.MALFORMED))
    asked = []
    for _ in range(4):
        session.try_again(["A", "B", "C"])
        request = session.next_request(["A", "B", "C"])
        assert request is not None
        asked.append(request.symbols)
        session.in_flight = None
        session.refused[request.symbols[0]] = Refusal.MALFORMED
    assert asked == [("B",), ("C",), ("B",), ("C",)]


def test_nothing_left_out_is_nothing_to_try() -> None:
    session, server = Session(), Server()
    converge(session, ["A"], server)
    session.try_again(["A"])
    assert session.next_request(["A"]) is None


def test_renewing_takes_leave_and_subscribes_again() -> None:
    session, server = Session(sides=(SideChannel(Channel.STATUSES),)), Server()
    converge(session, ["A", "B"], server)
    server.seen.clear()
    session.renew(["A", "never confirmed"])
    converge(session, ["A", "B"], server)
    assert [message for message in server.seen if "quotes" in message] == [
        {"action": "unsubscribe", "quotes": ["A"]},
        {"action": "subscribe", "quotes": ["A"]},
    ]
    assert server.subscribed == {"quotes": {"A", "B"}, "statuses": {"A", "B"}, "trades": set()}
