from datetime import UTC, datetime

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.alpaca_messages import (
    CancelMessage,
    CorrectionMessage,
    ErrorMessage,
    QuoteMessage,
    SubscriptionMessage,
    SuccessMessage,
    TradeMessage,
    UnreadableFrameError,
    UnreadableMessage,
    cancel_from,
    correction_from,
    quote_from,
    read_frame,
    trade_from,
)
from libs.market_data.trades import Trade, TradeCancel, TradeCorrection
from tests.support.quotes import NOON

# Bytes of Alpaca's own server, and of its documentation's examples.
WELCOME = bytes.fromhex("9182a154a773756363657373a36d7367a9636f6e6e6563746564")
ERROR_406 = bytes.fromhex(
    "9183a154a56572726f72a4636f6465cd0196a36d7367b9636f6e6e656374696f6e206c696d6974206578636565646564"
)
FAKEPACA_QUOTE = bytes.fromhex(
    "918ba154a171a153a846414b4550414341a26278a14fa26270cb4060bb3333333333a2627304a26178a152a26170cb4060f8a3d70a3d71"
    "a2617305a16391a152a17aa141a174d7ff9885071c66a0b3c5"
)
JSON_QUOTE = (
    '[{"T":"q","S":"AMD","bx":"U","bp":87.66,"bs":100,"ax":"Q","ap":87.68,"as":400,'
    '"t":"2026-02-20T15:51:45.335689322Z","c":["R"],"z":"C"}]'
)


def test_the_servers_own_bytes_are_read() -> None:
    assert read_frame(WELCOME) == [SuccessMessage("connected")]
    assert read_frame(ERROR_406) == [ErrorMessage(406, "connection limit exceeded")]
    [message] = read_frame(FAKEPACA_QUOTE)
    assert isinstance(message, QuoteMessage)
    quote = quote_from(message, NOON)
    assert (quote.symbol, quote.bid, quote.ask, quote.bid_size, quote.ask_size) == ("FAKEPACA", 133.85, 135.77, 4, 5)
    assert (quote.bid_exchange, quote.ask_exchange, quote.conditions, quote.tape) == ("O", "R", ("R",), "A")
    assert quote.timestamp == datetime(2024, 7, 24, 7, 56, 53, 639714, tzinfo=UTC)


def test_a_text_frame_is_read_as_json() -> None:
    [message] = read_frame(JSON_QUOTE)
    assert isinstance(message, QuoteMessage)
    assert quote_from(message, NOON).timestamp == datetime(2026, 2, 20, 15, 51, 45, 335689, tzinfo=UTC)
    assert read_frame('[{"T":"subscription","quotes":["A"],"trades":null}]') == [SubscriptionMessage(["A"])]


# Alpaca's documentation's examples.
JSON_TRADE = (
    '[{"T":"t","i":96921,"S":"AAPL","x":"D","p":126.55,"s":1,"t":"2021-02-22T15:51:44.208Z","c":["@","I"],"z":"C"}]'
)
JSON_CORRECTION = (
    '[{"T":"c","S":"EEM","x":"M","oi":52983525033527,"op":39.1582,"os":440000,"oc":[" ","7"],"ci":52983525034326,'
    '"cp":39.1809,"cs":440000,"cc":[" ","7"],"z":"B","t":"2023-04-06T14:25:06.542305024Z"}]'
)
JSON_CANCEL = (
    '[{"T":"x","S":"GOOGL","i":465,"x":"D","p":105.31,"s":300,"a":"C","z":"C","t":"2023-04-06T13:15:42.83540958Z"}]'
)


def test_a_trade_and_what_is_said_of_it_later() -> None:
    [trade], [correction], [cancel] = (read_frame(text) for text in (JSON_TRADE, JSON_CORRECTION, JSON_CANCEL))
    assert isinstance(trade, TradeMessage)
    traded_at = datetime(2021, 2, 22, 15, 51, 44, 208000, tzinfo=UTC)
    assert trade_from(trade, NOON) == Trade("AAPL", 96921, "D", 126.55, 1.0, ("@", "I"), "C", traded_at, NOON)
    assert isinstance(correction, CorrectionMessage)
    at = datetime(2023, 4, 6, 14, 25, 6, 542305, tzinfo=UTC)
    assert correction_from(correction, NOON) == TradeCorrection(
        52983525033527, Trade("EEM", 52983525034326, "M", 39.1809, 440000.0, (" ", "7"), "B", at, NOON)
    )
    assert isinstance(cancel, CancelMessage)
    assert cancel_from(cancel) == TradeCancel("GOOGL", 465, "D")


def test_a_correction_without_an_id_of_its_own_keeps_the_originals() -> None:
    [message] = read_frame('[{"T":"c","S":"A","oi":7,"cp":1.5,"t":"2023-04-06T14:25:06"}]')
    assert isinstance(message, CorrectionMessage)
    corrected = correction_from(message, NOON).corrected
    assert (corrected.trade_id, corrected.price, corrected.timestamp, corrected.conditions) == (7, 1.5, None, ())


def packed(*messages: object) -> bytes:
    return bytes(msgpack.packb(list(messages)))


GOOD = {"T": "q", "S": "GOOD", "bp": 1.0, "ap": 1.1, "t": msgpack.Timestamp(1_700_000_000, 5)}


@pytest.mark.parametrize(
    ("bad", "kind", "symbol"),
    [
        ({"T": "zz", "S": "A"}, "zz", "A"),
        ({"T": "q", "S": "A", "bp": "1.5"}, "q", "A"),
        ({"T": "q", "S": "A", "t": 5}, "q", "A"),
        ({"T": "q", "S": 7}, "q", None),
        ({"T": "q"}, "q", None),
        ({"T": "t", "S": "A", "p": "1"}, "t", "A"),
        ({"T": "t", "S": "A", "i": -1.5}, "t", "A"),
        ({"T": "c", "S": "A"}, "c", "A"),
        ({"T": "x", "S": "A", "i": None}, "x", "A"),
        ({"T": 5, "S": "A"}, None, "A"),
        ({"S": "A"}, None, "A"),
        (5, None, None),
        (None, None, None),
        ([], None, None),
    ],
)
def test_one_unreadable_message_costs_one_message(bad: object, kind: str | None, symbol: str | None) -> None:
    first, unreadable, last = read_frame(packed(GOOD, bad, GOOD))
    assert isinstance(first, QuoteMessage)
    assert isinstance(last, QuoteMessage)
    assert isinstance(unreadable, UnreadableMessage)
    assert (unreadable.kind, unreadable.symbol) == (kind, symbol)


def test_a_bad_message_in_a_text_frame_costs_one_message() -> None:
    first, unreadable = read_frame('[{"T":"q","S":"A"},{"T":"q","S":"B","bp":"x"}]')
    assert isinstance(first, QuoteMessage)
    assert unreadable == UnreadableMessage("q", "B", unreadable.problem)  # type: ignore[union-attr]


def test_channels_that_were_not_asked_for_are_passed_over() -> None:
    assert len(read_frame(packed({"T": "l", "S": "A"}, GOOD, {"T": "b", "S": "A"}))) == 1


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xc1", FAKEPACA_QUOTE[:-3], packed(GOOD)[1:], msgpack.packb({"T": "q"}), "", "[", "{}", "not json", "null"],
)
def test_an_unreadable_frame_is_told(frame: bytes | str) -> None:
    with pytest.raises(UnreadableFrameError):
        read_frame(frame)


@pytest.mark.parametrize("extra", [{"r": msgpack.Timestamp(1, 1)}, {"new": {"nested": [1]}}, {"bp": None}, {"c": None}])
def test_unknown_keys_and_nulls_are_no_fault(extra: dict[str, object]) -> None:
    [message] = read_frame(packed(GOOD | extra))
    assert isinstance(message, QuoteMessage)


@pytest.mark.parametrize(
    ("flags", "conditions"), [("R", ("R",)), (["R", "N"], ("R", "N")), (None, ()), ([], ()), ("", ())]
)
def test_flags_come_as_a_list_or_as_one_text(flags: object, conditions: tuple[str, ...]) -> None:
    [message] = read_frame(packed(GOOD | {"c": flags}))
    assert isinstance(message, QuoteMessage)
    assert quote_from(message, NOON).conditions == conditions


def test_a_time_without_a_zone_is_none() -> None:
    [message] = read_frame('[{"T":"q","S":"A","t":"2026-02-20T15:51:45"}]')
    assert isinstance(message, QuoteMessage)
    assert quote_from(message, NOON).timestamp is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(frame: bytes) -> None:
    try:
        read_frame(frame)
    except UnreadableFrameError:
        pass


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(frame: str) -> None:
    try:
        read_frame(frame)
    except UnreadableFrameError:
        pass
