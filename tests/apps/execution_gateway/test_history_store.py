"""The history in a real database, of every kind the settings accept: recorded once, read back thinned, forgotten."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from apps.execution_gateway import history_store as module
from apps.execution_gateway.database import create_engine
from apps.execution_gateway.history_input import HistoryQuery
from apps.execution_gateway.history_store import HistorySeries, HistoryStore
from apps.execution_gateway.pnl_history import Figures, Gap, HistorySample, Sampling, Sighting
from libs.market_data.prices import Mode

NOON = datetime(2025, 10, 20, 12, 0, tzinfo=UTC)
RULE = Sampling(5_000)
FIGURES = Figures(
    unrealized=Decimal("0.10"),
    realized=Decimal("-1234567890123.45"),
    fees=Decimal("0.00"),
    day_pnl=None,
    market_value=Decimal("123456789012345678901234567890.12"),
    complete=False,
    unpriced=2,
    stale=1,
)


@pytest.fixture
def store(engine: AsyncEngine) -> HistoryStore:
    return HistoryStore(engine, RULE)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def figures(number: int) -> Figures:
    return replace(FIGURES, unrealized=Decimal(number))


async def record(store: HistoryStore, *seconds: float, mode: Mode = Mode.PAPER, number: int | None = None) -> None:
    """Record samples of one program; each differs from all others unless `number` is given."""
    seen: Sighting | None = None
    for second in seconds:
        shown = figures(int(second * 1000) if number is None else number)
        seen = await store.record(HistorySample(after(second), mode, shown), seen)


async def read(
    store: HistoryStore,
    since: float = 0,
    until: float = 3600,
    step_s: float = 5,
    mode: Mode | None = None,
    now: float | None = None,
) -> HistorySeries:
    query = HistoryQuery(after(since), after(until), int(step_s * 1000), mode)
    return await store.series(query, after(until if now is None else now))


def seconds_of(series: HistorySeries) -> list[float]:
    return [(point.at - NOON).total_seconds() for point in series.points]


async def test_nothing_recorded_is_a_gap_of_no_mode(store: HistoryStore) -> None:
    assert await read(store) == HistorySeries(None, (), [Gap(after(0), after(3600))])
    asked = await read(store, mode=Mode.LIVE)
    assert (asked.mode, list(asked.points), asked.gaps) == (Mode.LIVE, [], [Gap(after(0), after(3600))])


async def test_no_digit_and_no_unknown_is_lost(store: HistoryStore) -> None:
    exact = HistorySample(after(0.123456), Mode.PAPER, FIGURES)
    seen = await store.record(exact, None)
    assert seen == Sighting(Mode.PAPER, RULE.slot_ms(NOON), after(0.123456))
    (point,) = (await read(store)).points
    assert (point.at, point.until, point.gap) == (after(0.123456), after(0.123456), None)
    assert point.figures == FIGURES
    assert str(point.figures.unrealized) == "0.10"


async def test_while_nothing_changes_the_point_stands_longer(store: HistoryStore) -> None:
    await record(store, *range(0, 101, 5), number=1)
    (point,) = (await read(store, now=110)).points
    assert (point.at, point.until) == (after(0), after(90))
    # And once it changes, until the look before.
    seen = Sighting(Mode.PAPER, point.slot_ms, after(100))
    await store.record(HistorySample(after(105), Mode.PAPER, figures(2)), seen)
    series = await read(store, now=110)
    assert [(point.at, point.until) for point in series.points] == [(after(0), after(100)), (after(105), after(105))]
    assert series.gaps == []


async def test_what_stood_when_the_program_stopped_is_noted(store: HistoryStore) -> None:
    await record(store, 0, number=1)
    seen = Sighting(Mode.PAPER, RULE.slot_ms(NOON), after(20))
    for one in (seen, replace(seen, at=after(10))):
        await store.extend(one)
        assert [point.until for point in (await read(store)).points] == [after(20)]
    await record(store, 25, number=1)
    assert len((await read(store)).points) == 1, "a short stop leaves no gap"


async def test_the_time_when_nobody_looked_is_a_gap_even_if_nothing_changed(store: HistoryStore) -> None:
    await record(store, 0, 5, number=1)
    await record(store, 605, number=1)
    series = await read(store, now=610)
    assert seconds_of(series) == [0, 605]
    assert series.gaps == [Gap(after(0), after(605))]
    assert (await read(store, 100, 200)).gaps == [Gap(after(100), after(200))]
    assert (await read(store, 100, 605.5)).gaps == [Gap(after(100), after(605))]
    # Between points further apart than the gap it is not told.
    assert (await read(store, step_s=600, now=610)).gaps == [Gap(after(0), after(605))]
    assert (await read(store, step_s=610, now=610)).gaps == []


async def test_the_last_sample_of_each_bucket_is_the_one_that_is_told(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    await record(store, *range(0, 301, 5))
    for step_s, expected in [
        (5, list(range(0, 301, 5))),
        (60, [55, 115, 175, 235, 295, 300]),
        (47.5, [50 - 5, 90, 140, 185, 235, 280, 300]),
        (7200, [300]),
    ]:
        series = await read(store, step_s=step_s)
        begins = [(second * 1000 + _offset_ms(step_s)) // int(step_s * 1000) for second in seconds_of(series)]
        assert len(set(begins)) == len(begins)
        if step_s != 47.5:
            assert seconds_of(series) == expected
        assert seconds_of(series)[-1] == 300
    # Buckets are aligned, wherever the range begins and ends.
    assert seconds_of(await read(store, 62, 178, 60)) == [115, 175]
    assert seconds_of(await read(store, 62, 113, 60)) == [110]
    assert seconds_of(await read(store, 115, 115, 60)) == [115]


def _offset_ms(step_s: float) -> int:
    return int(NOON.timestamp() * 1000) % int(step_s * 1000)


async def test_a_point_that_began_before_the_range_is_told_while_it_stood(store: HistoryStore) -> None:
    await record(store, *range(0, 61, 5), number=1)
    await record(store, 65, 70)
    assert seconds_of(await read(store, 50, 68)) == [0, 65]
    assert seconds_of(await read(store, 62, 68)) == [65], "it was last noted at 60"
    # The later of two in one bucket represents it.
    assert seconds_of(await read(store, 50, 68, step_s=120)) == [65]


async def test_of_an_idle_book_the_newest_point_is_told_until_its_series_has_ended(store: HistoryStore) -> None:
    await record(store, *range(0, 61, 5), number=1)
    # Looked at till 85, noted at 60: every range has either the point or a gap.
    for since, now in ((60.001, 85), (75, 85), (84.999, 85), (61, 105)):
        series = await read(store, since, now)
        assert (seconds_of(series), series.gaps) == ([0], []), since
        series = await read(store, since, 3600, now=now)
        assert (seconds_of(series), series.gaps) == ([0], []), since
    series = await read(store, 75, 105.001)
    assert (seconds_of(series), series.gaps) == ([], [Gap(after(75), after(105.001))])


async def test_what_is_asked_of_the_future_is_no_gap(store: HistoryStore) -> None:
    await record(store, 0, 5)
    assert (await read(store, 0, 3600, now=10)).gaps == []
    assert (await read(store, 1000, 3600, now=10)).gaps == []
    assert (await read(store, 0, 3600, now=2000)).gaps == [Gap(after(5), after(2000))]


async def test_modes_and_accounts_are_never_one_line(engine: AsyncEngine, store: HistoryStore) -> None:
    other = HistoryStore(engine, RULE, account="other")
    await record(store, 0, 5)
    await record(store, 5, 10, 15, mode=Mode.SIMULATED)
    await record(other, 20, mode=Mode.LIVE)
    assert (await read(store)).mode is Mode.SIMULATED
    assert seconds_of(await read(store)) == [5, 10, 15]
    assert seconds_of(await read(store, mode=Mode.PAPER)) == [0, 5]
    assert (await read(store, mode=Mode.LIVE)).points == []
    assert seconds_of(await read(other)) == [20]


async def test_the_newest_mode_is_the_one_seen_last(store: HistoryStore) -> None:
    await record(store, *range(0, 61, 5), number=1)
    await record(store, 20, mode=Mode.SIMULATED)
    assert (await read(store)).mode is Mode.PAPER


@pytest.fixture
async def other(database: str) -> AsyncIterator[HistoryStore]:
    """The store of another gateway on the same database."""
    engine = create_engine(database)
    yield HistoryStore(engine, RULE)
    await engine.dispose()


async def look(
    stores: Sequence[HistoryStore], moment: float, numbers: Sequence[int], seen: list[Sighting | None]
) -> None:
    """Let all stores record a sample at once."""
    samples = [HistorySample(after(moment), Mode.PAPER, figures(number)) for number in numbers]
    turns = zip(stores, samples, list(seen), strict=True)
    seen[:] = await asyncio.gather(*(store.record(sample, before) for store, sample, before in turns))


async def test_two_gateways_do_not_double_the_series(store: HistoryStore, other: HistoryStore) -> None:
    seen: list[Sighting | None] = [None, None]
    for moment in range(0, 101, 5):
        await look((store, other), moment, [moment // 20] * 2, seen)
    series = await read(store, now=105)
    assert seconds_of(series) == [0, 20, 40, 60, 80, 100]
    assert [point.figures for point in series.points] == [figures(number) for number in range(6)]
    assert series.gaps == []


async def test_gateways_that_disagree_fill_each_slot_once(store: HistoryStore, other: HistoryStore) -> None:
    seen: list[Sighting | None] = [None, None]
    await look((store, other), 0, (1, 2), seen)
    assert sum(one is not None for one in seen) == 1, "the one whose sample was refused has seen nothing stand"
    for moment in range(5, 51, 5):
        await look((store, other), moment, (1, 2), seen)
    series = await read(store, now=55)
    assert seconds_of(series) == list(range(0, 51, 5))
    assert series.gaps == []


async def test_a_gateway_goes_on_where_another_ended(store: HistoryStore, other: HistoryStore) -> None:
    await record(store, *range(0, 31, 5), number=1)
    await record(other, *range(40, 101, 5), number=1)
    (point,) = (await read(store, now=105)).points
    assert (point.at, point.until) == (after(0), after(90))


async def test_a_clock_set_back_does_not_stop_the_series(store: HistoryStore) -> None:
    await record(store, 0, 5, 3600)
    await record(store, 10, 15)
    assert seconds_of(await read(store)) == [0, 5, 10, 15, 3600]


async def test_what_ended_before_the_limit_is_forgotten_in_batches(
    engine: AsyncEngine, store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 4)
    await record(HistoryStore(engine, RULE, account="other"), 0, 5)
    await record(store, *range(0, 46, 5))
    await record(store, 0, 5, mode=Mode.SIMULATED)
    await record(store, *range(50, 101, 5), number=1)
    forgotten = []
    while deleted := await store.forget_before(after(60)):
        forgotten.append(deleted)
    assert sum(forgotten) == 12
    assert max(forgotten) <= 4
    # The point at 50 still stood after the limit.
    series = await read(store, mode=Mode.PAPER, now=100)
    assert seconds_of(series) == [50]
    assert series.gaps == [Gap(after(0), after(50))]
    assert (await read(store, mode=Mode.SIMULATED)).points == []
    assert seconds_of(await read(HistoryStore(engine, RULE, account="other"))) == [0, 5]
