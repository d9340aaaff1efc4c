"""A week of an account on virtual time: split, dividend, fees, overnight cost changes; ours equals theirs to the cent.

The account is our simulator over real sockets, which counts cost and profit with code of its own.
"""

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from apps.alpaca_simulator.config import HeldPosition
from apps.alpaca_simulator.simulator import Simulator
from libs.market_data.daily_bars_parquet import write_bars
from libs.market_data.daily_bars_rest import DailyBar
from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.gateway import RunningGateway, price, serving, settings_in
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually

NEW_YORK = ZoneInfo("America/New_York")
MONDAY = date(2025, 10, 20)
PARITY = "/api/v1/positions/parity"
SYMBOLS = ("AAPL", "MSFT", "NVDA")
HELD = (
    HeldPosition("AAPL", Decimal(150), Decimal("10.50")),
    HeldPosition("MSFT", Decimal(-20), Decimal(400)),
)


class Clock:
    """Both sides' clock: set to where the story is, it goes on from there."""

    def __init__(self, moment: datetime) -> None:
        self._set(moment)

    def _set(self, moment: datetime) -> None:
        self.begun_at = moment
        self._began_s = time.monotonic()

    def now(self) -> datetime:
        return self.begun_at + timedelta(seconds=time.monotonic() - self._began_s)

    def set(self, day: date, hour: int, minute: int = 0) -> None:
        moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)
        assert moment >= self.now()
        self._set(moment)


class Week:
    """The account, the gateway that mirrors it, and the clock of both."""

    def __init__(self, clock: Clock, simulator: Simulator, gateway: RunningGateway, cache: PriceCache, bars: Path):
        self.clock = clock
        self.simulator = simulator
        self.gateway = gateway
        self.cache = cache
        self.bars = bars
        self.causes: set[str] = set()
        self.account_parts: set[tuple[str, str]] = set()

    async def close_of(self, session: date) -> None:
        """Write the official closes of a session to disk, as they were traded."""
        history = self.simulator.desk.prices._history
        closes = {symbol: Decimal(str(history.close(symbol, session))) for symbol in SYMBOLS}
        write_bars(self.bars, [DailyBar(one, session, at, at, at, at, 1000) for one, at in closes.items()])
        await self.gateway.gateway.bars.refresh()

    async def quote(self, mids: Mapping[str, str], ours: Mapping[str, str] | None = None) -> None:
        """Let the market stand at `mids`, and at `ours` for the gateway where that is another."""
        for symbol, mid in mids.items():
            self.simulator.emit(symbol, float(mid) - 0.01, float(mid) + 0.01)
            seen = (ours or {}).get(symbol, mid)
            moment = self.clock.now()
            one = price(symbol, seen, timestamp=moment, received_at=moment, epoch=None, seq=None)
            await self.cache.write([PriceWrite(one, publish=True)])

    async def agreed(self) -> Any:
        """Return the parity report once the mirror has followed; every cent of it is explained."""

        asked_at = self.clock.now()

        async def is_in_step() -> bool:
            health = (await self.gateway.get("/health"))["account"]
            caught_up_at = datetime.fromisoformat(health["caught_up_at"] or "2000-01-01T00:00:00+00:00")
            assert (health["state"], caught_up_at >= asked_at) == ("in_step", True), health
            return True

        await eventually(is_in_step, within_s=20)
        truth = self.simulator.account.book(self.clock.now()).open_positions()

        async def has_followed() -> Any:
            body = await self.gateway.get(PARITY)
            ours = {row["symbol"]: Decimal(row["ours"]["qty"]) for row in body["positions"] if row["ours"]}
            is_new = datetime.fromisoformat(body["account_at"]) >= asked_at
            has_all = ours == {symbol: held.qty for symbol, held in truth.items()}
            if not is_new or not has_all or body["account"] is None:
                return None
            # What moved the cash may be newer than the last catch-up; then the next one explains it.
            cash = body["account"]["cash"]
            return None if "timing" in cash["parts"] or cash["unexplained"] is None else body

        body = await eventually(has_followed, within_s=20)
        assert (body["unexplained"], body["unexplained_usd"]) == ([], 0), body
        for row in body["positions"]:
            for figure in ("unrealized", "day"):
                difference, parts = row[figure]["difference"], row[figure]["parts"]
                assert difference is not None, row
                assert abs(sum(parts.values()) - difference) <= Decimal("0.01")
                self.causes |= {cause for cause, amount in parts.items() if abs(amount) > Decimal("0.01")}
        self._check_account(body["account"])
        return body

    def _check_account(self, account: Any) -> None:
        """The book closes on the account's cash and equity, to the cent."""
        for name in ("cash", "equity", "day_change", "total"):
            figure = account[name]
            assert figure["unexplained"] == 0, (name, account)
            assert abs(figure["difference"] - (figure["ours"] - figure["theirs"])) <= Decimal("0.01")
            assert abs(sum(figure["parts"].values()) - figure["difference"]) <= Decimal("0.01"), (name, figure)
            self.account_parts |= {(name, part) for part, amount in figure["parts"].items() if abs(amount) > 1}


@pytest.fixture
async def week(tmp_path: Path, redis_url: str, redis_client: RedisClient):
    clock = Clock(datetime(2025, 10, 20, 11, 0, tzinfo=UTC))
    async with running_simulator(rate=0, positions=HELD, now=clock.now) as simulator:
        settings = settings_in(
            tmp_path,
            redis_url,
            position_source="alpaca",
            alpaca_stream_url=simulator.stream_url(),
            reconcile_seconds=1.0,
            price_ttl_seconds=600_000,
        )
        async with serving(settings, clock.now) as gateway:
            yield Week(clock, simulator, gateway, PriceCache(redis_client, 600_000), tmp_path / "bars")


async def test_no_cent_of_a_week_is_unexplained(week: Week) -> None:
    dice, clock, desk = Random(7), week.clock, week.simulator.desk
    await week.close_of(MONDAY - timedelta(days=3))
    mids = {"AAPL": 232.0, "MSFT": 510.0, "NVDA": 182.0}
    for number in range(5):
        day = MONDAY + timedelta(days=number)
        if number == 2:
            clock.set(day, 3)
            await desk.split("AAPL", Decimal(4), Decimal(1))
            mids["AAPL"] /= 4
        for hour in (10, 12, 15):
            clock.set(day, hour)
            mids = {symbol: round(mid * (1 + dice.uniform(-0.02, 0.02)), 2) for symbol, mid in mids.items()}
            shown = {symbol: f"{mid:.2f}" for symbol, mid in mids.items()}
            await week.quote(shown, {"NVDA": f"{mids['NVDA'] + 0.07:.2f}"})
            for symbol in SYMBOLS:
                side = dice.choice(("buy", "sell"))
                qty = Decimal(dice.randint(1, 60_000)).scaleb(dice.choice((-9, -3)))
                at = Decimal(shown[symbol]) + Decimal(dice.randint(-50, 50)).scaleb(-2)
                await desk.fill(symbol, side, qty, at, pieces=dice.choice((1, 2)))
            if number == 3 and hour == 12:
                await desk.pay_dividend("AAPL", Decimal("0.26"))
                await desk.charge_fee(Decimal("0.35"), "NVDA")
                await desk.charge_fee(Decimal("0.02"))
                await desk.move_cash(Decimal(5000))
                await desk.move_cash(Decimal("-1.25"), "JNLC")
                await desk.move_cash(Decimal("0.42"), "INT")
            await week.agreed()
        clock.set(day, 16, 30)
        await week.close_of(day)
        await week.agreed()
    assert {"mark", "cost_method", "income", "fee", "sold_today"} <= week.causes
    assert {
        ("total", "cash_from_outside"),
        ("day_change", "cash_from_outside"),
        ("total", "mark"),
    } <= week.account_parts
    recorded = (await week.gateway.get("/api/v1/adjustments"))["adjustments"]
    assert {one["kind"] for one in recorded} == {"split", "dividend", "fee", "income"}, "no cost had to be taken over"


async def test_a_position_that_only_one_side_knows_is_unexplained(week: Week) -> None:
    await week.close_of(MONDAY - timedelta(days=3))
    await week.quote({"AAPL": "232.00", "MSFT": "510.00"})
    await week.agreed()
    week.clock.set(MONDAY, 9)
    week.simulator.account.exotic["TSLA"] = {
        "symbol": "TSLA", "qty": "7", "side": "long", "avg_entry_price": "200", "cost_basis": "1400",
        "current_price": "210", "unrealized_pl": "70", "unrealized_intraday_pl": "70",
    }  # fmt: skip
    week.simulator.account.left_out["TSLA"] = frozenset()
    body = await week.gateway.get(PARITY)
    (row,) = [row for row in body["positions"] if row["symbol"] == "TSLA"]
    assert (row["ours"], row["explained"], row["reason"]) == (None, False, "unexplained")
    assert "TSLA" in body["unexplained"]


async def test_a_wrong_price_at_the_broker_is_named_and_changes_nothing_of_ours(week: Week) -> None:
    await week.close_of(MONDAY - timedelta(days=3))
    await week.quote({"AAPL": "232.00", "MSFT": "510.00"})
    before = await week.agreed()
    week.simulator.desk.prices.wrong["AAPL"] = Decimal("23.20")
    week.clock.set(MONDAY, 9)
    await week.quote({"AAPL": "232.00", "MSFT": "510.00"})
    body = await week.agreed()
    ours = {row["symbol"]: row["ours"]["unrealized_pnl"] for row in body["positions"]}
    assert ours == {row["symbol"]: row["ours"]["unrealized_pnl"] for row in before["positions"]}
    (row,) = [row for row in body["positions"] if row["symbol"] == "AAPL"]
    assert (row["reason"], row["account"]["current_price"]) == ("mark", Decimal("23.20"))
    assert row["unrealized"]["difference"] == 150 * (Decimal(232) - Decimal("23.20"))
