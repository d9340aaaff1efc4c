"""Reads and writes prices and the feed's status in Redis, each batch in one request, fenced by the lease if so asked.

Which price is written, and what a reader makes of its age, is decided elsewhere.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from math import ceil
from typing import Final

import structlog

from libs.market_data.prices import FeedStatus, Price, PriceWrite
from libs.redis_client.client import Argument, RedisClient
from libs.redis_client.event_publisher import FEED_STATUS_CHANNEL, PRICE_CHANNEL_PREFIX
from libs.redis_client.lease import FENCE_LUA, check_fence, fence_arguments
from libs.redis_client.price_codec import (
    UnreadableFeedStatusError,
    UnreadablePriceError,
    decode_feed_status,
    decode_price,
    decode_price_update,
    encode_feed_status,
    encode_price,
    encode_price_update,
    is_same_write,
)
from libs.redis_client.scripts import Script

__all__ = [
    "FEED_STATUS_KEY",
    "FEED_STATUS_TTL_S",
    "PriceCache",
    "UnreadableFeedStatusError",
    "UnreadablePriceError",
    "decode_feed_status",
    "decode_price",
    "decode_price_update",
    "encode_feed_status",
    "encode_price",
    "encode_price_update",
]

FEED_STATUS_KEY: Final = "feed:status"
FEED_STATUS_TTL_S: Final = 10
_PRICE_KEY_PREFIX: Final = "price:"

log = structlog.get_logger(__name__)

# One request for the whole batch: measured, a script costs 2 to 6 µs of our CPU per price, a pipeline about 30.
# After the fence's, ARGV: channel prefix, where in a key its symbol begins, then for each key its TTL in seconds (0: it
# has lived long enough), its JSON and its update ("": no message).
_WRITE_PRICES: Final = Script(
    "write_prices",
    FENCE_LUA
    + """
local prefix, begin = ARGV[2], tonumber(ARGV[3])
for i = 2, #KEYS do
  local ttl, update = ARGV[3 * i - 2], ARGV[3 * i]
  if ttl ~= '0' then
    redis.call('SET', KEYS[i], ARGV[3 * i - 1], 'EX', ttl)
  end
  if update ~= '' then
    redis.call('PUBLISH', prefix .. string.sub(KEYS[i], begin), update)
  end
end
return {1}
""",
)

# Also answers 1 when the server still held an earlier status, 0 when it did not.
_WRITE_FEED_STATUS: Final = Script(
    "write_feed_status",
    FENCE_LUA
    + """
local known = redis.call('EXISTS', KEYS[2])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[2])
return {1, known}
""",
)


class PriceCache:
    """The prices and the feed status in one Redis server. `ttl_s`: how long a price outlives its last write.

    `fence`: the instance that must hold the lease of the feed whenever something is written; None: anybody may write.
    `max_spread_pct` is the widest spread that a reader believes, in percent of mid; None: any.
    `unreadable` counts the entries skipped so far because they held no believable price, `unwritable` the prices that
    could not be written down.
    """

    def __init__(
        self, client: RedisClient, ttl_s: float, fence: str | None = None, max_spread_pct: Decimal | None = None
    ) -> None:
        self._client = client
        self.max_spread_pct = max_spread_pct
        self._ttl_s = max(1, round(ttl_s))
        self._price_prefix = client.named(_PRICE_KEY_PREFIX)
        self._price_channels = client.named(PRICE_CHANNEL_PREFIX)
        self._fence_key, self._fence_argument = fence_arguments(client, fence)
        # A price that stands is read many times a second: its bytes are decoded once. One entry for each symbol read.
        self._decoded: dict[str, tuple[bytes, Price]] = {}
        self._unreadable_symbols: set[str] = set()
        self.unreadable = 0
        self.unwritable = 0

    async def write(self, writes: Sequence[PriceWrite]) -> frozenset[str]:
        """Cache each price, and publish those that ask for it, in one request.

        Return the symbols whose price cannot be written down: they alone are left out. Raises RedisUnavailableError;
        LeaseLostError, which is one, when the fence has refused all of it.
        """
        if not writes:
            return frozenset()
        unwritable: set[str] = set()
        keys = [self._fence_key]
        args: list[Argument] = [self._fence_argument, self._price_channels, len(self._price_prefix) + 1]
        for write in writes:
            try:
                entry = encode_price(write.price)
                update = encode_price_update(write.price) if write.publish else b""
            except Exception as error:
                self.unwritable += 1
                unwritable.add(write.price.symbol)
                if self.unwritable.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …: a flood must not flood the log
                    log.exception("price_unwritable", symbol=write.price.symbol, reason=str(error)[:200])
                continue
            keys.append(self._price_prefix + write.price.symbol)
            args += (max(0, ceil(self._ttl_s - write.age_s)), entry, update)
        check_fence(_WRITE_PRICES.name, await self._client.run_script(_WRITE_PRICES, keys, args))
        return frozenset(unwritable)

    async def read(
        self,
        symbols: Iterable[str],
        deadline_s: float | None = None,
        held: Callable[[str], Price | None] = lambda _symbol: None,
    ) -> dict[str, Price]:
        """Return the cached prices of `symbols`; those missing or unreadable are left out.

        So are those that the caller has already, as `held` says. Raises RedisUnavailableError, also when `deadline_s`
        has passed.
        """
        names = list(symbols)
        entries = await self._client.mget([self._price_prefix + name for name in names], deadline_s)
        prices: dict[str, Price] = {}
        newly_unreadable: dict[str, str] = {}
        for name, entry in zip(names, entries, strict=True):
            if entry is None:
                continue
            have = held(name)
            if have is not None and self._is_known(name, entry, have):
                continue
            try:
                prices[name] = self._believed(name, entry)
            except UnreadablePriceError as error:
                self.unreadable += 1
                # Told once per spell, and in one line for all: this is read several times a second.
                if name not in self._unreadable_symbols:
                    newly_unreadable[name] = str(error)
        if newly_unreadable:
            self._unreadable_symbols.update(newly_unreadable)
            symbol, reason = next(iter(newly_unreadable.items()))
            log.warning("cached_prices_unreadable", count=len(newly_unreadable), first=symbol, reason=reason)
        return prices

    async def write_feed_status(self, status: FeedStatus) -> bool:
        """Write and announce the status in one request.

        Return whether the server still held an earlier one. False means that it has forgotten everything (or that we
        were silent for FEED_STATUS_TTL_S): the caller then writes all prices again. Raises RedisUnavailableError;
        LeaseLostError, which is one, when the fence has refused it.
        """
        channel = self._client.named(FEED_STATUS_CHANNEL)
        reply = await self._client.run_script(
            _WRITE_FEED_STATUS,
            [self._fence_key, self._client.named(FEED_STATUS_KEY)],
            [self._fence_argument, encode_feed_status(status), FEED_STATUS_TTL_S, channel],
        )
        return bool(check_fence(_WRITE_FEED_STATUS.name, reply))

    async def read_feed_status(self) -> FeedStatus | None:
        """Return the last status, None when it is missing, too old or unreadable. Raises RedisUnavailableError."""
        data = await self._client.get(self._client.named(FEED_STATUS_KEY))
        if data is None:
            return None
        try:
            return decode_feed_status(data)
        except UnreadableFeedStatusError as error:
            log.warning("feed_status_unreadable", reason=str(error))
            return None

    def _is_known(self, symbol: str, entry: bytes, have: Price) -> bool:
        """Say whether a reader who has `have` gains nothing from `entry`: it is that very price."""
        known = self._decoded.get(symbol)
        if known is not None and known[0] == entry:
            return known[1] is have
        if not is_same_write(entry, have):
            return False
        self._decoded[symbol] = (entry, have)
        return True

    def _believed(self, symbol: str, entry: bytes) -> Price:
        known = self._decoded.get(symbol)
        if known is not None and known[0] == entry:
            return known[1]
        price = decode_price(entry, symbol, self.max_spread_pct)
        self._unreadable_symbols.discard(symbol)
        self._decoded[symbol] = (entry, price)
        return price
