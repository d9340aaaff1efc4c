"""The two test sketches of ADR 0010, made real."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from alpaca.data.models import Quote as SdkQuote

from apps.market_data_service.publishing import PriceWriter
from libs.market_data.alpaca_stream import AlpacaMarketDataStream
from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.quotes import Quote
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.stack import GATEWAY, decoded, running_stack


async def test_a_quote_of_the_sdk_is_cached_and_published(redis_client: RedisClient) -> None:
    received_at = datetime.now(UTC)
    wire = {"t": received_at, "bx": "V", "bp": 150.25, "bs": 3, "ax": "Q", "ap": 150.27, "as": 2, "c": ["R"], "z": "C"}
    stream = AlpacaMarketDataStream("key", "secret")
    writer = PriceWriter(LatestQuotes("iex"), PriceCache(redis_client, 300), epoch_of=lambda _symbol: "epoch-1")
    stream.add_handler(writer.take_quote)
    await stream.subscribe_symbols(["AAPL"])
    async with redis_client.pubsub() as pubsub:
        await pubsub.subscribe("price.updated.AAPL")
        writing = asyncio.create_task(writer.run())
        try:
            await stream._handle_quote(Quote.from_sdk(SdkQuote("AAPL", wire), received_at))
            async with asyncio.timeout(5):
                message = None
                while message is None:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    published = decoded(message["data"])
    assert (published["symbol"], published["price"]) == ("AAPL", Decimal("150.26"))
    cached = decoded(await redis_client.get("price:AAPL") or b"")
    assert cached["symbol"] == "AAPL"
    assert (cached["bid"], cached["ask"], cached["mid"]) == (Decimal("150.25"), Decimal("150.27"), Decimal("150.26"))
    assert (cached["bid_size"], cached["ask_size"]) == (3, 2)
    assert (cached["exchange"], cached["ask_exchange"]) == ("V", "Q")
    assert datetime.fromisoformat(cached["timestamp"]) == received_at
    assert 290 < await redis_client.execute("TTL", "price:AAPL") <= 300


async def test_a_position_and_a_price_written_straight_into_redis_are_a_real_time_pnl(tmp_path: Path) -> None:
    async with running_stack(tmp_path, GATEWAY) as stack:
        redis = RedisClient(stack.redis.url)
        await stack.fill("AAPL", 100, "150.00")
        now = datetime.now(UTC).isoformat()
        await redis.set("price:AAPL", f'{{"mid": 152.00, "timestamp": "{now}"}}', ex=300)
        await redis.aclose()
        # On a busy machine Redis may miss the deadline of one answer, and nobody has published the price.
        await stack.until_row("AAPL", price_source="real-time")
        body = await stack.pnl()
    (row,) = body["positions"]
    assert (row["symbol"], row["current_price"], row["unrealized_pnl"]) == (
        "AAPL",
        Decimal("152.00"),
        Decimal("200.00"),
    )
    assert row["price_source"] == "real-time"
    assert datetime.fromisoformat(row["last_updated"]) == datetime.fromisoformat(now)
    assert (body["total_unrealized"], body["complete"], body["unpriced"]) == (Decimal("200.00"), True, [])
