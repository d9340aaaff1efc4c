import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.frame_structure import (
    MOST_STEPS,
    NoStructureError,
    nested_members,
    split_array,
    split_object,
    texts_of,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MSGPACK_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
    | st.binary(max_size=300).map(lambda content: msgpack.ExtType(5, content)) | st.just("x" * 70_000),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(MSGPACK_VALUES, max_size=40))
def test_the_elements_of_a_binary_array_are_told_apart(values: list[Any]) -> None:
    assert split_array(msgpack.packb(values)) == [msgpack.packb(value) for value in values]


@given(st.lists(JSON_VALUES, max_size=8), st.sampled_from([None, 1]))
def test_the_elements_of_a_text_array_are_told_apart(values: list[Any], indent: int | None) -> None:
    # By their texts: NaN is not equal to itself.
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    assert [json.dumps(json.loads(part)) for part in split_array(text)] == [json.dumps(value) for value in values]


@given(st.dictionaries(st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cc", "Cs"])), JSON_VALUES))
def test_the_members_of_an_object_are_told_apart(value: dict[str, Any]) -> None:
    parts = split_object(json.dumps(value, ensure_ascii=False))
    assert {key: json.dumps(json.loads(part)) for key, part in parts.items()} == {
        key: json.dumps(each) for key, each in value.items()
    }


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_no_depth_is_too_deep(depth: int) -> None:
    nested = b"\x91" * depth + b"\xc0"
    assert split_array(b"\x93\x01" + nested + b"\x02") == [b"\x01", nested, b"\x02"]
    text = "[" * depth + "]" * depth
    assert split_array(f"[1,{text},2]") == ["1", text, "2"]


def test_the_work_is_bounded() -> None:
    with pytest.raises(NoStructureError, match="too many"):
        split_array(b"\x91" * (MOST_STEPS + 2) + b"\xc0")
    with pytest.raises(NoStructureError, match="too many"):
        split_array("[" * (MOST_STEPS + 2) + "]" * (MOST_STEPS + 2))


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"\xc0", b"\x81\x01\x02", b"\x92\x01", b"\x91", b"\x90\x00", b"\x91\xc1", b"\x91\xd9", b"\x91\xd9\x05ab",
        b"\x91\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdd\x00", "", "{}", "[", "]", "[]]", "[[]", "[}",
        "[1}", "[{]}]", '["]', '["\\"]', "[1],[2]", "[]x", "null",
    ],
)  # fmt: skip
def test_what_is_no_whole_array_is_refused(frame: bytes | str) -> None:
    with pytest.raises(NoStructureError):
        split_array(frame)


def test_a_message_is_named_whatever_else_is_in_it() -> None:
    wanted = frozenset({"T", "S"})
    packed = b"\x84\xa1T\xa1q\xa1S\xa4AAPL\x05\xa1T\xa1x" + b"\x91" * 5_000 + b"\xc0"
    assert texts_of(packed, wanted) == {"T": b"\xa1q", "S": b"\xa4AAPL"}
    text = '{"T":"q","x":' + "[" * 5_000 + "]" * 5_000 + ',"S":"AA\\"PL","bp":NaN}'
    assert texts_of(text, wanted) == {"T": '"q"', "S": '"AA\\"PL"'}
    assert texts_of(b"\x05", wanted) == texts_of("5", wanted) == texts_of('{5:"T"}', wanted) == {}


def test_members_of_a_member() -> None:
    assert nested_members(b'{"a":1,"quotes" : {"A":{},"B":NaN}}', "quotes") == {"A": "{}", "B": "NaN"}
    assert nested_members(b'{"quotes": null}', "quotes") == {}
    for odd in (b"{}", b'{"quotes":[]}', b"\xff", b"[]"):
        with pytest.raises(ValueError):  # noqa: PT011 - any of them
            nested_members(odd, "quotes")
