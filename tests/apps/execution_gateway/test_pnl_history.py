"""What is kept of the P&L, when a sample is news, and where nobody looked: decided without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.pnl_history import (
    EXTEND_EVERY,
    Append,
    Extend,
    Extent,
    Figures,
    Gap,
    HistoryPoint,
    HistorySample,
    Keep,
    Sampling,
    Sighting,
    decide,
    gaps_in,
    sighting_of,
)
from libs.market_data.prices import Mode

NOON = datetime(2025, 10, 20, 12, 0, tzinfo=UTC)
RULE = Sampling(5_000)
FIGURES = Figures(
    unrealized=Decimal("1.00"),
    realized=Decimal("0.00"),
    fees=Decimal("0.00"),
    day_pnl=Decimal("1.00"),
    market_value=Decimal("10.00"),
    complete=True,
    unpriced=0,
    stale=0,
)
OTHER = replace(FIGURES, unrealized=Decimal("2.00"))


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def sample(seconds: float, figures: Figures = FIGURES) -> HistorySample:
    return HistorySample(after(seconds), Mode.PAPER, figures)


def point(at: float, until: float | None = None, figures: Figures = FIGURES) -> HistoryPoint:
    return HistoryPoint(RULE.slot_ms(after(at)), after(at), after(at if until is None else until), figures)


def seen(at: float, looked: float) -> Sighting:
    return Sighting(Mode.PAPER, RULE.slot_ms(after(at)), after(looked))


def test_the_first_sample_of_all_is_a_point() -> None:
    assert decide(None, None, sample(0), RULE) == Append(gap=None, previous_until=None)
    # What was seen of a series that is gone says nothing.
    assert decide(None, seen(-5, -5), sample(0), RULE) == Append(gap=None, previous_until=None)


def test_what_changed_is_a_point_and_the_one_before_ended_when_it_was_last_seen() -> None:
    assert decide(point(0), None, sample(5, OTHER), RULE) == Append(gap=None, previous_until=None)
    assert decide(point(0), seen(0, 20), sample(25, OTHER), RULE) == Append(gap=None, previous_until=after(20))


@pytest.mark.parametrize("field", Figures.__slots__)
def test_every_figure_counts_as_a_change(field: str) -> None:
    value = getattr(FIGURES, field)
    changed = replace(FIGURES, **{field: (not value) if isinstance(value, bool) else value + 1})
    assert isinstance(decide(point(0), None, sample(5, changed), RULE), Append)


def test_what_stands_is_written_now_and_then_only() -> None:
    assert decide(point(0), seen(0, 20), sample(25), RULE) == Keep()
    assert decide(point(0), seen(0, 25), sample(30), RULE) == Extend(after(30))
    assert decide(point(0, until=30), seen(0, 30), sample(35), RULE) == Keep()


def test_a_series_goes_on_over_two_failed_samples_but_not_over_more() -> None:
    assert decide(point(0), seen(0, 0), sample(15), RULE) == Keep()
    unlike = decide(point(0), seen(0, 10), sample(25.1), RULE)
    assert unlike == Append(gap=timedelta(seconds=15.1), previous_until=after(10))
    assert decide(point(0), None, sample(16), RULE) == Append(gap=timedelta(seconds=16), previous_until=None)


def test_a_sighting_of_another_point_does_not_count() -> None:
    for stale in (seen(-5, 10), replace(seen(0, 10), mode=Mode.LIVE)):
        assert decide(point(0), stale, sample(20), RULE) == Append(gap=timedelta(seconds=20), previous_until=None)


def test_a_slot_is_recorded_once() -> None:
    assert decide(point(0), None, sample(4.999, OTHER), RULE) == Keep()
    assert isinstance(decide(point(4.999), None, sample(5, OTHER), RULE), Append)


def test_only_a_point_with_the_sample_s_figures_has_been_seen() -> None:
    assert sighting_of(point(0), sample(5)) == seen(0, 5)
    assert sighting_of(point(0), sample(5, OTHER)) is None
    assert sighting_of(None, sample(5)) is None


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=60))
def test_points_and_gaps_account_for_every_moment(looks: list[tuple[int, bool]]) -> None:
    """Any times between looks, any changes: what is recorded never claims a look that was not made."""
    points: list[HistoryPoint] = []
    sighting, seconds, figures = None, 0, FIGURES
    looked: list[tuple[datetime, Figures]] = []
    for wait, has_changed in looks:
        seconds += wait
        if has_changed:
            figures = replace(figures, realized=figures.realized + 1)
        now = sample(seconds, figures)
        looked.append((now.at, figures))
        standing = points[-1] if points else None
        match decide(standing, sighting, now, RULE):
            case Append(gap=gap, previous_until=previous_until):
                if previous_until is not None:
                    points[-1] = replace(points[-1], until=previous_until)
                points.append(HistoryPoint(RULE.slot_ms(now.at), now.at, now.at, figures, gap))
            case Extend(until=until):
                points[-1] = replace(points[-1], until=until)
        sighting = sighting_of(points[-1], now)
    times = [at for at, _ in looked]
    for one, following in zip(points, [*points[1:], None], strict=True):
        assert one.at <= one.until
        assert one.at in times
        assert one.until in times
        # Two looks within one slot are one point: of those the first counts.
        unlike = [at for at, figures in looked if one.at < at <= one.until and figures != one.figures]
        assert all(RULE.slot_ms(at) == one.slot_ms for at in unlike)
        if following is None:
            continue
        unseen = following.at - one.until
        assert unseen > timedelta(0)
        if following.gap is None:
            assert unseen <= RULE.gap_after + timedelta(milliseconds=RULE.every_ms)
        else:
            assert unseen == following.gap > RULE.gap_after
    assert times[-1] - points[-1].until < EXTEND_EVERY + RULE.gap_after


def test_slots_and_waiting_are_aligned_for_all_gateways() -> None:
    assert RULE.slot_ms(after(4.9)) == RULE.slot_ms(NOON)
    assert RULE.until_next_s(NOON) == 5
    assert RULE.until_next_s(after(4.9)) == pytest.approx(0.1)
    assert Sampling(1).until_next_s(NOON) > 0


def span(since: float, until: float) -> Gap:
    return Gap(after(since), after(until))


def test_before_the_first_point_and_after_the_last_nobody_looked() -> None:
    lived = Extent(after(100), after(200))
    assert gaps_in(span(0, 600), [], None, RULE) == [span(0, 600)]
    assert gaps_in(span(0, 600), [], lived, RULE) == [span(0, 100), span(200, 600)]
    assert gaps_in(span(120, 180), [], lived, RULE) == []
    assert gaps_in(span(300, 400), [], lived, RULE) == [span(300, 400)]
    assert gaps_in(span(0, 50), [], lived, RULE) == [span(0, 50)]


def test_a_point_that_is_written_seldom_has_not_ended() -> None:
    ended_at = 200 + RULE.ends_after.total_seconds()
    lived = Extent(NOON, after(200))
    assert gaps_in(span(0, ended_at), [], lived, RULE) == []
    assert gaps_in(span(0, ended_at + 1), [], lived, RULE) == [span(200, ended_at + 1)]


def test_gaps_are_cut_to_what_was_asked_and_joined() -> None:
    lived = Extent(after(-900), after(900))
    told = [span(50, 70), span(-10, 20), span(60, 90), span(95, 200)]
    assert gaps_in(span(0, 100), told, lived, RULE) == [span(0, 20), span(50, 90), span(95, 100)]
    touching = [span(0, 20), span(20, 30)]
    assert gaps_in(span(0, 100), touching, lived, RULE) == touching
    assert gaps_in(span(0, 0), told, lived, RULE) == []
