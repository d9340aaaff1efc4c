"""The encodings, byte for byte against the recorded samples."""

import json
from datetime import UTC, datetime

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.points import Bar, Quote, Status, Trade, TradeCancel, TradeCorrection
from apps.alpaca_simulator.protocol import AUTHENTICATED, CONNECTED, ErrorCode, error
from apps.alpaca_simulator.pump import fakepaca_quote
from apps.alpaca_simulator.wire import (
    Codec,
    UnreadableMessageError,
    decode_client_message,
    encode_control,
    encode_point,
    join_points,
    rfc3339,
    timestamp_extension,
)

QUOTE_TIME_NS = 1_721_807_813_639_713_735  # 2024-07-24T07:56:53.639713735Z
FAKEPACA_QUOTE = (
    "918ba154a171a153a846414b4550414341a26278a14fa26270cb4060bb3333333333a2627304a26178a152a26170cb4060f8a3d70a3d71"
    "a2617305a16391a152a17aa141a174d7ff9885071c66a0b3c5"
)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (CONNECTED, "9182a154a773756363657373a36d7367a9636f6e6e6563746564"),
        (AUTHENTICATED, "9182a154a773756363657373a36d7367ad61757468656e74696361746564"),
        (
            error(ErrorCode.CONNECTION_LIMIT_EXCEEDED),
            "9183a154a56572726f72a4636f6465cd0196a36d7367b9636f6e6e656374696f6e206c696d6974206578636565646564",
        ),
    ],
)
def test_control_messages_are_byte_exact(message, expected):
    assert encode_control(message, Codec.MSGPACK).hex() == expected


def test_the_test_streams_quote_is_byte_exact():
    point = encode_point(fakepaca_quote(QUOTE_TIME_NS), Codec.MSGPACK)
    assert join_points([point], Codec.MSGPACK).hex() == FAKEPACA_QUOTE


def test_the_test_streams_quote_in_json():
    point = encode_point(fakepaca_quote(QUOTE_TIME_NS), Codec.JSON)
    assert join_points([point, point], Codec.JSON).decode() == (
        '[{"T":"q","S":"FAKEPACA","bx":"O","bp":133.85,"bs":4,"ax":"R","ap":135.77,"as":5,"c":["R"],"z":"A",'
        '"t":"2024-07-24T07:56:53.639713735Z"},'
        '{"T":"q","S":"FAKEPACA","bx":"O","bp":133.85,"bs":4,"ax":"R","ap":135.77,"as":5,"c":["R"],"z":"A",'
        '"t":"2024-07-24T07:56:53.639713735Z"}]'
    )


@pytest.mark.parametrize(
    ("time_ns", "expected"), [(QUOTE_TIME_NS, "d7ff9885071c66a0b3c5"), (1_721_807_760_000_000_000, "d6ff66a0b390")]
)
def test_times_are_the_standard_extension(time_ns, expected):
    assert msgspec.msgpack.encode(timestamp_extension(time_ns)).hex() == expected


@given(st.integers(0, (1 << 34) - 1).map(lambda s: s * 1_000_000_000), st.integers(0, 999_999_999))
def test_any_time_comes_back_to_the_nanosecond(seconds_ns, nanos):
    trade = Trade("AAPL", 96_921, "D", 126.55, 1, seconds_ns + nanos, ("@", "I"))
    decoded = msgpack.unpackb(encode_point(trade, Codec.MSGPACK))
    assert decoded["t"].to_unix_nano() == seconds_ns + nanos


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (1_614_009_104_208_000_000, "2021-02-22T15:51:44.208Z"),
        (1_771_602_705_335_567_700, "2026-02-20T15:51:45.3355677Z"),
        (1_614_021_300_000_000_000, "2021-02-22T19:15:00Z"),
    ],
)
def test_json_times_drop_trailing_zeros(time_ns, expected):
    assert rfc3339(time_ns) == expected


@pytest.mark.parametrize(
    ("point", "keys"),
    [
        (Quote("AMD", 87.66, 100, "U", 87.68, 400, "Q", QUOTE_TIME_NS), "T S bx bp bs ax ap as c z t"),
        (Trade("AAPL", 96_921, "D", 126.55, 1, QUOTE_TIME_NS), "T i S x p s c t z"),
        (Bar("SPY", 388.985, 389.13, 388.975, 389.12, 49_378, QUOTE_TIME_NS, 461, 389.062639), "T S o h l c v t n vw"),
    ],
)
@pytest.mark.parametrize("codec", Codec)
def test_the_type_is_the_first_key(point, keys, codec):
    data = encode_point(point, codec)
    decoded = msgpack.unpackb(data) if codec is Codec.MSGPACK else json.loads(data)
    assert list(decoded) == keys.split()


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_a_frame_is_an_array_of_any_length(count):
    assert msgpack.unpackb(join_points([b"\xc0"] * count, Codec.MSGPACK)) == [None] * count


@pytest.mark.parametrize(
    ("header", "codec"),
    [
        ("application/msgpack", Codec.MSGPACK),
        ("Application/MsgPack; charset=binary", Codec.MSGPACK),
        ("application/json", Codec.JSON),
        ("text/plain", Codec.JSON),
        (None, Codec.JSON),
    ],
)
def test_the_header_chooses_the_codec(header, codec):
    assert Codec.of_content_type(header) is codec


@pytest.mark.parametrize("hexed", [
    "83a6616374696f6ea461757468a36b6579a14ba6736563726574a153",
    "82a671756f74657391a44141504ca6616374696f6ea9737562736372696265",
])  # fmt: skip
def test_the_sdks_own_messages_are_understood(hexed):
    data = bytes.fromhex(hexed)
    assert decode_client_message(data, Codec.MSGPACK) == msgpack.unpackb(data)


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (b"\xc1", Codec.MSGPACK),
        (b"", Codec.MSGPACK),
        ('{"action":"auth"}', Codec.MSGPACK),
        (b"\x91" * 5_000, Codec.MSGPACK),
        ("{", Codec.JSON),
        (b"\xff\xfe", Codec.JSON),
        ("[" * 5_000, Codec.JSON),
    ],
)
def test_anything_else_is_unreadable(data, codec):
    with pytest.raises(UnreadableMessageError):
        decode_client_message(data, codec)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_json_times_are_what_python_reads(moment):
    time_ns = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000_000
    time_ns += moment.microsecond * 1_000
    expected = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).replace(microsecond=moment.microsecond)
    assert datetime.fromisoformat(rfc3339(time_ns)) == expected


STATUS = Status("AAPL", "H", "Trading Halt", "T12", "For information", 1_614_021_300_000_000_000, "C")


def test_a_trading_status():
    message = msgpack.unpackb(encode_point(STATUS, Codec.MSGPACK))
    assert list(message) == ["T", "S", "sc", "sm", "rc", "rm", "t", "z"]
    assert message["t"].to_datetime() == datetime(2021, 2, 22, 19, 15, tzinfo=UTC)
    assert json.loads(encode_point(STATUS, Codec.JSON)) == {
        "T": "s", "S": "AAPL", "sc": "H", "sm": "Trading Halt", "rc": "T12", "rm": "For information",
        "t": "2021-02-22T19:15:00Z", "z": "C",
    }  # fmt: skip


def test_a_trade_correction():
    correction = TradeCorrection(
        "EEM", "M", 52983525033527, 39.1582, 440000, (" ", "7"), 52983525034326, 39.1809, 440000, (" ", "7"),
        1_680_791_106_542_305_024, "B",
    )  # fmt: skip
    assert json.loads(encode_point(correction, Codec.JSON)) == {
        "T": "c", "S": "EEM", "x": "M", "oi": 52983525033527, "op": 39.1582, "os": 440000, "oc": [" ", "7"],
        "ci": 52983525034326, "cp": 39.1809, "cs": 440000, "cc": [" ", "7"], "z": "B",
        "t": "2023-04-06T14:25:06.542305024Z",
    }  # fmt: skip
    assert next(iter(msgpack.unpackb(encode_point(correction, Codec.MSGPACK)))) == "T"


def test_a_trade_cancel():
    cancel = TradeCancel("GOOGL", 465, "D", 105.31, 300, "C", 1_680_786_942_835_409_580, "C")
    assert json.loads(encode_point(cancel, Codec.JSON)) == {
        "T": "x", "S": "GOOGL", "i": 465, "x": "D", "p": 105.31, "s": 300, "a": "C", "z": "C",
        "t": "2023-04-06T13:15:42.83540958Z",
    }  # fmt: skip
    assert next(iter(msgpack.unpackb(encode_point(cancel, Codec.MSGPACK)))) == "T"
