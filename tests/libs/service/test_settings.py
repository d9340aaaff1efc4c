from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from apps.market_data_service.settings import MarketDataSettings
from libs.market_data.prices import Mode
from libs.service.settings import (
    AlpacaSettings,
    HttpSettings,
    PriceSettings,
    RedisSettings,
    SettingsError,
    is_loopback,
    load_settings,
)

OURS = (
    "REDIS_",
    "ALPACA_",
    "BIND_HOST",
    "ALLOWED_ORIGINS",
    "API_TOKEN",
    "LOG_",
    "PRICE_TTL",
    "STALE_AFTER",
    "MAX_SPREAD",
    "MARK_RULE",
    "EXTENDED",
)


class EverySettings(RedisSettings, AlpacaSettings, HttpSettings, PriceSettings):
    pass


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> EverySettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(EverySettings)


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **variables)
    assert caught.value.code == 2
    return caught.value.problems


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert settings.redis_dsn == "redis://127.0.0.1:6379/0"
    assert settings.stream_url == "wss://stream.data.alpaca.markets/v2/iex"
    assert settings.data_url == "https://data.alpaca.markets"
    assert settings.trading_url == "https://paper-api.alpaca.markets"
    assert settings.mode is Mode.PAPER
    assert not settings.has_credentials
    assert settings.alpaca_symbol_limit is None
    assert (settings.bind_host, settings.api_token) == ("127.0.0.1", None)
    assert (settings.log_level, settings.log_format) == ("INFO", "console")
    assert (settings.price_ttl_seconds, settings.stale_after_seconds) == (300, 15)
    assert settings.max_spread_pct == Decimal(10)
    assert (settings.mark_rule, settings.extended_hours_marks) == ("mid", True)


@pytest.mark.parametrize("rule", ["mid", "last", "liquidation"])
def test_what_marks(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    settings = load(monkeypatch, MARK_RULE=rule, EXTENDED_HOURS_MARKS="false")
    assert (settings.mark_rule, settings.extended_hours_marks) == (rule, False)


def test_another_mark_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = refused(monkeypatch, MARK_RULE="bid")
    assert "mid, last or liquidation" in problem


def test_the_environment_wins_over_the_file_and_unknown_keys_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("REDIS_PORT=7000\nREDIS_HOST=cache\nSOMETHING_ELSE=1\nALPACA_SYMBOL_LIMIT=\n")
    settings = load(monkeypatch, REDIS_PORT="7001")
    assert settings.redis_dsn == "redis://cache:7001/0"
    assert settings.alpaca_symbol_limit is None


def test_an_empty_value_counts_as_unset_and_hides_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_PORT=7000\n")
    settings = load(
        monkeypatch, REDIS_PORT="", REDIS_URL="", API_TOKEN="  ", ALPACA_API_KEY="", ALPACA_SECRET_KEY=" ",
        ALPACA_STREAM_URL="", LOG_LEVEL="",
    )  # fmt: skip
    assert settings.redis_port == 6379
    assert settings.api_token is None
    assert not settings.has_credentials
    assert settings.log_level == "INFO"


def test_a_redis_url_wins_and_stays_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, REDIS_URL="rediss://user:pa%24s@cache:6380/2", REDIS_PORT="1")
    assert settings.redis_dsn == "rediss://user:pa%24s@cache:6380/2"
    assert "pa%24s" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"ALPACA_PAPER": "false"}, Mode.LIVE),
        ({"ALPACA_FEED": "sip"}, Mode.PAPER),
        ({"ALPACA_FEED": "test", "ALPACA_PAPER": "false"}, Mode.SIMULATED),
        ({"ALPACA_STREAM_URL": "ws://127.0.0.1:8765/v2/iex"}, Mode.SIMULATED),
        ({"ALPACA_STREAM_URL": "wss://stream.data.alpaca.markets/v2/sip"}, Mode.PAPER),
        ({"ALPACA_STREAM_URL": "wss://STREAM.DATA.ALPACA.MARKETS/v2/sip", "ALPACA_PAPER": "no"}, Mode.LIVE),
        ({"ALPACA_STREAM_URL": "wss://stream.data.alpaca.markets.example.com/v2/sip"}, Mode.SIMULATED),
        ({"ALPACA_STREAM_URL": "wss://evilalpaca.markets/v2/sip"}, Mode.SIMULATED),
    ],
)
def test_mode(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mode: Mode) -> None:
    assert load(monkeypatch, **variables).mode is mode


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"ALPACA_STREAM_URL": "wss://proxy.example/v2/iex", "ALPACA_STREAM_MODE": "live"}, Mode.LIVE),
        ({"ALPACA_STREAM_URL": "wss://proxy.example/v2/iex", "ALPACA_STREAM_MODE": "paper"}, Mode.PAPER),
        ({"ALPACA_STREAM_URL": "wss://proxy.example/v2/iex"}, Mode.SIMULATED),
        ({"ALPACA_STREAM_URL": "wss://STREAM.data.Alpaca.Markets.:443/v2/iex"}, Mode.PAPER),
        ({"ALPACA_STREAM_URL": "wss://stream.data.alpaca.markets.evil.example/v2/iex"}, Mode.SIMULATED),
        ({"ALPACA_STREAM_URL": "wss://evil-alpaca.markets/v2/iex"}, Mode.SIMULATED),
        ({"ALPACA_FEED": "test", "ALPACA_STREAM_MODE": "live"}, Mode.SIMULATED),
        ({"ALPACA_PAPER": "false"}, Mode.LIVE),
    ],
)
def test_stream_mode(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mode: Mode) -> None:
    assert load(monkeypatch, **variables).stream_mode is mode


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, Mode.PAPER),
        ({"ALPACA_PAPER": "false"}, Mode.LIVE),
        # The host says it, not the setting.
        ({"ALPACA_TRADING_URL": "https://api.alpaca.markets"}, Mode.LIVE),
        ({"ALPACA_TRADING_URL": "https://PAPER-API.alpaca.markets:443", "ALPACA_PAPER": "false"}, Mode.PAPER),
        ({"ALPACA_TRADING_URL": "https://api.alpaca.markets./"}, Mode.LIVE),
        ({"ALPACA_TRADING_URL": "https://paper-api.alpaca.markets.evil.example"}, Mode.SIMULATED),
        ({"ALPACA_TRADING_URL": "https://evil.example/paper-api.alpaca.markets"}, Mode.SIMULATED),
        ({"ALPACA_TRADING_URL": "https://xapi.alpaca.markets"}, Mode.SIMULATED),
        ({"ALPACA_TRADING_URL": "http://127.0.0.1:8765"}, Mode.SIMULATED),
        ({"ALPACA_STREAM_URL": "ws://127.0.0.1:8765/v2/iex"}, Mode.SIMULATED),
        ({"ALPACA_STREAM_URL": "wss://proxy.example/v2/iex", "ALPACA_STREAM_MODE": "live"}, Mode.SIMULATED),
    ],
)
def test_trading_mode(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mode: Mode) -> None:
    assert load(monkeypatch, **variables).trading_mode is mode


def test_the_live_account_has_its_own_host_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, ALPACA_PAPER="false").trading_url == "https://api.alpaca.markets"
    settings = load(monkeypatch, ALPACA_TRADING_URL="http://127.0.0.1:8765/", ALPACA_DATA_URL="http://127.0.0.1:8765")
    assert settings.trading_url == settings.data_url == "http://127.0.0.1:8765"


def test_keys_are_stripped_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, ALPACA_API_KEY=" PKABC ", ALPACA_SECRET_KEY="s3cr3t\n")
    assert settings.has_credentials
    assert settings.alpaca_api_key == SecretStr("PKABC")
    assert settings.alpaca_secret_key == SecretStr("s3cr3t")
    assert "PKABC" not in repr(settings)
    assert "s3cr3t" not in repr(settings)


def test_all_errors_are_told_at_once_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = refused(
        monkeypatch,
        REDIS_PORT="six",
        REDIS_URL="redis://:pa/s3cr3t@host",
        ALPACA_FEED="opra",
        ALPACA_PAPER="perhaps",
        ALPACA_API_KEY="PKABC",
        ALPACA_STREAM_URL="https://joe:hidden@x",
        ALPACA_DATA_URL="http://x/v2",
        ALPACA_SYMBOL_LIMIT="0",
        BIND_HOST="0.0.0.0",
        LOG_LEVEL="loud",
        STALE_AFTER_SECONDS="nan",
        PRICE_TTL_SECONDS="-1",
        MAX_SPREAD_PCT="inf",
    )
    assert sorted(problem.partition(":")[0].partition("=")[0] for problem in problems) == [
        "ALPACA_DATA_URL", "ALPACA_FEED", "ALPACA_PAPER", "ALPACA_SECRET_KEY", "ALPACA_STREAM_URL",
        "ALPACA_SYMBOL_LIMIT", "API_TOKEN", "LOG_LEVEL", "MAX_SPREAD_PCT", "PRICE_TTL_SECONDS", "REDIS_PORT",
        "REDIS_URL", "STALE_AFTER_SECONDS",
    ]  # fmt: skip
    told = capsys.readouterr().err
    assert all(problem in told for problem in problems)
    assert "REDIS_PORT='six': expected a port number, 1 to 65535" in told
    assert "ALPACA_FEED='opra': expected iex, sip, delayed_sip or test" in told
    assert "ALPACA_DATA_URL: leave /v2 out" in told
    assert "must be set when BIND_HOST is 0.0.0.0" in told
    for secret in ("s3cr3t", "PKABC", "hidden", "joe"):
        assert secret not in told


@pytest.mark.parametrize(
    "url", ["redis://host:70000", "redis://", "http://host", "host:6379", "redis://host/abc", "redis://[::1", "redis://:0"]
)  # fmt: skip
def test_wrong_redis_urls_are_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert len(refused(monkeypatch, REDIS_URL=url)) == 1


@pytest.mark.parametrize("token", ["with space", "ünïcode", "tab\there"])
def test_a_token_that_no_header_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    (problem,) = refused(monkeypatch, API_TOKEN=token)
    assert token not in problem


def test_beyond_loopback_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, BIND_HOST="0.0.0.0", API_TOKEN="t0ken-t0ken-t0ken")
    assert settings.api_token is not None
    assert settings.api_token.get_secret_value() == "t0ken-t0ken-t0ken"


@pytest.mark.parametrize("token", ["t", "hush", "fifteen-letters", "  fifteen-letters  "])
def test_a_short_token_is_refused_with_a_way_to_make_one(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    (problem,) = refused(monkeypatch, API_TOKEN=token)
    assert problem == (
        f"API_TOKEN: has {len(token.strip())} characters, which can be guessed; expected at least 16 visible ASCII "
        'characters without spaces; make one: python -c "import secrets; print(secrets.token_urlsafe(24))"'
    )


def test_sixteen_characters_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, API_TOKEN="sixteen-letters!").api_token is not None


def test_origins_are_read_and_the_wrong_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch).origins == ()
    settings = load(monkeypatch, ALLOWED_ORIGINS="https://Dashboard.example:443, http://localhost:3000")
    assert settings.origins == ("https://dashboard.example", "http://localhost:3000")
    (problem,) = refused(monkeypatch, ALLOWED_ORIGINS="https://a.example,*")
    assert problem.startswith("ALLOWED_ORIGINS='https://a.example,*': '*' would let every web page use this service;")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "127.0.0.1.example.com", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_an_unreadable_file_is_one_clear_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"REDIS_HOST=\xff\xfe\n")
    assert refused(monkeypatch)[0].startswith(".env: ")


def test_settings_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    with pytest.raises(ValueError, match="frozen"):
        settings.redis_port = 1  # type: ignore[misc]


@pytest.mark.parametrize("namespace", ["paper", "A-b_9", "x" * 32])
def test_a_namespace(monkeypatch: pytest.MonkeyPatch, namespace: str) -> None:
    assert load(monkeypatch).redis_namespace == ""
    assert load(monkeypatch, REDIS_NAMESPACE=namespace).redis_namespace == namespace


@pytest.mark.parametrize("namespace", ["a:b", "a b", "*", "a?", "x" * 33, "ä", "a.b", "a/b", "[a]"])
def test_a_namespace_that_cannot_be_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], namespace: str
) -> None:
    with pytest.raises(SettingsError):
        load(monkeypatch, REDIS_NAMESPACE=namespace)
    assert "REDIS_NAMESPACE" in capsys.readouterr().err


URL_FAULTS = (
    ("?token=hunter2", "query"),
    ("?", "query"),
    ("#hunter2", "fragment"),
    ("/path?x=1#y", "query"),
)


@pytest.mark.parametrize(
    "variable", ["ALPACA_STREAM_URL", "ALPACA_DATA_URL", "ALPACA_TRADING_URL", "EXECUTION_GATEWAY_URL"]
)
@pytest.mark.parametrize(
    ("rest", "words"),
    [
        *((f"host.example{rest}", words) for rest, words in URL_FAULTS),
        ("hunter2@host.example", "user or password"),
        ("me:hunter2@host.example", "user or password"),
        ("@host.example", "user or password"),
        ("host.example:0", "port"),
        ("host.example:70000", "port"),
        ("host.example:hunter2", "port"),
        (":80", "name a host"),
        ("[::1", "is no URL"),
        ("host.exa mple", "space"),
    ],
)
def test_an_address_of_http_or_a_stream_is_nothing_but_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, rest: str, words: str
) -> None:
    monkeypatch.setenv(variable, f"{'wss' if variable == 'ALPACA_STREAM_URL' else 'https'}://{rest}")
    monkeypatch.setenv("ALPACA_API_KEY", "k")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "s")
    with pytest.raises(SettingsError) as caught:
        load_settings(MarketDataSettings, env_file=None)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if variable in line]
    assert words in line
    assert "hunter" not in said


@pytest.mark.parametrize(
    "query", ["ssl_cert_reqs=none", "socket_timeout=abc", "decode_responses=true", "protocol=4", "colour=red"]
)
def test_options_of_redis_are_checked_at_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], query: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, REDIS_URL=f"redis://:hunter2@cache/0?{query}")
    assert caught.value.code == 2
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if "REDIS_URL" in line]
    assert f"option '{query.partition('=')[0]}'" in line
    assert "hunter2" not in said
