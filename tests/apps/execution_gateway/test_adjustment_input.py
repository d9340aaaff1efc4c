from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.adjustment_input import KEYS, parse_adjustment
from apps.execution_gateway.input_fields import InvalidInputError
from libs.portfolio.adjustments import FIELDS, Adjustment, AdjustmentKind

NOW = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)
AT = "2025-10-19T04:00:00Z"
SAMPLE = (
    b'{"adjustment_id":"nvda-2024","kind":"split","symbol":"NVDA","date":"2024-06-10","reason":"10 for 1",'
    b'"ratio_new":10,"ratio_old":1}'
)
OWN = {
    "split": {"ratio_new": 10, "ratio_old": 1},
    "symbol_change": {"new_symbol": "META"},
    "dividend": {"amount": 24},
    "fee": {"amount": "0.35"},
    "cash_in_lieu": {"amount": 1.5},
    "transfer": {"qty": 100, "amount": "15000.00"},
}


def body(like: str, /, **changes: object) -> bytes:
    fields = {"adjustment_id": "a", "kind": like, "symbol": "FB", "reason": "why", "effective_at": AT, **OWN[like]}
    return msgspec.json.encode({name: value for name, value in {**fields, **changes}.items() if value is not ...})


def raw(kind: str, name: str, text: str) -> bytes:
    """Return a body in which `text` stands, as it is, in the place of one value."""
    return body(kind, **{name: "@"}).replace(b'"@"', text.encode())


def faults(data: bytes) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        parse_adjustment(data, NOW)
    return {fault.field: fault.message for fault in caught.value.faults}


def test_the_sample() -> None:
    found = parse_adjustment(SAMPLE, NOW)
    assert found == Adjustment(
        "nvda-2024", AdjustmentKind.SPLIT, "NVDA", datetime(2024, 6, 10, 4, tzinfo=UTC), "10 for 1", Decimal(10),
        Decimal(1),
    )  # fmt: skip


@pytest.mark.parametrize("kind", OWN)
def test_every_kind_has_its_own_fields(kind: str) -> None:
    found = parse_adjustment(body(kind), NOW)
    assert (found.kind, found.symbol, found.effective_at) == (
        kind,
        "FB",
        datetime(2025, 10, 19, 4, tzinfo=UTC),
    )
    given = {name: getattr(found, name) for name in FIELDS if getattr(found, name) is not None}
    assert {name: str(value) for name, value in given.items()} == {name: str(one) for name, one in OWN[kind].items()}


@pytest.mark.parametrize("kind", ["split", "symbol_change"])
@pytest.mark.parametrize("at", ["2025-10-17T20:30:00Z", "2025-10-19T00:00:00Z", "2025-10-19T04:00:00.000001Z"])
def test_shares_become_others_as_a_new_york_day_begins(kind: str, at: str) -> None:
    assert faults(body(kind, effective_at=at)) == {
        "effective_at": "must be the beginning of a New York date: give date, the first day it holds"
    }


def test_a_split_may_say_what_the_rest_is_paid_at() -> None:
    assert parse_adjustment(body("split", amount="1.25"), NOW).amount == Decimal("1.25")
    assert parse_adjustment(body("split", amount=0), NOW).amount == 0


@pytest.mark.parametrize(("new", "old"), [(10**6, 1), ("0.000000001", "0.001"), ("999999999999", "999999999998")])
def test_the_largest_splits(new: object, old: object) -> None:
    found = parse_adjustment(body("split", ratio_new=new, ratio_old=old), NOW)
    assert (found.ratio_new, found.ratio_old) == (Decimal(new), Decimal(old))


def test_symbols_are_upper_cased_and_reasons_trimmed() -> None:
    found = parse_adjustment(body("symbol_change", symbol="brk.a", new_symbol="btc/usd", reason=" merged "), NOW)
    assert (found.symbol, found.new_symbol, found.reason) == ("BRK.A", "BTC/USD", "merged")


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_there_exactly_when_the_kind_has_it(kind: str, name: str) -> None:
    if name in OWN[kind]:
        assert faults(body(kind, **{name: ...})) == {name: f"must be given for a {kind}"}
    elif (kind, name) != ("split", "amount"):
        value = "META" if name == "new_symbol" else 1
        assert faults(body(kind, **{name: value})) == {name: f"must be left out for a {kind}"}


def test_every_fault_is_told_at_once() -> None:
    told = faults(body("split", symbol="?", ratio_old=..., ratio_new=-1, qty=1, new_symbol="X", effective_at="today"))
    assert told.keys() == {"symbol", "ratio_old", "ratio_new", "qty", "new_symbol", "effective_at"}


@pytest.mark.parametrize("name", ["adjustment_id", "kind", "symbol", "reason"])
def test_what_every_adjustment_needs(name: str) -> None:
    assert faults(body("fee", **{name: ...})) == {name: "missing: this field is required"}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("text", ["null", "true", "[]", "{}", '""', '" "', '"\\u0000"', '"' + "x" * 600 + '"'])
def test_no_field_may_be_just_anything(name: str, text: str) -> None:
    kind = next((kind for kind, own in OWN.items() if name in own), "fee")
    changes: dict[str, object] = {"effective_at": ...} if name == "date" else {}
    data = body(kind, **{name: "@"}, **changes).replace(b'"@"', text.encode())
    assert list(faults(data)) == [name]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, own in OWN.items() for name in own])
@pytest.mark.parametrize(
    "text", ['"abc"', '"NaN"', '"Infinity"', "1e12", "-1e12", "1e99", "0.0000000001", "9" * 70, '"1,5"', '"+1"', '"١"']
)
def test_what_is_no_number_or_a_huge_one(kind: str, name: str, text: str) -> None:
    if name != "new_symbol":
        assert list(faults(raw(kind, name, text))) == [name]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (body("split", ratio_new=0), "ratio_new"),
        (body("split", ratio_old=-1), "ratio_old"),
        (body("split", amount=-1), "amount"),
        (body("split", ratio_new=1_000_001), "ratio_new"),
        (body("split", ratio_new=1, ratio_old="1000000.000000001"), "ratio_new"),
        (body("split", ratio_new="999999999999", ratio_old="0.000000001"), "ratio_new"),
        (body("symbol_change", new_symbol="fb"), "new_symbol"),
        (body("symbol_change", new_symbol="no symbol"), "new_symbol"),
        (body("dividend", amount=0), "amount"),
        (body("fee", amount="0.00"), "amount"),
        (body("cash_in_lieu", amount="-0"), "amount"),
        (body("transfer", qty=0, amount=0), "qty"),
        (body("fee", kind="Fee"), "kind"),
        (body("fee", kind="bonus"), "kind"),
        (body("fee", adjustment_id="x" * 129), "adjustment_id"),
        (body("fee", colour="red"), "colour"),
    ],
)
def test_what_cannot_be(data: bytes, field: str) -> None:
    assert list(faults(data)) == [field]


@pytest.mark.parametrize(
    "text",
    [
        "yesterday", "2025-10-19T14:30:15", "2025-10-20T16:05:01Z", "2999-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00",
        "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00",
    ],
)  # fmt: skip
def test_what_is_no_time_of_an_adjustment(text: str) -> None:
    assert list(faults(body("fee", effective_at=text))) == ["effective_at"]


@pytest.mark.parametrize("text", ["10/06/2024", "2024-02-30", "2025-10-21", "9999-12-31", "0001-01-01", "1969-12-31"])
def test_what_is_no_date_of_an_adjustment(text: str) -> None:
    assert list(faults(body("fee", effective_at=..., date=text))) == ["date"]


def test_a_broker_s_clock_may_be_a_little_ahead() -> None:
    ahead = NOW + timedelta(minutes=5)
    assert parse_adjustment(body("fee", effective_at=ahead.isoformat()), NOW).effective_at == ahead


def test_today_is_new_york_s() -> None:
    before_midnight, midnight = datetime(2025, 10, 21, 3, 59, tzinfo=UTC), datetime(2025, 10, 21, 4, tzinfo=UTC)
    data = body("fee", effective_at=..., date="2025-10-21")
    assert parse_adjustment(data, midnight).effective_at == midnight
    with pytest.raises(InvalidInputError, match="in the future"):
        parse_adjustment(data, before_midnight)


@pytest.mark.parametrize("changes", [{"date": "2025-10-19"}, {"effective_at": ...}])
def test_there_is_one_time(changes: dict[str, object]) -> None:
    assert faults(body("fee", **changes)) == {"effective_at": "give either effective_at, a time with its zone, or date"}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_named_fault(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_adjustment(data, NOW)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)
_LIKELY = {
    "adjustment_id": st.just("a"),
    "kind": st.sampled_from([*OWN]),
    "symbol": st.sampled_from(["FB", "META", "btc/usd"]),
    "reason": st.just("why"),
    "effective_at": st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    "date": st.dates().map(str),
    "new_symbol": st.sampled_from(["FB", "META"]),
} | dict.fromkeys(("ratio_new", "ratio_old", "qty", "amount"), st.decimals(-(10**13), 10**13, places=9).map(str))
_FIELDS = st.fixed_dictionaries(
    {name: _LIKELY[name] | _JSON for name in ("adjustment_id", "kind", "symbol", "reason")},
    optional={name: _LIKELY[name] | _JSON for name in KEYS[4:]} | {"colour": _JSON},
)


@given(_FIELDS)
def test_any_fields_are_an_adjustment_or_named_faults(fields: dict[str, object]) -> None:
    data = msgspec.json.encode(fields)
    try:
        found = parse_adjustment(data, NOW)
    except InvalidInputError as error:
        told = {fault.field: fault.message for fault in error.faults}
    else:
        told = {}
        _check_accepted(found, fields)
    assert told.keys() <= {*KEYS, "colour"}
    assert all(told.values())


def _check_accepted(found: Adjustment, fields: dict[str, object]) -> None:
    assert found.effective_at <= NOW + timedelta(minutes=5)
    for name in FIELDS:
        assert (getattr(found, name) is None) == (name not in fields)
    for name in ("ratio_new", "ratio_old", "qty", "amount"):
        if name in fields:
            assert getattr(found, name) == Decimal(str(fields[name]))


@given(st.sampled_from(["dividend", "fee", "cash_in_lieu", "transfer"]), st.data())
def test_what_is_accepted_says_the_same_written_again(kind: str, data: st.DataObject) -> None:
    number = st.decimals("0.000000001", "999999999999", places=9)
    numbers = {name: f"{data.draw(number):f}" for name in OWN[kind]}
    found = parse_adjustment(body(kind, **numbers), NOW)
    assert {name: getattr(found, name) for name in numbers} == {name: Decimal(one) for name, one in numbers.items()}
