"""The record's own quote handler, made runnable: what `benchmarks.run` measures ours against.

As sketched there: alpaca-py parses each quote into its pydantic model, and `_handle_quote` awaits SETEX and then
PUBLISH for each. Changed only so that it runs at all: `_run_forever` in a process of its own (`run` cannot be awaited),
symbols are given before the start, `bid_exchange` (the model has no `exchange`), and redis-py stands for the record's
Redis classes. It runs on uvloop, as our service does. Any line on stdin is answered with a line of counts.
"""

import argparse
import asyncio
import json
import logging
import sys
from typing import Any

import uvloop
from alpaca.data.live import StockDataStream
from alpaca.data.models import Quote
from redis.asyncio import Redis

logger = logging.getLogger(__name__)


class RecordStream:
    """The record's `AlpacaMarketDataStream`, as far as a quote passes through it."""

    def __init__(self, url: str, api_key: str, redis: "Redis", symbols: list[str]) -> None:
        self.redis = redis
        self.stream = StockDataStream(api_key, "secret", url_override=url)
        self.stream.subscribe_quotes(self._handle_quote, *symbols)
        self.quotes = 0
        self.errors = 0

    async def _handle_quote(self, quote: Any) -> None:
        """Store one quote in Redis and publish it."""
        try:
            assert isinstance(quote, Quote)  # noqa: S101 - the SDK's signature allows raw data too
            symbol = quote.symbol
            mid_price = (quote.bid_price + quote.ask_price) / 2
            price_data = {
                "symbol": symbol,
                "bid": float(quote.bid_price),
                "ask": float(quote.ask_price),
                "mid": float(mid_price),
                "bid_size": quote.bid_size,
                "ask_size": quote.ask_size,
                "timestamp": quote.timestamp.isoformat(),
                "exchange": quote.bid_exchange,
            }
            await self.redis.setex(f"price:{symbol}", 300, json.dumps(price_data))
            await self.redis.publish(
                f"price.updated.{symbol}",
                json.dumps({"symbol": symbol, "price": mid_price, "timestamp": quote.timestamp.isoformat()}),
            )
            logger.debug(f"Price update: {symbol} = ${mid_price:.2f}")  # noqa: G004 - the record's own line
        except Exception:
            self.errors += 1
            logger.exception("Error handling quote")
        self.quotes += 1

    async def start(self) -> None:
        """Stream for ever."""
        await self.stream._run_forever()  # noqa: SLF001 - `run` starts a loop of its own


async def _serve(url: str, api_key: str, redis_url: str, symbols: list[str]) -> None:
    redis = Redis.from_url(redis_url)
    record = RecordStream(url, api_key, redis, symbols)
    finished = asyncio.Event()

    def answer() -> None:
        if not sys.stdin.readline():
            finished.set()
            return
        print(json.dumps({"quotes": record.quotes, "errors": record.errors}), flush=True)

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), answer)
    streaming = asyncio.create_task(record.start())
    await finished.wait()
    streaming.cancel()
    await asyncio.gather(streaming, return_exceptions=True)
    await record.stream.close()
    await redis.aclose()


def main() -> None:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_handler", description=__doc__)
    parser.add_argument("--url", required=True, help="the data WebSocket")
    parser.add_argument("--key", required=True)
    parser.add_argument("--redis", required=True, help="redis://…")
    parser.add_argument("--symbols", required=True, help="A,B,C")
    given = parser.parse_args()
    uvloop.run(_serve(given.url, given.key, given.redis, given.symbols.split(",")))


if __name__ == "__main__":
    main()
