import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts.run_local import RunSettings, StartError, check_ports, make_plan, read_arguments

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
KEYS = {"alpaca_api_key": "key", "alpaca_secret_key": "secret"}


def settings(**fields: object) -> RunSettings:
    return RunSettings(_env_file=None, **fields)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RunSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_without_keys_the_demo_runs_apart_from_everything_real() -> None:
    plan = make_plan(settings(), read_arguments([]), NOW)
    assert plan.mode == "simulated"
    assert plan.folder == Path("var/demo")
    assert plan.simulator is not None
    assert len({fill["symbol"] for fill in plan.fills}) == 12
    assert all(datetime.fromisoformat(fill["filled_at"]) < NOW for fill in plan.fills)
    assert "var/demo/ledger.db" in plan.environment["DATABASE_URL"]
    assert plan.environment["ALPACA_STREAM_URL"] == "ws://127.0.0.1:8765/v2/iex"


@pytest.mark.parametrize("source", [KEYS, {"alpaca_stream_url": "ws://127.0.0.1:9/v2/iex"}])
def test_with_a_source_of_ones_own_nothing_is_made_up(source: dict[str, str]) -> None:
    plan = make_plan(settings(**source), read_arguments([]), NOW)
    assert (plan.simulator, plan.fills, plan.environment) == (None, (), {})
    assert plan.folder == Path("var")


@pytest.mark.parametrize("paper", [True, False])
def test_whose_money_it_is_comes_from_the_settings(*, paper: bool) -> None:
    plan = make_plan(settings(**KEYS, alpaca_paper=paper), read_arguments([]), NOW)
    assert plan.mode == ("paper" if paper else "live")


def test_a_recording_is_replayed_even_when_keys_are_set(tmp_path: Path) -> None:
    recording = tmp_path / "day.csv"
    recording.write_text(
        "timestamp,symbol,bid_price,bid_size,bid_exchange,ask_price,ask_size,ask_exchange\n"
        "2025-10-17T13:30:00Z,AAPL,247.10,100,V,247.14,200,V\n"
    )
    plan = make_plan(settings(**KEYS), read_arguments(["--replay", str(recording), "--speed", "10"]), NOW)
    assert plan.mode == "replay"
    assert [fill["symbol"] for fill in plan.fills] == ["AAPL"]
    assert plan.environment["ALPACA_API_KEY"] != "key"
    assert str(plan.folder).startswith("var/demo/replay-day-")


def test_a_recording_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="missing"):
        make_plan(settings(), read_arguments(["--replay", str(tmp_path / "missing.csv")]), NOW)


def test_the_demos_fills_never_reach_another_gateway() -> None:
    asked = settings(execution_gateway_url="http://elsewhere:8002", execution_gateway_port=9002)
    assert asked.gateway_url == "http://127.0.0.1:9002"


def test_a_taken_port_is_named_with_its_variable(free_port: int) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        with pytest.raises(StartError, match=f"port {free_port} .*MARKET_DATA_PORT"):
            check_ports(settings(market_data_port=free_port), with_simulator=False)


@pytest.mark.parametrize("arguments", [["--speed", "0"], ["--speed", "fast"], ["--unknown"]])
def test_a_wrong_argument_ends_with_2_and_the_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_arguments(arguments)
    assert ended.value.code == 2


def test_a_made_up_account_is_mirrored_from_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = tmp_path / "var" / "demo" / "mirror" / "ledger.db"
    ledger.parent.mkdir(parents=True)
    ledger.write_text("of an account that is no more")
    plan = make_plan(settings(), read_arguments(["--mirror"]), NOW)
    assert not ledger.exists()
    assert (plan.environment["POSITION_SOURCE"], plan.fills) == ("alpaca", ())
    assert plan.simulator is not None
    held = {one["symbol"]: one["qty"] for one in json.loads(Path(plan.simulator[1]).read_text())}
    assert (held["MSFT"], held["TSLA"], held["KO"]) == ("50", "-40", "12.345678")


def test_no_account_is_made_up_beside_real_keys() -> None:
    with pytest.raises(StartError, match="POSITION_SOURCE=alpaca"):
        make_plan(settings(**KEYS), read_arguments(["--mirror"]), NOW)
