"""The mirror of an account under faults: whatever is lost, late, doubled or cut off, the ledger ends as the account.

Gateways and brokers are in this process, on real sockets. A client may dial as often as it is cut off: the dial budget
(20 a minute) would make two hundred disconnects of four accounts take three minutes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.simulator import Simulator
from apps.alpaca_simulator.trading_desk import Announce
from libs.market_data.reconnect import DialBudget, ReconnectPolicy
from tests.support.account import Broker, is_in_step, is_mirrored
from tests.support.clock import NoonClock
from tests.support.gateway import RunningGateway, serving, settings_in
from tests.support.simulator import running_simulator
from tests.support.sqlite_threads import sqlite_threads_ended
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

HELD = (HeldPosition("AAPL", Decimal(100), Decimal(150)), HeldPosition("MSFT", Decimal(-20), Decimal(400)))
SYMBOLS = ("AAPL", "MSFT", "NVDA", "KO")
ANNOUNCED = (Announce.ONCE, Announce.ONCE, Announce.ONCE, Announce.TWICE, Announce.NEVER, Announce.LATE)
LONGER_THAN_REST_LAGS = timedelta(minutes=11)
"""What nobody announced of an execution that was known, REST is believed about only after ten minutes."""


class NoBudget(DialBudget):
    """Lets a client dial as often as the test cuts it off; the budget has tests of its own."""

    def wait_s(self, _now_s: float) -> float:
        return 0.0


class Impatient(ReconnectPolicy):
    """Dials again almost at once."""

    def delay_after(self, _ending: object, **_asked: object) -> float:
        return self.dice() / 20


@dataclass
class Life:
    """One account that trades, its broker that misbehaves, and its mirror."""

    gateway: RunningGateway
    simulator: Simulator
    broker: Broker
    dice: Random
    cuts: int = 0

    async def act(self) -> None:
        """Let one thing happen at the broker, and be announced or not."""
        desk, dice = self.simulator.desk, self.dice
        announce = dice.choice(ANNOUNCED)
        # Neither the opening trades, a month old, nor pieces of one moment: in which order these count, nobody says.
        today = list(self.simulator.account.executions.values())[len(HELD) :][-40:]
        alone = {at for at, times in Counter(one.at for one in today).items() if times == 1}
        amendable = [one for one in today if one.booking != "busted" and one.at in alone]
        chance = dice.random() if amendable else 1.0
        if chance < 0.04:
            await desk.bust(dice.choice(amendable).execution_id, announce, 0.2)
        elif chance < 0.12:
            corrected = dice.choice(amendable)
            await desk.correct(corrected.execution_id, self.price(), dice.choice((None, self.qty())), announce, 0.2)
        else:
            side, pieces = dice.choice(("buy", "sell")), dice.choice((1, 1, 1, 3))
            symbol = dice.choice(SYMBOLS)
            await desk.fill(symbol, side, self.qty(), self.price(), pieces=pieces, announce=announce, delay_s=0.3)

    def qty(self) -> Decimal:
        return Decimal(self.dice.randint(3, 5000)).scaleb(self.dice.choice((-9, -3, 0)))

    def price(self) -> Decimal:
        return Decimal(self.dice.randint(100, 99_999)).scaleb(-2)

    async def trade(self) -> None:
        while True:
            await self.act()
            await asyncio.sleep(self.dice.random() * 0.1)

    async def trouble_rest(self) -> None:
        """Now and then let REST refuse, dawdle or talk nonsense."""
        calm = self.simulator.faults
        troubles: tuple[dict[str, Any], ...] = (
            {"trading_rest_status": 429, "trading_rest_retry_after_s": 1.0},
            {"trading_rest_status": 503},
            {"trading_rest_delay_s": 0.7},
            {"trading_rest_garbage": True},
            {"trading_mute": True},
        )
        try:
            while True:
                await asyncio.sleep(self.dice.random() * 3)
                self.simulator.faults = replace(calm, **self.dice.choice(troubles))
                await asyncio.sleep(self.dice.random())
                self.simulator.faults = calm
        finally:
            self.simulator.faults = calm

    async def cut_off(self, times: int) -> None:
        """Cut the stream off so many times, twice by letting it hang."""
        hanging = {times // 3, 2 * times // 3}
        while self.cuts < times:
            if self.dice.random() < 0.8:
                await eventually(self.is_listening, within_s=30)
            await asyncio.sleep(self.dice.random() * 0.2)
            if not self.simulator.updates.connections:
                continue
            if self.cuts in hanging:
                calm = self.simulator.faults
                self.simulator.faults = replace(calm, trading_half_open=True)
                self.simulator.faults = calm
                self.cuts += 1
            else:
                self.cuts += await self.simulator.updates.drop_all(self.dice.choice(("tcp", "close", "error")))

    def is_listening(self) -> bool:
        return any(one.session.is_listening and not one.is_half_open for one in self.simulator.updates.connections)


@asynccontextmanager
async def living(
    folder: Path, redis_url: str, seed: int, clock: NoonClock, faults: Faults, skew: timedelta = timedelta(),
    round_s: float = 1.0,
) -> AsyncIterator[Life]:  # fmt: skip
    """Run an account and its mirror, whose clock is `skew` ahead of the account's, with a round every `round_s`."""
    folder.mkdir(exist_ok=True)
    async with running_simulator(rate=0, positions=HELD, now=clock, faults=faults) as simulator:
        fields = {"position_source": "alpaca", "alpaca_stream_url": simulator.stream_url()}
        settings = settings_in(folder, redis_url, **fields, reconcile_seconds=round_s)
        async with serving(settings, now=lambda: clock() + skew, is_alone=False) as gateway:
            broker = Broker(simulator.base_url)
            assert gateway.gateway.mirror is not None
            stream = gateway.gateway.mirror.stream
            dice = Random(seed)
            stream._budget, stream._policy = NoBudget(), Impatient(dice.random)
            try:
                await eventually(lambda: is_in_step(gateway.client), within_s=20)
                yield Life(gateway, simulator, broker, dice)
            finally:
                await broker.http.aclose()


async def end_well(life: Life) -> None:
    """Check that the ledger becomes the account's, by executions alone."""
    await eventually(lambda: is_mirrored(life.gateway.client, life.broker), within_s=90, every_s=0.3)
    await eventually(lambda: is_in_step(life.gateway.client), within_s=5)


async def trade_through(life: Life, clock: NoonClock, cuts: int) -> None:
    """Trade, be cut off, and let REST misbehave; then let everybody come to rest, and check."""
    others = [asyncio.create_task(life.trade()), asyncio.create_task(life.trouble_rest())]
    await life.cut_off(cuts)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    # What is still to be said is said before the clock moves.
    await eventually(lambda: not life.simulator.updates._late)
    await eventually(lambda: is_in_step(life.gateway.client), within_s=90, every_s=0.2)
    clock.advance(LONGER_THAN_REST_LAGS)
    await end_well(life)
    assert life.cuts >= cuts


async def test_two_hundred_disconnects_with_fills_in_flight(tmp_path: Path, redis_url: str) -> None:
    """Four accounts, each cut off fifty times while it trades and REST misbehaves."""
    try:
        async with AsyncExitStack() as stack:
            lives = []
            # One after another: a process migrates one database at a time.
            for seed in range(4):
                clock = NoonClock()
                faults = Faults(activities_lag_s=0.2 * seed, trading_duplicate_every=7, trading_reorder_every=5 + seed)
                life = await stack.enter_async_context(living(tmp_path / str(seed), redis_url, seed, clock, faults))
                lives.append(trade_through(life, clock, 50))
            await asyncio.gather(*lives)
    finally:
        await sqlite_threads_ended()


@pytest.mark.parametrize("minutes", [-3, 3])
async def test_a_gateway_whose_clock_is_wrong(tmp_path: Path, redis_url: str, minutes: int) -> None:
    clock = NoonClock()
    try:
        async with living(tmp_path, redis_url, minutes, clock, Faults(), timedelta(minutes=minutes)) as life:
            await trade_through(life, clock, 8)
    finally:
        await sqlite_threads_ended()


async def test_activities_that_lag_behind_the_positions(tmp_path: Path, redis_url: str) -> None:
    """What nobody announced is in the positions at once, and explained only after the next round."""
    clock = NoonClock()
    try:
        # A difference is believed after two rounds: far longer than the lag, on a machine that stalls as well.
        async with living(tmp_path, redis_url, 5, clock, Faults(activities_lag_s=1.5), round_s=4.0) as life:
            for number in range(3):
                await life.simulator.desk.fill(
                    "AAPL", "buy", Decimal(7 + number), Decimal(230), announce=Announce.NEVER
                )
                await life.simulator.desk.fill(
                    "NVDA", "sell", Decimal(5), Decimal(140 + number), announce=Announce.NEVER
                )
                await end_well(life)
    finally:
        await sqlite_threads_ended()
