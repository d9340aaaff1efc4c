"""The session: codes, texts, acknowledgements, and that a refused request changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.points import Channel, Feed
from apps.alpaca_simulator.protocol import Credentials, ErrorCode, Refusals, Rules, Session, error

AUTH = {"action": "auth", "key": "K", "secret": "S"}
ACK_KEYS = "T trades quotes bars updatedBars dailyBars statuses lulds imbalances corrections cancelErrors"


def session(feed=Feed.IEX, *, has_slot=True, **rules):
    return Session(feed, Rules(**rules), lambda _key: has_slot)


def open_session(feed=Feed.IEX, **rules):
    opened = session(feed, **rules)
    assert opened.receive(AUTH) == {"T": "success", "msg": "authenticated"}
    return opened


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (400, "invalid syntax"),
        (401, "not authenticated"),
        (402, "auth failed"),
        (403, "already authenticated"),
        (404, "auth timeout"),
        (405, "symbol limit exceeded"),
        (406, "connection limit exceeded"),
        (407, "slow client"),
        (408, "v2 not enabled"),
        (409, "insufficient subscription"),
        (410, "invalid subscribe action for this feed"),
        (411, "insufficient scope"),
        (500, "internal error"),
    ],
)
def test_the_texts_are_alpacas(code, text):
    assert error(ErrorCode(code)) == {"T": "error", "code": code, "msg": text}


def test_nothing_but_authentication_comes_first():
    for message in ({"action": "subscribe", "quotes": ["AAPL"]}, {"action": "unsubscribe"}, {"action": "dance"}, {}):
        assert session().receive(message) == error(ErrorCode.NOT_AUTHENTICATED)


@pytest.mark.parametrize("message", [None, 1, "auth", [], [AUTH]])
def test_what_is_no_object_is_invalid_syntax(message):
    assert session().receive(message) == error(ErrorCode.INVALID_SYNTAX)
    assert open_session().receive(message) == error(ErrorCode.INVALID_SYNTAX)


@pytest.mark.parametrize("pair", [("", "S"), ("K", ""), (None, "S"), ("K", None), (1, 2), ("K", ["S"])])
def test_an_empty_or_odd_key_pair_fails(pair):
    key, secret = pair
    assert session().receive(AUTH | {"key": key, "secret": secret}) == error(ErrorCode.AUTH_FAILED)


def test_a_given_key_pair_is_the_only_one():
    strict = {"credentials": Credentials("K", "T")}
    assert session(**strict).receive(AUTH) == error(ErrorCode.AUTH_FAILED)
    assert session(**strict).receive(AUTH | {"secret": "T"})["msg"] == "authenticated"
    assert "T" not in repr(Credentials("K", "T")).replace("T'", "")


def test_a_second_authentication_is_refused_and_harmless():
    opened = open_session()
    assert opened.receive(AUTH) == error(ErrorCode.ALREADY_AUTHENTICATED)
    assert opened.is_authenticated


def test_without_a_slot_it_may_try_again():
    has_slot = False
    waiting = Session(Feed.SIP, Rules(), lambda _key: has_slot)
    assert waiting.receive(AUTH) == error(ErrorCode.CONNECTION_LIMIT_EXCEEDED)
    has_slot = True
    assert waiting.receive(AUTH)["msg"] == "authenticated"


def test_an_error_can_be_forced():
    refused = session()
    refused.refusals = Refusals(auth=ErrorCode.INSUFFICIENT_SUBSCRIPTION)
    assert refused.receive(AUTH) == error(ErrorCode.INSUFFICIENT_SUBSCRIPTION)


def test_the_acknowledgement_is_the_complete_set():
    opened = open_session()
    opened.receive({"action": "subscribe", "trades": ["AAPL"], "quotes": ["AMD", "CLDR"], "bars": ["*"]})
    ack = opened.receive({"action": "subscribe", "quotes": ["BRK.B", "AMD"], "trades": None, "bars": []})
    assert list(ack) == ACK_KEYS.split()
    assert ack["quotes"] == ["AMD", "CLDR", "BRK.B"]
    assert ack["bars"] == ["*"]
    assert ack["trades"] == ack["corrections"] == ack["cancelErrors"] == ["AAPL"]


def test_the_test_stream_has_three_channels():
    opened = open_session(Feed.TEST)
    assert opened.receive({"action": "subscribe", "bars": ["FAKEPACA"], "quotes": ["FAKEPACA"]}) == {
        "T": "subscription",
        "trades": [],
        "quotes": ["FAKEPACA"],
        "bars": ["FAKEPACA"],
    }
    refused = opened.receive({"action": "subscribe", "lulds": ["FAKEPACA"]})
    assert refused == error(ErrorCode.INVALID_SUBSCRIBE_ACTION)


def test_unsubscribing_what_never_was_is_no_error():
    opened = open_session()
    before = opened.receive({"action": "subscribe", "quotes": ["AAPL"]})
    assert opened.receive({"action": "unsubscribe", "quotes": ["MSFT"], "trades": ["AAPL"]}) == before
    assert opened.receive({"action": "unsubscribe", "quotes": ["AAPL"]})["quotes"] == []


@pytest.mark.parametrize(
    "message",
    [
        {"action": "subscribe"},
        {"action": "subscribe", "quotes": []},
        {"action": "subscribe", "quotes": None},
        {"action": "subscribe", "quotes": "AAPL"},
        {"action": "subscribe", "quotes": {"AAPL": 1}},
        {"action": "subscribe", "quotes": ["AAPL", "no such"]},
        {"action": "subscribe", "quotes": ["AAPL", 5]},
        {"action": "subscribe", "quotes": ["AAPL\r\n"]},
        {"action": "subscribe", "quotes": ["MSFT"], "trades": ["price:x"]},
        {"action": "listen", "quotes": ["MSFT"]},
        {"quotes": ["MSFT"]},
    ],
)
def test_a_bad_request_is_invalid_syntax_and_changes_nothing(message):
    opened = open_session()
    opened.receive({"action": "subscribe", "quotes": ["KO"]})
    assert opened.receive(message) == error(ErrorCode.INVALID_SYNTAX)
    assert opened.symbols(Channel.QUOTES) == {"KO"}
    assert opened.symbols(Channel.TRADES) == frozenset()


def test_a_channel_of_another_stream_is_an_invalid_action():
    message = {"action": "subscribe", "orderbooks": ["AAPL"]}
    assert open_session().receive(message) == error(ErrorCode.INVALID_SUBSCRIBE_ACTION)


def test_the_limit_counts_quotes_and_trades_together_and_is_atomic():
    opened = open_session(symbol_limit=3)
    opened.receive({"action": "subscribe", "quotes": ["A", "B"], "trades": ["A"], "bars": ["C", "D", "E"]})
    refused = opened.receive({"action": "subscribe", "quotes": ["C"]})
    assert refused == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
    assert opened.symbols(Channel.QUOTES) == {"A", "B"}
    assert opened.receive({"action": "subscribe", "quotes": ["B"]})["T"] == "subscription"


def test_a_limited_plan_has_no_wildcard():
    opened = open_session(symbol_limit=3)
    assert opened.receive({"action": "subscribe", "quotes": ["*"]}) == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
    assert opened.receive({"action": "subscribe", "bars": ["*"]})["bars"] == ["*"]


def test_the_wildcard_wants_everything_on_its_channel():
    opened = open_session()
    opened.receive({"action": "subscribe", "quotes": ["*"], "trades": ["AAPL"]})
    assert opened.wants(Channel.QUOTES, "ANY")
    assert opened.wants(Channel.TRADES, "AAPL")
    assert not opened.wants(Channel.TRADES, "ANY")
    assert not session(Feed.TEST).wants(Channel.LULDS, "ANY")


symbols = st.lists(st.sampled_from(["A", "B", "C", "D", "BRK.B", "bad one"]), max_size=4)
requests = st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), symbols)


@given(st.lists(requests, max_size=30), st.integers(0, 4))
def test_any_conversation_matches_plain_sets(conversation, limit):
    opened = open_session(symbol_limit=limit)
    expected: set[str] = set()
    for action, named in conversation:
        answer = opened.receive({"action": action, "quotes": named})
        wanted = expected | set(named) if action == "subscribe" else expected - set(named)
        if not named or "bad one" in named:
            assert answer == error(ErrorCode.INVALID_SYNTAX)
        elif len(wanted) > limit:
            assert answer == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
        else:
            expected = wanted
            assert answer["T"] == "subscription"
        assert opened.symbols(Channel.QUOTES) == expected


def test_a_subscribe_request_can_be_refused_whole():
    opened = open_session()
    opened.receive({"action": "subscribe", "quotes": ["AAPL"]})
    opened.refusals = Refusals(subscribe=ErrorCode.INVALID_SUBSCRIBE_ACTION)
    assert opened.receive({"action": "subscribe", "quotes": ["MSFT"]}) == error(ErrorCode.INVALID_SUBSCRIBE_ACTION)
    assert opened.symbols(Channel.QUOTES) == {"AAPL"}
    assert opened.receive({"action": "unsubscribe", "quotes": ["AAPL"]})["quotes"] == []


def test_a_refused_symbol_poisons_its_request():
    opened = open_session()
    opened.refusals = Refusals(symbols=frozenset({"BAD"}))
    for channel in ("quotes", "trades", "statuses"):
        request = {"action": "subscribe", "quotes": ["AAPL"], channel: ["AAPL", "BAD"]}
        assert opened.receive(request) == error(ErrorCode.INVALID_SYNTAX)
    assert opened.symbols(Channel.QUOTES) == frozenset()
    assert opened.receive({"action": "subscribe", "quotes": ["AAPL"]})["quotes"] == ["AAPL"]


def test_the_statuses_can_be_refused_alone():
    opened = open_session()
    opened.refusals = Refusals(statuses=ErrorCode.SYMBOL_LIMIT_EXCEEDED)
    both = {"action": "subscribe", "quotes": ["AAPL"], "statuses": ["AAPL"]}
    assert opened.receive(both) == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
    assert opened.receive(both | {"statuses": []})["quotes"] == ["AAPL"]


def test_a_shrunk_limit_bites_at_the_next_subscribe_and_only_there():
    opened = open_session(symbol_limit=3)
    opened.receive({"action": "subscribe", "quotes": ["A", "B", "C"]})
    opened.refusals = Refusals(symbol_limit=1)
    assert opened.symbols(Channel.QUOTES) == {"A", "B", "C"}
    assert opened.receive({"action": "subscribe", "quotes": ["A"]}) == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
    assert opened.receive({"action": "unsubscribe", "quotes": ["A"]})["quotes"] == ["B", "C"]
    opened.refusals = Refusals()
    assert opened.receive({"action": "subscribe", "quotes": ["A"]})["quotes"] == ["B", "C", "A"]


def test_a_limit_of_none_at_all():
    opened = open_session()
    opened.refusals = Refusals(symbol_limit=0)
    assert opened.receive({"action": "subscribe", "quotes": ["A"]}) == error(ErrorCode.SYMBOL_LIMIT_EXCEEDED)
    assert opened.receive({"action": "subscribe", "statuses": ["A"]})["statuses"] == ["A"], "no limit counts these"
