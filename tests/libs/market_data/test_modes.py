import pytest

from libs.market_data.modes import body_mode, is_foreign_mode, simulator_mode
from libs.market_data.prices import Mode

REAL = (Mode.PAPER, Mode.LIVE)
MADE_UP = (Mode.SIMULATED, Mode.REPLAY)


@pytest.mark.parametrize("account", Mode)
@pytest.mark.parametrize("prices", [*Mode, None])
def test_made_up_prices_are_foreign_to_real_money_and_nothing_else_is(account: Mode, prices: Mode | None) -> None:
    assert is_foreign_mode(account, prices) == (account in REAL and prices in MADE_UP)
    assert body_mode(account, prices) is (account if account in REAL or prices is None else prices)


@pytest.mark.parametrize(
    ("header", "mode"),
    [
        (None, None), ("", None), (" ", None), ("replay", Mode.REPLAY), ("Replay ", Mode.REPLAY),
        ("simulated", Mode.SIMULATED), ("paper", Mode.SIMULATED), ("1", Mode.SIMULATED),
    ],
)  # fmt: skip
def test_a_simulator_says_what_it_is(header: str | None, mode: Mode | None) -> None:
    assert simulator_mode(header) is mode
