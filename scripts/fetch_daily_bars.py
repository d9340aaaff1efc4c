"""Fetches the official daily bars that closing prices come from: `python -m scripts.fetch_daily_bars`.

Asks only for what `DAILY_BARS_PATH` does not hold, of sessions that are over; run it as often as you like.
Exit codes: 0 done (or nothing missing), 1 failed, 2 wrong settings or arguments.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from libs.market_data.alpaca_rest import AlpacaRest, AlpacaRestError
from libs.market_data.daily_bars_parquet import BarsFileError, stored_bars, write_bars
from libs.market_data.daily_bars_rest import RECENT, DailyBar
from libs.market_data.market_hours import MarketHours
from libs.market_data.symbols import MalformedSymbolError, parse_symbol
from libs.service.settings import AlpacaSettings, load_settings
from scripts.local_services import LocalServicesSettings, ask, client

CLOSING_AUCTION: Final = timedelta(minutes=15)
"""The official close is printed minutes after the bell; before that a day's bar may still change."""

MOST_DAYS: Final = 2_500
_ATTEMPTS: Final = 4
_LONGEST_WAIT_S: Final = 30.0
_PATIENCE_S: Final = 20.0


class FetchError(Exception):
    """The bars cannot be fetched. The text is one line for a person."""


class FetchSettings(AlpacaSettings, LocalServicesSettings):
    """What this script reads from the environment."""

    daily_bars_path: Path = Path("data/daily_bars")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a run did: the sessions looked at, how many bars were added, and which symbols have a session without."""

    sessions: tuple[date, ...]
    added: int
    still_missing: tuple[str, ...]


def completed_sessions(hours: MarketHours, now: datetime, days: int) -> tuple[date, ...]:
    """Return the last `days` sessions whose bar is final and may be asked for at `now`, oldest first."""
    settled = now - RECENT - CLOSING_AUCTION
    last = hours.last_completed_session(settled)
    # 5 sessions in 7 days, 9 holidays a year, and a margin for the longest closures.
    first = last - timedelta(days=days * 8 // 5 + 15)
    return hours.sessions_between(first, last)[-days:]


async def fetch_missing(
    rest: AlpacaRest, hours: MarketHours, path: Path, symbols: Sequence[str], *, days: int, now: datetime
) -> Fetched:
    """Add to `path` the bars of `symbols` that it lacks of the last `days` sessions.

    Raises AlpacaRestError and BarsFileError.
    """
    sessions = await asyncio.to_thread(completed_sessions, hours, now, days)
    held = await asyncio.to_thread(stored_bars, path, sessions)
    wanted = {(symbol, session) for symbol in symbols for session in sessions} - held
    if not wanted:
        return Fetched(sessions, 0, ())
    bars = await _ask_patiently(rest, sorted({symbol for symbol, _ in wanted}), min(day for _, day in wanted), now)
    usable = [bar for bar in bars if (bar.symbol, bar.date) in wanted and bar.close > 0]
    added = await asyncio.to_thread(write_bars, path, usable)
    missing = wanted - {(bar.symbol, bar.date) for bar in usable}
    return Fetched(sessions, added, tuple(sorted({symbol for symbol, _ in missing})))


async def _ask_patiently(rest: AlpacaRest, symbols: list[str], start: date, now: datetime) -> list[DailyBar]:
    """Ask a few times where that can help, as slowly as the server wishes."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return await rest.daily_bars(symbols, start, now, now=now)
        except AlpacaRestError as error:
            wait_s = float(2 ** (attempt - 1)) if error.retry_after_s is None else error.retry_after_s
            if not error.retryable or wait_s > _LONGEST_WAIT_S:
                raise
            print(f"{error}; asking again in {wait_s:g} s", file=sys.stderr)
            await asyncio.sleep(wait_s)
    return await rest.daily_bars(symbols, start, now, now=now)


async def _held_symbols(settings: LocalServicesSettings) -> list[str]:
    """Return the symbols of the gateway's open positions. Raises FetchError."""
    async with client() as http:
        answer = await ask(http, f"{settings.gateway_url}/api/v1/positions", settings.token)
    if answer.error is not None:
        raise FetchError(f"{answer.url} {answer.error}; start the gateway or name symbols with --symbols")
    positions = (answer.body or {}).get("positions")
    if not isinstance(positions, list) or not all(isinstance(row, dict) for row in positions):
        raise FetchError(f"{answer.url} answered without a list of positions")
    return [str(row.get("symbol")) for row in positions]


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


async def _run(settings: FetchSettings, named: str | None, days: int) -> int:
    if named is None:
        symbols = _fetchable(await _held_symbols(settings), skip_others=True)
    else:
        symbols = _fetchable([text for text in named.split(",") if text.strip()], skip_others=False)
    if not symbols:
        print("nothing to fetch: no symbol given and no open position")
        return 0
    key, secret = _credentials(settings)
    async with AlpacaRest(settings.data_url, settings.trading_url, key, secret, timeout_s=_PATIENCE_S) as rest:
        done = await fetch_missing(
            rest, MarketHours(), settings.daily_bars_path, symbols, days=days, now=datetime.now(UTC)
        )
        played = f" ({rest.simulator_mode} figures)" if rest.simulator_mode is not None else ""
    what = f"of {len(symbols)} symbols, {len(done.sessions)} sessions to {done.sessions[-1]}"
    if done.added or done.still_missing:
        print(f"{done.added} bars {what}, added to {settings.daily_bars_path}{played}")
    else:
        print(f"{settings.daily_bars_path} holds all bars {what}")
    if done.still_missing:
        print(f"no bar for some session of: {', '.join(done.still_missing)}", file=sys.stderr)
    return 0


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
    parser.add_argument("--symbols", help="comma-separated; default: those of the gateway's open positions")
    parser.add_argument("--days", type=_days, default=10, help=f"sessions to hold, 1 to {MOST_DAYS} (default 10)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    asked = _arguments(arguments)
    settings = load_settings(FetchSettings)
    try:
        return asyncio.run(_run(settings, asked.symbols, asked.days))
    except (FetchError, AlpacaRestError, BarsFileError) as error:
        print(f"cannot fetch daily bars: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
