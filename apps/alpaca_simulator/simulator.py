"""The simulator as one object: built from a config, started, steered and stopped by `main.py` or by a test."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog
from aiohttp import WSCloseCode, web

from apps.alpaca_simulator.broadcast import ALL_FEEDS, Broadcaster
from apps.alpaca_simulator.config import MarketSetting, SimulatorConfig
from apps.alpaca_simulator.data_stream import DataStream
from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.history import DailyHistory
from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.market import IEX_EXCHANGE, QuoteSource, RandomWalkMarket
from apps.alpaca_simulator.points import Feed, Quote
from apps.alpaca_simulator.pump import BarPump, FakepacaPump, RandomWalkPump
from apps.alpaca_simulator.recording import Recording, read_recording
from apps.alpaca_simulator.replay import ReplayMarket, ReplayPump
from apps.alpaca_simulator.rest import MarketDataRest
from apps.alpaca_simulator.rest_access import RestAccess
from apps.alpaca_simulator.session_calendar import SessionCalendar
from apps.alpaca_simulator.stream_connection import StreamConnection
from apps.alpaca_simulator.trading import TradingRest

log = structlog.get_logger(__name__)

MODE_HEADER: Final = "X-Markstream-Simulator"
"""Says on every answer that this is not Alpaca, and whether it makes prices up or replays them."""

_SHUTDOWN_S: Final = 1.0


class Simulator:
    """A pretended Alpaca on one port. `faults` may be replaced at any time; it is read afresh at every use."""

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        self.faults: Faults = NO_FAULTS
        self._port = self.config.port
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._calendar = SessionCalendar(self.config.market)
        self._market: QuoteSource = ReplayMarket()
        self._broadcaster = Broadcaster(lambda: self.faults)
        self._stream = DataStream(self.config, self._broadcaster, lambda: self.faults)

    async def start(self) -> None:
        """Bind the port and start the market. Started again after a stop, it takes the same port.

        Raises OSError when the port cannot be had, RecordingError when the replay file cannot be read.
        """
        recording = None
        if self.config.replay is not None:
            recording = await asyncio.to_thread(read_recording, self.config.replay)
        await self._calendar.load()
        self._stream.free_all_slots()
        market_tasks = self._build_market(recording)
        self._runner = web.AppRunner(self._application(recording), access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.config.host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            self._runner = None
            raise
        self._port = self._runner.addresses[0][1]
        for name, work in market_tasks.items():
            self._spawn(name, work)
        log.info("simulator_started", url=self.base_url, mode=self.mode)

    async def stop(self, *, clean: bool = True) -> None:
        """End everything: with close frames when `clean`, else as if the machine had lost its power."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
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
    def mode(self) -> str:
        """`simulated` or `replay`: the value of the header on every answer."""
        return "simulated" if self.config.replay is None else "replay"

    @property
    def connections(self) -> list[StreamConnection]:
        """The clients connected now."""
        return self._broadcaster.connections

    @property
    def dials(self) -> list[float]:
        """When each WebSocket upgrade was asked for, in seconds of `time.monotonic()`."""
        return self._stream.dials

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
            time.time_ns() if time_ns is None else time_ns, conditions, tape or listing_of(symbol).tape,
        )  # fmt: skip
        self._market.put(quote)
        return self._broadcaster.deliver([quote], ALL_FEEDS, as_given=True)

    def send_raw(self, data: bytes | str) -> int:
        """Send one raw frame, text for str, to every connected client; return how many those are."""
        raw = data.encode() if isinstance(data, str) else data
        for connection in self.connections:
            connection.put_frame(raw, is_text=isinstance(data, str))
        return len(self.connections)

    async def drop_all(self, *, clean: bool) -> None:
        """End every connection: with a close frame, or by cutting TCP (which leaves its slot held)."""
        connections = list(self.connections)
        if clean:
            await asyncio.gather(*(connection.close(WSCloseCode.GOING_AWAY) for connection in connections))
            return
        for connection in connections:
            connection.drop()

    @property
    def market_setting(self) -> MarketSetting:
        """What the clock says; may be set while it runs (`AUTO` only when it was started so)."""
        return self._calendar.setting

    @market_setting.setter
    def market_setting(self, setting: MarketSetting) -> None:
        self._calendar.setting = setting

    def _application(self, recording: Recording | None) -> web.Application:
        usual_price = _usual_price(recording)
        history = DailyHistory(usual_price)
        access = RestAccess(self.config.credentials, lambda: self.faults)
        app = web.Application()
        app.on_response_prepare.append(self._label)
        app.router.add_get(f"/v2/{{feed:{'|'.join(Feed)}}}", self._stream.handle)
        app.router.add_routes(MarketDataRest(self._market, history, self._calendar).routes(access))
        app.router.add_routes(TradingRest(self.config.positions, self._market, history, self._calendar).routes(access))
        return app

    async def _label(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers[MODE_HEADER] = self.mode

    def _build_market(self, recording: Recording | None) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Build the walk or the replay, and return the work of each of its tasks by name."""
        config = self.config
        test_feed = FakepacaPump(self._broadcaster, config.test_quote_interval_s, config.bar_interval_s)
        work = {"test-quotes": test_feed.run_quotes, "test-bars": test_feed.run_bars}
        if recording is not None:
            replayed = ReplayMarket()
            self._market = replayed
            self._broadcaster.universe = recording.symbols
            player = ReplayPump(
                recording,
                replayed,
                self._broadcaster,
                speed=config.speed,
                batch=config.batch_limit,
                keep_timestamps=config.keep_timestamps,
                loop=config.loop,
            )
            return work | {"replay": player.run}
        walking = RandomWalkMarket(config.seed, _usual_price(None), config.habits)
        self._market = walking
        bars = BarPump(self._broadcaster, config.bar_interval_s)
        walk = RandomWalkPump(
            walking,
            self._broadcaster,
            bars,
            rate=config.rate,
            seed=config.seed,
            batch=config.batch_limit,
            is_open=self._calendar.is_open,
        )
        return work | {"random-walk": walk.run, "bars": bars.run}

    def _spawn(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(work(), name=name)
        task.add_done_callback(_log_death)
        self._tasks.append(task)


def _log_death(task: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        if (fault := task.exception()) is not None:
            log.error("market_task_died", task=task.get_name(), exc_info=fault)


def _usual_price(recording: Recording | None) -> Callable[[str], float]:
    """Return what each symbol usually costs: where the walk starts and around what its past lies."""

    def usual_price(symbol: str) -> float:
        first = recording.first_prices.get(symbol) if recording is not None else None
        return listing_of(symbol).base_price if first is None else first

    return usual_price
