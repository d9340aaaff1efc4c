"""Keeps the stream subscribed to what the account holds: asks the execution gateway, tells the stream.

Asks at the start, every 300 s, and at once when the gateway announces a change. An answer that is not a position list
changes nothing: a mass unsubscription must never follow from somebody else's fault.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Protocol

import httpx2
import msgspec
import structlog

from libs.market_data.symbols import is_symbol, normal_symbol
from libs.redis_client.client import REDIS_FAULTS, RedisClient
from libs.redis_client.event_publisher import POSITION_CHANGED_CHANNEL

log = structlog.get_logger(__name__)

_TIMEOUT_S: Final = 5.0
_LARGEST_EXPONENT: Final = 30
_MOST_BYTES: Final = 16 * 1024 * 1024
_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PING_AFTER_S: Final = 5.0


class _PositionItem(msgspec.Struct):
    """One open position: `{"symbol":"AAPL","qty":100,"avg_entry_price":150.0,"cost_basis":15000.0}`."""

    symbol: str
    cost_basis: Decimal | None = None


class _PositionList(msgspec.Struct):
    positions: list[_PositionItem]


_decode = msgspec.json.Decoder(_PositionList).decode


class PositionListError(Exception):
    """The gateway gave no position list."""


class PositionsStream(Protocol):
    """What the sync needs of the stream."""

    def want_positions(self, cost_basis: Mapping[str, Decimal]) -> None:
        """Want exactly these symbols for positions."""


def read_positions(body: bytes) -> dict[str, Decimal]:
    """Return symbol and signed cost basis of each open position. Raises PositionListError for anything else."""
    try:
        items = _decode(body).positions
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise PositionListError(f"the gateway's answer is no position list: {error}") from error
    held: dict[str, Decimal] = {}
    for item in items:
        symbol = normal_symbol(item.symbol)
        held[symbol] = held.get(symbol, Decimal(0)) + _cost_of(item)
    return held


def _cost_of(item: _PositionItem) -> Decimal:
    """Return how much a position matters; a cost that cannot be calculated with says nothing of that."""
    cost = item.cost_basis
    is_sane = cost is not None and cost.is_finite() and cost.adjusted() <= _LARGEST_EXPONENT
    return cost if cost is not None and is_sane else Decimal(0)


class PositionBasedSubscription:
    """Subscribes to the symbols of all open positions, and gives them up when they are closed.

    `last_error` is why the last sync failed, None when it went well; `not_streamable` are held symbols that the
    stream cannot carry (options, crypto).
    """

    def __init__(
        self,
        stream: PositionsStream,
        execution_gateway_url: str,
        *,
        redis: RedisClient,
        api_token: str | None = None,
        every_s: float = 300.0,
    ) -> None:
        self._stream = stream
        self._url = f"{execution_gateway_url.rstrip('/')}/api/v1/positions"
        self._redis = redis
        self._headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
        self._every_s = every_s
        self._wanted = asyncio.Event()
        self.last_error: str | None = None
        self.last_success_at: datetime | None = None
        self.failures = 0
        self.syncs = 0
        self.positions = 0
        self.not_streamable: list[str] = []

    def sync_soon(self) -> None:
        """Ask the gateway now, or right after the question under way."""
        self._wanted.set()

    async def start_sync_loop(self) -> None:
        """Sync for ever: at once, every `every_s`, when told to, and sooner after a failure."""
        failures_in_a_row = 0
        # A proxy from the environment is for the internet, not for the service next door; and a connection kept until
        # the next sync may be closed by the gateway just when it is used.
        limits = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, limits=limits) as http:
            while True:
                self._wanted.clear()
                if await self._sync_subscriptions(http):
                    failures_in_a_row, wait_s = 0, self._every_s
                else:
                    wait_s = min(self._every_s, _RETRY_S[min(failures_in_a_row, len(_RETRY_S) - 1)])
                    failures_in_a_row += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wanted.wait()

    async def _sync_subscriptions(self, http: httpx2.AsyncClient) -> bool:
        """Ask once and tell the stream; say whether the gateway gave a position list."""
        self.syncs += 1
        try:
            held = await self._fetch(http)
        except PositionListError as error:
            self.failures += 1
            if self.last_error is None:
                log.warning("position_sync_failed", reason=str(error))
            self.last_error = str(error)
            return False
        self.not_streamable = sorted(symbol for symbol in held if not is_symbol(symbol))
        streamable = {symbol: cost for symbol, cost in held.items() if is_symbol(symbol)}
        if self.last_error is not None or len(held) != self.positions:
            log.info("positions_synced", positions=len(held))
        self._stream.want_positions(streamable)
        self.positions, self.last_error, self.last_success_at = len(held), None, datetime.now(UTC)
        return True

    async def _fetch(self, http: httpx2.AsyncClient) -> dict[str, Decimal]:
        body = bytearray()
        try:
            async with asyncio.timeout(_TIMEOUT_S), http.stream("GET", self._url, headers=self._headers) as answer:
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise PositionListError(f"{self._url} answered more than {_MOST_BYTES} bytes")
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            raise PositionListError(f"{self._url} cannot be asked: {error or type(error).__name__}") from error
        if answer.status_code != httpx2.codes.OK:
            hint = (
                "; is API_TOKEN the same in both services?" if answer.status_code == httpx2.codes.UNAUTHORIZED else ""
            )
            raise PositionListError(f"{self._url} answered {answer.status_code}{hint}")
        return read_positions(bytes(body))

    async def listen(self) -> None:
        """Sync whenever the gateway announces a change, and after every connection to Redis. Runs for ever."""
        retry_s = 0.1
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(self._redis.named(POSITION_CHANGED_CHANNEL))
                    # What was announced while nobody listened is lost: ask.
                    self.sync_soon()
                    retry_s = 0.1
                    while True:
                        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=_PING_AFTER_S)
                        if message is None:
                            await pubsub.ping()
                        elif message["type"] == "message":  # and not the answer to a ping
                            self.sync_soon()
            except REDIS_FAULTS as error:
                log.debug("position_listener_lost", reason=str(error))
            await asyncio.sleep(retry_s)
            retry_s = min(2.0, retry_s * 2)
