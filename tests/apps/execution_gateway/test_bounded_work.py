"""What a request may cost: work that grows with its length and no faster, and answers that do not grow at all."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.adjustment_input import parse_adjustment
from apps.execution_gateway.fill_input import parse_fill, parse_fills, parse_void
from apps.execution_gateway.input_fields import MAX_FAULTS, FieldFault, InvalidInputError, given_parameters
from apps.execution_gateway.json_list import (
    MAX_ELEMENT_BYTES,
    EmptyList,
    Member,
    NoList,
    UnreadableBodyError,
    list_pieces,
)
from tests.support.steps import steps_of

NOW = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)

Body = Callable[[int], bytes]
Reader = Callable[[bytes], object]


def unknown_keys(number: int) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % place for place in range(number)) + b"}"


def the_same_key(number: int) -> bytes:
    return b"{" + b",".join(b'"fill_id":"x"' for _ in range(number)) + b"}"


BODIES: dict[str, Body] = {
    "unknown keys": unknown_keys,
    "pairs of keys": lambda number: unknown_keys(number)[:-1] + b"," + unknown_keys(number)[1:],
    "one key again and again": the_same_key,
    "keys with lists": lambda number: b"{" + b",".join(b'"k%d":[]' % place for place in range(number)) + b"}",
    "nested lists": lambda number: b'{"qty":' + b"[" * number + b"]" * number + b"}",
    "unclosed lists": lambda number: b"[" * number,
    "a long string": lambda number: b'{"fill_id":"' + b"x" * number * 8 + b'"}',
    "a string of escapes": lambda number: b'{"fill_id":"' + b"\\u0041" * number + b'"}',
    "an unclosed string": lambda number: b'{"fill_id":"' + b"x" * number * 8,
    "a long number": lambda number: b'{"qty":' + b"9" * number * 8 + b"}",
    "a long exponent": lambda number: b'{"qty":1e' + b"9" * number * 8 + b"}",
    "a long fraction": lambda number: b'{"qty":0.' + b"3" * number * 8 + b"}",
    "blanks": lambda number: b" " * number * 8,
}
LISTS: dict[str, Body] = {
    "fills of nothing": lambda number: b'{"fills":[' + b",".join([b"{}"] * number) + b"]}",
    "numbers": lambda number: b'{"fills":[' + b",".join([b"0"] * number) + b"]}",
    "fills with unknown keys": lambda number: b'{"fills":[' + b",".join([unknown_keys(20)] * (number // 8)) + b"]}",
    "lists of fills": lambda number: b"{" + b",".join([b'"fills":[]'] * number) + b"}",
    "no list": lambda number: b'{"fills":' + unknown_keys(number) + b"}",
}
READERS: dict[str, Reader] = {
    "fill": lambda body: parse_fill(body, NOW),
    "fills": lambda body: parse_fills(body, NOW),
    "void": parse_void,
    "adjustment": lambda body: parse_adjustment(body, NOW),
}


def refused(reader: Reader, body: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        reader(body)


def grows_no_faster_than_its_length(reader: Reader, body: Body) -> None:
    short, long = steps_of(lambda: refused(reader, body(500))), steps_of(lambda: refused(reader, body(4_000)))
    growth = len(body(4_000)) / len(body(500))
    assert long <= short * growth * 1.5 + 2_000, f"{growth:.1f} times as long takes {long / short:.1f} times the steps"


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_the_work_grows_no_faster_than_the_body(reader: Reader, body: Body):
    grows_no_faster_than_its_length(reader, body)


@pytest.mark.parametrize("body", LISTS.values(), ids=list(LISTS))
def test_the_work_of_a_list_grows_no_faster_than_the_list(body: Body):
    grows_no_faster_than_its_length(READERS["fills"], body)


def test_the_work_of_parameters_grows_no_faster_than_they_do():
    def refuse(number: int) -> None:
        given_parameters(((f"k{place}", "") for place in range(number)), ("symbol",), [])

    assert steps_of(lambda: refuse(8_000)) <= 10 * steps_of(lambda: refuse(1_000))


def faults_of(reader: Reader, body: bytes) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        reader(body)
    return caught.value


@pytest.mark.parametrize(("reader", "required"), [("fill", 6), ("fills", 1), ("void", 1), ("adjustment", 4)])
def test_twenty_faults_are_listed_and_the_others_counted(reader: str, required: int):
    # 31 kB to a fill and 140 kB to an import held the loop for 0.6 and 6.7 s.
    for number in (3_000, 14_000):
        error = faults_of(READERS[reader], unknown_keys(number))
        assert (len(error.faults), len(error.faults) + error.others) == (MAX_FAULTS, number + required)
        assert str(error).endswith(f"; and {error.others:,} more")
        assert len(str(error)) < 5_000


@given(st.integers(0, 60), st.integers(0, 60))
def test_no_fault_is_lost_from_the_count(named: int, others: int):
    error = InvalidInputError(*[FieldFault("qty", "x")] * named, others=others)
    assert len(error.faults) + error.others == named + others
    assert len(error.faults) == min(named, MAX_FAULTS)


def test_of_a_list_the_faults_are_counted_too():
    posted = parse_fills(b'{"fills":[' + b",".join([unknown_keys(30)] * 1_000) + b"]}", NOW)
    assert (len(posted.malformed), posted.malformed_fills, posted.malformed_faults) == (20, 1_000, 36_000)


# How a list is cut.

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_LAYOUT = st.sampled_from([(",", ":"), (" ,\n", "\t: "), (", ", ": ")])


@given(
    st.lists(_JSON, max_size=5),
    st.dictionaries(st.text(max_size=4).filter(lambda name: name != "fills"), _JSON, max_size=3),
    st.booleans(),
    _LAYOUT,
    st.booleans(),
)
def test_any_object_is_cut_as_a_decoder_reads_it(
    items: list[object], before: dict[str, object], is_last: bool, layout: tuple[str, str], is_ascii: bool
):
    members = {**before, "fills": items} if is_last else {"fills": items, **before}
    body = json.dumps(members, separators=layout, ensure_ascii=is_ascii).encode()
    pieces = list(list_pieces(b" \n" + body + b"\t", "fills"))
    assert [json.loads(piece) for piece in pieces if isinstance(piece, bytes)] == items
    assert sum(isinstance(piece, Member) for piece in pieces) == len(before)
    assert (EmptyList() in pieces) == (not items)


@given(st.text('[]{}",:\\1 fils', max_size=40).map(str.encode) | st.binary(max_size=40))
def test_any_bytes_are_cut_or_refused(body: bytes):
    with contextlib.suppress(UnreadableBodyError):
        list(list_pieces(b'{"fills":[' + body, "fills"))
    with contextlib.suppress(UnreadableBodyError):
        list(list_pieces(body, "fills"))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 200_000])
@pytest.mark.parametrize("filler", [b"x", b"\\\\", b'\\"', b"[", b" "])
def test_a_step_ends_nowhere_in_particular(size: int, filler: bytes):
    text = filler * (size // len(filler))
    body = b'{"more":"' + text + b'"' + b" " * size + b',"fills":[1]}'
    member, item = list(list_pieces(body, "fills"))
    assert isinstance(member, Member)
    assert item == b"1"


def test_an_element_that_is_too_long_is_named():
    longest = b'"' + b"x" * (MAX_ELEMENT_BYTES - 2) + b'"'
    assert len(list(list_pieces(b'{"fills":[1,' + longest + b"]}", "fills"))) == 2
    for element in (b"[" + longest + b"]", b"[" * 2 * MAX_ELEMENT_BYTES):
        with pytest.raises(UnreadableBodyError, match=r"element 1 of the list, counted from 0, is longer than 16,384"):
            list(list_pieces(b'{"fills":[1,' + element, "fills"))


def test_the_name_may_be_written_in_any_way():
    assert list(list_pieces(b'{"\\u0066ills":[1]}', "fills")) == [b"1"]
    assert list(list_pieces(b'{"fills":7,"fills":[1]}', "fills")) == [
        NoList(b"7"),
        Member(b"fills", is_list_again=True),
    ]
