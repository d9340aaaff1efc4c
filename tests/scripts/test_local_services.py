from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from libs.service.settings import SettingsError, load_settings
from scripts.local_services import LocalServicesSettings, ask, client, read_body
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        yield script


def settings_from(monkeypatch: pytest.MonkeyPatch, **variables: str) -> LocalServicesSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(LocalServicesSettings, env_file=None)


@pytest.mark.parametrize(
    ("bind_host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8004"),
        ("0.0.0.0", "http://127.0.0.1:8004"),
        ("::", "http://[::1]:8004"),
        ("::1", "http://[::1]:8004"),
        ("192.168.1.5", "http://192.168.1.5:8004"),
    ],
)
def test_where_the_services_are(monkeypatch: pytest.MonkeyPatch, bind_host: str, expected: str) -> None:
    settings = settings_from(monkeypatch, BIND_HOST=bind_host, API_TOKEN="t" * 16)
    assert settings.market_data_url == expected
    assert settings.gateway_url == expected.replace("8004", "8002")


def test_the_gateways_address_wins_over_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_from(
        monkeypatch, EXECUTION_GATEWAY_URL="https://gateway.example/", EXECUTION_GATEWAY_PORT="9", API_TOKEN=""
    )
    assert settings.gateway_url == "https://gateway.example"
    assert settings.token is None


def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError):
        settings_from(monkeypatch, EXECUTION_GATEWAY_URL="gateway")
    assert "EXECUTION_GATEWAY_URL" in capsys.readouterr().err


async def test_a_good_answer_keeps_its_digits_and_gets_the_token(server: ScriptedHttp) -> None:
    server.say("/health", '{"a":150.10,"b":1}')
    async with client() as http:
        answer = await ask(http, f"{server.url}/health", "hush")
    assert answer.body == {"a": Decimal("150.10"), "b": 1}
    assert (answer.status, answer.error, answer.text) == (200, None, '{"a":150.10,"b":1}')
    assert server.asked[0].headers["Authorization"] == "Bearer hush"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (Said('{"title":"x","detail":"no database"}', 503), "answered 503: no database"),
        (Said('{"title":"Gone"}', 410), "answered 410: Gone"),
        (Said("{}", 500), "answered 500: no reason given"),
        (Said("{}", 401), "answered 401: set API_TOKEN to the services' token"),
        (Said("<html>", 502), "answered 502 with something else than JSON"),
        (Said("[]", 200), "answered 200 with something else than JSON"),
        (Said('{"a":NaN}', 200), "answered 200 with something else than JSON"),
        (Said(b"\xff\xfe", 200), "answered 200 with something else than JSON"),
        (Said("{}", after_s=9), "no answer within 0.3 s"),
        (Said("{}" * 9, drip_s=0.2), "no answer within 0.3 s"),
    ],
)
async def test_a_bad_answer_is_told(
    server: ScriptedHttp, said: Said, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.local_services.PATIENCE_S", 0.3)
    server.say("/health", said)
    async with client() as http:
        answer = await ask(http, f"{server.url}/health", None)
    assert answer.error == error
    assert "Authorization" not in server.asked[0].headers


async def test_nobody_there(free_port: int) -> None:
    async with client() as http:
        answer = await ask(http, f"http://127.0.0.1:{free_port}/health", None)
    assert answer.status is None
    assert answer.error is not None
    assert answer.error.startswith("cannot be reached")


@pytest.mark.parametrize("text", ["", "1", "null", '{"a":Infinity}', "{"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words vary
        read_body(text)
