from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.fill_input import (
    MAX_FILLS_AT_ONCE,
    InvalidInputError,
    parse_fill,
    parse_fills,
    parse_query,
    parse_void,
)
from apps.execution_gateway.input_fields import MAX_FAULTS, read_fields
from libs.portfolio.fills import Side

NOW = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)
SAMPLE = (
    b'{"fill_id":"f-1","symbol":"AAPL","side":"buy","qty":100,"price":"150.00","fee":0.35,'
    b'"filled_at":"2025-10-19T14:30:15.123456Z"}'
)


def body(**changes: object) -> bytes:
    fields = {
        "fill_id": "f-1",
        "symbol": "AAPL",
        "side": "buy",
        "qty": 100,
        "price": 150,
        "filled_at": "2025-10-19T14:30:15Z",
    }
    return msgspec.json.encode({name: value for name, value in {**fields, **changes}.items() if value is not ...})


def raw(name: str, text: str) -> bytes:
    """Return a body in which `text` stands, as it is, in the place of one value."""
    return body(**{name: "@"}).replace(b'"@"', text.encode())


def faults(data: bytes) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        parse_fill(data, NOW)
    return {fault.field: fault.message for fault in caught.value.faults}


def test_the_sample():
    fill = parse_fill(SAMPLE, NOW)
    assert (fill.fill_id, fill.symbol, fill.side) == ("f-1", "AAPL", Side.BUY)
    assert (fill.qty, fill.price, fill.fee) == (100, Decimal("150.00"), Decimal("0.35"))
    assert fill.filled_at == datetime(2025, 10, 19, 14, 30, 15, 123456, tzinfo=UTC)


def test_the_fee_may_be_left_out():
    assert parse_fill(body(), NOW).fee == 0


@given(st.decimals("0.000000001", "999999999999", places=9), st.booleans())
def test_numbers_keep_every_digit(number: Decimal, is_text: bool):
    text = f"{number:f}"
    assert parse_fill(raw("qty", f'"{text}"' if is_text else text), NOW).qty == number


@pytest.mark.parametrize("text", ["1e2", "1E+2", "100.000", '"1e2"', '"0100"'])
def test_ways_to_write_a_hundred(text: str):
    assert parse_fill(raw("qty", text), NOW).qty == 100


@pytest.mark.parametrize("name", ["qty", "price"])
@pytest.mark.parametrize(
    "text",
    [
        "0", "-1", "true", "null", "[]", "{}", '""', '"abc"', '"NaN"', '"Infinity"', '"1_000"', '" 1"', '"1,5"',
        '"+1"', '"0x10"', '"١"', "1e400", '"1e-400"', "1000000000000", "1e12", "0.0000000001", '"' + "9" * 99 + '"',
    ],
)  # fmt: skip
def test_what_is_no_positive_decimal(name: str, text: str):
    assert list(faults(raw(name, text))) == [name]


@pytest.mark.parametrize("text", ["-0.01", "null", "true", '"free"', "1e12"])
def test_what_is_no_fee(text: str):
    assert list(faults(raw("fee", text))) == ["fee"]


@pytest.mark.parametrize("text", ["BTC/USD", "brk.b", "AAPL251219C00150000", "F", "A" * 32])
def test_symbols_that_can_be_held(text: str):
    assert parse_fill(body(symbol=text), NOW).symbol == text.upper()


@pytest.mark.parametrize("text", ["", " AAPL", "AAPL\r\n", "*", "price:x", "ß", "A" * 33, "/A", "A B", "A\0", 5, None])
def test_symbols_that_cannot(text: object):
    assert list(faults(body(symbol=text))) == ["symbol"]


@pytest.mark.parametrize("text", ["", "x" * 129, " x", "x ", "a\nb", "a\0b", "\x7f", "\u2028", 7, None])
def test_ids_that_are_none(text: object):
    assert list(faults(body(fill_id=text))) == ["fill_id"]


@pytest.mark.parametrize("text", ["x", "x" * 128, "a b/c?d#e", "ordre-é-1", "…"])
def test_ids(text: str):
    assert parse_fill(body(fill_id=text), NOW).fill_id == text


@pytest.mark.parametrize("side", ["BUY", "short", "", None, 1])
def test_sides_that_are_none(side: object):
    assert list(faults(body(side=side))) == ["side"]


@pytest.mark.parametrize("text", ["2025-10-19T10:30:15-04:00", "2025-10-19T14:30:15Z", "2025-10-19T14:30:15.000Z"])
def test_times_of_any_zone(text: str):
    filled_at = parse_fill(body(filled_at=text), NOW).filled_at
    assert filled_at == datetime(2025, 10, 19, 14, 30, 15, tzinfo=UTC)
    assert filled_at.tzinfo is UTC


def test_a_clock_may_be_a_little_ahead():
    assert parse_fill(body(filled_at=NOW + timedelta(minutes=5)), NOW)
    assert list(faults(body(filled_at=NOW + timedelta(minutes=5, seconds=1)))) == ["filled_at"]


@pytest.mark.parametrize(
    "value",
    ["2025-10-19T14:30:15", "2025-10-19", "yesterday", "", 1760884215, None, "0001-01-01T00:00:00+14:00",
     "9999-12-31T23:59:59-14:00", "1969-12-31T00:00:00Z", "2025-13-01T00:00:00Z"],
)  # fmt: skip
def test_times_that_are_none(value: object):
    assert list(faults(body(filled_at=value))) == ["filled_at"]


@pytest.mark.parametrize("data", [b"", b"  ", b"[]", b"null", b'"x"', b"{", b"\xff", b'{"qty":NaN}', b"[" * 9999])
def test_bodies_that_are_no_object(data: bytes):
    assert list(faults(data)) == [""]


def test_every_fault_is_named_at_once():
    assert set(faults(body(qty=-1, price="x", side="up", symbol="*"))) == {"qty", "price", "side", "symbol"}
    assert set(faults(b"{}")) == {"fill_id", "symbol", "side", "qty", "price", "filled_at"}


def test_an_unknown_field_is_named():
    assert "unknown" in faults(body(quantity=5))["quantity"]
    assert len(str(faults(body(**{"x" * 5000: 5})))) < 500


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), _JSON), max_size=3), st.sampled_from(["", " ", "\n\t"]))
def test_a_field_given_twice_is_named_however_it_is_written(pairs: list[tuple[str, object]], space: str):
    members = [f'{space}"{name}"{space}:{space}{msgspec.json.encode(value).decode()}{space}' for name, value in pairs]
    data = f"{{{','.join(members)}}}".encode()
    names = [name for name, _ in pairs]
    twice = {name for name in names if names.count(name) > 1}
    if not twice:
        assert read_fields(data, ("a", "b"), (), "the body").keys() == set(names)
        return
    with pytest.raises(InvalidInputError) as caught:
        read_fields(data, ("a", "b"), (), "the body")
    assert {fault.field for fault in caught.value.faults} == twice


@given(st.binary(max_size=200))
def test_any_bytes_are_a_fill_or_a_named_fault(data: bytes):
    with pytest.raises(InvalidInputError):
        parse_fill(data, NOW)


def listed(*fills: bytes) -> bytes:
    return b'{"fills":[' + b",".join(fills) + b"]}"


def test_a_list_of_fills():
    posted = parse_fills(listed(SAMPLE, raw("qty", "0.100000001")), NOW)
    assert posted.fills == (parse_fill(SAMPLE, NOW), parse_fill(raw("qty", "0.100000001"), NOW))
    assert (posted.places, posted.malformed) == ((0, 1), ())
    assert parse_fills(b'{"fills":[]}', NOW).fills == ()


def test_one_malformed_fill_costs_no_other():
    posted = parse_fills(listed(body(qty=-1, side="up"), SAMPLE, b"7", b"{}", body(fill_id=" x"), SAMPLE), NOW)
    assert (len(posted.fills), posted.places) == (2, (1, 5))
    told = [(one.place, one.fill_id, {fault.field for fault in one.faults}) for one in posted.malformed]
    assert told == [
        (0, "f-1", {"qty", "side"}),
        (2, None, {""}),
        (3, None, {"fill_id", "symbol", "side", "qty", "price", "filled_at"}),
        (4, None, {"fill_id"}),
    ]
    assert "the fill is no JSON object" in posted.malformed[1].faults[0].message


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"fills":{}}', b'{"fills":null}', b'{"fills":"[]"}', b'{"fills":[],"more":1}',
             b'{"fills":[1', b"\xff", b'{"fills":' + b"[" * 9999]
)  # fmt: skip
def test_what_is_no_list_of_fills(data: bytes):
    with pytest.raises(InvalidInputError):
        parse_fills(data, NOW)


def test_a_list_that_is_too_long():
    with pytest.raises(InvalidInputError, match="at most 10,000, got more"):
        parse_fills(listed(*[b"0"] * (MAX_FILLS_AT_ONCE + 1)), NOW)
    assert parse_fills(listed(*[b"0"] * MAX_FILLS_AT_ONCE), NOW).malformed_fills == MAX_FILLS_AT_ONCE


@given(st.lists(st.sampled_from([SAMPLE, body(qty=0), b"[]", b'"\\ud800"']) | st.binary(max_size=30)))
def test_any_list_is_refused_or_every_fill_told(items: list[bytes]):
    try:
        posted = parse_fills(listed(*items), NOW)
    except InvalidInputError:
        return
    malformed = [one.place for one in posted.malformed]
    assert posted.malformed_fills >= len(malformed) == min(posted.malformed_fills, MAX_FAULTS)
    if len(malformed) == posted.malformed_fills:
        told = sorted([*posted.places, *malformed])
        assert told == list(range(len(told)))
    assert all(one.faults for one in posted.malformed)


def test_a_reason():
    assert parse_void(b'{"reason":" typed the price of MSFT "}') == "typed the price of MSFT"


@pytest.mark.parametrize("data", [b"", b"{}", b'{"reason":""}', b'{"reason":"  "}', b'{"reason":null}', b'{"why":"x"}'])
def test_what_is_no_reason(data: bytes):
    with pytest.raises(InvalidInputError):
        parse_void(data)


def test_a_query():
    query = parse_query("brk.b", "5", "abc")
    assert (query.symbol, query.limit, query.after) == ("BRK.B", 5, "abc")
    empty = parse_query("", "", "")
    assert (empty.symbol, empty.limit, empty.after) == (None, 100, None)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "1.5", "٣", "9" * 5000])
def test_limits_that_are_none(limit: str):
    with pytest.raises(InvalidInputError):
        parse_query(None, limit, None)


def test_a_query_for_no_symbol():
    with pytest.raises(InvalidInputError):
        parse_query("price:x", None, None)
