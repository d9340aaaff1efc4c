"""The names of the channels, and the publisher of the events that are not prices. Pub/sub is at most once."""

from collections.abc import Mapping
from typing import Final

import msgspec

from libs.redis_client.client import RedisClient

PRICE_CHANNEL_PREFIX: Final = "price.updated."
FEED_STATUS_CHANNEL: Final = "feed.status"
POSITION_CHANGED_CHANNEL: Final = "position.changed"

_encode = msgspec.json.Encoder(decimal_format="number").encode


class EventPublisher:
    """Publish events as JSON, money as JSON numbers."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def publish(self, channel: str, payload: Mapping[str, object]) -> int:
        """Send `payload` on `channel` of our namespace; return how many clients received it (0 is no error).

        Sample, on `position.changed`: `{"symbols":["AAPL"],"at":"2025-10-19T14:30:15.123456Z"}`.
        Raises RedisUnavailableError.
        """
        return await self._client.publish(self._client.named(channel), _encode(dict(payload)))
