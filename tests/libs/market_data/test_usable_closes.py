from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.usable_closes import KnownSessions, WrittenCloses, usable_closes

THURSDAY, FRIDAY, SATURDAY, MONDAY = (date(2025, 10, 30), date(2025, 10, 31), date(2025, 11, 1), date(2025, 11, 3))
BELL = {THURSDAY: datetime(2025, 10, 30, 20, 0, tzinfo=UTC), FRIDAY: datetime(2025, 10, 31, 20, 0, tzinfo=UTC)}
WEEKEND = KnownSessions(BELL, frozenset({MONDAY}))
LATER = BELL[FRIDAY] + timedelta(hours=1)
A, B = Path("a.parquet"), Path("b.parquet")


def written(file: Path, *rows: tuple[str, date, str], at: datetime | None = LATER) -> WrittenCloses:
    return WrittenCloses(file, [((symbol, day), Decimal(close)) for symbol, day, close in rows], at)


class TestContradictions:
    def test_neither_of_two_files_is_believed(self) -> None:
        found = usable_closes(
            [written(A, ("X", FRIDAY, "1"), ("Y", FRIDAY, "5")), written(B, ("X", FRIDAY, "2"))], None
        )
        assert found.closes == {("Y", FRIDAY): Decimal(5)}
        (problem,) = found.problems
        assert problem.startswith("X 2025-10-31: 1 in a.parquet, 2 in b.parquet; they contradict each other")
        assert "--verify 10 --replace" in problem

    def test_nor_of_two_rows_of_one_file(self) -> None:
        found = usable_closes([written(A, ("X", FRIDAY, "1"), ("X", FRIDAY, "2"), ("X", FRIDAY, "1"))], None)
        assert found.closes == {}
        assert len(found.problems) == 1

    def test_the_same_price_twice_is_no_contradiction(self) -> None:
        found = usable_closes([written(A, ("X", FRIDAY, "1.5")), written(B, ("X", FRIDAY, "1.500"))], None)
        assert found.closes == {("X", FRIDAY): Decimal("1.5")}
        assert found.problems == ()

    def test_many_are_told_in_few_lines(self) -> None:
        rows = [(f"S{number:02}", FRIDAY) for number in range(20)]
        files = [written(A, *((*row, "1") for row in rows)), written(B, *((*row, "2") for row in rows))]
        found = usable_closes(files, None)
        assert found.closes == {}
        assert len(found.problems) == 6
        assert found.problems[-1].startswith("15 more closes contradict each other")
        assert found.problems[-1].endswith("S09 2025-10-31 and 10 more")

    def test_a_row_that_does_not_count_contradicts_nobody(self) -> None:
        too_early = written(A, ("X", FRIDAY, "1"), at=BELL[FRIDAY] - timedelta(minutes=1))
        found = usable_closes([too_early, written(B, ("X", FRIDAY, "2"))], WEEKEND)
        assert found.closes == {("X", FRIDAY): Decimal(2)}


class TestSessions:
    def test_a_day_without_a_session_is_named_and_not_used(self) -> None:
        found = usable_closes([written(A, ("X", SATURDAY, "1"), ("Y", SATURDAY, "1"), ("X", FRIDAY, "1"))], WEEKEND)
        assert found.closes == {("X", FRIDAY): Decimal(1)}
        assert found.problems == ("a.parquet: 2 rows are of no session (2025-11-01) and not used",)

    def test_a_date_far_ahead_is_named(self) -> None:
        found = usable_closes([written(A, ("X", date(2099, 1, 1), "1"))], WEEKEND)
        assert found.closes == {}
        assert "2099-01-01" in found.problems[0]

    def test_a_session_to_come_or_an_old_one_is_not_used_and_nothing_is_wrong(self) -> None:
        found = usable_closes([written(A, ("X", MONDAY, "1"), ("X", date(2020, 2, 1), "1"))], WEEKEND)
        assert (found.closes, found.problems) == ({}, ())

    def test_a_close_written_before_the_bell_is_none(self) -> None:
        at_noon = BELL[FRIDAY] - timedelta(hours=4)
        found = usable_closes([written(A, ("X", FRIDAY, "1"), ("X", THURSDAY, "2"), at=at_noon)], WEEKEND)
        assert found.closes == {("X", THURSDAY): Decimal(2)}
        (problem,) = found.problems
        assert problem == "a.parquet: 1 closes were written before their session was over (2025-10-31), not used"

    def test_a_file_without_a_time_is_believed(self) -> None:
        assert usable_closes([written(A, ("X", FRIDAY, "1"), at=None)], WEEKEND).closes


rows = st.lists(
    st.tuples(
        st.sampled_from(["X", "Y"]), st.sampled_from([THURSDAY, FRIDAY, SATURDAY, MONDAY]), st.sampled_from(["1", "2"])
    ),
    max_size=6,
)


@given(st.lists(st.tuples(rows, st.sampled_from([BELL[THURSDAY], BELL[FRIDAY], LATER])), max_size=4), st.randoms())
def test_the_order_of_files_decides_nothing(
    files: list[tuple[list[tuple[str, date, str]], datetime]], dice: object
) -> None:
    read = [written(Path(f"{number}"), *some, at=at) for number, (some, at) in enumerate(files)]
    found = usable_closes(read, WEEKEND)
    shuffled = list(read)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert usable_closes(shuffled, WEEKEND).closes == found.closes
    said: dict[tuple[str, date], set[Decimal]] = {}
    for some, at in files:
        for symbol, day, close in some:
            if day in BELL and at >= BELL[day]:
                said.setdefault((symbol, day), set()).add(Decimal(close))
    assert found.closes == {key: next(iter(prices)) for key, prices in said.items() if len(prices) == 1}
