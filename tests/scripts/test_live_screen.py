"""The screen of `make run`, before services whose answers are written down."""

import io
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from rich.console import Console

from libs.service.settings import load_settings
from libs.service.supervise import Supervisor
from scripts import live_screen
from scripts.live_screen import Screen
from scripts.local_services import LocalServicesSettings, client
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.waiting import eventually

PNL = "/api/v1/positions/pnl/realtime"
HEALTHY = '{"status":"healthy","reasons":[]}'


def pnl(source: str, age: str = "0.2") -> str:
    return f"""{{"positions":[{{"symbol":"AAPL","unrealized_pnl":200.00,"current_price":152.00,
      "price_source":"{source}","qty":100,"avg_entry_price":150.00,"market_value":15200.00,"day_pnl":120.00,
      "price_age_seconds":{age}}}],"total_unrealized":200.00,"total_realized":0.00,"total_fees":0.00,
      "total_day_pnl":120.00,"total_market_value":15200.00,"complete":true,"unpriced":[],"mode":"simulated",
      "feed":{{"connected":true,"state":"streaming","since":"2025-10-20T14:00:00+00:00"}},
      "calculated_at":"2025-10-20T14:30:15+00:00","calculation_id":"1"}}"""


@dataclass
class Shown:
    screen: Screen
    gateway: ScriptedHttp
    paper: io.StringIO

    @property
    def text(self) -> str:
        """What the terminal got since it was asked last."""
        text = self.paper.getvalue()
        self.paper.seek(0)
        self.paper.truncate()
        return text


@pytest.fixture
async def shown(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Shown]:
    """A screen that is being shown; `request.param` says whether on a terminal."""
    paper = io.StringIO()
    console = Console(file=paper, width=150, force_terminal=request.param)
    async with scripted_http() as one, scripted_http() as other, client() as http:
        monkeypatch.setenv("MARKET_DATA_PORT", str(one.port))
        monkeypatch.setenv("EXECUTION_GATEWAY_URL", other.url)
        settings = load_settings(LocalServicesSettings, env_file=None)
        one.say("/health", HEALTHY)
        other.say("/health", HEALTHY)
        other.say(PNL, pnl("real-time"))
        screen = Screen(settings, http, "simulated", ["at home"], ["nothing is held"], console)
        owner = Supervisor(lambda *_death: None)
        owner.spawn("screen", screen.show)
        yield Shown(screen, other, paper)
        await owner.stop()
        assert not owner.failures


@pytest.mark.parametrize("shown", [True], indirect=True)
async def test_a_halt_is_shown_with_the_age_of_its_quote(shown: Shown) -> None:
    await eventually(lambda: "real-time" in shown.text)
    shown.gateway.say(PNL, pnl("halted", "7200.5"))
    said_s = time.monotonic()

    def is_shown() -> bool:
        text = shown.text
        return "halted" in text and "2 h" in text

    await eventually(is_shown)
    assert time.monotonic() - said_s < 2


@pytest.mark.parametrize("shown", [True], indirect=True)
async def test_figures_of_a_gateway_that_answers_no_more_are_taken_away(shown: Shown) -> None:
    await eventually(lambda: "real-time" in shown.text)
    for path in (PNL, "/health"):
        shown.gateway.say(path, Said(after_s=60))
    froze_s = time.monotonic()

    def is_taken_away() -> bool:
        text = shown.text
        return "No P&L: no answer within 2 s" in text and "execution gateway: no answer" in text

    await eventually(is_taken_away, within_s=8)
    assert time.monotonic() - froze_s < 6
    # What was drawn first may have been the last look of before: the next shows nothing live.
    await eventually(lambda: "No P&L" in (text := shown.text) and "real-time" not in text, within_s=5)


@pytest.mark.parametrize("shown", [False], indirect=True)
async def test_plain_lines_come_at_once_when_a_source_changes_and_seldom_else(
    shown: Shown, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_screen, "_PLAIN_EVERY_S", 60.0)
    await eventually(lambda: len([one for one in shown.gateway.asked if one.path == PNL]) >= 4)
    assert capsys.readouterr().out.count("source=real-time") == 1
    shown.gateway.say(PNL, pnl("stale", "16"))
    said_s = time.monotonic()
    await eventually(lambda: "source=stale age=16s" in capsys.readouterr().out)
    assert time.monotonic() - said_s < 2
