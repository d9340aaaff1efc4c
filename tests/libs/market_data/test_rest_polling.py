import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from libs.market_data import rest_polling
from libs.market_data.quotes import Quote, QuoteOrigin
from libs.market_data.rest_polling import QuotePoller
from libs.service.supervise import Supervisor
from tests.support.quotes import make_quote
from tests.support.waiting import eventually


class Rest:
    """Answers with a quote of each symbol, or as told."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.fault: Exception | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    async def fetch(self, symbols: Sequence[str]) -> list[Quote]:
        self.asked.append(list(symbols))
        await self.answering.wait()
        if self.fault is not None:
            raise self.fault
        return [make_quote(symbol, origin=QuoteOrigin.REST) for symbol in symbols]


@asynccontextmanager
async def polling(rest: Rest, symbols: set[str]) -> AsyncIterator[tuple[QuotePoller, list[str]]]:
    taken: list[str] = []
    poller = QuotePoller(rest.fetch, lambda: symbols, lambda quote: taken.append(quote.symbol), lambda: True)
    supervisor = Supervisor(on_death=lambda _name, _reason: None)
    supervisor.spawn("poller", poller.run)
    try:
        yield poller, taken
        assert not supervisor.failures
    finally:
        await supervisor.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_polling, "POLL_EVERY_S", 0.05)
    monkeypatch.setattr(rest_polling, "_REQUEST_EVERY_S", 0.01)
    monkeypatch.setattr(rest_polling, "_LOOK_EVERY_S", 0.01)


async def test_what_is_not_streamed_is_asked_for_again_and_again() -> None:
    rest, symbols = Rest(), {"B", "A"}
    async with polling(rest, symbols) as (poller, taken):
        await eventually(lambda: len(rest.asked) >= 3)
        assert rest.asked[0] == ["A", "B"]
        assert taken[:2] == ["A", "B"]
        symbols.clear()
        await asyncio.sleep(0.1)
        before = poller.polls
        await asyncio.sleep(0.2)
        assert poller.polls == before, "nothing left to ask for"


async def test_a_fault_is_told_and_makes_it_patient() -> None:
    rest = Rest()
    rest.fault = OSError("REST is away")
    async with polling(rest, {"A"}) as (poller, taken):
        await eventually(lambda: poller.faults >= 2)
        assert poller.last_fault == "REST is away"
        assert poller.pause_s(1) >= 0.2
        rest.fault = None
        await eventually(lambda: taken)
        assert poller.last_fault is None
        assert poller.pause_s(1) == 0.05


async def test_an_answer_is_not_taken_for_what_streams_by_now() -> None:
    rest, symbols = Rest(), {"A", "B"}
    rest.answering.clear()
    async with polling(rest, symbols) as (_, taken):
        await eventually(lambda: rest.asked)
        symbols.discard("A")
        rest.answering.set()
        await eventually(lambda: taken)
        assert taken[0] == "B"


async def test_without_rest_nothing_is_polled() -> None:
    poller = QuotePoller(None, lambda: {"A"}, lambda _quote: None, lambda: True)
    supervisor = Supervisor(on_death=lambda _name, _reason: None)
    supervisor.spawn("poller", poller.run)
    await asyncio.sleep(0.1)
    await supervisor.stop()
    assert (poller.polls, poller.last_fault) == (0, None)


@pytest.mark.parametrize(
    ("count", "is_open", "expected_s"), [(1, True, 5), (500, True, 5), (3000, True, 30), (1, False, 60)]
)
def test_many_symbols_are_asked_for_more_slowly(
    count: int, expected_s: float, monkeypatch: pytest.MonkeyPatch, *, is_open: bool
) -> None:
    monkeypatch.setattr(rest_polling, "POLL_EVERY_S", 5.0)
    monkeypatch.setattr(rest_polling, "_REQUEST_EVERY_S", 1.0)
    poller = QuotePoller(None, set, lambda _quote: None, lambda: is_open)
    assert poller.pause_s(count) == expected_s
