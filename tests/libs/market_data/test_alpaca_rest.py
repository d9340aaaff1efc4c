from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime

import pytest

from libs.market_data.alpaca_rest import AlpacaRest, AlpacaRestError
from libs.market_data.market_hours import AccountClock
from libs.market_data.prices import Mode
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.simulator import running_simulator

QUOTES = "/v2/stocks/quotes/latest"
TRADES = "/v2/stocks/trades/latest"
BARS = "/v2/stocks/bars"
CLOCK = "/v2/clock"
NOW = datetime(2025, 10, 20, 21, 0, tzinfo=UTC)
A_CLOCK = '{"is_open":true,"next_open":"2025-06-25T09:30:00-04:00","next_close":"2025-06-24T16:00:00-04:00"}'


def bar(moment: str, close: float) -> str:
    return f'{{"t":"{moment}","o":1,"h":9,"l":1,"c":{close},"v":10}}'


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        yield script


@pytest.fixture
async def rest(server: ScriptedHttp) -> AsyncIterator[AlpacaRest]:
    async with AlpacaRest(server.url + "/", server.url, "PKTEST", "hush", timeout_s=0.5) as client:
        yield client


class TestAsking:
    async def test_sends_the_key_and_never_shows_it(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(CLOCK, A_CLOCK)
        assert await rest.clock() == AccountClock(is_open=True, next_change=datetime(2025, 6, 24, 20, 0, tzinfo=UTC))
        assert server.asked[0].headers["APCA-API-KEY-ID"] == "PKTEST"
        assert server.asked[0].headers["APCA-API-SECRET-KEY"] == "hush"
        assert "hush" not in repr(rest)
        assert "PKTEST" not in repr(rest)

    async def test_without_a_key_sends_none(self, server: ScriptedHttp) -> None:
        server.say(CLOCK, A_CLOCK)
        async with AlpacaRest(server.url, server.url, None, None) as rest:
            await rest.clock()
        assert "APCA-API-KEY-ID" not in server.asked[0].headers

    async def test_hears_that_a_simulator_answers(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(
            CLOCK,
            A_CLOCK,
            Said(A_CLOCK, headers={"X-Markstream-Simulator": "replay"}),
            Said(A_CLOCK, headers={"X-Markstream-Simulator": "Simulated"}),
            Said(A_CLOCK, headers={"X-Markstream-Simulator": "something new"}),
        )
        heard = [(await rest.clock()).simulator_mode for _ in range(4)]
        assert heard == [None, Mode.REPLAY, Mode.SIMULATED, Mode.SIMULATED]
        assert rest.simulator_mode is Mode.SIMULATED

    async def test_can_be_used_again_after_closing(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(CLOCK, A_CLOCK)
        await rest.clock()
        await rest.aclose()
        await rest.clock()
        assert len(server.asked) == 2


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "retryable"),
        [
            *((status, False) for status in (204, 302, 400, 401, 403, 404, 422)),
            *((status, True) for status in (408, 429, 500, 502, 503)),
        ],
    )
    async def test_an_error_knows_whether_asking_again_helps(
        self, server: ScriptedHttp, rest: AlpacaRest, status: int, retryable: bool
    ) -> None:
        server.say(CLOCK, Said("", status))
        with pytest.raises(AlpacaRestError) as caught:
            await rest.clock()
        assert (caught.value.status, caught.value.retryable) == (status, retryable)
        assert f"answered {status}" in str(caught.value)

    async def test_a_refused_key_names_what_to_check(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(CLOCK, Said('{"code":40110000,"message":"request is not authorized"}', 401))
        with pytest.raises(AlpacaRestError, match=r"401: request is not authorized.*ALPACA_PAPER"):
            await rest.clock()

    async def test_a_reason_is_one_short_printable_line(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(CLOCK, Said('{"message":"bad\\r\\nthing\\u001b[31m' + "x" * 5000 + '"}', 500))
        with pytest.raises(AlpacaRestError) as caught:
            await rest.clock()
        assert "bad  thing [31mxxx" in caught.value.message
        assert len(caught.value.message) < 300

    async def test_html_is_not_shown(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(CLOCK, Said("<html>Bad gateway</html>", 502))
        with pytest.raises(AlpacaRestError) as caught:
            await rest.clock()
        assert caught.value.message.endswith("answered 502")

    @pytest.mark.parametrize("body", ["<html>", "", "[]", '{"is_open":null}', '{"is_open":tr'])
    async def test_an_unreadable_answer_is_an_error(self, server: ScriptedHttp, rest: AlpacaRest, body: str) -> None:
        for path in (CLOCK, QUOTES, BARS):
            server.say(path, body)
        with pytest.raises(AlpacaRestError, match="unreadable") as caught:
            await rest.clock()
        assert (caught.value.status, caught.value.retryable) == (200, True)
        with pytest.raises(AlpacaRestError, match="unreadable"):
            await rest.latest_quotes(["AAPL"], "iex")
        server.say(BARS, "<html>")
        with pytest.raises(AlpacaRestError, match="unreadable"):
            await rest.daily_bars(["AAPL"], date(2025, 10, 1), NOW)

    @pytest.mark.parametrize("said", [Said(A_CLOCK, after_s=5), Said(A_CLOCK, drip_s=0.1)])
    async def test_a_slow_answer_is_given_up(self, server: ScriptedHttp, rest: AlpacaRest, said: Said) -> None:
        server.say(CLOCK, said)
        with pytest.raises(AlpacaRestError, match=r"within 0.5 s") as caught:
            await rest.clock()
        assert (caught.value.status, caught.value.retryable) == (None, True)

    async def test_an_endless_answer_is_cut_off(
        self, server: ScriptedHttp, rest: AlpacaRest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.market_data.alpaca_rest._MOST_BYTES", 1000)
        server.say(CLOCK, " " * 1001 + A_CLOCK)
        with pytest.raises(AlpacaRestError, match="more than 1000 bytes"):
            await rest.clock()

    async def test_nobody_there(self, free_port: int) -> None:
        nowhere = f"http://127.0.0.1:{free_port}"
        async with AlpacaRest(nowhere, nowhere, "k", "s", timeout_s=0.5) as rest:
            with pytest.raises(AlpacaRestError, match="cannot be reached") as caught:
                await rest.clock()
        assert (caught.value.status, caught.value.retryable) == (None, True)

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nonsense"])
    async def test_no_url(self, url: str) -> None:
        async with AlpacaRest(url, url, "k", "s", timeout_s=0.5) as rest:
            with pytest.raises(AlpacaRestError, match="no URL") as caught:
                await rest.clock()
        assert not caught.value.retryable

    async def test_the_servers_wish_to_wait_is_kept(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=100)
        server.say(
            CLOCK,
            Said("", 429, {"Retry-After": "7"}),
            Said("", 503, {"Retry-After": format_datetime(soon, usegmt=True)}),
            Said("", 429, {"X-RateLimit-Reset": str(int(soon.timestamp()))}),
            Said("", 429, {"Retry-After": "Fri, 01 Jan 1999 00:00:00 GMT"}),
            Said("", 429, {"Retry-After": "soon"}),
            Said("", 429, {"X-RateLimit-Reset": "9" * 30}),
            Said("", 429),
            Said("", 404, {"Retry-After": "7"}),
            # Ten minutes are the most: the stream waits as long, and a server's clock may be wrong.
            Said("", 503, {"Retry-After": "9" * 400}),
            Said("", 503, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}),
        )
        waits = []
        for _ in range(10):
            with pytest.raises(AlpacaRestError) as caught:
                await rest.clock()
            waits.append(caught.value.retry_after_s)
        assert waits[0] == 7
        assert waits[1] == pytest.approx(100, abs=5)
        assert waits[2] == pytest.approx(100, abs=5)
        assert waits[3:] == [0, None, None, None, None, 600, 600]

    ENDS_OF_THE_CALENDAR = ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z")

    @pytest.mark.parametrize(
        ("clock", "bars"),
        [
            ("[" * 100_000, "[" * 100_000),
            ('{"x":' + "[" * 100_000, '{"x":' + "[" * 100_000),
            *(
                (
                    f'{{"is_open":true,"next_open":"{time}","next_close":"{time}"}}',
                    f'{{"bars":{{"A":[{{"t":"{time}","o":1,"h":1,"l":1,"c":1,"v":1}}]}}}}',
                )
                for time in ENDS_OF_THE_CALENDAR
            ),
        ],
    )
    async def test_whatever_a_body_holds_it_is_an_error_of_its_own(
        self, server: ScriptedHttp, rest: AlpacaRest, clock: str, bars: str
    ) -> None:
        server.say(CLOCK, clock)
        server.say(BARS, bars)
        for ask in (rest.clock, lambda: rest.daily_bars(["A"], date(2026, 1, 1), NOW)):
            with pytest.raises(AlpacaRestError, match="unreadable"):
                await ask()


class TestLatestQuotes:
    async def test_asks_in_chunks(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(QUOTES, '{"quotes":{"A":{"bp":1,"ap":2}}}')
        quotes = await rest.latest_quotes([f"S{number}" for number in range(150)] * 2, "iex")
        assert len(quotes) == 2
        assert [len(asked.query["symbols"].split(",")) for asked in server.asked] == [100, 50]
        assert {asked.query["feed"] for asked in server.asked} == {"iex"}

    async def test_asks_nothing_for_nothing_and_for_a_feed_without_rest(
        self, server: ScriptedHttp, rest: AlpacaRest
    ) -> None:
        assert await rest.latest_quotes([], "iex") == []
        assert await rest.latest_quotes(["FAKEPACA"], "test") == []
        assert server.asked == []

    async def test_counts_what_it_could_not_read(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(QUOTES, '{"quotes":{"A":{"bp":"x"},"B":{"bp":1,"ap":2}}}')
        assert [quote.symbol for quote in await rest.latest_quotes(["A", "B"], "iex")] == ["B"]
        assert rest.unreadable_quotes == 1

    async def test_one_refused_symbol_does_not_cost_the_others(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        refused = Said('{"message":"invalid symbol: C"}', 400)
        # A,B,C,D refused; A,B answered; C,D refused; C refused; D answered
        server.say(
            QUOTES,
            refused,
            '{"quotes":{"A":{},"B":{}}}',
            refused,
            refused,
            '{"quotes":{"D":{}}}',
        )
        quotes = await rest.latest_quotes(["A", "B", "C", "D"], "iex")
        assert [asked.query["symbols"] for asked in server.asked] == ["A,B,C,D", "A,B", "C,D", "C", "D"]
        assert sorted(quote.symbol for quote in quotes) == ["A", "B", "D"]

    async def test_a_server_that_refuses_everything_is_not_asked_for_ever(
        self, server: ScriptedHttp, rest: AlpacaRest
    ) -> None:
        server.say(QUOTES, Said("", 400))
        with pytest.raises(AlpacaRestError):
            await rest.latest_quotes([f"S{number}" for number in range(100)], "iex")
        assert len(server.asked) == 17

    async def test_from_the_simulator(self) -> None:
        async with running_simulator(rate=0, silent_symbols=["ZZZZ"]) as simulator:
            simulator.emit("AAPL", 150.01, 150.03)
            async with AlpacaRest(simulator.base_url, simulator.base_url, "k", "s") as rest:
                quotes = await rest.latest_quotes(["AAPL", "ZZZZ"], "iex")
                clock = await rest.clock()
        assert [(quote.symbol, quote.bid, quote.ask) for quote in quotes] == [("AAPL", 150.01, 150.03)]
        assert clock.is_open
        assert clock.simulator_mode is Mode.SIMULATED


class TestLatestTrades:
    async def test_asks_like_quotes_and_counts_what_it_could_not_read(
        self, server: ScriptedHttp, rest: AlpacaRest
    ) -> None:
        server.say(TRADES, '{"trades":{"A":{"p":"x"},"B":{"p":1},"C":{"p":1,"u":"canceled"}}}', Said("", 400), "[]")
        assert [trade.symbol for trade in await rest.latest_trades(["C", "B", "A", "B"], "sip")] == ["B"]
        assert rest.unreadable_trades == 1
        assert server.asked[0].query == {"symbols": "A,B,C", "feed": "sip"}
        assert await rest.latest_trades(["FAKEPACA"], "test") == []
        with pytest.raises(AlpacaRestError, match="unreadable"):
            await rest.latest_trades(["A", "B"], "sip")

    async def test_from_the_simulator(self) -> None:
        async with running_simulator(rate=0) as simulator:
            simulator.trade("AAPL", 150.02, trade_id=7)
            async with AlpacaRest(simulator.base_url, simulator.base_url, "k", "s") as rest:
                (trade,) = await rest.latest_trades(["AAPL", "MSFT"], "iex")
        assert (trade.symbol, trade.trade_id, trade.price, trade.exchange) == ("AAPL", 7, 150.02, "V")


class TestDailyBars:
    async def test_follows_the_pages(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        first = bar("2025-10-16T04:00:00Z", 2.5)
        second = bar("2025-10-17T04:00:00Z", 3.5)
        server.say(
            BARS,
            f'{{"bars":{{"A":[{first}]}},"next_page_token":"p2"}}',
            '{"bars":{},"next_page_token":"p3"}',
            f'{{"bars":{{"A":[{second}],"B":[{first}]}},"next_page_token":null}}',
        )
        bars = await rest.daily_bars(["B", "A"], date(2025, 10, 1), NOW, now=NOW)
        assert [(bar.symbol, bar.date, str(bar.close)) for bar in bars] == [
            ("A", date(2025, 10, 16), "2.5"),
            ("A", date(2025, 10, 17), "3.5"),
            ("B", date(2025, 10, 16), "2.5"),
        ]
        assert [asked.query.get("page_token") for asked in server.asked] == [None, "p2", "p3"]
        assert {asked.query["symbols"] for asked in server.asked} == {"A,B"}
        assert server.asked[0].query["feed"] == "sip"
        assert server.asked[0].query["end"] == "2025-10-20T20:44:00Z"

    async def test_pages_that_never_end_are_an_error(self, server: ScriptedHttp, rest: AlpacaRest) -> None:
        server.say(BARS, '{"bars":{},"next_page_token":"again"}')
        with pytest.raises(AlpacaRestError, match="never end") as caught:
            await rest.daily_bars(["A"], date(2025, 10, 1), NOW)
        assert not caught.value.retryable
