import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.reconnect import CAP_S, DialBudget, Ending, ReconnectPolicy


def delays(policy: ReconnectPolicy, count: int, ending: Ending = Ending.LOST) -> list[float | None]:
    return [policy.delay_after(ending) for _ in range(count)]


def test_the_waits_double_up_to_the_cap() -> None:
    assert delays(ReconnectPolicy(lambda: 0.0), 8) == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_only_lengthens_and_stays_under_the_cap(dice: float) -> None:
    for plain, shaken in zip(
        delays(ReconnectPolicy(lambda: 0.0), 9), delays(ReconnectPolicy(lambda: dice), 9), strict=True
    ):
        assert plain is not None
        assert shaken is not None
        assert plain <= shaken <= min(CAP_S, plain * 1.25 + 1)


def test_a_connection_is_proven_by_data_and_ten_seconds_together() -> None:
    policy = ReconnectPolicy(lambda: 0.0)
    delays(policy, 4)
    policy.connection_proven(lasted_s=9.9, delivered_data=True)
    policy.connection_proven(lasted_s=600, delivered_data=False)
    assert policy.failures == 4
    policy.connection_proven(lasted_s=10, delivered_data=True)
    assert policy.delay_after(Ending.LOST) == 0.0


def test_a_refusal_stops_for_good() -> None:
    assert ReconnectPolicy(lambda: 0.5).delay_after(Ending.REFUSED) is None


@pytest.mark.parametrize("dice", [0.0, 0.999])
def test_a_taken_slot_is_asked_for_slowly(dice: float) -> None:
    delay = ReconnectPolicy(lambda: dice).delay_after(Ending.SLOT_TAKEN)
    assert delay is not None
    assert 10 <= delay <= 20


def test_a_wrong_place_is_tried_at_the_cap() -> None:
    assert ReconnectPolicy(lambda: 0.0).delay_after(Ending.WRONG_PLACE) == CAP_S


def test_a_person_need_not_wait() -> None:
    policy = ReconnectPolicy(lambda: 0.9)
    assert policy.delay_after(Ending.REQUESTED) == 0.0
    assert policy.failures == 0


def test_retry_after_is_honoured_when_it_is_longer() -> None:
    policy = ReconnectPolicy(lambda: 0.5)
    assert policy.delay_after(Ending.LOST, retry_after_s=45) == 45
    assert policy.delay_after(Ending.LOST, retry_after_s=0) == 1.125


def test_giving_up_after_the_allowed_attempts_until_forgiven() -> None:
    policy = ReconnectPolicy(lambda: 0.0, max_attempts=3)
    assert delays(policy, 3) == [0.0, 1.0, None]
    policy.forgive()
    assert policy.delay_after(Ending.LOST) == 0.0


@given(st.lists(st.floats(0, 30), max_size=80))
def test_never_more_than_5_dials_in_10_s_nor_20_in_a_minute(pauses: list[float]) -> None:
    budget, now_s, dials = DialBudget(), 1000.0, []
    for pause in pauses:
        now_s += pause
        now_s += budget.wait_s(now_s)
        budget.record(now_s)
        dials.append(now_s)
    for at in dials:
        assert sum(at <= other < at + 10 - 1e-6 for other in dials) <= 5
        assert sum(at <= other < at + 60 - 1e-6 for other in dials) <= 20
