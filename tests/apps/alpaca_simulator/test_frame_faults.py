"""Bad frames: each kind on the wire, in both codecs."""

import json

import msgpack
import msgspec
import pytest

from apps.alpaca_simulator.frame_faults import Frame, FrameFault, bad_frame, fault_in_turn
from apps.alpaca_simulator.wire import Codec

MIB = 1024 * 1024
GOOD = {Codec.MSGPACK: msgpack.packb([{"T": "q", "S": "AAPL"}]), Codec.JSON: b'[{"T":"q","S":"AAPL"}]'}


def read(frame, codec):
    return msgpack.unpackb(frame.data) if codec is Codec.MSGPACK else json.loads(frame.data)


@pytest.mark.parametrize("codec", Codec)
def test_readable_ones(codec):
    def sent(fault):
        frame = bad_frame(fault, GOOD[codec], codec)
        assert frame.is_text == (codec is Codec.JSON)
        return read(frame, codec)

    assert sent(FrameFault.UNKNOWN_TYPE)[0]["T"] == "zz"
    assert sent(FrameFault.EMPTY_ARRAY) == []
    assert isinstance(sent(FrameFault.NOT_AN_ARRAY), dict)
    assert sent(FrameFault.ERROR_IN_STREAM) == [{"T": "error", "code": 500, "msg": "internal error"}]
    assert {point["T"] for point in sent(FrameFault.HUGE)} == {"q"}
    assert {point["t"][:4] for point in sent(FrameFault.ABSURD_TIMES)} == {"0001", "9999"}


@pytest.mark.parametrize("codec", Codec)
def test_unreadable_ones(codec):
    for fault in (FrameFault.TRUNCATED, FrameFault.BINARY_GARBAGE):
        with pytest.raises((ValueError, msgpack.UnpackException)):
            read(bad_frame(fault, GOOD[codec], codec), codec)
    assert bad_frame(FrameFault.TEXT_FRAME, GOOD[codec], codec).is_text == (codec is Codec.MSGPACK)


@pytest.mark.parametrize("codec", Codec)
def test_one_is_nested_too_deeply_for_a_decoder_that_calls_itself(codec):
    decode = msgspec.msgpack.decode if codec is Codec.MSGPACK else msgspec.json.decode
    with pytest.raises(RecursionError):
        decode(bad_frame(FrameFault.DEEPLY_NESTED, GOOD[codec], codec).data)


@pytest.mark.parametrize("codec", Codec)
def test_a_huge_frame_is_huge_but_not_beyond_all_bounds(codec):
    assert 3.5 * MIB < len(bad_frame(FrameFault.HUGE, b"", codec).data) < 5 * MIB


@pytest.mark.parametrize("fault", FrameFault)
def test_none_is_the_good_one(fault):
    good = GOOD[Codec.MSGPACK]
    assert bad_frame(fault, good, Codec.MSGPACK) != Frame(good, is_text=False)


def test_every_kind_has_its_turn():
    kinds = frozenset({FrameFault.HUGE, FrameFault.TRUNCATED, FrameFault.EMPTY_ARRAY})
    assert {fault_in_turn(kinds, turn) for turn in range(3)} == kinds
