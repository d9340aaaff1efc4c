"""Watches one connection for what its socket does not show: silence that is no quiet, lag, and this process's sleep.

What silence means is decided in `silence.py`; here REST is asked, the rest of the stream is told, and a connection
that is of no more use is ended.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from libs.market_data.account_time import AccountTime
from libs.market_data.alpaca_connection import ConnectionEndedError
from libs.market_data.gaps import GapLog
from libs.market_data.halts import Halts
from libs.market_data.quote_intake import QuoteIntake
from libs.market_data.reconnect import Ending
from libs.market_data.session import Session
from libs.market_data.silence import Heard, Silence, SilenceJudge
from libs.market_data.snapshots import FetchLatestQuotes
from libs.market_data.symbols import WILDCARD
from libs.market_data.wakefulness import BEAT_EVERY_S, Wakefulness

log = structlog.get_logger(__name__)

_PROBE_TIMEOUT_S: Final = 5.0


class SilenceWatch:
    """Serves one stream over all its connections. `fetch` None: there is no REST side, so nothing can be proven.

    `probes` and `probe_faults` count questions to REST; `on_change` is called when what may be vouched for has changed.
    `is_late_by_design` says that the stream's times are not of now: a delayed feed, or a recording.
    `account_time` corrects our clock.
    """

    def __init__(
        self,
        intake: QuoteIntake,
        halts: Halts,
        gaps: GapLog,
        fetch: FetchLatestQuotes | None,
        is_market_open: Callable[[], bool],
        on_change: Callable[[], None],
        is_late_by_design: Callable[[], bool] = lambda: False,
        account_time: AccountTime | None = None,
    ) -> None:
        self._intake = intake
        self._halts = halts
        self._gaps = gaps
        self._fetch = fetch
        self._is_market_open = is_market_open
        self._on_change = on_change
        self._is_late_by_design = is_late_by_design
        self.account_time = account_time or AccountTime()
        self._judge = SilenceJudge()
        self._to_ask: tuple[str, ...] = ()
        self._has_question = asyncio.Event()
        self._noted_dead: frozenset[str] = frozenset()
        self._told: tuple[Silence, frozenset[str], bool] = (Silence.NONE, frozenset(), False)
        self.awake = Wakefulness(_utc_now())
        self.probes = 0
        self.probe_faults = 0
        self.mute_connections = 0
        self.sleeps = 0

    @property
    def silence(self) -> Silence:
        """What the connection's silence amounts to; of a mute one until the next brings something."""
        return self._judge.silence

    @property
    def dead(self) -> frozenset[str]:
        """Confirmed symbols of which nothing comes, though REST knows newer quotes."""
        return self._judge.dead

    @property
    def silent_s(self) -> float:
        """Seconds for which the connection has been silent while data was to be expected."""
        return self._judge.silent_s(time.monotonic())

    @property
    def lag_s(self) -> float | None:
        """Seconds between the venue's time and ours of the freshest quotes last seen; None before any."""
        least = self._intake.delivery.least
        return None if least is None else least.total_seconds()

    @property
    def ahead_s(self) -> float | None:
        """Seconds by which all quotes are stamped ahead of us, so far that none may mark; None while they are not."""
        ahead = self._intake.delivery.ahead
        return None if ahead is None else ahead.total_seconds()

    @property
    def is_late(self) -> bool:
        """Whether even the freshest quotes of the stream come long after they were made."""
        return self._intake.is_late

    def begin(self) -> None:
        """Start over for a new connection."""
        self._judge.begin(time.monotonic())
        self._intake.delivery.begin()
        self._to_ask = ()
        self.awake.beat(_utc_now())

    def keep_only(self, wanted: frozenset[str]) -> None:
        """Forget every symbol but these."""
        self._judge.keep_only(wanted)

    def check_awake(self, now: datetime) -> None:
        """Raise ConnectionEndedError when the process has slept: what waits in the socket is of before."""
        if self.awake.has_slept(now):
            self.sleeps += 1
            raise ConnectionEndedError(
                Ending.LOST, "this process was stopped for a while: what has piled up in the connection is not trusted"
            )

    async def watch(self, session: Session, renewed: Callable[[], None]) -> None:
        """Look every second. Raises ConnectionEndedError. `renewed` is called when the session has new requests."""
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            now = _utc_now()
            self.check_awake(now)
            self.awake.beat(now)
            self._look(session, now, renewed)

    async def probe(self, session: Session) -> None:
        """Ask REST whenever the judge wants to know something. Runs for ever."""
        while True:
            await self._has_question.wait()
            self._has_question.clear()
            asked = [symbol for symbol in self._to_ask if symbol != WILDCARD]
            if asked and self._fetch is not None:
                await self._ask(self._fetch, asked, session)

    def _look(self, session: Session, now: datetime, renewed: Callable[[], None]) -> None:
        asking = self._judge.look(
            time.monotonic(),
            self._heard(session),
            is_open=self._is_market_open(),
            halted=self._halts.symbols,
        )
        if asking:
            self._to_ask = asking
            self._has_question.set()
        self.account_time.witness(self._intake.delivery.last)
        self._intake.is_late = self._intake.delivery.look() and not self._is_late_by_design()
        told = (self.silence, self.dead, self.is_late)
        if told != self._told:
            self._told = told
            log.warning("silence_judged", silence=self.silence.value, dead=sorted(self.dead)[:20], late=told[2])
            self._on_change()
        if self.silence is Silence.MUTE:
            self.mute_connections += 1
            raise ConnectionEndedError(
                Ending.LOST, f"connected but mute: no data for {self.silent_s:.0f} s, though there are newer quotes"
            )
        self._note_dead(session, now, renewed)

    def _note_dead(self, session: Session, now: datetime, renewed: Callable[[], None]) -> None:
        was_dead, self._noted_dead = self._noted_dead, self.dead
        newly = self.dead - was_dead
        if newly:
            for symbol in newly:
                self._gaps.lost([symbol], self._intake.records.of(symbol).streamed_at or now, "no quotes came")
            session.renew(newly)
            renewed()
        back = was_dead - self.dead
        if back:
            self._gaps.regained(back, now)

    async def _ask(self, fetch: FetchLatestQuotes, asked: list[str], session: Session) -> None:
        self.probes += 1
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                quotes = await fetch(asked)
        except Exception as error:  # noqa: BLE001 - no answer proves nothing; the judge wants to know again
            self.probe_faults += 1
            log.info("silence_not_probed", reason=str(error) or type(error).__name__, symbols=len(asked))
            return
        # Judged before they are taken in: then the stream's own quotes are what they are compared with.
        latest = {quote.symbol: quote.timestamp for quote in quotes if quote.timestamp is not None}
        self._judge.answered(time.monotonic(), asked, latest, self._heard(session))
        for quote in quotes:
            self._intake.take_fetched(quote)

    def _heard(self, session: Session) -> Mapping[str, Heard]:
        records = self._intake.records
        heard = {}
        for symbol in session.confirmed:
            record = records.of(symbol)
            heard[symbol] = Heard(record.streamed, record.newest_time)
        if WILDCARD in heard:
            heard[WILDCARD] = Heard(self._intake.counts["quotes"], None)
        return heard


def _utc_now() -> datetime:
    return datetime.now(UTC)
