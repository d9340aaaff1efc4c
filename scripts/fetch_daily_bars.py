"""Fetches the official daily bars that closing prices come from: `python -m scripts.fetch_daily_bars`.

Asks only for what `DAILY_BARS_PATH` does not hold, of sessions that are over; run it as often as you like, and
interrupt it when you like: what has come is kept. `--verify N` looks for closes that were corrected later.
Exit codes: 0 done (or nothing missing), 1 failed, or closes differ, 2 wrong settings or arguments, 130 interrupted.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from libs.market_data.alpaca_rest import AlpacaRest, AlpacaRestError
from libs.market_data.daily_bars_parquet import BarsFileError
from libs.market_data.market_hours import MarketHours
from libs.market_data.missing_bars import gap_lines
from libs.market_data.symbols import MalformedSymbolError, parse_symbol
from libs.service.settings import AlpacaSettings, load_settings
from scripts.bars_download import BarsDownload, Fetched, Verified
from scripts.local_services import LocalServicesSettings, ask, client
from scripts.progress_line import ProgressLine

MOST_DAYS: Final = 2_500
_PATIENCE_S: Final = 20.0
_MOST_LINES: Final = 20


class FetchError(Exception):
    """The bars cannot be fetched. The text is one line for a person."""


class FetchSettings(AlpacaSettings, LocalServicesSettings):
    """What this script reads from the environment."""

    daily_bars_path: Path = Path("data/daily_bars")


async def _held_symbols(settings: LocalServicesSettings) -> list[str]:
    """Return the symbols of the gateway's open positions, and those whose close it lacks besides. Raises FetchError.

    Besides: what was sold today, and what has another name since the last session.
    """
    async with client() as http:
        answer = await ask(http, f"{settings.gateway_url}/api/v1/positions", settings.token)
        health = await ask(http, f"{settings.gateway_url}/health", settings.token)
    if answer.error is not None:
        raise FetchError(f"{answer.url} {answer.error}; start the gateway or name symbols with --symbols")
    positions = (answer.body or {}).get("positions")
    if not isinstance(positions, list) or not all(isinstance(row, dict) for row in positions):
        raise FetchError(f"{answer.url} answered without a list of positions")
    bars = (health.body or {}).get("daily_bars")
    lacking = bars.get("missing_symbols") if isinstance(bars, dict) else None
    return [str(row.get("symbol")) for row in positions] + [str(symbol) for symbol in lacking or ()]


def _fetchable(texts: Sequence[str], *, skip_others: bool) -> list[str]:
    """Return the well-formed symbols. Others (a crypto pair in the ledger) are named and skipped, or refused."""
    symbols = set()
    for text in texts:
        try:
            symbols.add(parse_symbol(text.strip()))
        except MalformedSymbolError as error:
            if not skip_others:
                raise FetchError(str(error)) from error
            print(f"{text}: no stock symbol, skipped", file=sys.stderr)
    return sorted(symbols)


@dataclass(frozen=True, slots=True)
class _Task:
    """What is asked for on the command line. `verify` is a number of sessions, None to compare nothing."""

    named: str | None
    days: int
    verify: int | None
    replace: bool


class _Run:
    """One run of the command, so that its end can be told however it comes."""

    def __init__(self, settings: FetchSettings, task: _Task) -> None:
        self._settings = settings
        self._task = task
        self._line = ProgressLine("daily bars", sys.stderr)
        self._download: BarsDownload | None = None

    @property
    def kept(self) -> str:
        """What of an unfinished run is on disk, in words; nothing to say when nothing is."""
        added = 0 if self._download is None else self._download.added
        return f"; {added:,} bars are kept, run it again for the rest" if added else ""

    async def run(self) -> int:
        """Return the exit code. Raises FetchError, AlpacaRestError and BarsFileError."""
        settings, symbols = self._settings, await self._symbols()
        if not symbols:
            print("nothing to fetch: no symbol given and no open position")
            return 0
        key, secret = _credentials(settings)
        async with AlpacaRest(settings.data_url, settings.trading_url, key, secret, timeout_s=_PATIENCE_S) as rest:
            self._download = download = BarsDownload(
                rest, settings.daily_bars_path, datetime.now(UTC), self._line.show, self._line.say
            )
            hours = MarketHours()
            fetched = await download.fetch_missing(hours, symbols, self._task.days)
            self.finish()
            played = f" ({rest.simulator_mode} figures)" if rest.simulator_mode is not None else ""
            _tell_fetched(fetched, len(symbols), settings.daily_bars_path, played)
            if self._task.verify is None:
                return 0
            verified = await download.verify(hours, symbols, self._task.verify, replace=self._task.replace)
        self.finish()
        return _tell_verified(verified, is_replaced=self._task.replace)

    def finish(self) -> None:
        """Leave an empty line to those who write next."""
        self._line.clear()

    async def _symbols(self) -> list[str]:
        if self._task.named is None:
            return _fetchable(await _held_symbols(self._settings), skip_others=True)
        return _fetchable([text for text in self._task.named.split(",") if text.strip()], skip_others=False)


def _tell_fetched(fetched: Fetched, symbols: int, path: Path, played: str) -> None:
    _tell_refused(fetched.refused)
    lines = gap_lines(fetched.gaps, fetched.sessions)
    for line in lines[:_MOST_LINES]:
        print(f"no bar of {line}", file=sys.stderr)
    if len(lines) > _MOST_LINES:
        print(f"nor of some sessions of {len(lines) - _MOST_LINES} more symbols", file=sys.stderr)
    what = f"of {symbols} symbols, {len(fetched.sessions)} sessions to {fetched.sessions[-1]}"
    if fetched.added or fetched.gaps:
        missing = f", {len(fetched.gaps):,} are not to be had" if fetched.gaps else ""
        print(f"{fetched.added:,} bars {what}, added to {path}{missing}{played}")
    else:
        print(f"{path} holds all bars {what}")


def _tell_verified(verified: Verified, *, is_replaced: bool) -> int:
    """Return the exit code: closes that differ and stay so are for a person to look at."""
    _tell_refused(verified.refused)
    for correction in verified.corrections:
        print(f"{correction}{', replaced' if is_replaced else ''}", file=sys.stderr)
    count = len(verified.corrections)
    print(f"{verified.compared:,} closes compared, {count:,} {'replaced' if is_replaced else 'differ'}")
    return 0 if is_replaced or not count else 1


def _tell_refused(refused: Sequence[str]) -> None:
    for line in refused[:_MOST_LINES]:
        print(f"refused: {line}", file=sys.stderr)
    if len(refused) > _MOST_LINES:
        print(f"refused: {len(refused) - _MOST_LINES} more", file=sys.stderr)


def _credentials(settings: FetchSettings) -> tuple[str, str]:
    if settings.alpaca_api_key is not None and settings.alpaca_secret_key is not None:
        return settings.alpaca_api_key.get_secret_value(), settings.alpaca_secret_key.get_secret_value()
    if f".{urlsplit(settings.data_url).hostname}".endswith(".alpaca.markets"):
        raise FetchError("ALPACA_API_KEY and ALPACA_SECRET_KEY are needed to ask Alpaca")
    return "simulator", "simulator"  # a simulator takes any pair


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= MOST_DAYS:
        raise ValueError(text)
    return days


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.fetch_daily_bars", description="Fetch daily bars.")
    parser.add_argument("--symbols", help="comma-separated; default: those of the gateway's positions")
    parser.add_argument("--days", type=_days, default=10, help=f"sessions to hold, 1 to {MOST_DAYS} (default 10)")
    parser.add_argument(
        "--verify", type=_days, metavar="N", help="compare the last N sessions with the server and name what differs"
    )
    parser.add_argument("--replace", action="store_true", help="with --verify: take the server's word for it")
    asked = parser.parse_args(arguments)
    if asked.replace and asked.verify is None:
        parser.error("argument --replace: it needs --verify")
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    asked = _arguments(arguments)
    task = _Task(asked.symbols, asked.days, asked.verify, asked.replace)
    run = _Run(load_settings(FetchSettings), task)
    try:
        return asyncio.run(run.run())
    except (FetchError, AlpacaRestError, BarsFileError) as error:
        run.finish()
        print(f"cannot fetch daily bars: {error}{run.kept}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        run.finish()
        print(f"interrupted{run.kept}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
