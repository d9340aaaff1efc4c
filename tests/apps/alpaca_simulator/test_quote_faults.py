"""Spoiled quotes: what each kind looks like on the wire, and that it can always be told from good data."""

from datetime import timedelta
from math import inf, isnan
from random import Random

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.points import Quote
from apps.alpaca_simulator.quote_faults import QuoteFault, choose_fault, spoiled
from apps.alpaca_simulator.wire import Codec, encode_point, join_points

GOOD = Quote("AAPL", 151.99, 100, "Q", 152.01, 200, "P", 1_760_884_215_000_000_001, ("R",), "C")
HARMLESS = {
    QuoteFault.DUPLICATE, QuoteFault.UNKNOWN_EXCHANGE, QuoteFault.EXTRA_KEYS, QuoteFault.TEXT_TIME,
    QuoteFault.ODD_SIZES, QuoteFault.MISSING_FIELDS, QuoteFault.NULL_FIELDS,
}  # fmt: skip
KINDS = st.sampled_from(QuoteFault)
ALL = frozenset(QuoteFault)


def plain(data):
    return msgpack.unpackb(data)


def as_sent():
    return plain(encode_point(GOOD, Codec.MSGPACK))


def copy(fault, codec=Codec.MSGPACK, seed=1):
    return spoiled(GOOD, codec, fault, Random(seed))


@given(KINDS, st.sampled_from(Codec), st.integers())
def test_every_kind_is_a_readable_element_that_begins_with_its_type(fault, codec, seed):
    frame = join_points([encode_point(GOOD, codec), spoiled(GOOD, codec, fault, Random(seed))], codec)
    if codec is Codec.MSGPACK:
        good, bad = msgpack.unpackb(frame)
    else:
        good, bad = msgspec.json.decode(frame)
    assert next(iter(bad)) == "T"
    assert bad["T"] == "q"
    assert (good["bp"], good["ap"]) == (151.99, 152.01)


@given(st.sampled_from(sorted(HARMLESS)), st.integers())
def test_what_a_client_may_take_has_the_good_prices_or_none(fault, seed):
    bad = plain(copy(fault, seed=seed))
    assert bad.get("bp") in {151.99, None}
    assert bad.get("ap") in {152.01, None}


@pytest.mark.parametrize("fault", sorted(ALL - HARMLESS))
def test_what_a_client_must_refuse_has_other_prices(fault):
    bad = plain(copy(fault))
    assert bad["bp"] != 151.99
    assert bad["ap"] != 152.01


def test_prices():
    assert plain(copy(QuoteFault.ONE_SIDED))["ap"] == 0
    crossed = plain(copy(QuoteFault.CROSSED))
    assert crossed["bp"] > crossed["ap"] > 0
    wide = plain(copy(QuoteFault.WIDE))
    assert wide["ap"] / wide["bp"] > 1.5
    assert isnan(plain(copy(QuoteFault.NAN))["bp"])
    assert plain(copy(QuoteFault.INFINITE))["ap"] == inf
    assert plain(copy(QuoteFault.NEGATIVE))["bp"] < 0


def test_times():
    sent = as_sent()["t"].to_datetime()
    assert plain(copy(QuoteFault.STALE))["t"].to_datetime() == sent - timedelta(seconds=60)
    assert plain(copy(QuoteFault.OUT_OF_ORDER))["t"].to_datetime() == sent - timedelta(seconds=5)
    assert plain(copy(QuoteFault.TEXT_TIME))["t"] == "2025-10-19T14:30:15.000000001Z"
    assert msgspec.json.decode(copy(QuoteFault.TEXT_TIME, Codec.JSON))["t"] == "2025-10-19T14:30:15.000000001"


def test_the_other_fields():
    assert plain(copy(QuoteFault.DUPLICATE)) == as_sent()
    assert plain(copy(QuoteFault.NON_FIRM))["c"] == ["N"]
    assert plain(copy(QuoteFault.UNKNOWN_EXCHANGE))["bx"] == "?"
    assert set(plain(copy(QuoteFault.EXTRA_KEYS))) > set(as_sent())
    assert plain(copy(QuoteFault.ODD_SIZES))["bs"] < 0


def test_every_field_goes_missing_and_becomes_null_in_time():
    sent = as_sent()
    missing = {next(iter(set(sent) - set(plain(copy(QuoteFault.MISSING_FIELDS, seed=n))))) for n in range(200)}
    null = {
        name for n in range(200) for name, value in plain(copy(QuoteFault.NULL_FIELDS, seed=n)).items() if value is None
    }
    assert missing == null == set(sent) - {"T"}


def test_json_has_no_nan_and_no_infinity():
    assert msgspec.json.decode(copy(QuoteFault.NAN, Codec.JSON))["bp"] is None
    assert msgspec.json.decode(copy(QuoteFault.INFINITE, Codec.JSON))["ap"] is None


@given(st.frozensets(KINDS), st.floats(0, 1), st.integers())
def test_a_fault_is_one_of_those_asked_for(kinds, share, seed):
    assert choose_fault(kinds, share, Random(seed)) in kinds | {None}


def test_the_share_is_kept_and_every_kind_comes():
    dice = Random(1)
    chosen = [choose_fault(ALL, 0.5, dice) for _ in range(2_000)]
    assert 0.45 < sum(fault is not None for fault in chosen) / len(chosen) < 0.55
    assert set(chosen) == {*QuoteFault, None}
    assert {choose_fault(ALL, 0.0, dice) for _ in range(50)} == {None}
    assert None not in {choose_fault(ALL, 1.0, dice) for _ in range(50)}
