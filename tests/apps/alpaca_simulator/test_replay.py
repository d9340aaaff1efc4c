"""Recordings: reading them, and playing them through the stream and REST."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import httpx2
import polars as pl
import pytest

from apps.alpaca_simulator.config import FASTEST
from apps.alpaca_simulator.recording import RecordingError, read_recording
from apps.alpaca_simulator.simulator import Simulator, SimulatorConfig
from tests.support.simulator import running_simulator
from tests.support.stream_client import authenticated

HEADER = "timestamp,symbol,bid_price,bid_size,bid_exchange,ask_price,ask_size,ask_exchange\n"
LINE = "2025-10-17T13:30:00.000000001Z,AAPL,248.01,200,V,248.05,100,V\n"
BEGIN_NS = 1_760_707_800_000_000_000  # 2025-10-17T13:30:00Z
SUBSCRIBE = {"action": "subscribe", "quotes": ["AAPL", "MSFT"]}


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "quotes.csv"
    rows = [
        f"{BEGIN_NS + n * 100_000_000},{symbol},{100 + n},200,Q,{100 + n}.05,100,P"
        for n in range(5)
        for symbol in ("AAPL", "MSFT")
    ]
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return path


def write(tmp_path, text, name="quotes.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_line_of_csv(tmp_path):
    recording = read_recording(write(tmp_path, HEADER + LINE))
    (quote,) = recording.quotes()
    assert (quote.symbol, quote.time_ns) == ("AAPL", BEGIN_NS + 1)
    assert (quote.bid_price, quote.bid_size, quote.bid_exchange) == (248.01, 200, "V")
    assert (quote.ask_price, quote.ask_size, quote.ask_exchange) == (248.05, 100, "V")
    assert recording.symbols == {"AAPL"}
    assert recording.first_prices["AAPL"] == pytest.approx(248.03)


@pytest.mark.parametrize(
    ("text", "offset_ns"),
    [
        ("2025-10-17T13:30:00Z", 0),
        ("2025-10-17T09:30:00.5-04:00", 500_000_000),
        ("2025-10-17T13:30:00.000000123+00:00", 123),
        ("2025-10-17T13:30:00.25", 250_000_000),
        ("2025-10-17 13:30:00", 0),
        (f"{BEGIN_NS + 7}", 7),
    ],
)
def test_times_in_every_form(tmp_path, text, offset_ns):
    path = write(tmp_path, HEADER + LINE.replace("2025-10-17T13:30:00.000000001Z", text))
    assert [quote.time_ns for quote in read_recording(path).quotes()] == [BEGIN_NS + offset_ns]


def test_quotes_are_put_in_order_and_missing_sides_are_zero(tmp_path):
    text = (
        HEADER + f"{BEGIN_NS + 5},B,,,,2.5,100,V\n{BEGIN_NS},A,1.5,100.0,V,0,0,\n{BEGIN_NS + 5},A,1.6,100,V,1.7,100,V\n"
    )
    first, second, third = read_recording(write(tmp_path, text)).quotes()
    assert (first.symbol, first.ask_price, first.ask_size, first.ask_exchange) == ("A", 0.0, 0, " ")
    assert (second.symbol, second.bid_price, second.bid_size) == ("B", 0.0, 0)
    assert third.symbol == "A"


@pytest.mark.parametrize("unit", ["ns", "us", "ms", None])
def test_parquet_with_times_of_any_unit(tmp_path, unit):
    begin = datetime(2025, 10, 17, 13, 30, tzinfo=UTC)
    times = pl.Series([begin, begin + timedelta(seconds=1)])
    times = times.dt.timestamp("ns") if unit is None else times.dt.cast_time_unit(unit)
    path = tmp_path / "quotes.parquet"
    pl.DataFrame(
        {
            "timestamp": times, "symbol": ["AAPL", "aapl"], "bid_price": [1.0, 2.0], "bid_size": [100, None],
            "bid_exchange": ["V", None], "ask_price": [1.5, 2.5], "ask_size": [100, 200], "ask_exchange": ["V", "V"],
        }
    ).write_parquet(path)  # fmt: skip
    recording = read_recording(path)
    assert [quote.time_ns - BEGIN_NS for quote in recording.quotes()] == [0, 1_000_000_000]
    assert recording.symbols == {"AAPL"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("missing.csv", None, "there is no such file"),
        ("quotes.txt", HEADER + LINE, "expected a .csv or .parquet file"),
        ("quotes.csv", HEADER, "it holds no quote"),
        ("quotes.csv", "", "empty"),
        ("quotes.csv", HEADER.replace("symbol,", "") + LINE.replace("AAPL,", ""), "column symbol is missing"),
        ("quotes.csv", HEADER + LINE.replace("2025-10-17T", "soon "), "row 1: timestamp"),
        ("quotes.csv", HEADER + LINE.replace("248.01", "cheap"), "bid_price"),
        ("quotes.csv", HEADER + LINE.replace("AAPL", ""), "names no symbol"),
        ("quotes.parquet", "PAR1 half a file", "cannot replay"),
    ],
)
def test_unusable_files_are_named_in_one_line(tmp_path, name, text, problem):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecordingError) as refused:
        read_recording(path)
    assert problem in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_replay_begins_with_the_first_subscription_and_keeps_its_pace(csv):
    async with running_simulator(replay=csv, speed=2) as sim, authenticated(sim.stream_url()) as client:
        assert client.websocket.response.headers["X-Markstream-Simulator"] == "replay"
        await client.ask({"action": "subscribe", "quotes": ["KO"]})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.receive(), 0.2)
        began_s = time.monotonic()
        began_ns = time.time_ns()
        await client.ask(SUBSCRIBE)
        points = await client.points(10)
        assert 0.15 < time.monotonic() - began_s < 1.0
        assert [point["bp"] for point in points] == [100.0 + n // 2 for n in range(10)]
        assert {(point["bx"], point["ax"]) for point in points} == {("Q", "P")}
        assert all(point["t"].to_unix_nano() >= began_ns for point in points)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.receive(), 0.2)


async def test_recorded_times_can_be_kept(csv):
    async with (
        running_simulator(replay=csv, speed=FASTEST, keep_timestamps=True) as sim,
        authenticated(sim.stream_url()) as client,
    ):
        await client.ask({"action": "subscribe", "quotes": ["*"]})
        points = await client.points(10)
        assert [point["t"].to_unix_nano() - BEGIN_NS for point in points] == [n // 2 * 100_000_000 for n in range(10)]


@pytest.mark.parametrize("speed", [FASTEST, 1_000.0])
async def test_a_looped_replay_never_ends(csv, speed):
    async with running_simulator(replay=csv, speed=speed, loop=True) as sim, authenticated(sim.stream_url()) as client:
        await client.ask(SUBSCRIBE)
        points = await client.points(35)
        assert [point["bp"] for point in points[:12]] == [100.0 + n // 2 % 5 for n in range(12)]


async def test_rest_answers_come_from_the_replay(csv):
    headers = {"APCA-API-KEY-ID": "K", "APCA-API-SECRET-KEY": "S"}
    async with (
        running_simulator(replay=csv, speed=FASTEST) as sim,
        httpx2.AsyncClient(base_url=sim.base_url, headers=headers, timeout=30) as http,
    ):
        query = {"symbols": "AAPL,KO", "feed": "iex"}
        before = await http.get("/v2/stocks/quotes/latest", params=query)
        assert before.json() == {"quotes": {}}
        async with authenticated(sim.stream_url()) as client:
            await client.ask(SUBSCRIBE)
            await client.points(10)
        after = (await http.get("/v2/stocks/quotes/latest", params=query)).json()["quotes"]
        assert list(after) == ["AAPL"]
        assert (after["AAPL"]["bp"], after["AAPL"]["bx"]) == (104.0, "Q")
        bars = {"symbols": "AAPL", "timeframe": "1Day", "start": "2025-01-02", "end": "2025-01-03"}
        closes = (await http.get("/v2/stocks/bars", params=bars)).json()["bars"]["AAPL"]
        assert abs(closes[0]["c"] - 100) < 2


async def test_an_unusable_recording_stops_the_start(tmp_path):
    with pytest.raises(RecordingError):
        await Simulator(SimulatorConfig(replay=tmp_path / "none.csv")).start()
