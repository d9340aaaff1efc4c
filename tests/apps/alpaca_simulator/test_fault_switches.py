"""The switches by name: what is read, what is refused, and that what is shown can be read back."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.acts import ACTS
from apps.alpaca_simulator.fault_switches import (
    SWITCHES,
    WrongSwitchError,
    as_default,
    merged,
    option_forms,
    read_option,
    turned_on,
)
from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.frame_faults import FrameFault
from apps.alpaca_simulator.protocol import ErrorCode, Refusals
from apps.alpaca_simulator.quote_faults import QuoteFault

DOCS = Path(__file__).parents[3] / "docs" / "SIMULATOR.md"
CODES = st.none() | st.sampled_from(ErrorCode)
SYMBOLS = st.frozensets(st.from_regex(r"\A[A-Z][A-Z0-9]{0,5}\Z"), max_size=3)
SECONDS = st.floats(0, 86_400)
STATUSES = st.none() | st.integers(200, 599)
FAULTS = st.builds(
    Faults,
    mute=st.booleans(), half_open=st.booleans(), dead_symbols=SYMBOLS, hold_data=st.booleans(), frame_delay_s=SECONDS,
    upgrade_status=STATUSES, retry_after_s=st.none() | SECONDS, error_before_welcome=CODES, no_welcome=st.booleans(),
    auth_error=CODES, no_auth_answer=st.booleans(), subscribe_error=CODES, refused_symbols=SYMBOLS,
    symbol_limit=st.none() | st.integers(0, 100), refuse_statuses=CODES, no_ack=st.booleans(),
    slot_hold_s=st.none() | SECONDS, bad_quotes=st.frozensets(st.sampled_from(QuoteFault)),
    bad_quote_share=st.floats(0, 1), bad_frames=st.frozensets(st.sampled_from(FrameFault)),
    bad_frame_every=st.integers(1, 100), malformed_every=st.integers(0, 9), rest_status=STATUSES,
    rest_retry_after_s=st.none() | SECONDS, rest_delay_s=SECONDS, rest_html=st.booleans(), rest_garbage=st.booleans(),
    rest_paths=st.sampled_from(["all", "quotes", "clock"]),
)  # fmt: skip


@given(FAULTS)
def test_what_is_shown_can_be_read_back(faults):
    assert merged(NO_FAULTS, turned_on(faults)) == faults


@given(FAULTS, FAULTS)
def test_a_merge_changes_what_it_names_and_nothing_else(faults, others):
    changes = turned_on(others)
    changed = merged(faults, changes)
    for field in fields(Faults):
        source = others if field.name in changes else faults
        assert getattr(changed, field.name) == getattr(source, field.name)


@given(FAULTS)
def test_none_and_as_default_take_a_switch_back(faults):
    names = dict.fromkeys(SWITCHES)
    assert merged(faults, names) == as_default(faults, names) == NO_FAULTS
    assert as_default(faults, {}) == faults


def test_every_switch_is_known_by_name():
    assert list(SWITCHES) == [field.name for field in fields(Faults)]
    assert turned_on(NO_FAULTS) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mute", {"mute": True}),
        ("mute=false", {}),
        ("no-ack", {"no_ack": True}),
        ("auth_error=406", {"auth_error": 406}),
        ("upgrade_status=429", {"upgrade_status": 429}),
        ("rest_delay_s=1.5", {"rest_delay_s": 1.5}),
        ("dead_symbols=aapl, BRK.B", {"dead_symbols": ["AAPL", "BRK.B"]}),
        ("bad_quotes=stale,nan", {"bad_quotes": ["nan", "stale"]}),
        ("bad_frames=huge", {"bad_frames": ["huge"]}),
        ("rest_paths=clock", {"rest_paths": "clock"}),
        ("symbol_limit=0", {"symbol_limit": 0}),
    ],
)
def test_options_of_the_command_line(text, expected):
    name, value = read_option(text)
    assert turned_on(merged(NO_FAULTS, {name: value})) == expected


@pytest.mark.parametrize(
    "text",
    [
        "unknown", "=", "mute=maybe", "auth_error", "auth_error=", "auth_error=499", "upgrade_status=99",
        "rest_delay_s=nan", "rest_delay_s=inf", "rest_delay_s=-1", "bad_quotes=stale,odd", "bad_quote_share=1.1",
        "bad_frame_every=0", "dead_symbols=$", "dead_symbols=*", "rest_paths=none",
    ],
)  # fmt: skip
def test_wrong_options_name_the_switch(text):
    with pytest.raises(WrongSwitchError) as refused:
        read_option(text)
    assert str(refused.value).startswith(text.partition("=")[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mute", 1), ("mute", "true"), ("auth_error", "402"), ("auth_error", 499), ("auth_error", 402.5),
        ("dead_symbols", "AAPL"), ("dead_symbols", [1]), ("dead_symbols", ["no symbol"]), ("frame_delay_s", "1"),
        ("frame_delay_s", float("nan")), ("rest_status", 600), ("bad_quotes", ["odd"]), ("bad_frame_every", 0),
    ],
)  # fmt: skip
def test_wrong_values_name_the_switch(name, value):
    with pytest.raises(WrongSwitchError) as refused:
        merged(NO_FAULTS, {"no_ack": True, name: value})
    assert str(refused.value).startswith(f"{name}: ")


def test_an_unknown_switch_is_answered_with_the_known_ones():
    with pytest.raises(WrongSwitchError) as refused:
        merged(NO_FAULTS, {"mte": True})
    assert all(name in str(refused.value) for name in ("mte", *SWITCHES))


def test_the_forms_tell_how_each_is_given():
    forms = option_forms()
    assert [form.partition("=")[0] for form in forms] == list(SWITCHES)
    assert {"mute", "auth_error=CODE", "upgrade_status=STATUS", "retry_after_s=SECONDS", "symbol_limit=NUMBER",
            "dead_symbols=SYMBOL,SYMBOL", "rest_paths=all|quotes|clock"} < set(forms)  # fmt: skip
    assert any(form.startswith("bad_quotes=one_sided,crossed,") for form in forms)


def test_the_docs_name_every_switch_kind_and_act():
    words = set(re.findall(r"`([a-z_]+)`", DOCS.read_text()))
    assert words >= {*SWITCHES, *QuoteFault, *FrameFault, *ACTS}


def test_what_a_session_refuses():
    assert NO_FAULTS.refusals == Refusals()
    faults = Faults(
        auth_error=ErrorCode.AUTH_FAILED, subscribe_error=ErrorCode.INVALID_SYNTAX, refused_symbols=frozenset({"A"}),
        refuse_statuses=ErrorCode.INVALID_SUBSCRIBE_ACTION, symbol_limit=3,
    )  # fmt: skip
    assert faults.refusals == Refusals(
        auth=ErrorCode.AUTH_FAILED, subscribe=ErrorCode.INVALID_SYNTAX, statuses=ErrorCode.INVALID_SUBSCRIBE_ACTION,
        symbols=frozenset({"A"}), symbol_limit=3,
    )  # fmt: skip
