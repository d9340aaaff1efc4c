"""The simulator as one object: built from a config, started, steered and stopped by `main.py` or by a test."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog
from aiohttp import WSCloseCode, web

from apps.alpaca_simulator.account import Account, OpeningPosition
from apps.alpaca_simulator.account_prices import AccountPrices, PriceScale
from apps.alpaca_simulator.autofill import Autofill
from apps.alpaca_simulator.broadcast import ALL_FEEDS, Broadcaster
from apps.alpaca_simulator.config import SimulatorConfig
from apps.alpaca_simulator.control import MAX_BODY_BYTES, Control
from apps.alpaca_simulator.data_stream import DataStream
from apps.alpaca_simulator.dials import DialLog
from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.halts import Halts
from apps.alpaca_simulator.history import DailyHistory
from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.market import IEX_EXCHANGE, MarketSetting, QuoteSource
from apps.alpaca_simulator.market_tasks import build_market, usual_price
from apps.alpaca_simulator.points import Feed, Quote, Trade
from apps.alpaca_simulator.recording import read_recording
from apps.alpaca_simulator.replay import ReplayMarket
from apps.alpaca_simulator.rest import MarketDataRest
from apps.alpaca_simulator.rest_access import RestAccess
from apps.alpaca_simulator.scenario import Scenario, ScenarioRun
from apps.alpaca_simulator.sent_record import SentRecord
from apps.alpaca_simulator.session_calendar import SessionCalendar
from apps.alpaca_simulator.stream_connection import StreamConnection
from apps.alpaca_simulator.trade_updates_stream import TradeUpdatesStream
from apps.alpaca_simulator.trading import TradingRest
from apps.alpaca_simulator.trading_desk import TradingDesk
from apps.alpaca_simulator.trading_limits import TradingLimits
from apps.alpaca_simulator.trading_orders import OrdersRest

log = structlog.get_logger(__name__)

MODE_HEADER: Final = "X-Markstream-Simulator"
"""Says on every answer that this is not Alpaca, and whether it makes prices up or replays them."""

_SHUTDOWN_S: Final = 1.0


class Simulator:
    """A pretended Alpaca on one port. `faults` may be replaced at any time, before the start too."""

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        self.sent = SentRecord()
        """What was really written to clients, for a check from outside."""
        self.mute_since_unix_s: float | None = None
        """Since when `faults.mute` is on, in seconds since 1970."""
        self.scenario: ScenarioRun | None = None
        """The scenario started last, running or over; None when it was stopped or there was none."""
        self._faults = self.config.faults
        self._port = self.config.port
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._calendar = SessionCalendar(self.config.market)
        self._market: QuoteSource = ReplayMarket()
        self._broadcaster = Broadcaster(lambda: self.faults)
        self._stream = DataStream(self.config, self._broadcaster, lambda: self.faults, self.sent)
        self._halts = Halts()
        self._scenario_task: asyncio.Task[None] | None = None
        self.updates = TradeUpdatesStream(self.config.credentials, lambda: self.faults)
        """The trading stream."""
        held = (
            OpeningPosition(one.symbol, one.qty, one.avg_entry_price, one.opened_at) for one in self.config.positions
        )
        self.account = Account(held, self.config.now())
        """The account's truth; it outlives a stop and a new start."""
        self._price_scale = PriceScale()
        self.desk: TradingDesk
        """Where everything that happens to the account passes through; known once started."""
        self.faults = self.config.faults

    @property
    def fill(self) -> Callable[..., Awaitable[list[str]]]:
        """Let shares change hands: `desk.fill`, the act that tests need most."""
        return self.desk.fill

    async def start(self) -> None:
        """Bind the port and start the market. Started again after a stop, it takes the same port.

        Raises OSError when the port cannot be had, RecordingError when the replay file cannot be read.
        """
        recording = None
        if self.config.replay is not None:
            recording = await asyncio.to_thread(read_recording, self.config.replay)
        await self._calendar.load()
        self._stream.free_all_slots()
        market = build_market(
            self.config, recording, self._broadcaster, self._halts, lambda: self.faults, self._calendar.is_open
        )
        self._market = market.quotes
        price_of = usual_price(recording)
        history = DailyHistory(self._price_scale.usual_price(price_of))
        self._price_scale.tell(history, self._market, price_of)
        prices = AccountPrices(self._market, history, self._calendar, self.account, self._price_scale)
        self.desk = TradingDesk(self.account, self.updates, prices, self.config.now, lambda: self.faults)
        self.updates.start()
        self._runner = web.AppRunner(self._application(history), access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.config.host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            self._runner = None
            raise
        self._port = self._runner.addresses[0][1]
        self._tasks = [_spawned(name, work()) for name, work in market.work.items()]
        if self.config.trading_autofill:
            autofill = Autofill(self.desk, self.config.trading_autofill, self.config.seed, self._calendar.is_open)
            self._tasks.append(_spawned("autofill", autofill.run()))
        if self.config.scenario is not None:
            self.start_scenario(self.config.scenario)
        log.info("simulator_started", url=self.base_url, mode=self.mode)

    async def stop(self, *, clean: bool = True) -> None:
        """End everything: with close frames when `clean`, else as if the machine had lost its power."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._scenario_task is not None:
            self._scenario_task.cancel()
        await self.updates.stop(clean=clean)
        await self.drop_all(clean=clean)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            log.info("simulator_stopped")

    async def wait_failed(self) -> None:
        """Return never, unless a task of the market dies: then raise what killed it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    @property
    def port(self) -> int:
        """The TCP port; known once started."""
        return self._port

    @property
    def base_url(self) -> str:
        """The REST base, without `/v2`, of both the data and the trading host."""
        return f"http://{self.config.host}:{self._port}"

    def stream_url(self, feed: str = "iex") -> str:
        """Return the WebSocket URL of a feed."""
        return f"ws://{self.config.host}:{self._port}/v2/{feed}"

    @property
    def trading_stream_url(self) -> str:
        """The WebSocket URL of the trading stream."""
        return f"ws://{self.config.host}:{self._port}/stream"

    @property
    def mode(self) -> str:
        """`simulated` or `replay`: the value of the header on every answer."""
        return "simulated" if self.config.replay is None else "replay"

    @property
    def connections(self) -> list[StreamConnection]:
        """The clients connected now."""
        return self._broadcaster.connections

    @property
    def dial_log(self) -> DialLog:
        """When each WebSocket upgrade was asked for, and how densely."""
        return self._stream.dials

    @property
    def dials(self) -> list[float]:
        """When each WebSocket upgrade was asked for, in seconds of `time.monotonic()`."""
        return self._stream.dials.times_s

    @property
    def faults(self) -> Faults:
        """How it misbehaves now."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        before, self._faults = self._faults, faults
        self.mute_since_unix_s = (self.mute_since_unix_s or time.time()) if faults.mute else None
        self._broadcaster.faults_changed(before, faults)
        self.updates.faults_changed(before, faults)

    @property
    def halted(self) -> frozenset[str]:
        """The symbols whose trading is halted."""
        return self._halts.halted

    @property
    def half_open_since_unix_s(self) -> float | None:
        """Since when every authenticated connection of a market feed is half-open; None while one lives or none is."""
        return self._broadcaster.half_open_since_unix_s

    @property
    def slot_held_until_unix_s(self) -> float | None:
        """When the last slot of a lost client will be free, in seconds since 1970; None when none is held."""
        return self._stream.slot_held_until_unix_s

    def emit(  # noqa: PLR0913 - each is a field of the quote
        self,
        symbol: str,
        bid: float,
        ask: float,
        *,
        bid_size: int = 100,
        ask_size: int = 100,
        bid_exchange: str = IEX_EXCHANGE,
        ask_exchange: str = IEX_EXCHANGE,
        conditions: tuple[str, ...] = ("R",),
        tape: str | None = None,
        time_ns: int | None = None,
    ) -> int:
        """Send one quote exactly as given to every subscriber on any feed; REST and the walk go on from it.

        Prices in USD (0 = no quote on that side), sizes in shares. Returns how many clients it was queued for.
        """
        quote = Quote(
            symbol, float(bid), bid_size, bid_exchange, float(ask), ask_size, ask_exchange,
            self._now_ns() if time_ns is None else time_ns, conditions, tape or listing_of(symbol).tape,
        )  # fmt: skip
        return self.send(quote)

    def _now_ns(self) -> int:
        return self.faults.skewed_ns(time.time_ns())

    def send(self, quote: Quote) -> int:
        """Send one quote exactly as it is, like `emit`."""
        self._market.put(quote)
        return self._broadcaster.deliver([quote], ALL_FEEDS, as_given=True)

    def trade(
        self,
        symbol: str,
        price: float,
        *,
        size: int = 100,
        trade_id: int | None = None,
        exchange: str = IEX_EXCHANGE,
        conditions: tuple[str, ...] = ("@",),
        tape: str | None = None,
        time_ns: int | None = None,
    ) -> int:
        """Send one trade exactly as given to every subscriber of trades on any feed; REST shows it as the latest.

        Price in USD, size in shares; an id is made up when none is given. Returns how many clients it was queued for.
        """
        trade = Trade(
            symbol, self._market.tape.next_id() if trade_id is None else trade_id, exchange, float(price), size,
            self._now_ns() if time_ns is None else time_ns, conditions, tape or listing_of(symbol).tape,
        )  # fmt: skip
        return self.send_trade(trade)

    def send_trade(self, trade: Trade) -> int:
        """Send one trade exactly as it is, like `trade`."""
        self._market.put_trade(trade)
        return self._broadcaster.deliver([trade], ALL_FEEDS, as_given=True)

    def correct_trade(
        self,
        symbol: str,
        trade_id: int | None = None,
        exchange: str | None = None,
        *,
        price: float | None = None,
        size: int | None = None,
        conditions: tuple[str, ...] | None = None,
    ) -> int:
        """Correct a trade, the last one unless an id is given; what is None stays. Returns how many were told."""
        printed = self._market.tape.find(symbol, trade_id, exchange)
        if printed is None:
            return 0
        correction = self._market.tape.correct(printed, time.time_ns(), price=price, size=size, conditions=conditions)
        return self._broadcaster.deliver([correction], ALL_FEEDS, as_given=printed.is_given)

    def cancel_trade(
        self, symbol: str, trade_id: int | None = None, exchange: str | None = None, action: str = "C"
    ) -> int:
        """Take back a trade (`C` cancel, `E` error), the last one unless an id is given. Returns how many were told."""
        printed = self._market.tape.find(symbol, trade_id, exchange)
        if printed is None:
            return 0
        cancel = self._market.tape.cancel(printed, action, time.time_ns())
        return self._broadcaster.deliver([cancel], ALL_FEEDS, as_given=printed.is_given)

    def send_raw(self, data: bytes | str) -> int:
        """Send one raw frame, text for str, to every connected client; return how many those are."""
        raw = data.encode() if isinstance(data, str) else data
        for connection in self.connections:
            connection.put_frame(raw, is_text=isinstance(data, str))
        return len(self.connections)

    def halt(self, symbol: str, code: str | None = None, reason: str | None = None, tape: str | None = None) -> int:
        """Halt a symbol: its quotes stop, and who subscribes its status is told.

        The codes are the tape's (`H`, `2`, ...), without them those of a halt for news. Returns how many were told.
        """
        status = self._halts.halt(symbol, code, reason, tape or listing_of(symbol).tape, time.time_ns())
        return self._broadcaster.deliver([status], ALL_FEEDS, as_given=True)

    def resume(self, symbol: str, code: str | None = None, reason: str | None = None, tape: str | None = None) -> int:
        """End a halt, or with the code `Q` let quotes come back while trading stays halted. Returns who was told."""
        status = self._halts.resume(symbol, code, reason, tape or listing_of(symbol).tape, time.time_ns())
        return self._broadcaster.deliver([status], ALL_FEEDS, as_given=True)

    def drop_slow(self, with_message: bool = True) -> int:
        """Treat every client as too slow: error 407 and a dropped connection, or the drop alone. Returns how many."""
        connections = list(self.connections)
        for connection in connections:
            connection.give_up(with_message=with_message)
        return len(connections)

    async def drop_all(self, *, clean: bool, code: int = WSCloseCode.GOING_AWAY, reason: str = "") -> None:
        """End every connection: with a close frame, or by cutting TCP (which leaves its slot held)."""
        connections = list(self.connections)
        if clean:
            await asyncio.gather(*(connection.close(code, reason) for connection in connections))
            return
        for connection in connections:
            connection.drop()

    @property
    def market_setting(self) -> MarketSetting:
        """What the clock says; may be set while it runs."""
        return self._calendar.setting

    @market_setting.setter
    def market_setting(self, setting: MarketSetting) -> None:
        self._calendar.setting = setting

    def start_scenario(self, scenario: Scenario) -> None:
        """Begin a scenario, in place of one that is running."""
        self.stop_scenario()
        self.scenario = ScenarioRun(scenario, self, self._broadcaster.wait_for_client)
        self._scenario_task = _spawned("scenario", self.scenario.run())

    def stop_scenario(self) -> None:
        """End and forget the scenario; the faults stay as they are."""
        if self._scenario_task is not None:
            self._scenario_task.cancel()
        self._scenario_task = self.scenario = None

    def _application(self, history: DailyHistory) -> web.Application:
        access = RestAccess(self.config.credentials, lambda: self.faults)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(self._label)
        app.router.add_get(f"/v2/{{feed:{'|'.join(Feed)}}}", self._stream.handle)
        app.router.add_routes(Control(self).routes())
        app.router.add_routes(MarketDataRest(self._market, history, self._calendar, self._now_ns).routes(access))
        app.router.add_get("/stream", self.updates.handle)
        limits = TradingLimits(self.config.trading_rate_limit, lambda: self.faults)
        app.router.add_routes(TradingRest(self.desk, self._calendar, lambda: self.faults).routes(access, limits))
        app.router.add_routes(OrdersRest(self.desk).routes(access, limits))
        return app

    async def _label(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers[MODE_HEADER] = self.mode


def _spawned(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_death)
    return task


def _log_death(task: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        if (fault := task.exception()) is not None:
            log.error("market_task_died", task=task.get_name(), exc_info=fault)
