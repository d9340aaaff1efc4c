"""The judge catches every lie that is planted, and accuses nobody of the truth."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.judge import Finding, Judge, Wanted, what_is_missing
from tests.soak.samples import HealthView, PnlView, Row, Sent, Truth, pnl_of, truth_of, updated_by

NOW = 1_800_000_000.0
OLD = (10.0, 10.02)
NEW = (11.0, 11.02)


def truth(at_s: float, quote: tuple[float, float] = NEW, *, first_sent_at_s: float, **fields: Any) -> Truth:
    return Truth(at_s, {"AAPL": Sent(*quote, first_sent_at_s, first_sent_at_s)}, **fields)


def row(quote: tuple[float, float] = OLD, *, quoted_at_s: float, source: str = "real-time") -> Row:
    return Row(source, *quote, quoted_at_s)


def view(at_s: float, shown: Row, surface: str = "endpoint") -> PnlView:
    return PnlView(surface, at_s, {"AAPL": shown})


def judged(shown: PnlView, *truths: Truth | None, judge: Judge | None = None) -> list[str]:
    """Return the rules that are broken, the truths having been read in this order."""
    judge = judge or Judge()
    for one in truths:
        judge.learn(one, shown.at_s if one is None else one.at_s)
    return rules(judge.pnl(shown))


def rules(found: list[Finding]) -> list[str]:
    return [one.rule for one in found]


# --- a figure that has been superseded --------------------------------------------------------------------------------


def test_a_figure_that_was_superseded_long_ago_is_no_live_figure() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 40))
    assert judged(shown, truth(NOW, first_sent_at_s=NOW - 16)) == ["false live"]


def test_the_finding_says_what_was_shown_and_what_was_true() -> None:
    judge = Judge()
    judge.learn(truth(NOW, first_sent_at_s=NOW - 16), NOW)
    (found,) = judge.pnl(view(NOW, row(quoted_at_s=NOW - 40), "events"))
    assert (found.subject, found.at_s) == ("AAPL", NOW)
    for said in ("events", "10.0/10.02", "11/11.02", "16.0 s before"):
        assert said in found.detail


def test_one_that_was_superseded_just_now_may_be_shown() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 40))
    assert judged(shown, truth(NOW, first_sent_at_s=NOW - 15.4)) == []


@pytest.mark.parametrize("source", ["stale", "closing", "unavailable", "halted", "delayed"])
def test_what_is_not_called_live_may_be_old(source: str) -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 400, source=source))
    assert judged(shown, truth(NOW, first_sent_at_s=NOW - 300)) == []


def test_the_very_quote_may_be_as_old_as_it_likes() -> None:
    """A quiet quote is still the quote."""
    shown = view(NOW, row(NEW, quoted_at_s=NOW - 300))
    assert judged(shown, truth(NOW, NEW, first_sent_at_s=NOW - 300)) == []


def test_a_stream_that_goes_on_hides_no_figure_that_stands_still() -> None:
    """The newest quote is always young: what counts is what was sent 15 s ago and never shown."""
    judge = Judge()
    for tenth in range(400):
        at_s = NOW - 40 + tenth / 10
        judge.learn(truth(at_s, (20 + tenth, 21 + tenth), first_sent_at_s=at_s), at_s)
    assert rules(judge.pnl(view(NOW, row(quoted_at_s=NOW - 40)))) == ["false live"]
    assert rules(judge.pnl(view(NOW, row(quoted_at_s=NOW - 14)))) == []


def test_a_price_that_came_back_is_right() -> None:
    shown = view(NOW, row(OLD, quoted_at_s=NOW - 40))
    early, late = truth(NOW - 20, first_sent_at_s=NOW - 20), truth(NOW, OLD, first_sent_at_s=NOW - 3)
    assert judged(shown, early, late) == []


def test_a_quote_that_rest_knew_first_is_newer_than_what_was_sent() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 10))
    assert judged(shown, truth(NOW, first_sent_at_s=NOW - 16)) == []


def test_a_view_is_judged_by_its_own_time() -> None:
    """A body that was calculated before a freeze and read after it was true when it was calculated."""
    shown = view(NOW - 30, row(quoted_at_s=NOW - 40))
    assert judged(shown, truth(NOW, first_sent_at_s=NOW - 35)) == []


def test_what_a_simulator_had_sent_before_it_died_remains_sent() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 40))
    assert "false live" in judged(shown, truth(NOW - 18, first_sent_at_s=NOW - 18), None)


def test_a_truth_of_long_ago_is_not_forgotten() -> None:
    judge = Judge()
    judge.learn(truth(NOW - 1000, first_sent_at_s=NOW - 1000), NOW - 1000)
    for second in range(0, 1000, 10):
        judge.learn(Truth(NOW - 1000 + second, {}), NOW - 1000 + second)
    assert rules(judge.pnl(view(NOW, row(quoted_at_s=NOW - 1001)))) == ["false live"]


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(1, 5)), min_size=1, max_size=30), st.floats(0, 2))
def test_a_surface_that_shows_each_quote_soon_after_it_was_sent_is_never_accused(
    sent: list[tuple[float, int]], delay_s: float
) -> None:
    judge = Judge()
    quotes = [(NOW + offset_s, float(mid)) for offset_s, mid in sorted(sent)]
    for at_s, mid in quotes:
        judge.learn(truth(at_s, (mid, mid + 1), first_sent_at_s=at_s), at_s)
    for at_s in (NOW + second for second in range(70)):
        known = [(quoted_s, mid) for quoted_s, mid in quotes if quoted_s <= at_s - delay_s]
        if known:
            quoted_s, mid = known[-1]
            assert judge.pnl(view(at_s, row((mid, mid + 1), quoted_at_s=quoted_s))) == []


@given(st.floats(16, 59), st.floats(0.01, 15))
def test_a_surface_that_stands_still_is_always_accused(frozen_s: float, sent_after_s: float) -> None:
    """Whatever it was superseded by, and whenever, once that is more than 15 s ago."""
    judge = Judge()
    superseded_s = NOW - frozen_s
    judge.learn(truth(superseded_s, first_sent_at_s=superseded_s), superseded_s)
    judge.learn(truth(NOW, (12.0, 12.02), first_sent_at_s=NOW - sent_after_s), NOW)
    assert "false live" in rules(judge.pnl(view(NOW, row(quoted_at_s=superseded_s - 1))))


# --- a link that cannot stand behind anything -------------------------------------------------------------------------


def test_nothing_is_live_over_a_link_that_is_half_open_for_17_seconds() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 1))
    assert judged(shown, Truth(NOW, {}, half_open_since_s=NOW - 17.1)) == ["live while half-open"]
    assert judged(shown, Truth(NOW, {}, half_open_since_s=NOW - 16.9)) == []


def test_nothing_is_vouched_for_by_a_link_that_is_mute_for_30_seconds() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 40))
    assert judged(shown, Truth(NOW, {}, mute_since_s=NOW - 30.1)) == ["live while mute"]
    assert judged(shown, Truth(NOW, {}, mute_since_s=NOW - 29.9)) == []


def test_a_price_that_rest_has_just_told_is_young_by_itself() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 5))
    assert judged(shown, Truth(NOW, {}, mute_since_s=NOW - 60)) == []


@pytest.mark.parametrize(("open_since_s", "broken"), [(None, []), (NOW - 5, []), (NOW - 31, ["live while mute"])])
def test_mute_is_a_fault_of_an_open_market(open_since_s: float | None, broken: list[str]) -> None:
    judge = Judge()
    judge.market_open_since_s = open_since_s
    shown = view(NOW, row(quoted_at_s=NOW - 100))
    assert judged(shown, Truth(NOW, {}, mute_since_s=NOW - 60), judge=judge) == broken


def test_nothing_is_vouched_for_while_nobody_is_linked() -> None:
    shown = view(NOW, row(quoted_at_s=NOW - 40))
    gone = [Truth(NOW - 20, {}, is_linked=False), None, Truth(NOW, {}, is_linked=False)]
    assert judged(shown, *gone) == ["live while unlinked"]
    assert judged(shown, *gone, Truth(NOW, {})) == []
    assert judged(view(NOW - 5, shown.rows["AAPL"]), *gone) == []


def test_nothing_vouches_for_a_dead_symbol() -> None:
    judge = Judge()
    judge.dead_since_s = {"AAPL": NOW - 31}
    assert judged(view(NOW, row(quoted_at_s=NOW - 31)), Truth(NOW, {}), judge=judge) == ["live while dead"]
    assert judged(view(NOW, row(quoted_at_s=NOW - 4)), Truth(NOW, {}), judge=judge) == []


def health(asked_at_s: float, status: str = "healthy") -> HealthView:
    return HealthView("market data", asked_at_s, asked_at_s + 0.1, status)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"half_open_since_s": NOW - 18}, "healthy while half-open"),
        ({"mute_since_s": NOW - 31}, "healthy while mute"),
    ],
)
def test_no_health_is_well_over_a_broken_link(fields: dict[str, Any], rule: str) -> None:
    judge = Judge()
    judge.learn(Truth(NOW, {}, **fields), NOW)
    assert rules(judge.health(health(NOW))) == [rule]
    assert judge.health(health(NOW, "degraded")) == []
    assert judge.health(health(NOW - 3)) == []


def test_a_link_that_has_recovered_by_the_answer_excuses_it() -> None:
    judge = Judge()
    judge.learn(Truth(NOW, {}, half_open_since_s=NOW - 18), NOW)
    judge.learn(Truth(NOW + 1, {}), NOW + 1)
    assert judge.health(health(NOW)) == []
    assert judge.pnl(view(NOW, row(quoted_at_s=NOW))) == []


# --- all is well again ------------------------------------------------------------------------------------------------

WANTED = Wanted({"AAPL": NEW}, {})


def test_the_last_value_is_missed_until_it_is_shown() -> None:
    assert "shows 10.0/10.02" in what_is_missing(view(NOW, row(OLD, quoted_at_s=NOW)), WANTED, since_s=NOW - 1)
    assert what_is_missing(view(NOW, row(NEW, quoted_at_s=NOW)), WANTED, since_s=NOW - 1) == ""


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        (None, "no answer yet"),
        (view(NOW - 2, row(NEW, quoted_at_s=NOW)), "no answer yet"),
        (view(NOW, row(NEW, quoted_at_s=NOW))._replace(feed_state="connecting"), "the feed is connecting"),
        (view(NOW, row(NEW, quoted_at_s=NOW))._replace(is_complete=False), "not complete"),
        (view(NOW, row(NEW, quoted_at_s=NOW))._replace(rows={}), "no row of AAPL"),
        (view(NOW, row(NEW, quoted_at_s=NOW, source="stale")), "AAPL is stale"),
    ],
)
def test_whatever_is_not_well_is_named(shown: PnlView | None, missing: str) -> None:
    assert missing in what_is_missing(shown, WANTED, since_s=NOW - 1)


def test_a_quote_of_before_the_end_of_the_fault_is_not_enough() -> None:
    wanted = Wanted({}, {"AAPL": NOW - 1})
    assert "nothing newer" in what_is_missing(view(NOW, row(quoted_at_s=NOW - 2)), wanted, since_s=NOW - 1)
    assert what_is_missing(view(NOW, row(quoted_at_s=NOW - 0.5)), wanted, since_s=NOW - 1) == ""


# --- reading ----------------------------------------------------------------------------------------------------------

AT = "2027-01-15T08:00:00+00:00"
BODY: dict[str, Any] = {
    "positions": [
        {"symbol": "AAPL", "price_source": "real-time", "bid": 1.5, "ask": 2, "last_updated": AT},
        {"symbol": "KO", "price_source": "unavailable", "bid": None, "ask": None, "last_updated": None},
    ],
    "feed": {"state": "streaming"}, "complete": False, "calculated_at": "2027-01-15T08:00:00.250000+00:00",
}  # fmt: skip


def test_a_body_is_read_as_it_is() -> None:
    read = pnl_of("endpoint", BODY)
    assert (read.at_s, read.is_complete) == (NOW + 0.25, False)
    assert read.rows == {"AAPL": Row("real-time", 1.5, 2, NOW), "KO": Row("unavailable", None, None, None)}


def test_an_update_changes_what_it_names() -> None:
    before = pnl_of("events", BODY)
    changed = {**BODY["positions"][0], "bid": 1.75}
    after = updated_by(before, {**BODY, "positions": [changed], "removed": ["KO"], "complete": True})
    assert after is not None
    assert after.rows == {"AAPL": Row("real-time", 1.75, 2, NOW)}
    assert after.is_complete
    assert updated_by(None, BODY) is None


def test_a_truth_is_read_as_the_simulator_tells_it() -> None:
    sent = {"bid": 1.5, "ask": 2.0, "time_ns": int(NOW * 1e9), "sent_at": NOW + 2, "first_sent_at": NOW + 1}
    said = {"time": NOW + 3, "symbols": {"AAPL": sent}, "mute_since": None, "half_open_since": NOW}
    frozen = {"authenticated": True, "is_half_open": True}
    state = {"connections": [frozen, {"authenticated": False, "is_half_open": False}], "dials": {"last": [NOW]}}
    read = truth_of(said, state)
    assert read == Truth(NOW + 3, {"AAPL": Sent(1.5, 2.0, NOW, NOW + 1)}, None, NOW, is_linked=False, dials_s=(NOW,))
    state["connections"] = [{"authenticated": True, "is_half_open": False}]
    assert truth_of(said, state).is_linked
