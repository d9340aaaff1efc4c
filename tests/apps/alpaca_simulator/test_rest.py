"""The REST calls over HTTP, as written in Alpaca's reference."""

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import httpx2
import pytest

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.market import MarketSetting
from tests.support.simulator import running_simulator
from tests.support.stream_client import authenticated

HEADERS = {"APCA-API-KEY-ID": "K", "APCA-API-SECRET-KEY": "S"}
BARS = {"symbols": "AAPL", "timeframe": "1Day", "start": "2025-01-02", "end": "2025-01-31"}


@asynccontextmanager
async def simulator_and_client(**config):
    config.setdefault("rate", 0)
    async with (
        running_simulator(**config) as sim,
        httpx2.AsyncClient(base_url=sim.base_url, headers=HEADERS, timeout=30) as http,
    ):
        yield sim, http


async def get(http, path, **query):
    answer = await http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Markstream-Simulator"] == "simulated"
    return answer.json()


async def test_latest_quotes():
    async with simulator_and_client(silent_symbols=["KO"], one_sided_symbols=["F"]) as (sim, http):
        quotes = (await get(http, "/v2/stocks/quotes/latest", symbols="AAPL,KO,F,AAPL", feed="iex"))["quotes"]
        assert list(quotes) == ["AAPL", "F"]
        assert set(quotes["AAPL"]) == {"t", "ax", "ap", "as", "bx", "bp", "bs", "c", "z"}
        assert quotes["AAPL"]["bx"] == "V"
        assert quotes["F"]["ap"] == 0
        sim.emit("AAPL", 151.99, 152.01, bid_exchange="Q")
        one = await get(http, "/v2/stocks/AAPL/quotes/latest")
        assert one["symbol"] == "AAPL"
        assert (one["quote"]["bp"], one["quote"]["ap"], one["quote"]["bx"]) == (151.99, 152.01, "Q")


async def test_latest_trades():
    async with simulator_and_client() as (sim, http):

        async def latest():
            return (await get(http, "/v2/stocks/trades/latest", symbols="AAPL,KO", feed="iex"))["trades"]

        sim.emit("AAPL", 151.99, 152.01)
        assert await latest() == {}
        sim.trade("AAPL", 152.0, trade_id=1, exchange="Q")
        sim.trade("AAPL", 152.01, trade_id=2, size=300)
        sim.trade("AAPL", 140.0, conditions=("@", "I"))
        trades = await latest()
        assert list(trades) == ["AAPL"]
        assert set(trades["AAPL"]) == {"t", "x", "p", "s", "c", "i", "z"}
        assert {key: trades["AAPL"][key] for key in "xpsciz"} == {
            "x": "V", "p": 152.01, "s": 300, "c": ["@"], "i": 2, "z": "C",
        }  # fmt: skip
        sim.cancel_trade("AAPL")
        assert (await latest())["AAPL"]["x"] == "Q"
        sim.correct_trade("AAPL", 1, price=151.5)
        assert (await latest())["AAPL"]["p"] == 151.5
        assert (await get(http, "/v2/stocks/snapshots", symbols="AAPL"))["AAPL"]["latestTrade"]["p"] == 151.5


async def test_rest_and_stream_tell_the_same():
    async with simulator_and_client() as (sim, http), authenticated(sim.stream_url()) as client:
        await client.ask({"action": "subscribe", "quotes": ["AAPL"]})
        sim.emit("AAPL", 10.5, 10.75)
        (streamed,) = await client.points(1)
        asked = (await get(http, "/v2/stocks/quotes/latest", symbols="AAPL"))["quotes"]["AAPL"]
        assert {key: streamed[key] for key in asked if key != "t"} == {k: v for k, v in asked.items() if k != "t"}
        assert datetime.fromisoformat(asked["t"]) == streamed["t"].to_datetime()


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/v2/stocks/quotes/latest", {}, 400),
        ("/v2/stocks/quotes/latest", {"symbols": "AAPL,b ad"}, 400),
        ("/v2/stocks/quotes/latest", {"symbols": "AAPL", "feed": "test"}, 400),
        ("/v2/stocks/aapl/quotes/latest", {}, 400),
        ("/v2/stocks/KO/quotes/latest", {}, 404),
        ("/v2/stocks/bars", BARS | {"timeframe": "1Min"}, 400),
        ("/v2/stocks/bars", BARS | {"limit": "0"}, 400),
        ("/v2/stocks/bars", BARS | {"limit": "many"}, 400),
        ("/v2/stocks/bars", BARS | {"start": "yesterday"}, 400),
        ("/v2/stocks/bars", BARS | {"page_token": "%%%"}, 400),
        ("/v2/stocks/bars", BARS | {"page_token": "QUFQTA=="}, 400),
        ("/v2/stocks/bars", BARS | {"end": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, 403),
        ("/v2/stocks/nothing", {}, 404),
        ("/v2/positions/AAPL", {}, 404),
    ],
)
async def test_refusals(path, query, status):
    async with simulator_and_client(silent_symbols=["KO"]) as (_, http):
        answer = await http.get(path, params=query)
        assert answer.status_code == status
        assert answer.headers["X-Markstream-Simulator"] == "simulated"


async def test_keys_are_asked_for():
    async with simulator_and_client(key="K", secret="T") as (sim, http):
        refused = await http.get("/v2/clock")
        assert refused.status_code == 401
        assert refused.json() == {"message": "unauthorized.", "code": 40110000}
        refused = await http.get("/v2/stocks/quotes/latest", params={"symbols": "AAPL"})
        assert refused.json() == {"message": "unauthorized."}
        async with httpx2.AsyncClient(base_url=sim.base_url) as nobody:
            assert (await nobody.get("/v2/account")).status_code == 401
        assert (await http.get("/v2/clock", headers={"APCA-API-SECRET-KEY": "T"})).status_code == 200


async def test_faults_of_rest():
    async with simulator_and_client() as (sim, http):
        sim.faults = replace(sim.faults, rest_status=503, rest_delay_s=0.01)
        broken = await http.get("/v2/clock")
        assert (broken.status_code, broken.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        sim.faults = replace(sim.faults, rest_status=429)
        assert (await http.get("/v2/clock")).json()["code"] == 42910000


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_may_ask_to_wait(status):
    async with simulator_and_client() as (sim, http):
        sim.faults = Faults(rest_status=status, rest_retry_after_s=3)
        refused = await http.get("/v2/clock")
        assert (refused.status_code, refused.headers["Retry-After"]) == (status, "3")
        sim.faults = Faults(rest_status=status)
        assert "Retry-After" not in (await http.get("/v2/clock")).headers


async def test_html_and_garbage_with_a_good_status():
    quotes = "/v2/stocks/quotes/latest?symbols=AAPL"
    async with simulator_and_client() as (sim, http):
        sim.faults = Faults(rest_html=True)
        answer = await http.get(quotes)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        sim.faults = Faults(rest_garbage=True)
        answers = [await http.get(quotes) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        assert sum(answer.text == '{"quotes": null}' for answer in answers) == 2
        cut = next(answer for answer in answers if answer.text != '{"quotes": null}')
        with pytest.raises(ValueError):  # noqa: PT011 - whatever this client's parser raises
            cut.json()
        sim.faults = NO_FAULTS
        assert "AAPL" in (await http.get(quotes)).json()["quotes"]


@pytest.mark.parametrize("paths", ["all", "quotes", "clock"])
async def test_the_faults_of_rest_can_be_narrowed(paths):
    asked = (
        "/v2/stocks/quotes/latest?symbols=AAPL", "/v2/stocks/AAPL/quotes/latest", "/v2/stocks/snapshots?symbols=AAPL",
        "/v2/clock", "/v2/positions", "/v2/account",
    )  # fmt: skip
    async with simulator_and_client() as (sim, http):
        sim.faults = Faults(rest_status=500, rest_paths=paths)
        statuses = {path: (await http.get(path)).status_code for path in asked}
    wrong = {path for path, status in statuses.items() if status == 500}
    assert wrong == {"all": set(asked), "quotes": set(asked[:3]), "clock": {"/v2/clock"}}[paths]


async def test_a_delay_is_for_the_paths_it_is_meant_for():
    async with simulator_and_client() as (sim, http):
        sim.faults = Faults(rest_delay_s=60, rest_paths="quotes")
        assert (await http.get("/v2/clock", timeout=5)).status_code == 200
        with pytest.raises(httpx2.ReadTimeout):
            await http.get("/v2/stocks/quotes/latest?symbols=AAPL", timeout=0.3)


async def test_daily_bars_by_pages():
    async with simulator_and_client() as (_, http):
        whole = await get(http, "/v2/stocks/bars", **BARS | {"symbols": "MSFT,AAPL"}, feed="sip")
        assert whole["next_page_token"] is None
        assert list(whole["bars"]) == ["AAPL", "MSFT"]
        days = [bar["t"][:10] for bar in whole["bars"]["AAPL"]]
        assert (days[0], days[-1], len(days)) == ("2025-01-02", "2025-01-31", 20)  # two holidays, Carter's included
        assert whole["bars"]["AAPL"][0]["t"] == "2025-01-02T05:00:00Z"

        pieces, token = [], None
        while True:
            query = BARS | {"symbols": "MSFT,AAPL", "limit": 7} | ({"page_token": token} if token else {})
            page = await get(http, "/v2/stocks/bars", **query)
            pieces += [(symbol, bar) for symbol, bars in page["bars"].items() for bar in bars]
            token = page["next_page_token"]
            if token is None:
                break
            assert sum(map(len, page["bars"].values())) == 7
        assert pieces == [(symbol, bar) for symbol, bars in whole["bars"].items() for bar in bars]


async def test_iex_bars_are_not_the_official_ones():
    async with simulator_and_client() as (_, http):
        official = (await get(http, "/v2/stocks/bars", **BARS, feed="sip"))["bars"]["AAPL"]
        iex = (await get(http, "/v2/stocks/bars", **BARS, feed="iex"))["bars"]["AAPL"]
        assert [bar["t"] for bar in iex] == [bar["t"] for bar in official]
        assert [bar["c"] for bar in iex] != [bar["c"] for bar in official]


async def test_bars_without_a_range_are_todays_or_none():
    async with simulator_and_client() as (_, http):
        bars = (await get(http, "/v2/stocks/bars", symbols="AAPL", timeframe="1D"))["bars"]
        assert len(bars.get("AAPL", [])) <= 1


async def test_a_start_within_a_day_begins_with_the_next():
    async with simulator_and_client() as (_, http):
        query = BARS | {"start": "2025-01-02T14:30:00Z", "end": "2025-01-06T14:29:00Z"}
        bars = (await get(http, "/v2/stocks/bars", **query))["bars"]["AAPL"]
        assert [bar["t"][:10] for bar in bars] == ["2025-01-03"]


async def test_snapshots():
    async with simulator_and_client(silent_symbols=["KO"]) as (_, http):
        snapshots = await get(http, "/v2/stocks/snapshots", symbols="AAPL,KO")
        apple = snapshots["AAPL"]
        assert apple["latestQuote"]["bp"] > 0
        assert apple["dailyBar"]["t"] > apple["prevDailyBar"]["t"]
        assert snapshots["KO"]["latestQuote"] is None
        assert snapshots["KO"]["prevDailyBar"]["c"] > 0


@pytest.mark.parametrize("setting", MarketSetting)
async def test_clock(setting):
    async with simulator_and_client(market=setting) as (_, http):
        clock = await get(http, "/v2/clock")
        now = datetime.fromisoformat(clock["timestamp"])
        next_open, next_close = (datetime.fromisoformat(clock[name]) for name in ("next_open", "next_close"))
        assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)
        assert min(next_open, next_close) > now
        if setting is MarketSetting.AUTO:
            assert clock["is_open"] == (next_close < next_open)
        else:
            assert clock["is_open"] == (setting is MarketSetting.OPEN)


async def test_calendar():
    async with simulator_and_client() as (_, http):
        days = await get(http, "/v2/calendar", start="2024-11-27", end="2024-12-02")
        assert [day["date"] for day in days] == ["2024-11-27", "2024-11-29", "2024-12-02"]
        assert days[0] == {
            "date": "2024-11-27",
            "open": "09:30",
            "close": "16:00",
            "session_open": "0400",
            "session_close": "2000",
            "settlement_date": "2024-11-29",
        }
        assert days[1]["close"] == "13:00"
        assert len(await get(http, "/v2/calendar")) > 200


async def test_positions_add_up():
    held = (
        HeldPosition("AAPL", Decimal(-2478), Decimal("8.36")),
        HeldPosition("KO", Decimal("1.5"), Decimal("60.00")),
    )
    async with simulator_and_client(positions=held, silent_symbols=["KO"]) as (sim, http):
        sim.emit("AAPL", 8.90, 8.92)
        short, fraction = await get(http, "/v2/positions")
        assert short["side"] == "short"
        assert (short["qty"], short["market_value"], short["cost_basis"]) == ("-2478", "-22078.98", "-20716.08")
        assert (short["unrealized_pl"], short["current_price"]) == ("-1362.9", "8.91")
        assert Decimal(short["unrealized_plpc"]) == Decimal("-1362.90") / Decimal("20716.08")
        assert fraction["current_price"] == fraction["lastday_price"]
        assert Decimal(fraction["change_today"]) == 0
        assert await get(http, "/v2/positions/KO") == fraction
        assert await get(http, f"/v2/positions/{short['asset_id']}") == short

        account = await get(http, "/v2/account")
        value = sum(Decimal(position["market_value"]) for position in (short, fraction))
        assert Decimal(account["equity"]) - Decimal(account["cash"]) == value
        moved = sum(Decimal(position["unrealized_intraday_pl"]) for position in (short, fraction))
        assert Decimal(account["equity"]) - Decimal(account["last_equity"]) == moved
        assert date.fromisoformat(account["balance_asof"]) < datetime.now(UTC).date() + timedelta(days=1)
