import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from rich.console import Console

from libs.service.settings import load_settings
from scripts.local_services import LocalServicesSettings
from scripts.status import Report, Verdict, as_json, look, main, show
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http

PNL = """{"positions":[{"symbol":"AAPL","unrealized_pnl":200.00,"current_price":152.00,"price_source":"real-time",
 "qty":100,"avg_entry_price":150.00,"market_value":15200.00,"unrealized_pnl_pct":1.3333,"realized_pnl":0.00,
 "day_pnl":120.00,"bid":151.99,"ask":152.01,"price_age_seconds":0.212,"closing_date":null}],
 "total_unrealized":200.00,"total_realized":0.00,"total_fees":0.00,"total_day_pnl":120.00,
 "total_market_value":15200.00,"complete":true,"unpriced":[],"mode":"simulated",
 "feed":{"connected":true,"state":"streaming","since":"2025-10-20T14:00:00+00:00"},
 "calculated_at":"2025-10-20T14:30:15+00:00","calculation_id":"1"}"""


def market_data(status: str = "healthy", reasons: str = "[]", last_error: str = "null") -> str:
    return f"""{{"status":"{status}","websocket_connected":true,"subscribed_symbols":3,"version":"0.1.0",
      "mode":"simulated","link":{{"state":"streaming","since":"2025-10-20T14:00:00+00:00",
      "last_frame_age_seconds":0.4,"reconnects":2,"last_error":{last_error}}},
      "market":{{"state":"open","next_change":"2025-10-20T20:00:00+00:00","said_by":"account clock"}},
      "reasons":{reasons}}}"""


def gateway(status: str = "healthy", reasons: str = "[]") -> str:
    return f'{{"status":"{status}","mode":"simulated","reasons":{reasons}}}'


@dataclass
class Services:
    market_data: ScriptedHttp
    gateway: ScriptedHttp

    def say(self, market_data_health: Said | str, gateway_health: Said | str, pnl: Said | str = PNL) -> None:
        self.market_data.say("/health", market_data_health)
        self.gateway.say("/health", gateway_health)
        self.gateway.say("/api/v1/positions/pnl/realtime", pnl)


@pytest.fixture
async def services(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    async with scripted_http() as one, scripted_http() as other:
        monkeypatch.setenv("MARKET_DATA_PORT", str(one.port))
        monkeypatch.setenv("EXECUTION_GATEWAY_URL", other.url)
        yield Services(one, other)


async def looked() -> Report:
    return await look(load_settings(LocalServicesSettings, env_file=None))


def screen(report: Report, *, is_terminal: bool = True) -> str:
    console = Console(file=io.StringIO(), width=150, record=True, force_terminal=is_terminal)
    show(report, console)
    return console.export_text()


@pytest.mark.parametrize(
    ("one", "other", "pnl", "verdict"),
    [
        (market_data(), gateway(), PNL, Verdict.HEALTHY),
        (market_data("degraded"), gateway(), PNL, Verdict.DEGRADED),
        (market_data(), gateway("degraded"), PNL, Verdict.DEGRADED),
        (market_data("unhealthy"), gateway("degraded"), PNL, Verdict.DOWN),
        (market_data(), gateway("unhealthy"), PNL, Verdict.DOWN),
        (market_data("???"), gateway(), PNL, Verdict.DOWN),
        (Said("<html>", 502), gateway(), PNL, Verdict.DOWN),
        (market_data(), Said("{}", 401), PNL, Verdict.DOWN),
        (market_data(), gateway(), Said('{"detail":"database"}', 503), Verdict.DEGRADED),
    ],
)
async def test_the_verdict_is_the_worst_of_what_was_found(
    services: Services, one: Said | str, other: Said | str, pnl: Said | str, verdict: Verdict
) -> None:
    services.say(one, other, pnl)
    assert (await looked()).verdict is verdict


async def test_the_screen_shows_it_all(services: Services) -> None:
    reasons = '[{"code":"redis_away","detail":"Redis is away"},"and more",{"code":"only_a_code"},{}]'
    services.say(market_data("degraded", reasons, '{"code":406,"message":"slot held"}'), gateway())
    shown = screen(await looked())
    assert "Markstream is degraded" in shown
    assert "Redis is away; and more; only_a_code" in shown
    assert services.gateway.url in shown
    assert "Link: streaming since Mon 10:00:00 New York" in shown
    assert "last frame 0.4 s ago; 2 reconnects; symbols wanted: 3" in shown
    assert "Last error of the link: slot held" in shown
    assert "Market: open, next change Mon 16:00:00 New York" in shown
    assert "(says the account clock)" in shown
    assert shown.count("SIMULATED: made-up prices, no real money") == 1
    assert "+200.00" in shown


async def test_without_a_terminal_there_are_plain_lines(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    services.say(market_data(), gateway())
    screen(await looked(), is_terminal=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "markstream: healthy"
    assert lines[1] == f"market data: healthy {services.market_data.url}"
    assert "SIMULATED: made-up prices, no real money" in lines
    assert any(line.startswith("AAPL qty=100 price=152.00 unrealized=+200.00") for line in lines)


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_without_pnl_the_mode_still_stands_there(
    services: Services, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    services.say(market_data(), gateway("unhealthy"), Said('{"detail":"the database is away"}', 503))
    shown = screen(await looked(), is_terminal=is_terminal) + capsys.readouterr().out
    assert "SIMULATED: made-up prices, no real money" in shown
    assert "o P&L: answered 503: the database is away" in shown


async def test_the_market_may_be_known_by_the_gateway_alone(services: Services) -> None:
    body = '{"status":"healthy","market":{"state":"closed","next_change":null,"said_by":"calendar"}}'
    services.say(Said("{}", 500), body)
    assert "Market: closed, next change — (says the calendar)" in screen(await looked())


async def test_a_service_that_says_little_is_shown_as_far_as_it_goes(services: Services) -> None:
    services.say('{"status":"healthy"}', '{"status":"healthy"}', '{"positions":[]}')
    shown = screen(await looked())
    assert "Link" not in shown
    assert "Market" not in shown
    assert "MODE UNKNOWN" in shown
    nothing = Said("", 500)
    services.say(nothing, nothing, nothing)
    assert "MODE UNKNOWN" in screen(await looked())


async def test_the_machines_form_keeps_every_digit(services: Services) -> None:
    services.say(market_data(), gateway())
    written = as_json(await looked())
    assert b'"avg_entry_price":150.00,' in written
    assert b'"price_age_seconds":0.212' in written
    read = json.loads(written)
    assert read["status"] == "healthy"
    assert read["pnl"]["body"]["positions"][0]["symbol"] == "AAPL"
    assert read["market_data"] == {
        "url": f"{services.market_data.url}/health",
        "http_status": 200,
        "error": None,
        "body": json.loads(market_data()),
    }


async def test_the_command(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    services.say(market_data(), gateway("degraded"))
    assert await asyncio.to_thread(main, ["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "degraded"
    assert await asyncio.to_thread(main, []) == 1
    assert capsys.readouterr().out.startswith("markstream: degraded")


async def test_nothing_runs(
    free_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MARKET_DATA_PORT", str(free_port))
    monkeypatch.setenv("EXECUTION_GATEWAY_PORT", str(free_port))
    assert await asyncio.to_thread(main, ["--json"]) == 2
    read = json.loads(capsys.readouterr().out)
    assert (read["status"], read["market_data"]["http_status"], read["pnl"]["body"]) == ("down", None, None)
