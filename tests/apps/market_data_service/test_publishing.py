import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from apps.market_data_service import publishing
from apps.market_data_service.publishing import FeedAnnouncer, PriceWriter
from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode
from libs.market_data.quotes import QuoteOrigin, Unmarkable
from libs.market_data.suspect_quotes import Rejection
from libs.redis_client.client import RedisClient
from libs.redis_client.embedded import EmbeddedRedis
from libs.redis_client.lease import Lease
from libs.redis_client.price_cache import PriceCache
from libs.service.supervise import Supervisor
from tests.support.quotes import make_quote
from tests.support.waiting import eventually


@dataclass
class FakeLink:
    """Stands for the stream in what the announcer reads of it: plain attributes."""

    subscribed_symbols: list[str] = field(default_factory=lambda: ["AAPL", "MSFT"])
    confirmed: frozenset[str] = frozenset({"AAPL", "MSFT"})
    epoch: str = "e1"


@dataclass
class Bench:
    latest: LatestQuotes
    cache: PriceCache
    client: RedisClient
    writer: PriceWriter
    announcer: FeedAnnouncer
    link: FakeLink
    state: dict[str, object]


def make_bench(url: str, ttl_s: float = 300.0) -> Bench:
    client = RedisClient(url)
    cache, latest, link = PriceCache(client, ttl_s), LatestQuotes("iex", "host:1:me"), FakeLink()
    state: dict[str, object] = {"state": LinkState.STREAMING, "connected": True, "epoch": "e1"}
    writer = PriceWriter(
        latest,
        cache,
        epoch_of=lambda _symbol: link.epoch,
        announce_epoch=lambda: announcer.announce_epoch(),  # noqa: PLW0108 - it is made of the writer too
    )

    def status() -> FeedStatus:
        return FeedStatus(
            **state,  # type: ignore[arg-type]
            since=datetime.now(UTC),
            feed="iex",
            mode=Mode.SIMULATED,
            symbols=link.confirmed,
            market=MarketPhase.OPEN,
        )

    announcer = FeedAnnouncer(status, link, latest, writer, cache, ttl_s)
    return Bench(latest, cache, client, writer, announcer, link, state)


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    supervisor = Supervisor(on_death=lambda _name, _reason: None)
    supervisor.spawn("writer", bench.writer.run)
    supervisor.spawn("announcer", bench.announcer.run)
    try:
        yield bench
    finally:
        await supervisor.stop()
        await bench.client.aclose()
    assert supervisor.failures == {}


async def test_a_quote_is_cached_and_published_at_once(redis_url: str) -> None:
    async with running(make_bench(redis_url)) as bench, bench.client.pubsub() as pubsub:
        await pubsub.subscribe("price.updated.AAPL")
        bench.writer.take_quote(make_quote(bid=151.99, ask=152.01))
        await eventually(lambda: bench.writer.written == 1)
        price = (await bench.cache.read(["AAPL"]))["AAPL"]
        assert (price.mid, price.epoch, price.seq) == (Decimal("152.00"), "e1", 1)
        message = await eventually(lambda: pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1))
        assert msgspec.json.decode(message["data"])["price"] == 152.00
        assert 290 <= await bench.client.raw.ttl("price:AAPL") <= 300


async def test_the_status_of_a_connection_is_there_before_its_first_price(redis_url: str) -> None:
    bench = make_bench(redis_url)
    async with bench.client.pubsub() as pubsub:
        await pubsub.psubscribe("*")
        for epoch, step in (("e1", 1), ("e1", 2), ("e2", 3), ("e2", 4)):
            bench.state["epoch"] = bench.link.epoch = epoch
            bench.writer.take_quote(make_quote(bid=100.0 + step, ask=101.0 + step, at_s=step))
            assert await bench.writer.write_batch()
        heard = []
        while len(heard) < 6:
            message = await eventually(lambda: pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1))
            content = msgspec.json.decode(message["data"])
            heard.append((message["channel"].decode(), content["epoch"]))
            if "price" in content:
                assert content["instance"] == "host:1:me"
    price = "price.updated.AAPL"
    assert heard == [
        ("feed.status", "e1"), (price, "e1"), (price, "e1"), ("feed.status", "e2"), (price, "e2"), (price, "e2"),
    ]  # fmt: skip
    assert (await bench.cache.read(["AAPL"]))["AAPL"].instance == "host:1:me"
    await bench.client.aclose()


async def test_without_the_status_of_its_connection_no_price_is_written() -> None:
    with EmbeddedRedis() as server:
        bench = make_bench(server.url)
        bench.writer.take_quote(make_quote())
        server.kill()
        assert not await bench.writer.write_batch()
        server.start()
        assert await bench.writer.write_batch()
        assert (await bench.cache.read_feed_status()).epoch == "e1"
        await bench.client.aclose()


async def test_what_is_out_of_order_is_refused(redis_url: str) -> None:
    bench = make_bench(redis_url)
    bench.writer.take_quote(make_quote(at_s=10))
    late = make_quote(received_at=make_quote(at_s=11).received_at)
    assert bench.writer.take_quote(late) is Unmarkable.OUT_OF_ORDER
    await bench.client.aclose()


async def test_the_newest_values_are_written_when_redis_returns() -> None:
    with EmbeddedRedis() as server:
        async with running(make_bench(server.url)) as bench:
            bench.writer.take_quote(make_quote("AAPL"))
            await eventually(lambda: bench.writer.written == 1 and bench.announcer.has_reached_redis)
            server.kill()
            for step in range(50):
                bench.writer.take_quote(make_quote("MSFT", bid=400.0 + step, ask=401.0 + step, at_s=step))
            await eventually(lambda: bench.writer.fault)
            server.start()
            # MSFT because its write had failed; AAPL because the server has forgotten it.
            prices = await eventually(lambda: _both(bench), within_s=4)
            assert prices["MSFT"].bid == Decimal("449.0")
            await eventually(lambda: bench.writer.fault is None and bench.announcer.fault is None)


async def test_no_heartbeat_vouches_before_the_newest_prices_are_there() -> None:
    with EmbeddedRedis() as server:
        async with running(make_bench(server.url)) as bench:
            bench.writer.take_quote(make_quote("AAPL"))
            await eventually(lambda: bench.writer.written == 1 and bench.announcer.has_reached_redis)
            server.kill()
            bench.writer.take_quote(make_quote("AAPL", bid=400.0, ask=401.0, at_s=1))
            await eventually(lambda: bench.writer.is_behind)
            server.start()

            async def status_and_price() -> object:
                # In one command, so that nothing happens between the two.
                status, price = await bench.client.mget(["feed:status", "price:AAPL"])
                assert status is not None
                return price or "no price yet"

            price = await eventually(status_and_price, within_s=4, every_s=0.002)
            assert price != "no price yet"
            await eventually(lambda: not bench.writer.is_behind)


async def _both(bench: Bench) -> dict:
    prices = await bench.cache.read(["AAPL", "MSFT"])
    return prices if len(prices) == 2 else {}


async def test_a_change_of_the_link_is_announced_at_once(redis_url: str) -> None:
    async with running(make_bench(redis_url)) as bench:
        await eventually(lambda: bench.announcer.has_reached_redis)
        bench.state |= {"state": LinkState.BACKING_OFF, "connected": False}
        bench.announcer.announce_soon()

        async def is_told() -> bool:
            status = await bench.cache.read_feed_status()
            return status is not None and status.state is LinkState.BACKING_OFF

        await eventually(is_told, within_s=1.0)


async def test_a_quiet_price_lives_as_long_as_the_link_vouches_for_it(redis_url: str) -> None:
    async with running(make_bench(redis_url, ttl_s=1.0)) as bench:
        bench.writer.take_quote(make_quote("AAPL"))
        await eventually(lambda: bench.writer.written >= 6, within_s=6)
        assert "AAPL" in await bench.cache.read(["AAPL"])
        assert bench.writer.published == 1
        bench.state |= {"connected": False}

        async def has_expired() -> bool:
            return not await bench.cache.read(["AAPL"])

        await eventually(has_expired, within_s=4)


@pytest.mark.parametrize("doubted", ["AAPL", "*"])
async def test_a_doubted_price_is_not_kept_alive(redis_url: str, doubted: str) -> None:
    async with running(make_bench(redis_url, ttl_s=1.0)) as bench:
        bench.writer.take_quote(make_quote("AAPL"))
        bench.writer.take_quote(make_quote("MSFT"))
        await eventually(lambda: bench.writer.written >= 2)
        bench.state |= {"doubted": frozenset({doubted})}

        async def what_is_left() -> bool:
            return set(await bench.cache.read(["AAPL", "MSFT"])) == (set() if doubted == "*" else {"MSFT"})

        await eventually(what_is_left, within_s=3)


async def test_what_nobody_wants_any_more_is_not_kept(redis_url: str) -> None:
    async with running(make_bench(redis_url)) as bench:
        bench.writer.take_quote(make_quote("AAPL"))
        bench.link.subscribed_symbols = ["MSFT"]
        bench.announcer.announce_soon()
        await eventually(lambda: not bench.latest.symbols)


async def test_with_a_wildcard_everything_is_kept_and_renewed(redis_url: str) -> None:
    bench = make_bench(redis_url, ttl_s=1.0)
    bench.link.subscribed_symbols, bench.link.confirmed = ["*"], frozenset({"*"})
    async with running(bench):
        bench.writer.take_quote(make_quote("ANY"))
        await eventually(lambda: bench.writer.written >= 3, within_s=5)


async def test_flush_writes_all_that_waits_or_gives_up(redis_url: str, free_port: int) -> None:
    bench = make_bench(redis_url)
    for number in range(1200):
        bench.writer.take_quote(make_quote(f"S{number}"))
    await bench.writer.flush()
    assert (bench.latest.pending, bench.writer.batches) == (0, 3)
    await bench.client.aclose()
    away = make_bench(f"redis://127.0.0.1:{free_port}")
    away.writer.take_quote(make_quote())
    await away.writer.flush()
    assert away.latest.pending == 1
    await away.client.aclose()


@pytest.mark.parametrize("wrong", [None, "e2"])
async def test_without_an_epoch_of_its_own_a_price_is_not_renewed(redis_url: str, wrong: str | None) -> None:
    bench = make_bench(redis_url, ttl_s=1.0)
    bench.state["epoch"] = wrong
    async with running(bench):
        bench.writer.take_quote(make_quote("AAPL"))

        async def was_written_and_expired() -> bool:
            return bench.writer.written == 1 and not await bench.cache.read(["AAPL"])

        await eventually(was_written_and_expired, within_s=4)


# --- under the lease ----------------------------------------------------------------------------------------------


@dataclass
class Led:
    """A bench whose writes are fenced, and what may be told of the lease by the test."""

    bench: Bench
    lease: Lease
    is_leader: bool = True
    losses: int = 0

    def lost(self) -> None:
        self.losses += 1


def make_led(url: str) -> Led:
    bench = make_bench(url)
    led = Led(bench, Lease(bench.client, "me"))
    cache = PriceCache(bench.client, 300, fence="me")
    rules: dict[str, object] = {"may_write": lambda: led.is_leader, "on_lease_lost": led.lost}
    bench.writer = PriceWriter(bench.latest, cache, lambda _symbol: "e1", **rules)  # type: ignore[arg-type]
    bench.announcer = FeedAnnouncer(
        bench.announcer._status,
        bench.link,
        bench.latest,
        bench.writer,
        cache,
        300,
        **rules,  # type: ignore[arg-type]
    )
    return led


async def test_a_standby_writes_and_announces_nothing(redis_url: str) -> None:
    led = make_led(redis_url)
    await led.lease.claim()
    led.is_leader = False
    async with running(led.bench) as bench:
        bench.writer.take_quote(make_quote("AAPL"))
        bench.announcer.announce_soon()
        await bench.writer.flush()
        await bench.announcer.announce()
        assert await bench.client.mget(["price:AAPL", "feed:status"]) == [None, None]
        assert (bench.writer.batches + bench.writer.failed_batches, bench.writer.fault) == (0, None)
        led.is_leader = True
        bench.writer.wake()
        bench.announcer.announce_soon()
        await eventually(lambda: bench.writer.written == 1 and bench.announcer.has_reached_redis)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a failed write tried again after a minute: what comes before is not a mere next attempt."""
    monkeypatch.setattr(publishing, "_FIRST_RETRY_S", 60.0)
    monkeypatch.setattr(publishing, "_LAST_RETRY_S", 60.0)


@pytest.mark.usefixtures("patient")
async def test_what_the_fence_refuses_is_reported_and_written_once_the_lease_is_ours(redis_url: str) -> None:
    led = make_led(redis_url)
    async with running(led.bench) as bench:
        bench.writer.take_quote(make_quote("AAPL"))
        await eventually(lambda: led.losses >= 2 and bench.writer.fault and bench.announcer.fault)
        assert await bench.client.mget(["price:AAPL", "feed:status"]) == [None, None]
        await led.lease.claim()
        bench.writer.write_all_again()
        bench.announcer.announce_soon()
        await eventually(lambda: bench.writer.written == 1 and bench.announcer.has_reached_redis)
        assert (bench.writer.fault, bench.announcer.fault) == (None, None)


@pytest.mark.usefixtures("patient")
async def test_to_write_all_again_ends_the_wait_after_a_failure() -> None:
    with EmbeddedRedis() as server:
        async with running(make_bench(server.url)) as bench:
            server.kill()
            bench.writer.take_quote(make_quote("AAPL"))
            await eventually(lambda: bench.writer.failed_batches)
            server.start()
            bench.writer.write_all_again()
            await eventually(lambda: bench.writer.written >= 1)


async def test_who_steps_down_keeps_neither_prices_nor_faults(redis_url: str) -> None:
    led = make_led(redis_url)
    bench = led.bench
    bench.writer.take_quote(make_quote("AAPL"))
    await bench.announcer.announce()
    await bench.writer.write_batch()
    assert bench.writer.fault is not None
    assert bench.announcer.fault is not None
    bench.writer.start_afresh()
    bench.announcer.start_afresh()
    assert (bench.latest.pending, list(bench.latest.symbols)) == (0, [])
    assert (bench.writer.fault, bench.announcer.fault) == (None, None)
    # A write that was under way meanwhile ends without a word, and brings nothing back.
    bench.writer.take_quote(make_quote("AAPL"))
    under_way = bench.writer.write_batch()
    led.is_leader = False
    assert await under_way is False
    assert (bench.writer.fault, led.losses) == (None, 2)
    await bench.client.aclose()


async def test_a_price_that_cannot_be_written_costs_itself_alone(redis_url: str) -> None:
    async with running(make_bench(redis_url)) as bench:
        bench.writer.take_quote(make_quote("MSFT", bid=400.0, ask=401.0))
        await eventually(lambda: bench.writer.written == 1)
        bench.writer.take_quote(make_quote("MSFT", bid=float("nan"), at_s=1))
        bench.writer.take_quote(make_quote("AAPL", bid=151.99, ask=152.01))
        await eventually(lambda: bench.writer.written == 2)
        assert (await bench.cache.read(["AAPL"]))["AAPL"].mid == Decimal("152.00")
        assert (bench.cache.unwritable, bench.writer.fault, bench.writer.published) == (1, None, 2)
        # What Redis holds of it is an older quote: no heartbeat may vouch for that.
        assert bench.writer.unwritable == {"MSFT"}
        bench.writer.take_quote(make_quote("MSFT", bid=402.0, ask=403.0, at_s=2))
        await eventually(lambda: bench.writer.written == 3)
        assert bench.writer.unwritable == frozenset()


async def test_rejected_quotes_renew_no_life_and_the_newest_is_under_the_key(redis_url: str) -> None:
    async with running(make_bench(redis_url, ttl_s=2.0)) as bench:
        bench.writer.take_quote(make_quote())
        await eventually(lambda: bench.writer.written >= 1)
        asks = itertools.count(100)

        async def has_expired() -> bool:
            quote = make_quote(bid=0.0, ask=float(next(asks)), at_s=1)
            bench.writer.take_rejected(Rejection("AAPL", Unmarkable.ONE_SIDED, quote.received_at, quote))
            return not await bench.cache.read(["AAPL"])

        await eventually(has_expired, within_s=6, every_s=0.05)
        assert bench.latest.price("AAPL") is not None, "who asks us still hears of it"
        assert bench.writer.published == 2


async def test_a_new_process_does_not_revive_what_the_last_one_left_suspect(redis_url: str) -> None:
    old = make_bench(redis_url)
    held, gone = make_quote(bid=149.99, ask=150.01), make_quote(bid=0.0, ask=149.0, at_s=10)
    old.writer.take_quote(held)
    old.writer.take_rejected(Rejection("AAPL", Unmarkable.ONE_SIDED, gone.received_at, gone))
    assert await old.writer.write_batch()
    new = make_bench(redis_url)
    new.state["epoch"] = new.link.epoch = "e2"
    new.writer.take_quote(replace(held, origin=QuoteOrigin.REST))
    assert await new.writer.write_batch()
    price = (await new.cache.read(["AAPL"]))["AAPL"]
    assert (price.mid, price.suspect_since, price.suspect_reason) == (150, gone.received_at, "one_sided")
    assert price.newest_ask == 149
    new.writer.take_quote(make_quote(bid=148.0, ask=148.02, at_s=20))
    assert await new.writer.write_batch()
    assert (await new.cache.read(["AAPL"]))["AAPL"].suspect_since is None
    await old.client.aclose()
    await new.client.aclose()


async def test_until_redis_says_what_was_suspect_nothing_is_written() -> None:
    with EmbeddedRedis() as server:
        bench = make_bench(server.url)
        bench.writer.take_quote(make_quote(origin=QuoteOrigin.REST))
        server.kill()
        assert not await bench.writer.write_batch()
        assert (list(bench.latest.to_recall), bench.latest.pending) == (["AAPL"], 1)
        server.start()
        assert await bench.writer.write_batch()
        assert (list(bench.latest.to_recall), bench.latest.pending) == ([], 0)
        await bench.client.aclose()
