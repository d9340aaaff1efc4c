"""Brings the daily bars on disk up to date, portion by portion: what is missing, and what has been corrected since.

Decides what is asked again after a fault, and which faults end the work. Each portion is on disk before the next is
asked for, so that a run that is cut off loses one portion at most, and the next run asks for the rest only.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from libs.market_data.alpaca_rest import AlpacaRest, AlpacaRestError
from libs.market_data.daily_bar_checks import SiftedBars, sift_bars
from libs.market_data.daily_bars_parquet import replace_bars, stored_bars, stored_closes, write_bars
from libs.market_data.daily_bars_rest import RECENT, DailyBar
from libs.market_data.market_hours import MarketHours
from libs.market_data.missing_bars import BarsRequest, Gap, bars_requests
from libs.market_data.trading_sessions import NEW_YORK, TradingSession
from scripts.progress_line import Progress

CLOSING_AUCTION: Final = timedelta(minutes=15)
"""The official close is printed minutes after the bell; before that a day's bar may still change."""

_ATTEMPTS: Final = 4
_LONGEST_WAIT_S: Final = 65.0
"""Alpaca counts calls by the minute: after that long they are allowed again."""
_REFUSED_SYMBOL: Final = frozenset({400, 422})
_MOST_SPLITS: Final = 16


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a run did: the sessions looked at, how many bars were added, what is still missing, what was refused."""

    sessions: tuple[date, ...]
    added: int
    gaps: tuple[Gap, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Correction:
    """A close that the server now gives otherwise than it is on disk. USD per share; `held` has several that differ."""

    bar: DailyBar
    held: frozenset[Decimal]

    def __str__(self) -> str:
        held = " and ".join(str(close) for close in sorted(self.held))
        return f"{self.bar.symbol} {self.bar.date}: {held} here, {self.bar.close} officially"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a comparison found: how many closes were compared, which differ, and what was refused."""

    compared: int
    corrections: tuple[Correction, ...]
    refused: tuple[str, ...] = ()


def completed_sessions(hours: MarketHours, now: datetime, days: int) -> tuple[TradingSession, ...]:
    """Return the last `days` sessions whose bar is final and may be asked for at `now`, oldest first."""
    return hours.last_completed(now - RECENT - CLOSING_AUCTION, days)


class BarsDownload:
    """One run over one path. `show` is told of each portion, `say` what a person should know at once."""

    def __init__(
        self,
        rest: AlpacaRest,
        path: Path,
        now: datetime,
        show: Callable[[Progress], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._rest = rest
        self._path = path
        self._now = now
        self._show = show
        self._say = say
        self._refused: list[str] = []
        self._refused_symbols: dict[str, AlpacaRestError] = {}
        self._splits_left = _MOST_SPLITS
        self.added = 0
        """Bars that are on disk because of this run, however it ends."""

    async def fetch_missing(self, hours: MarketHours, symbols: Iterable[str], days: int) -> Fetched:
        """Add the bars of `symbols` that are missing of the last `days` sessions.

        Raises AlpacaRestError and BarsFileError; what was added by then stays.
        """
        self._refused = []
        closes_at = await self._sessions(hours, days)
        asked, sessions = sorted(set(symbols)), tuple(closes_at)
        held = await asyncio.to_thread(stored_bars, self._path, closes_at)
        requests = bars_requests(asked, sessions, held)
        missing = {key for request in requests for key in request.keys}
        for number, request in enumerate(requests, 1):
            bars = (await self._ask(request)).usable
            self.added += await asyncio.to_thread(write_bars, self._path, bars, closes_at)
            missing -= {(bar.symbol, bar.date) for bar in bars}
            self._show(Progress(number, len(requests), f"{self.added:,} bars"))
        self._raise_if_all_refused(requests)
        return Fetched(sessions, self.added, _gaps(missing), tuple(self._refused))

    async def verify(self, hours: MarketHours, symbols: Iterable[str], days: int, *, replace: bool) -> Verified:
        """Compare what is held of the last `days` sessions with what the server says now; `replace` takes its word.

        Raises AlpacaRestError and BarsFileError.
        """
        self._refused = []
        closes_at = await self._sessions(hours, days)
        held = await asyncio.to_thread(stored_closes, self._path, closes_at)
        requests = bars_requests(symbols, tuple(closes_at), ())
        compared, corrections = 0, list[Correction]()
        for number, request in enumerate(requests, 1):
            bars = [bar for bar in (await self._ask(request)).usable if (bar.symbol, bar.date) in held]
            found = _differing(bars, held)
            if replace and found:
                await asyncio.to_thread(replace_bars, self._path, [correction.bar for correction in found])
            compared += len(bars)
            corrections += found
            self._show(Progress(number, len(requests), f"{len(corrections)} closes differ"))
        return Verified(compared, tuple(corrections), tuple(self._refused))

    async def _sessions(self, hours: MarketHours, days: int) -> Mapping[date, datetime]:
        sessions = await asyncio.to_thread(completed_sessions, hours, self._now, days)
        return {session.date: session.closes_at for session in sessions}

    async def _ask(self, request: BarsRequest) -> SiftedBars:
        """Return what is usable of the answers; a symbol that the server refuses is named and left out from then on."""
        symbols = tuple(symbol for symbol in request.symbols if symbol not in self._refused_symbols)
        if not symbols:
            return SiftedBars((), ())
        request = BarsRequest(symbols, request.sessions)
        try:
            sifted = sift_bars(await self._ask_patiently(request), request)
        except AlpacaRestError as error:
            if error.status not in _REFUSED_SYMBOL:
                raise
            return await self._ask_apart(request, error)
        self._refused += sifted.refused
        return sifted

    async def _ask_apart(self, request: BarsRequest, error: AlpacaRestError) -> SiftedBars:
        """Search for the one symbol that spoils a request by halving it."""
        if not self._splits_left:
            raise error
        if len(request.symbols) == 1:
            self._splits_left -= 1
            self._refused_symbols[request.symbols[0]] = error
            self._refused.append(f"{request.symbols[0]}: {error}")
            return SiftedBars((), ())
        halves = [await self._ask(half) for half in request.halves()]
        return SiftedBars(tuple(bar for half in halves for bar in half.usable), ())

    def _raise_if_all_refused(self, requests: Sequence[BarsRequest]) -> None:
        """Refuse to call it done when the server took not one symbol: then it is not the symbols that are wrong."""
        asked = {symbol for request in requests for symbol in request.symbols}
        if asked and asked <= self._refused_symbols.keys():
            raise self._refused_symbols[min(asked)]

    async def _ask_patiently(self, request: BarsRequest) -> list[DailyBar]:
        """Ask a few times where that can help, as slowly as the server wishes."""
        end = datetime.combine(request.last, time.max, NEW_YORK)
        for attempt in range(1, _ATTEMPTS):
            try:
                return await self._rest.daily_bars(request.symbols, request.first, end, now=self._now)
            except AlpacaRestError as error:
                wait_s = float(2 ** (attempt - 1)) if error.retry_after_s is None else error.retry_after_s
                if not error.retryable or wait_s > _LONGEST_WAIT_S:
                    raise
                self._say(f"{error}; asking again in {wait_s:g} s")
                await asyncio.sleep(wait_s)
        return await self._rest.daily_bars(request.symbols, request.first, end, now=self._now)


def _gaps(missing: Iterable[tuple[str, date]]) -> tuple[Gap, ...]:
    return tuple(sorted(Gap(symbol, session) for symbol, session in missing))


def _differing(bars: Sequence[DailyBar], held: Mapping[tuple[str, date], frozenset[Decimal]]) -> list[Correction]:
    return [Correction(bar, held[bar.symbol, bar.date]) for bar in bars if held[bar.symbol, bar.date] != {bar.close}]
