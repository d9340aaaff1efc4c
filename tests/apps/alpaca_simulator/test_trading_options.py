"""The command line of the trading side."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.main import read_arguments
from apps.alpaca_simulator.trade_update_faults import Oddity


def test_options_and_faults():
    text = "--trading-rate-limit 200 --trading-autofill 2.5 --fault trading_lose_every=3 --fault busted_stay"
    text += " --fault trading_rest_path=/v2/account --fault trading-oddities=numbers,null_times"
    config = read_arguments(text.split())
    assert (config.trading_rate_limit, config.trading_autofill) == (200, 2.5)
    assert config.faults == Faults(
        trading_lose_every=3, busted_stay=True, trading_rest_path="/v2/account",
        trading_oddities=frozenset({Oddity.NUMBERS, Oddity.NULL_TIMES}),
    )  # fmt: skip


def test_positions_say_since_when(tmp_path):
    listed = tmp_path / "positions.json"
    listed.write_text('[{"symbol":"KO","qty":5,"avg_entry_price":"60","opened_at":"2026-11-02T10:00:00-05:00"}]')
    (held,) = read_arguments(["--positions", str(listed)]).positions
    assert held == HeldPosition("KO", Decimal(5), Decimal(60), datetime(2026, 11, 2, 15, tzinfo=UTC))


@pytest.mark.parametrize("wrong", ['"qty":0', '"qty":"NaN"', '"qty":1,"opened_at":"2026-11-02T10:00:00"'])
def test_wrong_positions_are_refused(wrong, tmp_path, capsys):
    listed = tmp_path / "positions.json"
    listed.write_text(f'[{{"symbol":"KO","avg_entry_price":"60",{wrong}}}]')
    with pytest.raises(SystemExit):
        read_arguments(["--positions", str(listed)])
    assert "cannot read positions" in capsys.readouterr().err
