import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.points import Feed
from apps.alpaca_simulator.protocol import Credentials, Rules
from apps.alpaca_simulator.protocol import Session as ServerSession
from libs.market_data.alpaca_messages import UnreadableMessage
from libs.market_data.channels import Refusal
from libs.market_data.quotes import Quote
from libs.market_data.session import (
    FrameUnreadable,
    RequestRefused,
    Session,
    StreamErrorReceived,
    SubscriptionConfirmed,
)
from tests.support.quotes import NOON


def frame(*messages: object) -> bytes:
    return bytes(msgpack.packb(list(messages)))


def ack(*symbols: str) -> bytes:
    return frame({"T": "subscription", "quotes": list(symbols), "trades": []})


def error(code: int, msg: str = "text") -> bytes:
    return frame({"T": "error", "code": code, "msg": msg})


def test_a_frame_gives_its_events_in_order() -> None:
    session = Session()
    events = session.receive(
        frame({"T": "q", "S": "A", "bp": 1.0}, {"T": "??"}, {"T": "success", "msg": "x"}, {"T": "error", "code": 500}),
        NOON,
    )
    assert [type(event) for event in events] == [Quote, UnreadableMessage, StreamErrorReceived]
    assert session.counts == {"unreadable_messages": 1, "error_500": 1}


def test_an_unreadable_frame_costs_one_frame() -> None:
    session = Session()
    [event] = session.receive(b"\xc1", NOON)
    assert isinstance(event, FrameUnreadable)
    assert isinstance(session.receive(frame({"T": "q", "S": "A"}), NOON)[0], Quote)


def test_one_request_is_in_flight_and_confirmed_is_what_the_server_said() -> None:
    session = Session()
    request = session.next_request(["A", "B"])
    assert request is not None
    assert request.message() == {"action": "subscribe", "quotes": ["A", "B"]}
    assert session.next_request(["A", "B", "C"]) is None
    assert session.confirmed == frozenset()
    assert session.receive(ack("A", "B"), NOON) == [SubscriptionConfirmed(frozenset("AB"), frozenset())]
    assert session.next_request(["A", "B"]) is None


def test_symbols_are_given_up_before_others_are_asked_for() -> None:
    session = Session(symbol_limit=2)
    session.next_request(["A", "B"])
    session.receive(ack("A", "B"), NOON)
    request = session.next_request(["C", "A", "B"])
    assert request is not None
    assert request.message() == {"action": "unsubscribe", "quotes": ["B"]}
    assert session.receive(ack("A"), NOON) == [SubscriptionConfirmed(frozenset(), frozenset("B"))]
    request = session.next_request(["C", "A", "B"])
    assert request is not None
    assert request.symbols == ("C",)
    assert session.why_not_streamed("B", ["C", "A", "B"]) is Refusal.OVER_LIMIT
    assert session.why_not_streamed("C", ["C", "A", "B"]) is None


def test_what_an_acknowledgement_leaves_out_is_not_asked_for_again() -> None:
    session = Session()
    session.next_request(["A", "B"])
    session.receive(ack("A"), NOON)
    assert session.next_request(["A", "B"]) is None
    assert session.why_not_streamed("B", ["A", "B"]) is Refusal.NOT_CONFIRMED


def test_a_channel_that_is_not_offered_ends_the_asking() -> None:
    session = Session()
    session.next_request(["A", "B"])
    [event] = session.receive(error(410), NOON)
    assert event == RequestRefused(410, "text", ("A", "B"))
    assert session.next_request(["A", "B"]) is None


def test_a_refused_wildcard_says_nothing_about_the_limit() -> None:
    session = Session()
    session.next_request(["*"])
    session.receive(error(405), NOON)
    assert session.symbol_limit is None
    assert session.refused == {"*": Refusal.OVER_LIMIT}


@pytest.mark.parametrize("code", [400, 405])
def test_an_error_that_answers_no_subscription_of_ours_is_only_told(code: int) -> None:
    session = Session()
    assert session.receive(error(code), NOON) == [StreamErrorReceived(code, "text")]
    session.next_request(["A"])
    session.receive(ack("A"), NOON)
    session.next_request([])
    assert session.receive(error(code), NOON) == [StreamErrorReceived(code, "text")]
    assert session.in_flight is None


def server(symbol_limit: int | None) -> ServerSession:
    session = ServerSession(Feed.IEX, Rules(Credentials(), symbol_limit), lambda _key: True)
    session.authenticate("key", "secret")
    return session


def converge(session: Session, wanted: list[str], alpaca: ServerSession) -> int:
    """Exchange messages until the session has nothing left to ask; return how many requests that took."""
    for requests in range(2000):
        request = session.next_request(wanted)
        if request is None:
            return requests
        session.receive(frame(dict(alpaca.receive(request.message()))), NOON)
    raise AssertionError("wanted and confirmed never met")


SYMBOLS = [f"S{letter}{digit}" for letter in "ABCDEFGH" for digit in range(8)]


@given(
    wanted_sets=st.lists(st.lists(st.sampled_from(SYMBOLS), unique=True, max_size=60), min_size=1, max_size=4),
    limit=st.none() | st.integers(1, 40),
    is_known=st.booleans(),
)
def test_wanted_and_confirmed_always_meet_under_a_symbol_limit(
    wanted_sets: list[list[str]], limit: int | None, *, is_known: bool
) -> None:
    alpaca, session = server(limit), Session(limit if is_known else None)
    for wanted in wanted_sets:
        converge(session, wanted, alpaca)
        assert session.confirmed == frozenset(wanted if limit is None else wanted[:limit])


@given(
    wanted=st.lists(st.sampled_from(SYMBOLS), unique=True, min_size=1, max_size=40),
    bad=st.sets(st.sampled_from(["bad symbol", "AAPL\n", "x"]), max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_a_malformed_symbol_never_keeps_the_others_from_streaming(wanted: list[str], bad: set[str], order) -> None:
    everything = [*wanted, *bad]
    order.shuffle(everything)
    session = Session()
    converge(session, everything, server(None))
    assert session.confirmed == frozenset(wanted)
    assert session.refused == dict.fromkeys(bad, Refusal.MALFORMED)


def test_a_hundred_positions_on_a_free_plan_need_few_requests() -> None:
    assert converge(Session(), SYMBOLS, server(30)) <= 20
    assert converge(Session(30), SYMBOLS, server(30)) == 1


@pytest.mark.parametrize("bad", [b"\x91" * 1_000 + b"\xc0", b"\x81\xa1a" * 3_000 + b"\xc0"])
@pytest.mark.parametrize("key", [b"\xa1x", b"\xa1c", b"\xa1T"])
def test_a_message_nested_too_deeply_costs_itself_alone(key: bytes, bad: bytes) -> None:
    good = msgpack.packb({"T": "q", "S": "B", "bp": 1.0})
    nested = b"\x83\xa1T\xa1q\xa1S\xa1A" + key + bad
    session = Session()
    first, unreadable, last = session.receive(b"\x93" + good + nested + good, NOON)
    assert isinstance(first, Quote)
    assert isinstance(last, Quote)
    assert isinstance(unreadable, UnreadableMessage)
    assert unreadable.symbol == "A"
    assert session.counts == {"unreadable_messages": 1}


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e999", '"\\ud800"', "[" * 1_000 + "]" * 1_000, "tru", "0x1", "-"]
)
def test_a_text_message_with_what_is_no_json_costs_itself_alone(value: str) -> None:
    good = '{"T":"q","S":"B","bp":1.0}'
    first, unreadable, last = Session().receive(f'[{good},{{"T":"q","S":"A","bp":{value}}},{good}]', NOON)
    assert (type(first), type(last)) == (Quote, Quote)
    assert isinstance(unreadable, UnreadableMessage)
    assert (unreadable.kind, unreadable.symbol) == ("q", "A")


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
@pytest.mark.parametrize("kind", ["q", "t", "s", "c"])
def test_a_time_at_the_end_of_the_calendar_is_none(kind: str, time: str) -> None:
    [event] = Session().receive(frame({"T": kind, "S": "A", "oi": 1, "sc": "H", "t": time}), NOON)
    told = getattr(event, "corrected", event)
    assert (told.at if kind == "s" else told.timestamp) is None
