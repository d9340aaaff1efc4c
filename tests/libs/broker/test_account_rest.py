import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import pytest

from apps.alpaca_simulator.config import HeldPosition
from libs.broker.account_rest import PAGE_SIZE, AccountRest
from libs.market_data.alpaca_rest import AlpacaRestError
from tests.libs.broker.samples import DIVIDEND, FILL, POSITION
from tests.support.scripted_http import Said, ScriptedHttp, scripted_http
from tests.support.simulator import running_simulator

POSITIONS = "/v2/positions"
ACCOUNT = "/v2/account"
ACTIVITIES = "/v2/account/activities"
KEY, SECRET = "PKTEST", "hush-hush"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedHttp]:
    async with scripted_http() as script:
        yield script


@pytest.fixture
async def rest(server: ScriptedHttp) -> AsyncIterator[AccountRest]:
    async with AccountRest(server.url + "/", KEY, SECRET, timeout_s=0.5) as client:
        yield client


async def error_of(call) -> AlpacaRestError:
    """Return the error that a call raises, which never tells the keys."""
    with pytest.raises(AlpacaRestError) as caught:
        await call
    error = caught.value
    chain: BaseException | None = error
    while chain is not None:
        assert KEY not in f"{chain!r} {chain}"
        assert SECRET not in f"{chain!r} {chain}"
        chain = chain.__cause__ or chain.__context__
    return error


class TestAsking:
    async def test_sends_the_keys_and_never_shows_them(self, server: ScriptedHttp, rest: AccountRest) -> None:
        server.say(POSITIONS, "[]")
        await rest.positions()
        assert server.asked[0].headers["APCA-API-KEY-ID"] == KEY
        assert server.asked[0].headers["APCA-API-SECRET-KEY"] == SECRET
        assert server.url in repr(rest)
        assert KEY not in repr(rest)
        assert SECRET not in repr(rest)

    @pytest.mark.parametrize(("key", "secret"), [(None, None), (KEY, None), (None, SECRET), ("", "")])
    async def test_half_a_key_is_not_sent(self, server: ScriptedHttp, key: str | None, secret: str | None) -> None:
        server.say(POSITIONS, "[]")
        async with AccountRest(server.url, key, secret) as rest:
            await rest.positions()
        assert not {"APCA-API-KEY-ID", "APCA-API-SECRET-KEY"} & set(server.asked[0].headers)

    async def test_the_three_calls(self, server: ScriptedHttp, rest: AccountRest) -> None:
        server.say(POSITIONS, json.dumps([POSITION]))
        server.say(ACCOUNT, '{"account_number":"PA1","status":"ACTIVE","cash":"12.34"}')
        server.say(ACTIVITIES, json.dumps([FILL, DIVIDEND]))
        assert [one.symbol for one in (await rest.positions()).positions] == ["AAPL"]
        account = await rest.account()
        assert (account.account_number, account.cash) == ("PA1", Decimal("12.34"))
        page = await rest.activities()
        assert ([one.symbol for one in page.executions], [one.kind for one in page.activities]) == (["LPCN"], ["DIV"])
        assert (page.last_id, page.count) == (DIVIDEND["id"], 2)
        assert rest.requests == 3

    async def test_what_a_page_is_asked_with(self, server: ScriptedHttp, rest: AccountRest) -> None:
        server.say(ACTIVITIES, "[]")
        await rest.activities()
        after = datetime(2025, 10, 20, 12, 0, 0, 5, tzinfo=UTC).astimezone()
        await rest.activities(after=after, page_token="20251020::x y", kinds=("FILL", "DIV"))
        plain = {"direction": "asc", "page_size": "100"}
        assert server.asked[0].query == plain
        assert server.asked[1].query == plain | {
            "after": "2025-10-20T12:00:00.000005Z",
            "page_token": "20251020::x y",
            "activity_types": "FILL,DIV",
        }

    async def test_can_be_used_again_after_closing(self, server: ScriptedHttp, rest: AccountRest) -> None:
        server.say(POSITIONS, "[]")
        await rest.positions()
        await rest.aclose()
        await rest.aclose()
        await rest.positions()
        assert len(server.asked) == 2


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "retryable"),
        [
            *((status, False) for status in (204, 301, 400, 401, 403, 404, 422)),
            *((status, True) for status in (408, 425, 429, 500, 502, 503, 504)),
        ],
    )
    async def test_an_error_knows_whether_asking_again_helps(
        self, server: ScriptedHttp, rest: AccountRest, status: int, retryable: bool
    ) -> None:
        server.say(POSITIONS, Said("", status))
        error = await error_of(rest.positions())
        assert (error.status, error.retryable, error.retry_after_s) == (status, retryable, None)
        assert f"answered {status}" in error.message
        assert ("ALPACA_PAPER" in error.message) is (status in {401, 403})
        assert len(server.asked) == 1, "it never tries again by itself"

    async def test_the_servers_reason_is_one_short_printable_line(
        self, server: ScriptedHttp, rest: AccountRest
    ) -> None:
        server.say(POSITIONS, Said('{"code":1,"message":"bad\\r\\nthing\\u001b[31m' + "x" * 5000 + '"}', 422))
        error = await error_of(rest.positions())
        assert "422: bad  thing [31mxxx" in error.message
        assert len(error.message) < 300

    @pytest.mark.parametrize("body", ["<html>Bad gateway</html>", '{"message":7}', "[]", b"\xff\xfe"])
    async def test_other_reasons_are_not_shown(
        self, server: ScriptedHttp, rest: AccountRest, body: str | bytes
    ) -> None:
        server.say(POSITIONS, Said(body, 502))
        assert (await error_of(rest.positions())).message.endswith("answered 502")

    @pytest.mark.parametrize(
        "body", ["<html>", "", "null", "{}", '"[]"', '[{"symbol":"AAPL","qty":"1', b"\xff", "[" * 100_000]
    )
    async def test_an_unreadable_answer_is_an_error_and_never_an_empty_account(
        self, server: ScriptedHttp, rest: AccountRest, body: str | bytes
    ) -> None:
        for path in (POSITIONS, ACCOUNT, ACTIVITIES):
            server.say(path, Said(body))
        for call in (rest.positions, rest.account, rest.activities):
            error = await error_of(call())
            assert (error.status, error.retryable) == (200, True)
            assert "unreadable" in error.message

    @pytest.mark.parametrize("said", [Said("[]", after_s=5), Said("[" + " " * 100 + "]", drip_s=0.1)])
    async def test_a_slow_answer_is_given_up_and_the_loop_runs_on(
        self, server: ScriptedHttp, rest: AccountRest, said: Said
    ) -> None:
        server.say(POSITIONS, said)
        began_s = time.monotonic()
        asking = asyncio.create_task(error_of(rest.positions()))
        turns = 0
        while not asking.done():
            await asyncio.sleep(0.01)
            turns += 1
        error = await asking
        assert (error.status, error.retryable) == (None, True)
        assert "within 0.5 s" in error.message
        assert time.monotonic() - began_s < 2
        assert turns > 10

    async def test_an_endless_answer_is_cut_off(
        self, server: ScriptedHttp, rest: AccountRest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.broker.account_rest._MOST_BYTES", 1000)
        server.say(POSITIONS, "[" + " " * 998 + "]", "[" + " " * 999 + "]")
        assert (await rest.positions()).positions == ()
        error = await error_of(rest.positions())
        assert "more than 1000 bytes" in error.message
        assert not error.retryable

    async def test_nobody_there(self, free_port: int) -> None:
        async with AccountRest(f"http://127.0.0.1:{free_port}", KEY, SECRET, timeout_s=0.5) as rest:
            error = await error_of(rest.positions())
        assert (error.status, error.retryable) == (None, True)
        assert "cannot be reached" in error.message

    async def test_a_connection_that_is_cut(self) -> None:
        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(cut, "127.0.0.1", 0) as cutting:
            port = cutting.sockets[0].getsockname()[1]
            async with AccountRest(f"http://127.0.0.1:{port}", KEY, SECRET, timeout_s=0.5) as rest:
                error = await error_of(rest.positions())
        assert (error.status, error.retryable) == (None, True)

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nonsense"])
    async def test_no_url(self, url: str) -> None:
        async with AccountRest(url, KEY, SECRET, timeout_s=0.5) as rest:
            error = await error_of(rest.positions())
        assert not error.retryable


def limit(remaining: object, resets_in_s: float = 30, most: int = 200) -> dict[str, str]:
    """Return the headers of a rate limit; `at_once` makes the moment of its reset of them."""
    return {
        "X-RateLimit-Limit": str(most),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": f"in {resets_in_s}",
    }


def at_once(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers as a server would send them now: tests are collected long before they run."""
    told = headers.get("X-RateLimit-Reset", "")
    if not told.startswith("in "):
        return headers
    return headers | {"X-RateLimit-Reset": str(round(time.time() + float(told[3:])))}


class TestPauses:
    async def pause_after(self, server: ScriptedHttp, rest: AccountRest, said: Said) -> float:
        server.say(POSITIONS, replace(said, headers=at_once(dict(said.headers))))
        if said.status == 200:
            await rest.positions()
        else:
            await error_of(rest.positions())
        return rest.pause_s

    async def test_the_servers_wish_to_wait_is_told(self, server: ScriptedHttp, rest: AccountRest) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=100)
        server.say(
            POSITIONS,
            Said("", 429, {"Retry-After": "7"}),
            Said("", 503, {"Retry-After": format_datetime(soon, usegmt=True)}),
            Said("", 429, {"X-RateLimit-Reset": str(int(soon.timestamp()))}),
            Said("", 429, {"Retry-After": "Fri, 01 Jan 1999 00:00:00 GMT"}),
            Said("", 429, {"Retry-After": "soon"}),
            Said("", 429, {"X-RateLimit-Reset": "9" * 30}),
            Said("", 404, {"Retry-After": "7"}),
        )
        waits = [(await error_of(rest.positions())).retry_after_s for _ in range(7)]
        assert waits[0] == 7
        assert waits[1] == pytest.approx(100, abs=5)
        assert waits[2] == 60, "a window is a minute: some clock is wrong"
        assert waits[3:] == [0, None, None, None]

    @pytest.mark.parametrize("wish", ["86400", "9" * 400, "Fri, 01 Jan 2999 00:00:00 GMT"])
    async def test_nobody_is_waited_for_longer_than_ten_minutes(
        self, server: ScriptedHttp, rest: AccountRest, wish: str
    ) -> None:
        server.say(POSITIONS, Said("", 429, {"Retry-After": wish}))
        assert (await error_of(rest.positions())).retry_after_s == 600

    async def test_the_limits_reset_says_nothing_of_a_server_in_trouble(
        self, server: ScriptedHttp, rest: AccountRest
    ) -> None:
        server.say(POSITIONS, Said("", 503, at_once(limit(150, 59))))
        assert (await error_of(rest.positions())).retry_after_s is None
        assert rest.pause_s == 0

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({}, 15),
            ({"Retry-After": "7"}, 7),
            ({"Retry-After": "999999"}, 600),
            (limit(0, 20), 20),
            (limit(0, 20) | {"Retry-After": "3"}, 20),
        ],
    )
    async def test_after_one_call_too_many(
        self, server: ScriptedHttp, rest: AccountRest, headers: dict[str, str], expected: float
    ) -> None:
        pause_s = await self.pause_after(server, rest, Said("", 429, headers))
        assert pause_s == pytest.approx(expected, abs=2)

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({}, 0),
            (limit(200), 0),
            (limit(50), 0),
            (limit(49, 30), 30 / 49),
            (limit(10, 30), 3),
            (limit(1, 30), 30),
            (limit(0, 30), 30),
            (limit(2, 3600), 30),  # no window is longer than a minute
            (limit(2, -50), 0.5),
            (limit("many"), 0),
            (limit(1) | {"X-RateLimit-Reset": "soon"}, 0),
        ],
    )
    async def test_what_is_left_of_the_limit_is_spread(
        self, server: ScriptedHttp, rest: AccountRest, headers: dict[str, str], expected: float
    ) -> None:
        pause_s = await self.pause_after(server, rest, Said("[]", headers=headers))
        assert pause_s == pytest.approx(expected, rel=0.1, abs=0.01)

    async def test_an_answer_in_plenty_ends_the_pause(self, server: ScriptedHttp, rest: AccountRest) -> None:
        assert await self.pause_after(server, rest, Said("[]", headers=limit(0))) > 0
        assert await self.pause_after(server, rest, Said("[]", headers=limit(150))) == 0


class TestSimulator:
    async def test_every_page_of_a_long_history(self) -> None:
        held = (HeldPosition("AAPL", Decimal(100), Decimal(150)), HeldPosition("MSFT", Decimal(-20), Decimal(400)))
        async with (
            running_simulator(rate=0, positions=held) as simulator,
            AccountRest(simulator.base_url, KEY, SECRET) as rest,
        ):
            before = datetime.now(UTC) - timedelta(days=1)
            ids = await simulator.desk.fill("AAPL", "buy", Decimal(205), Decimal("230.01"), pieces=205)
            await simulator.desk.pay_dividend("AAPL", Decimal("0.25"))
            pages, token = [], None
            while not pages or pages[-1].count == PAGE_SIZE:
                pages.append(await rest.activities(after=before, page_token=token))
                token = pages[-1].last_id
            everything = await rest.activities()
            dividends = await rest.activities(kinds=["DIV"])
            positions = await rest.positions()
            summary = await rest.account()
        assert [page.count for page in pages] == [100, 100, 6]
        assert [one.execution_id for page in pages for one in page.executions] == ids
        assert [one.kind for page in pages for one in page.activities] == ["DIV"]
        assert not any(page.unreadable for page in pages)
        assert everything.executions[0].executed_at < before, "since the account was opened"
        assert ([one.kind for one in dividends.activities], dividends.executions) == (["DIV"], ())
        assert {one.symbol: one.qty for one in positions.positions} == {"AAPL": 305, "MSFT": -20}
        assert summary.account_number

    async def test_its_limit_slows_us_down_before_it_refuses(self) -> None:
        async with (
            running_simulator(rate=0, trading_rate_limit=4) as simulator,
            AccountRest(simulator.base_url, KEY, SECRET) as rest,
        ):
            pauses = []
            for _ in range(4):
                await rest.positions()
                pauses.append(rest.pause_s)
            error = await error_of(rest.positions())
        assert pauses[:3] == [0, 0, 0]
        assert 30 < pauses[3] <= 60
        assert (error.status, error.retryable) == (429, True)
        assert error.retry_after_s is not None
        assert 30 < error.retry_after_s <= 60

    async def test_its_garbage_is_never_an_empty_account(self) -> None:
        async with (
            running_simulator(rate=0) as simulator,
            AccountRest(simulator.base_url, KEY, SECRET) as rest,
        ):
            simulator.faults = replace(simulator.faults, trading_rest_garbage=True)
            answers = [await asyncio.gather(rest.positions(), return_exceptions=True) for _ in range(8)]
        for (answer,) in answers:
            if isinstance(answer, AlpacaRestError):
                assert answer.retryable
            else:
                assert not isinstance(answer, BaseException)
                assert answer.unreadable
