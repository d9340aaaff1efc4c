from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.missing_bars import (
    SESSIONS_PER_REQUEST,
    SYMBOLS_PER_REQUEST,
    BarsRequest,
    Gap,
    bars_requests,
    gap_lines,
)

BEGIN = date(2025, 1, 1)
DAYS = tuple(BEGIN + timedelta(days=number) for number in range(200))


class TestWhatIsAsked:
    def test_the_newest_sessions_first_in_portions(self) -> None:
        requests = bars_requests(["B", "A"], DAYS[:130], set())
        assert [(request.symbols, len(request.sessions)) for request in requests] == [
            (("A", "B"), 60),
            (("A", "B"), 60),
            (("A", "B"), 10),
        ]
        assert (requests[0].first, requests[0].last) == (DAYS[70], DAYS[129])

    def test_many_symbols_share_no_more_than_a_page(self) -> None:
        requests = bars_requests([f"S{number:03}" for number in range(250)], DAYS[:1], set())
        assert [len(request.symbols) for request in requests] == [100, 100, 50]

    def test_each_symbol_from_its_own_first_missing_session(self) -> None:
        held = {("A", day) for day in DAYS[:5]}
        assert bars_requests(["A", "B"], DAYS[:6], held) == (
            BarsRequest(("B",), DAYS[:6]),
            BarsRequest(("A",), DAYS[5:6]),
        )

    def test_a_hole_that_stays_costs_its_own_days_only(self) -> None:
        held = {("A", day) for day in DAYS[:10]} - {("A", DAYS[2]), ("A", DAYS[3])}
        assert bars_requests(["A"], DAYS[:11], held) == (
            BarsRequest(("A",), DAYS[10:11]),
            BarsRequest(("A",), DAYS[2:4]),
        )

    def test_halves(self) -> None:
        low, high = BarsRequest(("A", "B", "C"), DAYS[:2]).halves()
        assert (low.symbols, high.symbols) == (("A",), ("B", "C"))
        assert low.sessions == high.sessions == DAYS[:2]


names = st.sampled_from([f"S{number}" for number in range(8)])


@given(
    st.lists(names, max_size=8),
    st.integers(0, len(DAYS)),
    st.sets(st.tuples(names, st.sampled_from(DAYS)), max_size=300),
)
def test_exactly_what_is_missing_is_asked_and_once(symbols: list[str], count: int, held: set[tuple[str, date]]) -> None:
    sessions = DAYS[:count]
    requests = bars_requests(symbols, sessions, held)
    asked = [key for request in requests for key in request.keys]
    assert len(asked) == len(set(asked))
    assert set(asked) == {(symbol, day) for symbol in symbols for day in sessions} - held
    for request in requests:
        assert 1 <= len(request.symbols) <= SYMBOLS_PER_REQUEST
        assert 1 <= len(request.sessions) <= SESSIONS_PER_REQUEST
        begin = sessions.index(request.first)
        assert request.sessions == sessions[begin : begin + len(request.sessions)]


class TestHowGapsAreTold:
    def test_sessions_that_follow_one_another_are_put_together(self) -> None:
        gaps = [Gap("B", DAYS[0]), *(Gap("A", DAYS[number]) for number in (1, 2, 3, 6))]
        assert gap_lines(gaps, DAYS[:8]) == ["A: 2025-01-02 to 2025-01-04 (3 sessions), 2025-01-07", "B: 2025-01-01"]

    def test_many_stretches_are_cut_short(self) -> None:
        (line,) = gap_lines([Gap("A", day) for day in DAYS[:20:2]], DAYS)
        assert line.endswith("2025-01-17, 2025-01-19 and 6 stretches before")

    def test_none(self) -> None:
        assert gap_lines([], DAYS) == []
