import pytest

from apps.execution_gateway.settings import GatewaySettings
from libs.market_data.prices import Mode
from libs.service.settings import SettingsError, load_settings


def load() -> GatewaySettings:
    return load_settings(GatewaySettings, env_file=None)


def test_the_defaults(monkeypatch: pytest.MonkeyPatch):
    for name in ("DATABASE_URL", "EXECUTION_GATEWAY_PORT", "POSITION_SOURCE", "ALPACA_STREAM_URL", "API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    settings = load()
    assert settings.execution_gateway_port == 8002
    assert settings.database_url.get_secret_value() == "sqlite:///./var/markstream.db"
    assert str(settings.daily_bars_path) == "data/daily_bars"
    assert settings.mode is Mode.PAPER


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("POSITION_SOURCE", "alpaca", "ALPACA_API_KEY"),
        ("POSITION_SOURCE", "memory", "ledger"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "postgresql://"),
        ("DATABASE_URL", "sqlite://", "names no database"),
        ("EXECUTION_GATEWAY_PORT", "http", "port number"),
    ],
)
def test_what_is_refused_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, hint: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError):
        load()
    said = capsys.readouterr().err
    assert name in said
    assert hint in said
    assert "hunter2" not in said
